"""Backbone features of pictures, computed once and kept in a store (`feature_store`)."""

from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from scene_utils import runtime
from scene_utils.features import engines
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
            engines.compute_by_ray(parts, backbone, precision, job)
        else:
            make = engines.openvino_encoder if engine == "openvino" else engines.keras_encoder
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
    return {
        key: store.made_with[key] for key in ("backbone", "untrained", "label", "weights_sha256")
    }
