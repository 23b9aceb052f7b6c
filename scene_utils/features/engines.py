"""The pass of a backbone by each engine: Keras, OpenVINO, or Ray's workers.

An encoder takes pixels `(n, size, size, 3)` RGB 0-255, uint8 or float, and gives the global average
of the backbone's last map, `(n, channels)` float32. OpenVINO needs no TensorFlow.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import numpy as np

from scene_utils import exported
from scene_utils.features import store
from scene_utils.features.weights import Weights
from scene_utils.runtime import TERMINAL, progress_bar


@lru_cache(maxsize=2)
def keras_encoder(backbone: Weights, precision: str = "float32") -> store.Encode:
    """The pass of a `backbones.Backbone` as its weights are now."""
    from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
    import tensorflow as tf

    from scene_utils.features.folding import fold_norms

    network = fold_norms(backbone.model, precision)

    @tf.function(reduce_retracing=True)
    def run(pixels):
        maps = network(tf.cast(pixels, tf.float32), training=False)
        return tf.reduce_mean(tf.cast(maps, tf.float32), axis=(1, 2))

    return lambda pixels: run(tf.constant(pixels)).numpy()


@lru_cache(maxsize=2)
def openvino_encoder(weights: Weights, precision: str = "float32") -> store.Encode:
    """A batch is cut into one piece a core: each works on its own, without waiting for the others
    after every layer."""
    asked = (weights.name, weights.file or "", weights.sha256, str(weights.size))
    how = {"precision": precision, "hint": "THROUGHPUT"}
    # No files: their hash is among what is asked for.
    network = exported.load("backbone", *asked, files=(), **how)["encode"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pool = ThreadPoolExecutor(cores)  # kept, and with each thread what it asks the network by

    def run(pixels: np.ndarray) -> np.ndarray:
        pieces = np.array_split(np.asarray(pixels, np.float32), min(len(pixels), cores))
        return np.concatenate([found[0] for found in pool.map(network, pieces)])

    return run


class RayWorker:
    """The pass of Keras with one thread, in a process of Ray's; a batch is the ids of shards.

    With other numbers of threads TensorFlow sums in another order, so features agree with those
    that Keras makes here to the rounding of the precision, not to the last bit.
    """

    def __init__(self, name: str, size: int, weights: list, precision: str, job: tuple):
        import tensorflow as tf

        from scene_utils.features.backbones import load_backbone

        os.environ[TERMINAL] = os.devnull  # the one bar is that of `compute_by_ray`
        tf.config.threading.set_intra_op_parallelism_threads(1)
        backbone = load_backbone(name, untrained=True, size=size)
        backbone.model.set_weights(weights)
        self.encode, self.job = keras_encoder(backbone, precision), job

    def __call__(self, batch: dict) -> dict:
        for number, ids in zip(batch["number"], batch["ids"], strict=True):
            store.compute({int(number): list(map(str, ids))}, self.encode, *self.job, passes=1)
        return {"pictures": np.array([len(ids) for ids in batch["ids"]])}


def compute_by_ray(
    parts: store.Parts, backbone: Weights, precision: str, job: tuple, most: int = 0
) -> None:
    """Write the shards of `parts`, as `store.compute` does of a `job` (images, made_with, folder,
    batch_size), by the processors of a cluster, at most by `most`. All machines see the folders.

    `RAY_ADDRESS` names the cluster; without it Ray starts here. A worker that dies is started again
    and repeats its shard. ImportError without the optional package.
    """
    try:
        import ray
    except ImportError as error:
        reason = "engine ray: expected the package ray[data], found none. Install it with "
        remedy = "`.venv/bin/pip install 'scene-utils[ray]'`, or use the engine keras"
        raise ImportError(reason + remedy) from error
    if not parts:
        return
    if not ray.is_initialized():
        ray.init(logging_level="warning", log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    workers = min(most or int(ray.cluster_resources()["CPU"]), len(parts))
    rows = [{"number": number, "ids": ids} for number, ids in parts.items()]
    model = (backbone.name, backbone.size, backbone.model.get_weights())
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        RayWorker,
        fn_constructor_args=(*model, precision, job),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    total = sum(map(len, parts.values()))
    with progress_bar(total=total, desc="features", unit="image") as bar:
        for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
            bar.update(int(batch["pictures"].sum()))
