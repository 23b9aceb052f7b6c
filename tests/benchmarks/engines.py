"""What an engine's features change: the same trained model fed by each of them."""

import itertools
import tempfile
from pathlib import Path

import numpy as np

from scene_utils import paths
from tests.benchmarks.tools import cosines

ENGINES = ("keras", "openvino")  # Ray runs the pass of Keras


def measure(profile: str, data_root: str) -> dict:
    """Mean IoU and accuracy on val of the source system as the profile's last run trained it, from
    features by each engine, and their least and mean cosine to those of Keras in float32.

    Raises FileNotFoundError where that run is missing.
    """
    from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
    import keras
    import pandas as pd

    from scene_utils import box_ops, words
    from scene_utils.dataset import entities
    from scene_utils.features import backbones, encode
    from scene_utils.source import train

    cache = paths.cache(profile)
    images = entities.image_folder(paths.data_root(profile, data_root))
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    network = keras.models.load_model(cache / "models/source/model.keras", compile=False)
    made = encode.open_chosen(cache)
    backbone = backbones.load_backbone(
        made.made_with["backbone"], untrained=made.made_with["untrained"]
    )
    ids = sorted(set(phrases.image_id[phrases.split == "val"]) & set(made.row))
    exact, rows = None, {}
    for engine, precision in itertools.product(ENGINES, encode.PRECISIONS):
        with tempfile.TemporaryDirectory() as folder:
            store = encode.cache_features(
                *(images, ids, backbone, Path(folder)),
                engine=engine,
                precision=precision,
            )
            found = store.array(ids).astype(np.float32)
            examples = train.make_examples(phrases, "val", store, vocabulary)
            iou = box_ops.iou(train.predict(network, examples), examples.boxes)
        exact = found if exact is None else exact
        cosine = cosines(found, exact)
        rows[f"{engine} {precision}"] = {
            "mean_iou": float(iou.mean()),
            "accuracy_0.5": float((iou >= 0.5).mean()),
            "least_cosine": float(cosine.min()),
            "mean_cosine": float(cosine.mean()),
        }
    return {
        "profile": profile,
        "backbone": backbone.label,
        "pictures": len(ids),
        "mentions": len(iou),
        "rows": rows,
    }
