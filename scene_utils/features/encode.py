"""Backbone features of pictures: the pass by Keras, OpenVINO or Ray's workers, kept in a `store`.

An encoder takes pixels `(n, size, size, 3)` RGB 0-255, uint8 or float, and gives the global average
of the backbone's last map, `(n, channels)` float32. OpenVINO needs no TensorFlow.
"""

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from scene_utils import exported, runtime
from scene_utils.features import store as feature_store
from scene_utils.features.store import BATCH_SIZE, SHARD_SIZE, FeatureStore, open_store
from scene_utils.features.weights import Weights
from scene_utils.images import check_folder
from scene_utils.paths import write_text

ENGINES = ("keras", "openvino", "ray")
PRECISIONS = ("float32", "bfloat16")


def describe(backbone: Weights, engine: str = "keras", precision: str = "float32") -> dict:
    """What a store's features depend on; stores are equal only where all of it is, up to rounding:
    Ray runs the pass of Keras elsewhere, with other numbers of threads."""
    if engine not in ENGINES or precision not in PRECISIONS:
        wanted = f"one of {ENGINES} and one of {PRECISIONS}"
        raise ValueError(f"engine, precision: expected {wanted}, got {engine!r} and {precision!r}")
    passed_by = "openvino" if engine == "openvino" else "keras"
    packages = ["keras", "numpy", "pillow"] + ["openvino"] * (engine == "openvino")
    found = runtime.versions()
    return {
        "backbone": backbone.name,
        "untrained": backbone.untrained,
        "label": backbone.label,
        "weights_sha256": backbone.sha256,
        "size": backbone.size,
        "layer": "pooled",
        "dtype": "float16",
        "channels": backbone.channels,
        "resize": "bicubic, whole frame squeezed",
        "pass": f"{passed_by}, {precision}, batch norms folded",
        "versions": {name: version(name) for name in packages}
        | {"tensorflow": found.get("tensorflow-cpu") or found["tensorflow"]},
    }


@lru_cache(maxsize=2)
def keras_encoder(backbone: Weights, precision: str = "float32") -> feature_store.Encode:
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
def openvino_encoder(weights: Weights, precision: str = "float32") -> feature_store.Encode:
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

        os.environ[runtime.TERMINAL] = os.devnull  # the one bar is that of `compute_by_ray`
        tf.config.threading.set_intra_op_parallelism_threads(1)
        backbone = load_backbone(name, untrained=True, size=size)
        backbone.model.set_weights(weights)
        self.encode, self.job = keras_encoder(backbone, precision), job

    def __call__(self, batch: dict) -> dict:
        for number, ids in zip(batch["number"], batch["ids"], strict=True):
            part = {int(number): list(map(str, ids))}
            feature_store.compute(part, self.encode, *self.job, passes=1)
        return {"pictures": np.array([len(ids) for ids in batch["ids"]])}


def compute_by_ray(
    parts: feature_store.Parts, backbone: Weights, precision: str, job: tuple, most: int = 0
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
    with runtime.progress_bar(total=total, desc="features", unit="image") as bar:
        for batch in done.iter_batches(batch_size=1, prefetch_batches=0):
            bar.update(int(batch["pictures"].sum()))


def cache_features(
    images: Path,
    ids: Iterable[str],
    backbone: Weights,
    folder: Path,
    shard_size: int = SHARD_SIZE,
    batch_size: int = BATCH_SIZE,
    engine: str = "keras",
    precision: str = "float32",
) -> FeatureStore:
    """Compute pooled features of `images/<id>.jpg` into the store `folder`; returns it open.

    Goes on where an earlier run stopped; computes anew what has changed. A picture that cannot be
    read is listed with its reason and does not end the run. `engine` and `precision` are of
    `ENGINES` and `PRECISIONS`.

    Raises ValueError for a store made otherwise, RuntimeError where another process writes it, and
    OSError that names the file where the disk is full or may not be written.
    """
    images, folder, ids = Path(images), Path(folder), list(ids)
    check_folder(images, ids)
    made_with = describe(backbone, engine, precision)
    if (folder / feature_store.MANIFEST).is_file():
        feature_store.read_manifest(folder, made_with)
        # A finished store may lie where nobody can write.
        if not feature_store.missing_parts(folder, images, ids, shard_size, drop=False):
            return open_store(folder)
    with feature_store.writing(folder, made_with):
        parts = feature_store.missing_parts(folder, images, ids, shard_size, drop=True)
        job = (images.resolve(), made_with, folder.resolve(), batch_size)
        if engine == "ray":
            compute_by_ray(parts, backbone, precision, job)
        else:
            make = openvino_encoder if engine == "openvino" else keras_encoder
            feature_store.compute(parts, make(backbone, precision), *job)
    return open_store(folder)


def store_folder(
    cache: Path, backbone: Weights, engine: str = "keras", precision: str = "float32"
) -> Path:
    """The store of a backbone in a profile's cache: each has its own, so none is overwritten."""
    parts = [backbone.name] + ["untrained"] * backbone.untrained
    parts += ["openvino"] * (engine == "openvino") + [precision] * (precision != "float32")
    return cache / "features" / "_".join(parts)


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
    names = ("backbone", "untrained", "label", "weights_sha256")
    return {name: store.made_with[name] for name in names}
