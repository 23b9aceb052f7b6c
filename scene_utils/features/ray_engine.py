"""Features by Ray's workers, on this machine or on a cluster: an optional extra, `ray[data]`.

The driver sends each worker the ids of a shard, and the worker reads the pictures and writes the
shard into the store's folder, which all machines see. A worker runs the pass of the engine `keras`
with one thread. Sums are then taken in another order, so features agree with those of `keras` to
the rounding of float16, not to the last bit. A worker that dies is started again and repeats the
shard that it was at.

`RAY_ADDRESS` names a cluster; without it Ray starts here.
"""

import numpy as np

from scene_utils.features import store
from scene_utils.features.backbones import Backbone, load_backbone
from scene_utils.runtime import progress_bar


class Worker:
    """The model in a process of Ray's, with one thread; a batch is the ids of shards to make."""

    def __init__(self, name: str, size: int, weights: list, precision: str, job: tuple):
        import tensorflow as tf

        from scene_utils.features import keras_engine

        tf.config.threading.set_intra_op_parallelism_threads(1)
        backbone = load_backbone(name, untrained=True, size=size)
        backbone.model.set_weights(weights)
        self.encode, self.job = keras_engine.encoder(backbone, precision), job

    def __call__(self, batch: dict) -> dict:
        for number, ids in zip(batch["number"], batch["ids"], strict=True):
            store.compute({int(number): list(map(str, ids))}, self.encode, *self.job, passes=1)
        return {"pictures": np.array([len(ids) for ids in batch["ids"]])}


def compute(
    parts: store.Parts,
    backbone: Backbone,
    precision: str,
    job: tuple,
    progress: bool,
    most: int = 0,
) -> None:
    """Write the shards of `parts`, as `store.compute` does of a `job` (images, made_with, folder,
    batch_size), by all processors of the cluster, or by `most` of them. ImportError without Ray."""
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            "engine ray: expected the package ray[data], found none. Install it with "
            "`.venv/bin/pip install 'scene-utils[ray]'`, or use the engine keras"
        ) from error
    if not parts:
        return
    if not ray.is_initialized():
        ray.init(logging_level="warning", log_to_driver=False, include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    workers = min(most or int(ray.cluster_resources()["CPU"]), len(parts))
    rows = [{"number": number, "ids": ids} for number, ids in parts.items()]
    model = (backbone.name, backbone.size, backbone.model.get_weights())
    done = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        Worker,
        fn_constructor_args=(*model, precision, job),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
    )
    total = sum(map(len, parts.values()))
    with progress_bar(total=total, desc="features", unit="image", disable=not progress) as bar:
        for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
            bar.update(int(batch["pictures"].sum()))
