"""Copy a finished grid model into `data/pretrained/grid`, its weights as rounded float16.

    .venv/bin/python data/pretrained/ship_grid.py data/cache/flickr30k/models/grid

Half the bytes: the model computes in bfloat16, which keeps 8 digits of a number. Arrays of weights
keep 6 of float16's 11, and pack to two thirds. Every number is checked to lie in float16's range;
the settings, the vocabulary, the history, presence.json and context.json are copied as they are.
Score the copy before it is committed: `make reproduce` does with the profile flickr30k.
"""

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np

from scene_utils.grid.folders import member_folders
from scene_utils.paths import PRETRAINED, atomic

MEMBER = ("settings.json", "vocabulary.txt", "history.csv")
TARGET = PRETRAINED / "grid"
WHOLE = ("presence.json", "context.json")
LIMIT = 30_000_000
DROPPED = 5  # last binary digits
PACKED = {"compression": "gzip", "compression_opts": 9, "shuffle": True}


def rounded(array: np.ndarray) -> np.ndarray:
    """A float16 array with its last `DROPPED` digits rounded to 0, halves to even."""
    raw = array.view(np.uint16).astype(np.uint32)
    raw += (1 << (DROPPED - 1)) - 1 + ((raw >> DROPPED) & 1)
    return (raw >> DROPPED << DROPPED).astype(np.uint16).view(np.float16)


def halve(source: Path, target: Path) -> None:
    """Write the arrays of one weights file as float16; ValueError for a number beyond its range."""

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            made = halved.require_group(name)
        else:
            array = item[()]
            if np.issubdtype(array.dtype, np.floating):
                with np.errstate(over="ignore"):
                    array = array.astype(np.float16)
                # What is added or scales a whole channel is little and counts much.
                array = rounded(array) if array.ndim > 1 else array
            if not np.isfinite(array).all():
                raise ValueError(f"{source.name}: {name} holds numbers beyond float16's range")
            made = halved.create_dataset(name, data=array, **(PACKED if array.ndim else {}))
        for key, value in item.attrs.items():
            made.attrs[key] = value

    with (
        atomic(target) as temporary,
        h5py.File(source) as whole,
        h5py.File(temporary, "w") as halved,
    ):
        halved.attrs.update(whole.attrs)
        whole.visititems(copy)


def main() -> None:
    folder = Path(sys.argv[1])
    members = member_folders(folder)
    wanted = [*((member, name) for member in members for name in MEMBER)]
    wanted += [(folder, name) for name in WHOLE]
    if missing := [str(place / name) for place, name in wanted if not (place / name).is_file()]:
        sys.exit(f"{folder}: expected a finished grid model, found no {', '.join(missing)}")
    for before in TARGET.glob("member*"):
        shutil.rmtree(before)
    # They hold for the networks that they were trained on; `train_instances` makes them anew.
    for before in TARGET.glob("instances.*"):
        before.unlink()
    for member in members:
        target = TARGET / member.relative_to(folder)
        target.mkdir(exist_ok=True)
        for source in sorted(member.glob("*.weights.h5")):
            halve(source, target / source.name)
    for place, name in wanted:
        shutil.copyfile(place / name, TARGET / place.relative_to(folder) / name)
    size = sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())
    print(f"{TARGET}: {size:,} bytes")
    if size > LIMIT:
        sys.exit(f"expected at most {LIMIT:,} bytes")


if __name__ == "__main__":
    main()
