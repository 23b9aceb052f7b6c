"""The pass of a backbone by OpenVINO, which needs no TensorFlow."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from scene_utils import exported
from scene_utils.features.store import Encode
from scene_utils.features.weights import Weights


@lru_cache(maxsize=2)
def encoder(weights: Weights, precision: str = "float32") -> Encode:
    """As `keras_engine.encoder`. A batch is cut into one piece a core: each works on its own,
    without waiting for the others after every layer."""
    network = exported.load(
        "backbone",
        weights.name,
        weights.file or "",
        weights.sha256,
        str(weights.size),
        files=(),  # their hash is among the arguments
        precision=precision,
        hint="THROUGHPUT",
    )["encode"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(cores)  # kept, and with each thread what it asks the network by

    def run(pixels: np.ndarray) -> np.ndarray:
        pieces = np.array_split(np.asarray(pixels, np.float32), min(len(pixels), cores))
        return np.concatenate([found[0] for found in pool.map(network, pieces)])

    return run
