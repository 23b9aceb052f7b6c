"""A profile's settings, from `notebooks/profiles.toml`, with the changes of one run.

make asks it what a notebook depends on, before there is an environment, so it needs the standard
library alone: `python scene_utils/study/settings.py 04_train sample "seed=1"`.
"""

import os
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

FILE = Path(__file__).resolve().parents[2] / "notebooks" / "profiles.toml"
KINDS = {bool: {"true": True, "false": False}.__getitem__, int: int, float: float, str: str}


def read(profile: str, changes: str = "") -> dict[str, bool | int | float | str]:
    """Settings by name, such as `seed` and `train.epochs`; `changes` are words `name=value`.

    ValueError for a profile or a name that is not in the file, or a value of another kind.
    """
    profiles = tomllib.loads(FILE.read_text(encoding="utf-8"))
    if profile not in profiles:
        raise ValueError(f"profile: expected one of {', '.join(profiles)}, got {profile!r}")
    found = read(profiles[profile].pop("like")) if "like" in profiles[profile] else {}
    for name, value in profiles[profile].items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        found |= {f"{name}.{last}".rstrip("."): one for last, one in inner}
    for word in changes.split():
        name, _, text = word.partition("=")
        try:
            found[name] = KINDS[type(found[name])](text)
        except (KeyError, ValueError):
            known = " ".join(f"{name}={value}" for name, value in found.items())
            raise ValueError(f"settings: expected words such as {known}, got {word!r}") from None
    return found


def load(profile: str, data: str = "", changes: str = "") -> SimpleNamespace:
    """A profile's settings as attributes, such as `.seed` and `.train.epochs`, and its data's
    folder, `.root`: `data`, where that is empty the variable FLICKR30K, or the embedded sample's.

    ValueError, beside those of `read`, for real data without a folder and a sample with one.
    """
    from scene_utils import paths

    found = read(profile, changes)
    data = data or (found["real"] and os.environ.get("FLICKR30K")) or ""
    if found["real"] != bool(data):
        wanted = "a folder of Flickr30k Entities" if found["real"] else "none, it draws its own"
        raise ValueError(f"data: expected {wanted} for the profile {profile}, got {data!r}")
    sections: dict[str, dict] = {"": {"root": paths.data_root(profile, data)}}
    for name, value in found.items():
        section, _, last = name.rpartition(".")
        sections.setdefault(section, {})[last] = value
    top = sections.pop("")
    return SimpleNamespace(**top, **{n: SimpleNamespace(**inner) for n, inner in sections.items()})


if __name__ == "__main__":
    section = sys.argv[1].partition("_")[2]
    for name, value in read(*sys.argv[2:]).items():
        if "." not in name or name.startswith(f"{section}."):
            print(name, value)
