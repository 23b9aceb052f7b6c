"""The model pass against what a user would pick instead, all on the same network and weights."""

import tempfile
from pathlib import Path

import numpy as np

from tests.benchmarks.peers import BATCH
from tests.benchmarks.tools import cosines, race

BACKBONES = ("resnet50", "efficientnet_lite0")
# (runtime, precision), see `peers`.
CONTENDERS = (
    ("keras plain", "float32"),
    ("keras", "float32"),
    ("keras", "bfloat16"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("onnxruntime", "float32"),
)


def measure(repeats: int = 7) -> dict:
    """Pictures a second of each contender and its features' cosine with plain Keras in float32.
    Weights are random: they do not change the speed."""
    result = {"batch": BATCH, "weights": "random", "backbones": {}}
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), np.uint8)
    for name in BACKBONES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            np.save(folder / "pixels.npy", pixels)
            words = {
                f"{runtime} {precision}": [runtime, precision, name, folder / "pixels.npy"]
                for runtime, precision in CONTENDERS
            }
            words = {key: [*listed, folder / f"{key}.npy"] for key, listed in words.items()}
            seconds, missing = race("peers", words, folder, repeats)
            found = {key: np.load(folder / f"{key}.npy") for key in seconds}
        result["backbones"][name] = {
            "missing": missing,
            "pictures_per_second": {key: BATCH / np.median(s) for key, s in seconds.items()},
            "spread": {key: np.ptp(s) / np.median(s) for key, s in seconds.items()},
            "least_cosine": {
                key: float(cosines(array, found["keras plain float32"]).min())
                for key, array in found.items()
            },
        }
    return result
