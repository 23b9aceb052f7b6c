"""Backbone features of pictures, computed once and kept in memory-mapped shards.

A store is a folder: `manifest.json`, and `.npy` shards that it lists with their image ids and
SHA-256. A shard is written aside, synced and moved; the manifest is rewritten the same way after
each shard, so a run that is killed at any moment resumes at the first shard not yet listed, and
what comes out is bit for bit what an undisturbed run gives.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils.backbones import Backbone, weights_hash
from scene_utils.images import ImageError, read_squeezed
from scene_utils.paths import atomic, write_text
from scene_utils.progress import progress_bar

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FeatureStore:
    """A store opened for reading: `array(ids)` gives float16 rows, `unreadable` says why not."""

    folder: Path
    manifest: dict
    row: dict[str, tuple[int, int]]
    shards: list[np.ndarray]

    @property
    def unreadable(self) -> pd.DataFrame:
        """Pictures that could not be read: image_id and reason."""
        items = [(key, item["reason"]) for key, item in self.manifest["unreadable"].items()]
        return pd.DataFrame(items, columns=["image_id", "reason"], dtype="str")

    def array(self, ids: Sequence[str]) -> np.ndarray:
        """Features of `ids` in their order, `(n, channels)` float16; KeyError names a missing id"""
        missing = [image_id for image_id in ids if image_id not in self.row]
        if missing:
            raise KeyError(
                f"{self.folder}: expected features of {len(ids)} pictures, {len(missing)} are "
                f"missing, first {missing[0]}"
            )
        shape = self.shards[0].shape[1:] if self.shards else (0,)
        out = np.empty((len(ids), *shape), np.float16)
        for position, image_id in enumerate(ids):
            shard, row = self.row[image_id]
            out[position] = self.shards[shard][row]
        return out


def describe(backbone: Backbone) -> dict:
    """What a store's features depend on; stores are equal only where all of it is."""
    return {
        "backbone": backbone.name,
        "untrained": backbone.untrained,
        "label": backbone.label,
        "weights_sha256": weights_hash(backbone),
        "size": backbone.size,
        "layer": "pooled",
        "dtype": "float16",
        "channels": backbone.channels,
        "resize": "bicubic, whole frame squeezed",
        "versions": {name: version(name) for name in ("keras", "numpy", "pillow")},
    }


def open_store(folder: Path, expected: dict | None = None) -> FeatureStore:
    """Open a store. `expected` is `describe(backbone)`; a store made otherwise is refused.

    Raises FileNotFoundError where there is none, ValueError that names what differs.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected a feature store; run notebook 03 to make it")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for key, value in (expected or {}).items():
        if manifest["made_with"].get(key) != value:
            raise ValueError(
                f"{folder}: expected features made with {key} = {value!r}, got "
                f"{manifest['made_with'].get(key)!r}. Delete the folder to compute them anew"
            )
    row, shards = {}, []
    for number, shard in enumerate(manifest["shards"]):
        try:
            array = np.load(Path(folder) / shard["file"], mmap_mode="r", allow_pickle=False)
            if len(array) != len(shard["ids"]):
                raise ValueError(f"{len(array)} rows")
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{folder}/{shard['file']}: expected {len(shard['ids'])} rows as in its manifest, "
                f"got {error}. Delete the folder to compute the features anew"
            ) from error
        shards.append(array)
        row.update({image_id: (number, place) for place, image_id in enumerate(shard["ids"])})
    return FeatureStore(Path(folder), manifest, row, shards)


def cache_features(
    images: Path,
    ids: Iterable[str],
    backbone: Backbone,
    folder: Path,
    shard_size: int = 256,
    batch_size: int = 32,
    progress: bool = True,
) -> FeatureStore:
    """Compute pooled features of `images/<id>.jpg` into the store `folder`; returns it open.

    Goes on where an earlier run stopped. A picture that cannot be read is listed with its reason
    and does not end the run; it is tried again when its file has changed.
    """
    folder = Path(folder)
    made_with = describe(backbone)
    try:
        manifest = open_store(folder, made_with).manifest
    except FileNotFoundError:
        manifest = {"made_with": made_with, "shards": [], "unreadable": {}}
    done = {image_id for shard in manifest["shards"] for image_id in shard["ids"]}
    unreadable = manifest["unreadable"]
    todo = sorted(set(ids) - done)
    todo = [
        image_id
        for image_id in todo
        if image_id not in unreadable
        or unreadable[image_id]["sha256"] != _hash_file(images / f"{image_id}.jpg")
    ]
    for image_id in todo:
        unreadable.pop(image_id, None)
    with (
        ThreadPoolExecutor(2) as pool,
        progress_bar(total=len(todo), desc="features", unit="image", disable=not progress) as bar,
    ):
        for start in range(0, len(todo), shard_size):
            part = todo[start : start + shard_size]
            kept, rows = [], []
            for image_id, result in _in_batches(pool, images, part, backbone, batch_size, bar):
                if isinstance(result, ImageError):
                    path = images / f"{image_id}.jpg"
                    reason = str(result).replace(str(path), path.name)
                    unreadable[image_id] = {"reason": reason, "sha256": _hash_file(path)}
                else:
                    kept.append(image_id)
                    rows.append(result)
            if kept:
                name = f"{len(manifest['shards']):05d}.npy"
                with atomic(folder / name) as temporary, open(temporary, "wb") as file:
                    np.save(file, np.stack(rows).astype(np.float16), allow_pickle=False)
                shard = {"file": name, "sha256": _hash_file(folder / name), "ids": kept}
                manifest["shards"].append(shard)
            write_text(folder / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    return open_store(folder, made_with)


def _in_batches(pool, images: Path, ids: list[str], backbone: Backbone, batch_size: int, bar):
    """Yield (id, pooled feature or ImageError); pictures of the next batch decode meanwhile."""

    def read(image_id: str):
        try:
            return read_squeezed(images / f"{image_id}.jpg", backbone.size)[0]
        except ImageError as error:
            return error

    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    waiting = [pool.submit(read, image_id) for image_id in batches[0]] if batches else []
    for number, batch in enumerate(batches):
        pictures = [future.result() for future in waiting]
        following = batches[number + 1] if number + 1 < len(batches) else []
        waiting = [pool.submit(read, image_id) for image_id in following]
        # Always a full batch: the same kernels run whatever number of pictures is left.
        pixels = np.zeros((batch_size, backbone.size, backbone.size, 3), np.float32)
        good = [i for i, picture in enumerate(pictures) if not isinstance(picture, ImageError)]
        for i in good:
            pixels[i] = pictures[i]
        pooled = pooled_features(backbone, pixels) if good else None
        for i, image_id in enumerate(batch):
            yield image_id, pooled[i] if i in good else pictures[i]
        bar.update(len(batch))


def pooled_features(backbone: Backbone, pixels: np.ndarray) -> np.ndarray:
    """Global average of the last feature map, `(n, size, size, 3)` RGB 0-255 to `(n, channels)`."""
    return np.asarray(backbone.model.predict_on_batch(pixels)).mean(axis=(1, 2))


def _hash_file(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def store_folder(cache: Path, backbone: Backbone) -> Path:
    """The store of a backbone in a profile's cache: each has its own, so none is overwritten."""
    return cache / "features" / (backbone.name + ("_untrained" if backbone.untrained else ""))


def choose(cache: Path, store: FeatureStore) -> None:
    """Make `store` the one that later notebooks of the profile use."""
    write_text(cache / "features" / "chosen.txt", store.folder.name + "\n")


def open_chosen(cache: Path) -> FeatureStore:
    """The store that notebook 03 chose last."""
    chosen = cache / "features" / "chosen.txt"
    if not chosen.is_file():
        raise FileNotFoundError(f"{chosen}: expected a feature store; run notebook 03 to make it")
    return open_store(chosen.parent / chosen.read_text(encoding="utf-8").strip())


def origin(store: FeatureStore) -> dict:
    """What a model trained on the store must remember to get such features for new pictures."""
    made_with = store.manifest["made_with"]
    keys = ("backbone", "untrained", "label", "weights_sha256")
    return {key: made_with[key] for key in keys}
