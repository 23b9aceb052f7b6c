"""The models' answers to the test split, kept in the cache: made once, then only read.

`predictions/<model>.parquet` (every phrase; `entities.PREDICTION_COLUMNS`), and beside it
`probes/<model>.parquet` (`perturbations.ask`) and `photos/<model>.parquet` (the photos of
`data/photos`).
`predictions/<model>.json`, written last, has the fingerprint of what they were made from. Reading
them needs no TensorFlow; `make` imports it where an answer is missing or stale. A table of
predictions without a folder in `models/` was put there by hand, and is read as it is.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops, imports
from scene_utils.analysis import metrics, perturbations
from scene_utils.dataset import entities
from scene_utils.paths import PHOTOS, atomic, write_text

# The order in which models stand in tables; others follow. Other losses of the seed stay out.
# `grid+sentence` is the grid model where all phrases of a sentence are asked together.
TOGETHER = "grid+sentence"
ORDER = (
    "constant",
    "per-category",
    "text-only",
    "image-only",
    "seed-mse",
    "seed",
    "grid",
    TOGETHER,
)
PHOTO_PHRASES = PHOTOS / "phrases.csv"


def names(cache: Path) -> list[str]:
    """Models that have answers or can give them, in the order of the tables."""
    found = {path.parent.name for path in cache.glob("models/*/settings.json")}
    found |= {path.stem for path in cache.glob("predictions/*.parquet")}
    if (_folder(cache, TOGETHER) / "context.json").is_file():
        found.add(TOGETHER)
    others = sorted(name for name in found - {*ORDER} if not name.startswith("seed-"))
    return [name for name in ORDER if name in found] + others


def _folder(cache: Path, name: str) -> Path:
    return cache / "models" / ("grid" if name == TOGETHER else name)


def settings(cache: Path, name: str) -> dict:
    """What a model was made with, as its training wrote it down; {} where that is not known."""
    path = _folder(cache, name) / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def seeds(cache: Path, name: str) -> list[int]:
    """The seeds of a model's members, in their order."""
    folder = _folder(cache, name)
    members = [folder, *sorted(folder.glob("member*"))]
    return [json.loads((m / "settings.json").read_text(encoding="utf-8"))["seed"] for m in members]


def test_mentions(phrases: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Phrases of the test split whose picture the data root holds."""
    here = entities.image_ids(root)
    return phrases[(phrases.split == "test") & phrases.image_id.isin(here)]


def _fingerprint(cache: Path, name: str) -> str:
    digest = hashlib.sha256()
    model = _folder(cache, name)
    made = [model / f for f in ("settings.json", "history.csv", "presence.json", "context.json")]
    made += sorted(model.glob("member*/settings.json")) + sorted(model.glob("member*/history.csv"))
    parts = [*made, cache / "entities.json", PHOTO_PHRASES]
    for path in parts:
        digest.update(path.read_bytes() if path.is_file() else b"missing")
    answering = "grid/localizer.py" if name in ("grid", TOGETHER) else "models.py"
    code = imports.code_hash(imports.PACKAGE / answering, perturbations.__file__)
    digest.update(code.encode())
    return digest.hexdigest()


def stale(cache: Path) -> list[str]:
    """Models whose answers are missing or made from something else than what is there now."""
    found = []
    for name in names(cache):
        if not settings(cache, name):
            continue
        stamp = cache / "predictions" / f"{name}.json"
        try:
            known = json.loads(stamp.read_text(encoding="utf-8"))["fingerprint"]
        except (OSError, ValueError, KeyError):
            known = ""
        if known != _fingerprint(cache, name):
            found.append(name)
    return found


def make(cache: Path, root: Path, wanted: list[str], weights: str = "", seed: int = 0) -> None:
    """Answer everything with the models `wanted`. `seed` is of the probes' random choices."""
    from scene_utils import models
    from scene_utils.features import encode

    phrases = pd.read_parquet(cache / "phrases.parquet")
    store = encode.open_chosen(cache)
    test = test_mentions(phrases, root)
    readable = test[test.image_id.isin(store.row)]
    asked = perturbations.questions(readable, seed)
    backbones: dict = {}
    for name in wanted:
        localizer = models.load_model(_folder(cache, name))
        backbone = None
        if name == TOGETHER:
            pictures = _test_pictures(cache, root, readable, localizer.size)
            table = localizer.predict(readable, pictures, sentences=True)
            _write(cache, name, {"predictions": table})
            continue
        if isinstance(localizer, models.GridLocalizer):
            _write(cache, name, _grid_answers(localizer, cache, root, readable, asked))
            continue
        if localizer.sees:
            made_with = localizer.settings["weights_sha256"]
            if made_with not in backbones:
                backbones[made_with] = models.backbone_of(localizer, weights or None)
            backbone = backbones[made_with]
        tables = {
            "predictions": models.predict_phrases(localizer, readable, store),
            "probes": perturbations.ask(predictor(localizer, store, backbone), asked),
        }
        if localizer.sees:
            tables["photos"] = _photo_answers(localizer, backbone)
        _write(cache, name, tables)


def _write(cache: Path, name: str, tables: dict[str, pd.DataFrame]) -> None:
    stamp = cache / "predictions" / f"{name}.json"
    stamp.unlink(missing_ok=True)
    for folder, table in tables.items():
        with atomic(cache / folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    write_text(stamp, json.dumps({"fingerprint": _fingerprint(cache, name)}) + "\n")


def _test_pictures(cache: Path, root: Path, test: pd.DataFrame, size: int):
    from scene_utils.features.pixels import squeeze_pictures

    folder = entities.image_folder(root)
    return squeeze_pictures(folder, test.image_id.unique(), size, cache / "test_pictures")


def _grid_answers(localizer, cache: Path, root: Path, test: pd.DataFrame, asked) -> dict:
    size = localizer.size
    store = _test_pictures(cache, root, test, size)
    grey = np.full((1, size, size, 3), perturbations.GREY, np.uint8)
    everything = np.concatenate([store.pictures[: len(store.row)], grey])

    def predict(phrases, categories, pictures) -> np.ndarray:
        rows = [len(store.row) if i == perturbations.BLANK else store.row[i] for i in pictures]
        return localizer.relative_boxes(phrases, everything, np.array(rows), 1)[0][:, 0]

    pairs = asked[asked.change.isin(perturbations.PAIRS)]
    rows = pairs.picture.map(store.row).to_numpy(int)
    present = pairs[[*entities.MENTION_KEY, "change", "text", "picture"]].copy()
    present["present"] = localizer.relative_boxes(pairs.text.tolist(), everything, rows, 1)[2]
    photos = photo_phrases()
    guesses = [
        answer.boxes
        for photo, group in photos.groupby("photo", sort=False)
        for answer in localizer.ground(PHOTOS / f"{photo}.jpg", group.phrase.tolist(), top_k=1)
    ]
    answered = photos[["photo", "phrase"]].copy()
    answered[box_ops.COLUMNS] = np.concatenate(guesses)
    return {
        "predictions": localizer.predict(test, store),
        "probes": perturbations.ask(predict, asked),
        "presence": present,
        "photos": answered,
    }


def predictor(localizer, store, backbone=None) -> perturbations.Predict:
    """A `models.Localizer` and its feature store as the callable that `probes` asks.

    `backbone` is what the store's features come from; it is needed for the blank picture alone,
    and may be None for a model that does not see.
    """

    def predict(phrases, categories, pictures) -> np.ndarray:
        if not localizer.sees:
            return localizer.relative_boxes(phrases, categories, None)
        codes, ids = pd.factorize(np.asarray(pictures, object))
        blank = np.array([image_id == perturbations.BLANK for image_id in ids])
        known = store.array([image_id for image_id in ids if image_id != perturbations.BLANK])
        features = np.empty((len(ids), *known.shape[1:]), known.dtype)
        features[~blank] = known
        if blank.any():
            features[blank] = _blank_features(backbone).astype(known.dtype)
        return localizer.relative_boxes(phrases, categories, features, codes.astype(np.int32))

    return predict


def _blank_features(backbone) -> np.ndarray:
    from scene_utils.features.encode import pooled_features

    grey = np.full((1, backbone.size, backbone.size, 3), perturbations.GREY, np.float32)
    return pooled_features(backbone, grey)


def _photo_answers(localizer, backbone) -> pd.DataFrame:
    table = photo_phrases()
    guesses = np.concatenate(
        [
            localizer.ground(PHOTOS / f"{photo}.jpg", group.phrase.tolist(), backbone)
            for photo, group in table.groupby("photo", sort=False)
        ]
    )
    answered = table[["photo", "phrase"]].copy()
    answered[box_ops.COLUMNS] = guesses
    return answered


def photo_phrases() -> pd.DataFrame:
    """Phrases of the photos with a box drawn by eye: photo, phrase, category and the box."""
    return pd.read_csv(PHOTO_PHRASES)


def load(cache: Path) -> dict[str, pd.DataFrame]:
    """Checked prediction tables of all models that have answered, in the order of the tables."""
    paths = {name: cache / "predictions" / f"{name}.parquet" for name in names(cache)}
    found = {name: metrics.read_predictions(path) for name, path in paths.items() if path.is_file()}
    if not found:
        raise FileNotFoundError(
            f"{cache / 'predictions'}: expected tables of predictions, found none. Run "
            "notebook 04, then 05 with renew=true"
        )
    return found


def load_beside(cache: Path, folder: str, wanted: list[str]) -> dict[str, pd.DataFrame]:
    """Tables of `probes` or `photos` of those models that have one."""
    paths = {name: cache / folder / f"{name}.parquet" for name in wanted}
    return {name: pd.read_parquet(path) for name, path in paths.items() if path.is_file()}
