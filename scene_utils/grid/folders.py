"""Folders of finished grid models: settings, members, and what is fitted to them."""

import json
from pathlib import Path

STRIDE = 16
PARTS = ("visual", "text", "head")
# In what members may differ.
OWN = ("seed", "epochs", "teachers", "taught_by", "fingerprint")


def files(folder: Path) -> list[Path]:
    """What the networks of one model are made of."""
    return [folder / "settings.json", folder / "vocabulary.txt", *sorted(folder.glob("*.h5"))]


def read_settings(folder: Path) -> dict:
    """Settings of one finished model. FileNotFoundError for a folder that is no such."""
    needed = ("settings.json", *(f"{part}.weights.h5" for part in PARTS))
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder}: expected a finished grid model, found no {', '.join(missing)}"
        )
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def count_words(folder: Path) -> int:
    """Words that a model knows, padding and the unknown one among them."""
    return len((folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines())


def member_folder(folder: Path, number: int) -> Path:
    """Where member `number`, from 0, of a grid model lies: the first in the model's own folder."""
    return folder / f"member{number + 1}" if number else folder


def member_folders(folder: Path) -> list[Path]:
    """Folders of all members of a finished grid model.

    Raises FileNotFoundError where one is no finished training, ValueError where one differs from
    the first in more than `OWN`.
    """
    found: list[dict] = []
    while not found or len(found) < found[0]["members"]:
        path = member_folder(folder, len(found)) / "settings.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.parent}: expected a finished grid model, found no settings.json"
            )
        found.append(json.loads(path.read_text(encoding="utf-8")))
        for name, value in found[0].items():
            if name not in OWN and found[-1][name] != value:
                raise ValueError(
                    f"{path}: expected {name} {value!r} as of the first member, got "
                    f"{found[-1][name]!r}; train the members anew"
                )
    return [member_folder(folder, number) for number in range(len(found))]


def record(folder: Path) -> bytes:
    """Settings and histories of all members: what is fitted to a model holds for this one alone."""
    files = ("settings.json", "history.csv")
    return b"".join((member / f).read_bytes() for member in member_folders(folder) for f in files)
