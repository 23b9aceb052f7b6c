"""Score predicted boxes against Flickr30k Entities, in NumPy and pandas alone.

The only inputs are a table of predictions and the annotations. Every mention with at least one box
counts; a mention without a prediction counts as missed. Two usual protocols: `merged`, truth is
the one box around all of the phrase's boxes; `any`, the best of the phrase's boxes counts
(Kamath et al., MDETR, ICCV 2021, use both).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import boxes as box_type
from scene_utils.entities import MENTION_KEY as KEY
from scene_utils.entities import PREDICTION_COLUMNS

PROTOCOLS = ("merged", "any")
THRESHOLDS = (0.3, 0.5, 0.7)
METRICS = ["mean_iou", *(f"accuracy_{threshold}" for threshold in THRESHOLDS), "pointing"]


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read and check a prediction file; see `check_predictions`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: expected a parquet file of predictions, found no file")
    try:
        table = pd.read_parquet(path)
    except Exception as error:  # pyarrow raises several types on damaged files
        raise ValueError(f"{path}: expected a parquet file of predictions, got {error}") from error
    return check_predictions(table, str(path))


def check_predictions(table: pd.DataFrame, name: str = "predictions") -> pd.DataFrame:
    """Predictions with columns `PREDICTION_COLUMNS`, as strings, integers and the box type.

    `rank` counts from 1, the best, for each mention. Raises ValueError that names the column or
    row: a missing column, a wrong type, what is no box, a rank given twice.
    """
    missing = [column for column in PREDICTION_COLUMNS if column not in table]
    if missing:
        raise ValueError(
            f"{name}: expected columns {PREDICTION_COLUMNS}, missing {missing}, got {list(table)}"
        )
    table = table[PREDICTION_COLUMNS].copy()
    table["image_id"] = table["image_id"].astype("str")
    for column in [*KEY[1:], "rank"]:
        try:
            whole = table[column].astype("int64")
            if (whole != table[column].astype("float64")).any():
                raise ValueError("fractions")
            table[column] = whole
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected integers in {column}, got {error}") from error
    if (table["rank"] < 1).any():
        raise ValueError(f"{name}: expected rank to count from 1, got {table['rank'].min()}")
    try:
        corners = table[box_type.COLUMNS].to_numpy(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers in {', '.join(box_type.COLUMNS)}, got {error}"
        ) from error
    table[box_type.COLUMNS] = box_type.check(corners, name)
    twice = table.duplicated([*KEY, "rank"])
    if twice.any():
        row = table.loc[twice.idxmax(), [*KEY, "rank"]].to_dict()
        raise ValueError(f"{name}: expected each rank once for a mention, got twice {row}")
    return table


def score_mentions(
    predictions: pd.DataFrame, phrases: pd.DataFrame, boxes: pd.DataFrame
) -> pd.DataFrame:
    """A row for each boxed mention of `phrases`: its key, `answered`, and by protocol IoU and hit.

    Columns `iou_merged`, `iou_any` in [0, 1] and `point_merged`, `point_any` (the predicted box's
    centre lies in a true box). Only rank 1 is looked at.
    """
    best = predictions[predictions["rank"] == 1]
    truth = phrases[phrases.n_boxes > 0]
    table = truth.astype(dict.fromkeys(KEY[1:], "int64")).merge(
        best[[*KEY, *box_type.COLUMNS]], on=KEY, how="left", suffixes=("", "_predicted")
    )
    guess = table[[f"{column}_predicted" for column in box_type.COLUMNS]].to_numpy(np.float32)
    answered = np.isfinite(guess).all(axis=1)
    guess = np.nan_to_num(guess)
    merged = table[box_type.COLUMNS].to_numpy(np.float32)
    table["answered"] = answered
    table["iou_merged"] = box_type.iou(guess, merged)
    table["point_merged"] = _points_into(guess, merged) & answered

    pairs = table[["image_id", "phrase_id"]].reset_index(names="row")
    pairs = pairs.merge(boxes, on=["image_id", "phrase_id"], how="inner").sort_values("row")
    single = pairs[box_type.COLUMNS].to_numpy(np.float32)
    rows = pairs["row"].to_numpy()
    if len(np.unique(rows)) != len(table):
        raise ValueError("expected a box in `boxes` for each phrase with n_boxes > 0")
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    iou = box_type.iou(guess[rows], single)
    table["iou_any"] = np.maximum.reduceat(iou, starts) if len(rows) else np.zeros(0)
    points = _points_into(guess[rows], single)
    table["point_any"] = np.logical_or.reduceat(points, starts) & answered if len(rows) else False
    return table[
        [*KEY, "phrase", "category", "answered"]
        + [f"{kind}_{protocol}" for protocol in PROTOCOLS for kind in ("iou", "point")]
    ]


def _points_into(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    centre = (guess[:, :2] + guess[:, 2:]) / 2
    return ((centre >= truth[:, :2]) & (centre < truth[:, 2:])).all(axis=1)


def metric_values(scored: pd.DataFrame, protocol: str) -> np.ndarray:
    """The `METRICS` of each mention, `(n, 5)` float64; their means are the figures."""
    iou = scored[f"iou_{protocol}"].to_numpy(np.float64)
    columns = [iou, *(iou >= threshold for threshold in THRESHOLDS), scored[f"point_{protocol}"]]
    return np.stack(columns, axis=1).astype(np.float64)


def bootstrap(
    values: np.ndarray, clusters: Sequence, resamples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of column means when whole clusters (images) are drawn anew.

    `values` `(n, m)`, `clusters` `(n,)`; gives low and high, `(m,)` each. Mentions of one image
    are not independent, so images are the unit (Efron & Tibshirani 1993, ch. 8).
    """
    codes, names = pd.factorize(np.asarray(clusters))
    n = len(names)
    sums = np.stack([np.bincount(codes, column, n) for column in values.T], axis=1)
    sizes = np.bincount(codes, minlength=n)
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    means = (draws @ sums) / (draws @ sizes)[:, None]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def evaluate(
    predictions: pd.DataFrame,
    phrases: pd.DataFrame,
    boxes: pd.DataFrame,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """Counts, and for each protocol each of `METRICS` as `{"value", "low", "high"}` in [0, 1].

    `phrases` and `boxes` are those of `entities.Entities`, already cut to the mentions to score.
    """
    scored = score_mentions(predictions, phrases, boxes)
    if scored.empty:
        raise ValueError("expected mentions with a box to score, got none in this split")
    asked = pd.MultiIndex.from_frame(phrases[KEY].astype(dict.fromkeys(KEY[1:], "int64")))
    given = pd.MultiIndex.from_frame(predictions.loc[predictions["rank"] == 1, KEY])
    result: dict = {
        "images": int(scored.image_id.nunique()),
        "mentions": len(scored),
        "answered": int(scored.answered.sum()),
        "predictions_not_asked_for": int((~given.isin(asked)).sum()),
        "bootstrap": {"unit": "image", "resamples": resamples, "seed": seed, "level": 0.95},
    }
    for protocol in PROTOCOLS:
        values = metric_values(scored, protocol)
        low, high = bootstrap(values, scored.image_id, resamples, seed)
        result[protocol] = {
            metric: {
                "value": round(float(value), 6),
                "low": round(float(below), 6),
                "high": round(float(above), 6),
            }
            for metric, value, below, above in zip(
                METRICS, values.mean(axis=0), low, high, strict=True
            )
        }
    return result


def table(results: dict[str, dict], protocol: str = "merged") -> pd.DataFrame:
    """One row a model, one column a metric, as `value [low, high]`; IoU in 1, the rest in %."""
    rows = {}
    for model, result in results.items():
        rows[model] = {
            metric.replace("_", " "): _cell(result[protocol][metric], metric) for metric in METRICS
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def _cell(figure: dict, metric: str) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    if metric == "mean_iou":
        return f"{value:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
