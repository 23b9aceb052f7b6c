"""All pictures of a data set, squeezed to one size, in one memory-mapped file."""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils.images import ImageError, check_folder, picture_file, read_squeezed
from scene_utils.paths import atomic, read_finished, write_text
from scene_utils.runtime import progress_bar


@dataclass(frozen=True)
class PictureStore:
    """`pictures (n, size, size, 3)` uint8 RGB, the row of each id, and a table of what could not be
    read: image_id and reason."""

    pictures: np.ndarray
    row: dict[str, int]
    unreadable: pd.DataFrame


def squeeze_pictures(folder: Path, ids: Iterable[str], size: int, cache: Path) -> PictureStore:
    """Read `folder/<id>.jpg` once into `cache/pictures_<size>.npy`; later calls open that file.

    The list beside the file says which pictures it was made of; where that differs, it is made
    anew. OSError that names the file where the disk has no room for it.
    """
    ids = sorted(set(ids))
    check_folder(folder, ids)
    target, listing = cache / f"pictures_{size}.npy", cache / f"pictures_{size}.json"
    paths = {image_id: picture_file(folder, image_id) for image_id in ids}
    asked = {name: path.stat().st_size if path.is_file() else 0 for name, path in paths.items()}
    known = read_finished(listing, {"asked": asked}) if target.is_file() else None
    if known is None:
        known = {"asked": asked} | _write(target, paths, size)
        write_text(listing, json.dumps(known) + "\n")
    pictures = np.load(target, mmap_mode="r", allow_pickle=False)
    row = {image_id: number for number, image_id in enumerate(known["ids"])}
    lost = pd.DataFrame(known["unreadable"].items(), columns=["image_id", "reason"], dtype="str")
    return PictureStore(pictures, row, lost)


def _write(target: Path, paths: dict[str, Path], size: int) -> dict:
    """Write the array of the pictures; gives the ids of its rows, and what could not be read."""

    def read(path: Path):
        try:
            return read_squeezed(path, size)[0]
        except ImageError as error:
            return str(error)

    unreadable, kept = {}, []
    with atomic(target) as temporary, ThreadPoolExecutor(2) as pool:
        shape = len(paths), size, size, 3
        array = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        # Room for the whole file now: a disk that fills up under a memory map kills the process.
        if hasattr(os, "posix_fallocate"):
            with open(temporary, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        found = pool.map(read, paths.values())
        found = progress_bar(found, total=len(paths), desc="pictures", unit="image")
        for image_id, pixels in zip(paths, found, strict=True):
            if isinstance(pixels, str):
                unreadable[image_id] = pixels
            else:
                array[len(kept)] = pixels
                kept.append(image_id)
        array.flush()
    return {"ids": kept, "unreadable": unreadable}
