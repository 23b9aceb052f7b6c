"""The models' boxes on the test split, kept in the cache: made once, then only read.

`predictions/<model>.parquet` (every phrase; `mentions.PREDICTION_COLUMNS`), and beside it those of
`perturbations` and `alike` (answers to `questions`), `photos` (those of `data/photos`) and, of
a grid model, `presence`, `things` (a box of each thing), `photos_once` (without a second look) and
`alike_unplaced` (where a thing lies not weighed).
`predictions/<model>.json`, written last, has the fingerprint of what they were made from.
Predictions without a folder in `models/` were put there by hand, and are read as they are.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops, imports
from scene_utils.analysis import alike, metrics, perturbations
from scene_utils.dataset import entities
from scene_utils.paths import PHOTOS, atomic, file_hash, write_text

# `grid+sentence` is the grid model where all phrases of a sentence are asked together.
TOGETHER = "grid+sentence"
# The order in which models stand in tables; others follow. Other losses of `source` stay out.
ORDER = ("text-only", "image-only", "source-mse", "source", "grid", TOGETHER)
# With boxes drawn by eye: to look at, and to measure with.
PHOTO_PHRASES, PHOTO_BOXES = PHOTOS / "phrases.csv", PHOTOS / "boxes.csv"


def names(cache: Path) -> list[str]:
    """Models with predictions, or that can make them, in the order of the tables; without those of
    `source` with another loss, but `source-mse`."""
    found = {path.parent.name for path in cache.glob("models/*/settings.json")}
    found |= {path.stem for path in cache.glob("predictions/*.parquet")}
    if (_folder(cache, TOGETHER) / "context.json").is_file():
        found.add(TOGETHER)
    others = sorted(name for name in found - {*ORDER} if not name.startswith("source-"))
    return [name for name in ORDER if name in found] + others


def compared(names: Iterable[str]) -> tuple[str, list[str]]:
    """The last of the models that takes each phrase by itself, and those to show it beside."""
    ours = [name for name in names if name != TOGETHER][-1]
    return ours, [name for name in names if name in ("text-only", "source", ours, TOGETHER)]


def _folder(cache: Path, name: str) -> Path:
    return cache / "models" / ("grid" if name == TOGETHER else name)


def settings(cache: Path, name: str) -> dict:
    """What a model was made with, as its training wrote it down; {} where that is not known."""
    path = _folder(cache, name) / "settings.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def test_phrases(phrases: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Phrases of the test split whose picture the data root holds."""
    here = entities.image_ids(root)
    return phrases[(phrases.split == "test") & phrases.image_id.isin(here)]


def _stamp(cache: Path, name: str) -> str:
    """What `predictions/<model>.json` holds where predictions are of today's model and code."""
    files = [cache / "phrases.parquet", PHOTO_PHRASES, PHOTO_BOXES]
    fitted = ("presence.json", "context.json", "instances.json")
    for made in ("settings.json", "history.csv", *fitted):
        files += sorted(_folder(cache, name).rglob(made))
    answering = "grid/localizer.py" if name in ("grid", TOGETHER) else "source/answer.py"
    code = imports.code_hash(imports.PACKAGE / answering, perturbations.__file__, alike.__file__)
    parts = [path.name + file_hash(path) for path in files if path.is_file()]
    fingerprint = hashlib.sha256("".join([code, *parts]).encode()).hexdigest()
    return json.dumps({"fingerprint": fingerprint}) + "\n"


def stale(cache: Path) -> list[str]:
    """Models whose predictions are missing or made from something else than is there now."""

    def fresh(name: str) -> bool:
        stamp = cache / "predictions" / f"{name}.json"
        return stamp.is_file() and stamp.read_bytes() == _stamp(cache, name).encode()

    return [name for name in names(cache) if settings(cache, name) and not fresh(name)]


def make(cache: Path, root: Path, wanted: list[str], weights: str = "", seed: int = 0) -> None:
    """Make all predictions of the models `wanted`. `seed` is of the perturbations' choices.

    Raises ValueError that names a model whose answers are not a finite box each.
    """
    from scene_utils import models
    from scene_utils.features import encode

    store = encode.open_chosen(cache)
    test = test_phrases(pd.read_parquet(cache / "phrases.parquet"), root)
    test = test[test.image_id.isin(store.row)]
    ids = list(test.image_id.unique())
    asked = perturbations.questions(test, seed)
    place = {image_id: row for row, image_id in enumerate([*ids, perturbations.BLANK])}
    rows = asked.picture.map(place).to_numpy()
    of_alike = alike.questions(test, pd.read_parquet(cache / "boxes.parquet"))
    alike_rows = of_alike.image_id.map(place).to_numpy(int)
    known: dict[Path, dict] = {}  # what `grid` was asked, for all of its tables
    for name in wanted:
        folder, pictures = _folder(cache, name), store
        model = models.load_model(folder, weights or None)
        if model.from_pixels:
            pictures = model.pictures(entities.image_folder(root), ids, cache / "test_pictures")
            if folder not in known:
                known[folder] = {"asked": model.asked(test, pictures)}
        given, how = (test, pictures), known.get(folder, {})
        if name == TOGETHER:
            found = model.predict(*given, sentences=True, **how)
            _write(cache, name, {"predictions": found})
            continue
        tables = {"predictions": model.predict(*given, **how)}
        seen = model.seen(pictures, ids)
        boxes, present = model.look(asked.text.tolist(), seen, rows)
        finite = int(np.isfinite(boxes).all(axis=-1).sum())
        if boxes.shape != (len(asked), 4) or finite < len(asked):
            raise ValueError(
                f"{name}: expected finite boxes ({len(asked)}, 4), got {boxes.shape}, "
                f"{finite} of them finite"
            )
        tables["perturbations"] = answered = asked[[*entities.MENTION_KEY, "change"]].copy()
        answered[box_ops.COLUMNS] = boxes
        if present is not None:
            pairs = asked.change.isin(perturbations.PAIRS)
            tables["presence"] = asked.assign(present=present)[pairs]
        if model.sees:
            tables["photos"] = _ask_photos(model)
        if len(of_alike):
            tables["alike"] = _ask_alike(model, of_alike, seen, alike_rows)
        if len(of_alike) and model.from_pixels:
            tables["alike_unplaced"] = _ask_alike(model, of_alike, seen, alike_rows, placed=False)
        if model.from_pixels:
            tables["photos_once"] = _ask_photos(model, closer=False)
        if model.from_pixels and model.instances is not None:
            tables["things"] = model.predict(*given, instances=True, **how)
        _write(cache, name, tables)


def _ask_alike(model, asked: pd.DataFrame, seen, rows: np.ndarray, **how) -> pd.DataFrame:
    """Questions of `alike` with the best box of each."""
    boxes, _ = model.look(asked.phrase.tolist(), seen, rows, **how)
    return asked.assign(**dict(zip(alike.GUESS, boxes.T, strict=True)))


def _ask_photos(model, **how) -> pd.DataFrame:
    """The best box, its score and `present` of each phrase for a photo that ships."""
    tables = [pd.read_csv(path)[["photo", "phrase"]] for path in (PHOTO_PHRASES, PHOTO_BOXES)]
    photos = pd.concat(tables).drop_duplicates().sort_values("photo", kind="stable")
    answers = []
    for photo, of in photos.groupby("photo").phrase:
        answers += model.ground(PHOTOS / f"{photo}.jpg", of.tolist(), top_k=1, **how)
    photos[box_ops.COLUMNS] = np.stack([answer.boxes[0] for answer in answers])
    return photos.assign(present=[answer.present for answer in answers])


def _write(cache: Path, name: str, tables: dict[str, pd.DataFrame]) -> None:
    metrics.check_predictions(tables["predictions"], name)
    stamp = cache / "predictions" / f"{name}.json"
    stamp.unlink(missing_ok=True)
    for folder, table in tables.items():
        with atomic(cache / folder / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    write_text(stamp, _stamp(cache, name))


def load(cache: Path) -> dict[str, pd.DataFrame]:
    """Checked prediction tables of all models that have some, in the order of the tables."""
    paths = {name: cache / "predictions" / f"{name}.parquet" for name in names(cache)}
    found = {name: metrics.read_predictions(path) for name, path in paths.items() if path.is_file()}
    if not found:
        raise FileNotFoundError(
            f"{cache / 'predictions'}: expected tables of predictions, found none. Run "
            "notebook 04, then 05 with renew=true"
        )
    return found


def load_beside(cache: Path, folder: str, wanted: list[str]) -> dict[str, pd.DataFrame]:
    """Tables of a folder beside `predictions`, of those models that have one."""
    paths = {name: cache / folder / f"{name}.parquet" for name in wanted}
    return {name: pd.read_parquet(path) for name, path in paths.items() if path.is_file()}
