"""A store of picture features: memory-mapped shards that survive whatever happens to a run.

`manifest.json` says how the features were made. Each shard is a pair of files: `00012.npy`, float16
rows, and `00012.json`, its listing: the SHA-256 of each picture and of the shard, and what could
not be read and why. A file is written aside, synced and moved, the listing last, so a shard is
there as a whole or not at all. Which pictures it holds follows from the sorted ids alone. So a run
that is killed at any moment and started again ends bit for bit as an undisturbed one.
"""

import contextlib
import fcntl
import hashlib
import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils.images import ImageError, open_image, picture_file, read_file, remark, squeeze
from scene_utils.paths import file_hash, write_array, write_text
from scene_utils.runtime import progress_bar

MANIFEST = "manifest.json"
FORMAT = 2
ANEW = "Delete the folder to compute the features anew"
# Shards, listings, and the temporary files of both and of the manifest.
OURS = re.compile(r"\d{5,}\.(npy|json)|\.(\d{5,}|manifest)\.(npy|json)\..*")
SHARD_SIZE, BATCH_SIZE = 256, 32

# Pixels (n, size, size, 3) uint8 RGB to features (n, channels).
Encode = Callable[[np.ndarray], np.ndarray]
# The pictures that become one shard each, by the shard's number.
Parts = dict[int, list[str]]


@dataclass(frozen=True)
class FeatureStore:
    """A store opened for reading: the shard of each picture and its `row` there, a table of what
    was `unreadable` (image_id, reason), and `remarks` on what looks odd (image_id, remark)."""

    folder: Path
    made_with: dict
    row: dict[str, tuple[int, int]]
    shards: list[np.ndarray]
    unreadable: pd.DataFrame
    remarks: pd.DataFrame

    def array(self, ids: Sequence[str]) -> np.ndarray:
        """Features of `ids` in their order, `(n, channels)` float16; KeyError names a missing id"""
        if missing := [image_id for image_id in ids if image_id not in self.row]:
            wanted = f"features of {len(ids)} pictures, {len(missing)} are missing"
            raise KeyError(f"{self.folder}: expected {wanted}, first {missing[0]}")
        rows = [self.shards[shard][row] for shard, row in map(self.row.get, ids)]
        return np.array(rows, np.float16).reshape(len(ids), self.made_with["channels"])


def read_manifest(folder: Path, expected: dict | None = None) -> dict:
    """How a store's features were made. FileNotFoundError where there is none, ValueError where it
    is damaged or differs from `expected`, with what differs."""
    path = folder / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a feature store; run notebook 03 to make it")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        found = {"format": manifest.get("format")} | manifest["made_with"]
    except (ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path}: expected a store's manifest, got {error!r}. {ANEW}") from error
    differs = "; ".join(
        f"{key} = {value!r}, got {found.get(key)!r}"
        for key, value in ({"format": FORMAT} | (expected or {})).items()
        if found.get(key) != value
    )
    if differs:
        raise ValueError(f"{folder}: expected features made with {differs}. {ANEW}")
    return manifest["made_with"]


def _damaged(path: Path, expected: str, got: object) -> ValueError:
    remedy = f"Delete {path.stem}.json to compute this shard anew"
    return ValueError(f"{path}: expected {expected}, got {got}. {remedy}")


def read_listings(folder: Path) -> dict[Path, dict]:
    """The listing of each shard, by the shard's path. ValueError that names a damaged one."""
    listings = {}
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            listings[path.with_suffix(".npy")] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise _damaged(path, "a shard's listing", error) from error
    return listings


def open_store(folder: Path) -> FeatureStore:
    """FileNotFoundError where there is no store, ValueError that names what is damaged."""
    made_with = read_manifest(folder)
    row, shards, unreadable, remarks = {}, [], {}, {}
    for path, listing in read_listings(folder).items():
        shape = len(listing["pictures"]), made_with["channels"]
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if (array.shape, array.dtype) != (shape, np.float16):
                raise ValueError(f"{array.dtype} {array.shape}")
        except (OSError, ValueError) as error:
            raise _damaged(path, f"float16 {shape} as its listing says", error) from error
        row |= {image_id: (len(shards), n) for n, image_id in enumerate(listing["pictures"])}
        # A plain array: indexing a memmap object makes a new one each time, which is slow.
        shards.append(np.asarray(array))
        unreadable |= {name: item["reason"] for name, item in listing["unreadable"].items()}
        remarks |= listing["remarks"]
    tables = (
        pd.DataFrame(found.items(), columns=["image_id", what], dtype="str")
        for what, found in (("reason", unreadable), ("remark", remarks))
    )
    return FeatureStore(folder, made_with, row, shards, *tables)


def verify(folder: Path) -> list[str]:
    """Read a whole store and compare each shard with its SHA-256; a line for each that differs.
    Raises as `open_store`, but for shards."""
    read_manifest(folder)
    problems, listings = [], read_listings(folder).items()
    for path, listing in progress_bar(listings, desc="verify", unit="shard"):
        found = file_hash(path) if path.is_file() else "no such file"
        if found != listing["sha256"]:
            problems.append(str(_damaged(path, f"sha256 {listing['sha256']}", found)))
    return problems


@contextlib.contextmanager
def writing(folder: Path, made_with: dict) -> Iterator[None]:
    """Hold the lock of a store of features so made, new or old. RuntimeError where another process
    holds it (a kill releases it), ValueError where the store was made otherwise."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.fdopen(os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644), "r+")
    except OSError as error:
        reason = f"cannot write to the store: {error.strerror}"
        remedy = "choose another folder or change its permissions"
        raise OSError(error.errno, f"{reason}; {remedy}", str(folder)) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = lock.read().strip() or "another process"
            remedy = "wait until it has finished, then run again"
            raise RuntimeError(f"{folder}: {owner} is writing this store; {remedy}") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
        if (folder / MANIFEST).is_file():
            read_manifest(folder, made_with)
        else:
            manifest = {"format": FORMAT, "made_with": made_with}
            write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        yield


def missing_parts(
    folder: Path, images: Path, ids: Iterable[str], shard_size: int, drop: bool
) -> Parts:
    """What is left to do, as parts of at most `shard_size` pictures with the lowest free numbers.

    A changed picture takes its whole shard with it. With `drop`, which only the holder of the lock
    may ask for, such shards and the leftovers of killed runs are deleted.
    """
    asked = set(ids)
    hashes = {
        int(path.stem): listing["pictures"]
        | {image_id: item["sha256"] for image_id, item in listing["unreadable"].items()}
        for path, listing in read_listings(folder).items()
    }

    def is_as_it_was(number: int) -> bool:
        known = hashes[number]
        # A file that is gone has not changed: its features stay.
        return all(_hash_now(images, name) in (known[name], "") for name in known.keys() & asked)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        kept = set(itertools.compress(hashes, pool.map(is_as_it_was, hashes)))
    if drop:
        names = {f"{number:05d}" for number in kept}
        for path in sorted(folder.iterdir()):  # a listing goes before its shard
            if OURS.fullmatch(path.name) and path.stem not in names:
                path.unlink()
    done = {image_id for number in kept for image_id in hashes[number]}
    again = {image_id for number in hashes.keys() - kept for image_id in hashes[number]}
    todo = sorted((asked | again) - done)
    free = itertools.filterfalse(kept.__contains__, itertools.count())
    return {next(free): todo[i : i + shard_size] for i in range(0, len(todo), shard_size)}


def _hash_now(images: Path, image_id: str) -> str:
    """SHA-256 of a picture's file; empty where there is no file that could be read."""
    try:
        return hashlib.sha256(read_file(picture_file(images, image_id))).hexdigest()
    except ImageError:
        return ""


def read_picture(images: Path, image_id: str, size: int) -> tuple[str, np.ndarray | None, str]:
    """SHA-256 of `images/<id>.jpg`, its pixels squeezed to `(size, size, 3)`, and what is odd
    about it; None and the reason where it cannot be read."""
    path, sha256 = picture_file(images, image_id), ""
    try:
        # Read once, so that the hash is of the very bytes that were decoded.
        content = read_file(path)
        sha256 = hashlib.sha256(content).hexdigest()
        image = open_image(content, path.name)
    except ImageError as error:
        return sha256, None, str(error).replace(str(path), path.name)
    return sha256, squeeze(image, size), remark(content, path.name, image.size)


def compute(
    parts: Parts,
    encode: Encode,
    images: Path,
    made_with: dict,
    folder: Path,
    batch_size: int = BATCH_SIZE,
    passes: int = 2,
) -> None:
    """Write the shards of `parts`: pictures decode in threads while those before them are encoded.

    `passes` batches are in `encode` at once: one fills the pauses in which another's threads wait
    for each other.
    """
    size, turn = made_with["size"], threading.Semaphore(passes)

    def read_and_encode(ids: Sequence[str]) -> tuple[np.ndarray, dict]:
        """Features of a batch, and its share of the listing."""
        listing = {"pictures": {}, "unreadable": {}, "remarks": {}}
        # Always a full batch: the same kernels run whatever number of pictures is left.
        pixels = np.zeros((batch_size, size, size, 3), np.uint8)
        for image_id in ids:
            sha256, found, text = read_picture(images, image_id, size)
            if found is None:
                listing["unreadable"][image_id] = {"sha256": sha256, "reason": text}
                continue
            pixels[len(listing["pictures"])] = found
            listing["pictures"][image_id] = sha256
            if text:
                listing["remarks"][image_id] = text
        with turn:
            return encode(pixels)[: len(listing["pictures"])].astype(np.float16), listing

    cut = {
        number: [ids[i : i + batch_size] for i in range(0, len(ids), batch_size)]
        for number, ids in parts.items()
    }
    total = sum(map(len, parts.values()))
    with (
        ThreadPoolExecutor(os.cpu_count() + passes) as pool,
        # Closed, by an error too, it drops what has not begun.
        contextlib.closing(pool.map(read_and_encode, itertools.chain(*cut.values()))) as done,
        progress_bar(total=total, desc="features", unit="image") as bar,
    ):
        for number, batches in cut.items():
            rows, listing = [], {"sha256": "", "pictures": {}, "unreadable": {}, "remarks": {}}
            for ids in batches:
                features, found = next(done)
                rows.append(features)
                for key, entries in found.items():
                    listing[key] |= entries
                bar.update(len(ids))
            write_shard(folder, number, np.concatenate(rows), listing)


def write_shard(folder: Path, number: int, rows: np.ndarray, listing: dict) -> None:
    """Write float16 `rows` and, after them, the listing, completed by their SHA-256."""
    path = folder / f"{number:05d}.npy"
    listing["sha256"] = write_array(path, rows)
    write_text(path.with_suffix(".json"), json.dumps(listing, indent=0) + "\n")
