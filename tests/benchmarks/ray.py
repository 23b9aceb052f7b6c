"""Caching by Ray's workers: pictures a second with one and with two, each with a thread."""

import tempfile
import time
from pathlib import Path

from tests.benchmarks.tools import interleave, make_pictures


def measure(repeats: int = 3, pictures: int = 1024) -> dict:
    """Rates of ResNet50 in bfloat16 on 500 x 375 px pictures; ImportError where Ray is missing.

    The workers' start (loading TensorFlow and the model) is measured apart, by a run that does one
    shard: on a real job it is paid once.
    """
    import ray

    from scene_utils.features import backbones, encode
    from scene_utils.features import store as feature_store

    ray.init(include_dashboard=False, logging_level="error", log_to_driver=False)
    backbone = backbones.load_backbone("resnet50", untrained=True)
    made_with = encode.describe(backbone, "ray", "bfloat16")
    with tempfile.TemporaryDirectory() as scratch:
        images = Path(scratch) / "images"
        ids = make_pictures(images, pictures, (500, 375))

        def run(workers: int, ids: list[str]) -> float:
            with tempfile.TemporaryDirectory(dir=scratch) as store:
                folder = Path(store)
                parts = feature_store.missing_parts(folder, images, ids, 64, drop=True)
                start = time.perf_counter()
                job = (images, made_with, folder, 32)
                encode.compute_by_ray(parts, backbone, "bfloat16", job, workers)
                return time.perf_counter() - start

        seconds = interleave(
            {
                f"{workers} {kind}": lambda workers=workers, part=part: run(workers, part)
                for workers in (1, 2)
                for kind, part in (("start", ids[: 64 * workers]), ("whole", ids))
            },
            repeats,
        )
    ray.shutdown()
    result = {"pictures": pictures, "backbone": "resnet50", "precision": "bfloat16"}
    for workers in (1, 2):
        start, whole = (min(seconds[f"{workers} {kind}"]) for kind in ("start", "whole"))
        result[f"start_seconds_{workers}"] = start
        result[f"per_second_{workers}"] = (pictures - 64 * workers) / max(whole - start, 1e-9)
    result["scaling"] = result["per_second_2"] / result["per_second_1"]
    return result
