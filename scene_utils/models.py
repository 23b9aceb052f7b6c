"""A trained model, pictures and phrases to boxes in pixels: for a whole split, or one photo."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset import entities
from scene_utils.features.backbones import Backbone, load_backbone
from scene_utils.features.encode import FeatureStore, cache_features, describe, pooled_features
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid.localizer import GridLocalizer, load_localizer
from scene_utils.images import ImageError, ImageSource, open_image, read_squeezed
from scene_utils.source import train
from scene_utils.source.model import INPUTS
from scene_utils.words import Vocabulary


@dataclass(frozen=True)
class Localizer:
    """A trained model with all it needs for phrases; pictures come as backbone features."""

    settings: dict
    vocabulary: Vocabulary
    network: keras.Model | None = field(repr=False)
    blind: dict[str, list[float]] | None = field(repr=False)

    @property
    def sees(self) -> bool:
        """Whether its answer depends on the picture at all."""
        return INPUTS.get(self.settings["model"], (False, False))[0]

    def relative_boxes(
        self,
        phrases: Sequence[str],
        categories: Sequence[str],
        features: np.ndarray | None,
        rows: np.ndarray | None = None,
    ) -> np.ndarray:
        """Boxes `(n, 4)` as fractions of the picture for n phrases.

        `features (p, channels)` with `rows (n,)`, the picture of each phrase; both may be None
        for a model that does not see. Categories matter to `per-category` alone.
        """
        if self.blind is not None:
            return train.blind_boxes(self.blind, np.asarray(categories))
        if features is None:
            channels = self.network.inputs[0].shape[1]
            features, rows = np.zeros((1, channels), np.float16), np.zeros(len(phrases), np.int32)
        examples = train.Examples(
            features,
            rows,
            self.vocabulary.encode(phrases, self.settings["length"]),
            np.zeros((len(phrases), 4), np.float32),
            np.asarray(categories),
        )
        return train.predict(self.network, examples)

    def ground(self, image: ImageSource, phrases: Sequence[str], backbone: Backbone) -> np.ndarray:
        """Boxes `(n, 4)` of n phrases in one picture, in pixels of that picture."""
        pixels, width, height = read_squeezed(image, backbone.size)
        features = pooled_features(backbone, pixels[None].astype(np.float32))
        rows = np.zeros(len(phrases), np.int32)
        # Features are stored in half precision; the same rounding here gives the same answer.
        relative = self.relative_boxes(
            phrases, [""] * len(phrases), features.astype(np.float16), rows
        )
        return box_ops.to_pixels(_with_area(relative), width, height)


def load_model(folder: Path | str) -> Localizer | GridLocalizer:
    """Load a folder that `train.train` or `grid_training.train_grid` finished.

    Raises FileNotFoundError for anything else.
    """
    folder = Path(folder)
    if not (folder / "settings.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected a folder of a finished training with settings.json, found none. "
            "Notebook 04 makes them in data/cache/<profile>/models/"
        )
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    if settings["model"] == "grid":
        return load_localizer(folder)
    network = blind = None
    if (folder / "boxes.json").is_file():
        blind = json.loads((folder / "boxes.json").read_text(encoding="utf-8"))
    else:
        network = keras.saving.load_model(folder / "model.keras", compile=False)
    return Localizer(settings, Vocabulary.load(folder / "vocabulary.txt"), network, blind)


def backbone_of(
    localizer: Localizer | GridLocalizer, weights: str | Path | None = None
) -> Backbone | None:
    """The backbone whose features the model was trained on; None for a grid model, which has it.

    Raises ValueError if its weights differ from those of the training.
    """
    if isinstance(localizer, GridLocalizer):
        return None
    made_with = localizer.settings
    backbone = load_backbone(made_with["backbone"], weights, made_with["untrained"])
    if describe(backbone)["weights_sha256"] != made_with["weights_sha256"]:
        raise ValueError(
            f"{made_with['backbone']}: expected the weights that the model was trained with, "
            f"sha256 {made_with['weights_sha256']}, got {describe(backbone)['weights_sha256']}"
        )
    return backbone


def first_boxes(
    localizer: Localizer | GridLocalizer,
    image: ImageSource,
    phrases: Sequence[str],
    backbone: Backbone | None = None,
) -> np.ndarray:
    """The best box of each of n phrases in one picture, `(n, 4)` in its pixels, by any model.

    `backbone` is `backbone_of(localizer)`; a grid model brings its own.
    """
    if isinstance(localizer, GridLocalizer):
        answers = localizer.ground(image, list(phrases), top_k=1)
        return np.concatenate([answer.boxes for answer in answers])
    return localizer.ground(image, phrases, backbone)


def _with_area(relative: np.ndarray) -> np.ndarray:
    """Widen boxes that a network let collapse, so that every answer is a box."""
    least = 0.002
    low = np.minimum(relative[:, :2], 1 - least)
    return np.concatenate([low, np.maximum(relative[:, 2:], low + least)], axis=1)


def predict_phrases(
    localizer: Localizer | GridLocalizer,
    phrases: pd.DataFrame,
    store: FeatureStore | PictureStore | None,
) -> pd.DataFrame:
    """A prediction table (`entities.PREDICTION_COLUMNS`) for rows of an entities phrase table.

    Phrases of a picture that is not in the store get no row, if the model sees. No column of
    boxes is read. Models without a grid give one box and no confidence: rank 1, score 1.
    """
    if isinstance(localizer, GridLocalizer):
        return localizer.predict(phrases, store)
    features = rows = None
    if localizer.sees:
        phrases = phrases[phrases.image_id.isin(store.row)]
        codes, ids = pd.factorize(phrases.image_id)
        features, rows = store.array(list(ids)), codes.astype(np.int32)
    table = phrases[[*entities.MENTION_KEY, "phrase"]].reset_index(drop=True)
    table["rank"], table["score"] = 1, np.float32(1)
    if table.empty:
        boxes = np.zeros((0, 4), np.float32)
    else:
        relative = localizer.relative_boxes(
            phrases.phrase.tolist(), phrases.category.tolist(), features, rows
        )
        boxes = box_ops.to_pixels(
            _with_area(relative), phrases.width.to_numpy(), phrases.height.to_numpy()
        )
    table[box_ops.COLUMNS] = boxes
    return table[entities.PREDICTION_COLUMNS]


def predict_split(
    localizer: Localizer | GridLocalizer,
    root: Path | str,
    split: str,
    weights: str | Path | None = None,
    progress: bool = True,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions for every phrase of the ids in `<root>/<split>.txt`, and a table of problems.

    No annotation box is read: phrases come from the sentence files, a picture's original size from
    the `<size>` of its XML where there is one (it may be stored squeezed), else from the picture.
    """
    root = Path(root)
    ids = entities.read_ids(root, split)
    found = entities.read_entities(root, dict.fromkeys(ids, split), boxes=False, progress=progress)
    phrases, problems = found.phrases, found.problems.to_dict("records")
    folder = entities.image_folder(root)
    sizes = {}
    for image_id in phrases.image_id[phrases.width == 0].unique():
        try:
            sizes[image_id] = open_image(folder / f"{image_id}.jpg").size
        except ImageError as error:
            problems.append({"file": f"{image_id}.jpg", "reason": f"no size known: {error}"})
            sizes[image_id] = (0, 0)
    if sizes:
        lacking = phrases.width == 0
        known = phrases.image_id[lacking].map(sizes)
        phrases.loc[lacking, ["width", "height"]] = np.array(known.tolist(), np.int32)
        phrases = phrases[phrases.width > 0]
    with tempfile.TemporaryDirectory() as scratch:
        store, seen = None, phrases.image_id.unique()
        if isinstance(localizer, GridLocalizer):
            size = localizer.size
            store = squeeze_pictures(folder, seen, size, Path(scratch), progress=progress)
        elif localizer.sees:
            backbone = backbone_of(localizer, weights)
            store = cache_features(folder, seen, backbone, Path(scratch), progress=progress)
        if store is not None:
            lost = store.unreadable.rename(columns={"image_id": "file"})
            problems += lost.to_dict("records")
        table = predict_phrases(localizer, phrases, store)
    return table, pd.DataFrame(problems, columns=["file", "reason"], dtype="str")
