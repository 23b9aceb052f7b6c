"""Caching against the pass alone, reading from a store, and what many pictures cost."""

import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from scene_utils import paths
from scene_utils.features import store as feature_store
from tests.benchmarks.tools import interleave, make_pictures

WHOLE_SET = 31_783
KINDS = (
    ("efficientnet_lite0", "float32"),
    ("efficientnet_lite0", "bfloat16"),
    ("resnet50", "float32"),
    ("resnet50", "bfloat16"),
)
# Flickr30k's pictures as published, and squeezed as in the subset at hand.
SIZES = {"500 x 375 px": (500, 375), "224 x 224 px": (224, 224)}


def measure_caching(repeats: int = 3, pictures: int = 1024) -> dict:
    """Pictures a second: whole caching (read, hash, decode, resize, pass, write, sync) against the
    pass alone on pixels in memory.

    Reading and the pass share the processors, so caching cannot be faster than one after the other
    with all processors busy: `ceiling` is that share of the pass.
    """
    from scene_utils.features import backbones, encode

    result = {"pictures": pictures, "repeats": repeats, "rows": []}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / name for name in SIZES}
        for name, size in SIZES.items():
            ids = make_pictures(folders[name], pictures, size)
        pixels = np.random.default_rng(0).integers(0, 256, (32, 224, 224, 3), np.uint8)
        for backbone_name, precision in KINDS:
            backbone = backbones.load_backbone(backbone_name, untrained=True)
            run = encode.keras_encoder(backbone, precision)
            run(pixels)

            def alone(run=run) -> float:
                start = time.perf_counter()
                for _ in range(pictures // len(pixels)):
                    run(pixels)
                return time.perf_counter() - start

            def caching(images: Path, backbone=backbone, precision=precision) -> float:
                with tempfile.TemporaryDirectory(dir=scratch) as store:
                    start = time.perf_counter()
                    encode.cache_features(images, ids, backbone, Path(store), precision=precision)
                    return time.perf_counter() - start

            contenders = {"pass": alone}
            for name, folder in folders.items():
                contenders[name] = lambda caching=caching, folder=folder: caching(folder)
                contenders[f"read {name}"] = lambda folder=folder: _read_all(folder, ids)
            seconds = interleave(contenders, repeats)
            rate = {name: float(pictures / np.median(s)) for name, s in seconds.items()}
            result["rows"] += [
                {
                    "backbone": backbone_name,
                    "precision": precision,
                    "pictures are": name,
                    "pass_per_second": rate["pass"],
                    "caching_per_second": rate[name],
                    "reading_per_second": rate[f"read {name}"],
                    "share": rate[name] / rate["pass"],
                    "ceiling": 1 / (1 + rate["pass"] / rate[f"read {name}"]),
                }
                for name in SIZES
            ]
    return result


def _read_all(images: Path, ids: list[str], size: int = 224) -> float:
    """Seconds to read, hash, decode and resize the pictures on all processors."""
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda image_id: feature_store.read_picture(images, image_id, size), ids))
    return time.perf_counter() - start


def fake_store(folder: Path, pictures: int, channels: int = 1280, shard_size: int = 256) -> None:
    """A store of random features, to read from."""
    made_with = {"backbone": "random", "size": 224, "channels": channels}
    rng = np.random.default_rng(0)
    with feature_store.writing(folder, made_with):
        for number, first in enumerate(range(0, pictures, shard_size)):
            ids = [f"{i:010d}" for i in range(first, min(first + shard_size, pictures))]
            rows = rng.random((len(ids), channels), np.float32).astype(np.float16)
            listing = {"pictures": dict.fromkeys(ids, "0" * 64), "unreadable": {}, "remarks": {}}
            feature_store.write_shard(folder, number, rows, listing)


def _forget(folder: Path) -> None:
    """Ask the system to drop the store's pages, so that the next reader finds it on disk."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure_reading(repeats: int = 5, pictures: int = WHOLE_SET, batch: int = 256) -> dict:
    """Seconds to open a store of the whole Flickr30k, and rows a second in random batches."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "store"
        fake_store(folder, pictures)
        found = {"warm": [], "cold": []}
        for _ in range(repeats):
            for name in found:
                if name == "cold":
                    _forget(folder)
                start = time.perf_counter()
                store = feature_store.open_store(folder)
                found[name].append(time.perf_counter() - start)
        tracemalloc.start()
        store = feature_store.open_store(folder)
        kept = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        rng, ids, rates = np.random.default_rng(0), list(store.row), []
        for _ in range(repeats):
            batches = [[ids[i] for i in rng.integers(len(ids), size=batch)] for _ in range(100)]
            start = time.perf_counter()
            for wanted in batches:
                store.array(wanted)
            rates.append(100 * batch / (time.perf_counter() - start))
        used = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "pictures": pictures,
        "channels": store.made_with["channels"],
        "megabytes": used / 1e6,
        "bytes_of_memory_per_picture": kept / pictures,
        "open_seconds_warm": float(np.median(found["warm"])),
        "open_seconds_cold": float(np.median(found["cold"])),
        "rows_per_second": float(np.median(rates)),
    }


CHILD = """
import json, resource, sys, time
from pathlib import Path
from scene_utils.features import backbones, encode
images, store, name, precision, count = sys.argv[1:]
ids = sorted(path.stem for path in Path(images).glob("*.jpg"))[:int(count)]
backbone = backbones.load_backbone(name, untrained=True)
given = {"precision": precision}
encode.cache_features(Path(images), ids[:32], backbone, Path(store) / "first", **given)
start = time.perf_counter()
encode.cache_features(Path(images), ids, backbone, Path(store) / "store", **given)
most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.perf_counter() - start, most / 2**20]))
"""


def _cache_in_a_process(images: Path, store: Path, name: str, precision: str, count: int) -> dict:
    words = (images, store, name, precision, count)
    answer = subprocess.run(
        [sys.executable, "-c", CHILD, *map(str, words)],
        **{"capture_output": True, "text": True, "check": True, "cwd": paths.ROOT},
    )
    seconds, most = json.loads(answer.stdout.splitlines()[-1])
    used = sum(path.stat().st_size for path in (store / "store").iterdir())
    return {"pictures": count, "seconds": seconds, "gibibytes": most, "bytes": used}


def measure_cost(counts: tuple[int, ...] = (256, 1024, 7092)) -> dict:
    """What 10^3 to 10^6 pictures of 500 x 375 px cost: time, disk and peak memory.

    Measured at the counts with EfficientNet-Lite0 in bfloat16, the fastest pass, where everything
    else weighs most. All but the last fit the model, cost = fixed + rate * pictures; the last is
    its check. Other backbones differ by their rate of pictures (section `caching`) and channels.
    """
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        make_pictures(images, max(counts), SIZES["500 x 375 px"])
        points = [
            _cache_in_a_process(images, Path(scratch) / str(n), "efficientnet_lite0", "bfloat16", n)
            for n in counts
        ]
    numbers, check, fits = [point["pictures"] for point in points], {}, {}
    for key in ("seconds", "gibibytes", "bytes"):
        found = [point[key] for point in points]
        expected = float(np.polyval(np.polyfit(numbers[:-1], found[:-1], 1), numbers[-1]))
        check[key] = {"model": expected, "measured": found[-1], "error": expected / found[-1] - 1}
        fits[key] = np.polyfit(numbers, found, 1)  # the table rests on all measured points
    table = [
        {"pictures": count} | {key: float(np.polyval(fit, count)) for key, fit in fits.items()}
        for count in (10**3, 10**4, 10**5, 10**6)
    ]
    return {"measured": points, "check_at_the_last": check, "table": table}
