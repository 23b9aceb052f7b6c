"""The model pass against what a user would pick instead, all on the same network and weights."""

import tempfile
import time
from pathlib import Path

import numpy as np

from tests.benchmarks.peers import BATCH
from tests.benchmarks.tools import cosines, race

BACKBONES = ("resnet50", "efficientnet_lite0")
PRECISIONS = ("float32", "bfloat16", "int8")
# (runtime, precision): what can run here. ONNX Runtime has no convolution in bfloat16 on CPU.
CONTENDERS = (
    ("keras plain", "float32"),
    ("keras", "float32"),
    ("keras", "bfloat16"),
    ("torch", "float32"),
    ("torch", "bfloat16"),
    ("torch compiled", "float32"),
    ("torch compiled", "bfloat16"),
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
    ("openvino", "int8"),
)


def matrix_peak(repeats: int = 5) -> dict:
    """Highest rate of a square matrix product in TensorFlow by precision, in TFLOP/s."""
    from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
    import tensorflow as tf

    multiply, found = tf.function(tf.matmul, reduce_retracing=True), {}
    for precision in ("float32", "bfloat16"):
        rates = []
        for side in (1024, 2048, 4096):
            matrix = tf.cast(tf.random.normal((side, side), seed=0), precision)
            for _ in range(repeats):
                start = time.perf_counter()
                multiply(matrix, matrix)[0, 0].numpy()
                rates.append(2 * side**3 / (time.perf_counter() - start) / 1e12)
        found[precision] = max(rates)
    return found


def measure(repeats: int = 7) -> dict:
    """Pictures a second of each contender, its features' cosine with plain Keras in float32, and
    its share of the matrix peak. Weights are random: they do not change the speed."""
    from scene_utils.features import backbones, folding, portable

    result = {"batch": BATCH, "weights": "random", "backbones": {}}
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), np.uint8)
    peaks = [matrix_peak()]
    for name in BACKBONES:
        network = portable.export(
            folding.fold_norms(backbones.load_backbone(name, untrained=True).model)
        )
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            np.save(folder / "pixels.npy", pixels)
            network.save(folder / f"{name}.npz")
            words = {}
            for runtime, precision in CONTENDERS:
                key = f"{runtime} {precision}"
                inputs = [folder / f"{name}.npz", folder / "pixels.npy"]
                words[key] = [runtime, precision, *inputs, folder / f"{key}.npy"]
            seconds, missing = race("bench_peers", words, folder, repeats)
            found = {key: np.load(folder / f"{key}.npy") for key in seconds}
        peaks.append(matrix_peak())
        result["backbones"][name] = {
            "gigaflop_per_picture": network.flops() / 1e9,
            "missing": missing,
            "pictures_per_second": {key: BATCH / np.median(s) for key, s in seconds.items()},
            "spread": {key: np.ptp(s) / np.median(s) for key, s in seconds.items()},
            "least_cosine": {
                key: float(cosines(array, found["keras plain float32"]).min())
                for key, array in found.items()
            },
        }
    result["matrix_peak_teraflops"] = {
        precision: max(peak[precision] for peak in peaks) for precision in peaks[0]
    }
    for row in result["backbones"].values():
        rates = row["pictures_per_second"]
        row["share_of_matrix_peak"] = {
            key: rate * row["gigaflop_per_picture"] / 1000 / peak
            for key, rate in rates.items()
            if (peak := result["matrix_peak_teraflops"].get(key.split()[-1]))
        }
        row["keras_over_best_peer"] = {
            precision: rates[f"keras {precision}"] / max(others)
            for precision in ("float32", "bfloat16")
            if (
                others := [
                    rate
                    for key, rate in rates.items()
                    if key.endswith(precision) and not key.startswith("keras")
                ]
            )
        }
    return result
