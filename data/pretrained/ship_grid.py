"""Copy a finished grid model into `data/pretrained/grid`, its weights as float16.

    .venv/bin/python data/pretrained/ship_grid.py data/cache/flickr30k/models/grid

Half the bytes: the model computes in bfloat16, which keeps fewer digits. Every number is checked to
lie in float16's range; the settings, the vocabulary, the history, presence.json and context.json
are copied as they are. Score the copy before it is committed: `make reproduce` does with
GRID=shipped.
"""

import shutil
import sys
from pathlib import Path

import h5py
import numpy as np

from scene_utils.localizer import SHIPPED
from scene_utils.paths import atomic

COPIED = ("settings.json", "vocabulary.txt", "history.csv", "presence.json", "context.json")
LIMIT = 30_000_000


def halve(source: Path, target: Path) -> None:
    """Write the arrays of one weights file as float16; ValueError for a number beyond its range."""

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            made = halved.require_group(name)
        else:
            array = item[()]
            if array.dtype == np.float32:
                with np.errstate(over="ignore"):
                    array = array.astype(np.float16)
            if not np.isfinite(array).all():
                raise ValueError(f"{source.name}: {name} holds numbers beyond float16's range")
            packing = {"compression": "gzip", "shuffle": True} if array.ndim else {}
            made = halved.create_dataset(name, data=array, **packing)
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
    missing = [name for name in COPIED if not (folder / name).is_file()]
    if missing:
        sys.exit(f"{folder}: expected a finished grid model, found no {', '.join(missing)}")
    for source in sorted(folder.glob("*.weights.h5")):
        halve(source, SHIPPED / source.name)
    for name in COPIED:
        shutil.copyfile(folder / name, SHIPPED / name)
    size = sum(path.stat().st_size for path in SHIPPED.iterdir())
    print(f"{SHIPPED}: {size:,} bytes")
    if size > LIMIT:
        sys.exit(f"expected at most {LIMIT:,} bytes")


if __name__ == "__main__":
    main()
