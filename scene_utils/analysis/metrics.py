"""Score predicted boxes against Flickr30k Entities, in NumPy and pandas alone.

Every mention with at least one box counts; one without a prediction counts as missed. The protocols
are those of MDETR's Flickr30k evaluation (Kamath et al., ICCV 2021): `merged`, truth is the one box
around all of the phrase's boxes; `any`, the best of the phrase's boxes counts. Recall at k: one of
the k first boxes reaches IoU .5; the upper bound lets all of a mention's boxes count. MDETR counts
a phrase of several categories in each, here it counts in the first as written, so that categories
add up to all: of the 14,481 boxed test mentions 77 have two.
"""

import functools
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset.mentions import MENTION_KEY as KEY
from scene_utils.dataset.mentions import PREDICTION_COLUMNS

PROTOCOLS = ("merged", "any")
THRESHOLDS = (0.3, 0.5, 0.7)
RECALLS = {"1": "iou", "5": "top5", "10": "top10", "upper_bound": "best"}  # and their columns
CATEGORIES = (
    *("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other"),
)
# The two by which models are told apart; all of them.
MAIN_METRICS = ("mean_iou", "accuracy_0.5")
METRICS = ["mean_iou", *(f"accuracy_{threshold}" for threshold in THRESHOLDS), "pointing"]


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read a prediction file and `check_predictions`: CSV or JSON by its ending, else parquet.

    JSON holds a list of rows, or an object of columns; .jsonl a row a line. Raises
    FileNotFoundError, and ValueError that says what was expected and found.
    """
    path = Path(path)
    kind = {".csv": "CSV", ".json": "JSON", ".jsonl": "JSON"}.get(path.suffix.lower(), "parquet")
    wanted = f"{path}: expected a {kind} file of predictions with columns {PREDICTION_COLUMNS}"
    if not path.is_file():
        raise FileNotFoundError(f"{wanted}, found no file")
    try:
        if kind == "CSV":
            # Without further care "007" becomes a number, and the phrase "nan" no phrase.
            texts = {"image_id": "str", "phrase": "str"}
            numbers = {name: [""] for name in PREDICTION_COLUMNS if name not in texts}
            table = pd.read_csv(path, dtype=texts, na_values=numbers, keep_default_na=False)
        elif kind == "JSON":
            lines = path.suffix.lower() == ".jsonl"
            table = pd.read_json(path, lines=lines, dtype=False, precise_float=True)
        else:
            table = pd.read_parquet(path)
    except Exception as error:  # pyarrow and pandas raise several types on damaged files
        other = " (CSV files end in .csv, JSON in .json)" if kind == "parquet" else ""
        raise ValueError(f"{wanted}, got {error}{other}") from error
    return check_predictions(table, str(path))


def check_predictions(table: pd.DataFrame, name: str = "predictions") -> pd.DataFrame:
    """Predictions with columns `PREDICTION_COLUMNS`, as strings, integers and the box type.

    `rank` counts from 1, the best, for each mention. Raises ValueError that names the column or
    row: a missing column, a wrong type, what is no box, a rank given twice.
    """
    if missing := [column for column in PREDICTION_COLUMNS if column not in table]:
        raise ValueError(
            f"{name}: expected columns {PREDICTION_COLUMNS}, missing {missing}, got {list(table)}"
        )
    table = table[PREDICTION_COLUMNS].reset_index(drop=True)
    table["image_id"] = table["image_id"].astype("str")
    for column in [*KEY[1:], "rank"]:
        try:
            # By way of Int64, which refuses fractions.
            table[column] = pd.to_numeric(table[column]).astype("Int64").astype("int64")
        except (OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: expected integers in {column}, got {error}") from error
    if (table["rank"] < 1).any():
        raise ValueError(f"{name}: expected rank to count from 1, got {table['rank'].min()}")
    try:
        corners = table[box_ops.COLUMNS].to_numpy(np.float32)
        table["score"] = table["score"].astype("float64")
    except (TypeError, ValueError) as error:
        columns = ", ".join([*box_ops.COLUMNS, "score"])
        raise ValueError(f"{name}: expected numbers in {columns}, got {error}") from error
    table[box_ops.COLUMNS] = box_ops.check(corners, name)
    twice = table.duplicated([*KEY, "rank"])
    if twice.any():
        row = table.loc[twice.idxmax(), [*KEY, "rank"]].to_dict()
        raise ValueError(f"{name}: expected each rank once for a mention, got twice {row}")
    return table


def score_mentions(
    predictions: pd.DataFrame, phrases: pd.DataFrame, boxes: pd.DataFrame
) -> pd.DataFrame:
    """A row for each boxed mention of `phrases`, in their order.

    Columns: its key, phrase and category; `answered` (there is a box of rank 1); `score` (of it,
    else NaN); and for each protocol, such as merged, `iou_merged` and `point_merged` of rank 1 (IoU
    in [0, 1]; the box's centre lies in a true box), and `top5_merged`, `top10_merged` and
    `best_merged`, the highest IoU among the 5 and 10 first and among all boxes.
    """
    truth = phrases[phrases.n_boxes > 0]
    if len(truth.merge(boxes, on=["image_id", "phrase_id"], how="left_anti")):
        raise ValueError("expected a box in `boxes` for each phrase with n_boxes > 0")
    table = truth[[*KEY, "phrase", "category"]].reset_index(drop=True)
    numbered = table[KEY].reset_index(names="row")
    given = predictions[[*KEY, "rank", "score", *box_ops.COLUMNS]].merge(numbered, on=KEY)
    rows, first = given["row"].to_numpy(), (given["rank"] == 1).to_numpy()
    guess = given[box_ops.COLUMNS].to_numpy(np.float32)
    table["answered"] = np.bincount(rows[first], minlength=len(table)) > 0
    table["score"] = np.nan
    table.loc[rows[first], "score"] = given["score"].to_numpy(np.float64)[first]
    merged = truth[box_ops.COLUMNS].to_numpy(np.float32)[rows]
    # Each guess against each of its phrase's boxes.
    pairs = given[["image_id", "phrase_id"]].reset_index(names="guess")
    pairs = pairs.merge(boxes, on=["image_id", "phrase_id"])
    single, paired = pairs[box_ops.COLUMNS].to_numpy(np.float32), guess[pairs["guess"]]
    each = {"iou": box_ops.iou(paired, single), "hit": box_ops.holds_centre(single, paired)}
    best = pairs.assign(**each).groupby("guess")[["iou", "hit"]].max()
    for protocol, iou, points in (
        ("merged", box_ops.iou(guess, merged), box_ops.holds_centre(merged, guess)),
        ("any", best.iou.to_numpy(), best.hit.to_numpy()),
    ):
        for name, last in zip(RECALLS.values(), (1, 5, 10, np.inf), strict=True):
            highest = pd.Series(iou).where(given["rank"] <= last, 0).groupby(rows).max()
            table[f"{name}_{protocol}"] = highest.reindex(table.index, fill_value=0)
        table[f"point_{protocol}"] = False
        table.loc[rows[first], f"point_{protocol}"] = points[first]
    return table


def main_values(scored: pd.DataFrame) -> np.ndarray:
    """The `MAIN_METRICS` of each mention, merged box, `(n, 2)` float64."""
    iou = scored.iou_merged.to_numpy(np.float64)
    return np.stack([iou, iou >= 0.5], axis=1)


@functools.lru_cache(maxsize=8)
def draw_clusters(n: int, resamples: int, seed: int) -> np.ndarray:
    """How often each of n clusters stands in each resample of n, `(resamples, n)` float64."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    return drawn.astype(np.float64)


def figure(value: float, low: float, high: float) -> dict[str, float]:
    """A figure with its interval, as all results hold it."""
    numbers = {"value": value, "low": low, "high": high}
    return {name: round(float(number), 6) for name, number in numbers.items()}


def figures(
    values: np.ndarray, clusters: Sequence, group: np.ndarray | None = None, resamples=1000, seed=0
) -> list[dict]:
    """Column means of `values` `(n, m)`, of all rows or of a `group` `(n,)` bool, as figures.

    Their 95 % percentile intervals are those of whole `clusters` `(n,)` drawn anew, here images:
    mentions of one image are not independent (Efron & Tibshirani 1993, ch. 8). `resamples` and
    `seed` are what `**draws` hands on elsewhere.
    """
    codes, names = pd.factorize(np.asarray(clusters))
    n = len(names)
    member = np.ones(len(values)) if group is None else np.asarray(group, np.float64)
    sums = np.stack([np.bincount(codes, column * member, n) for column in values.T], axis=1)
    sizes = np.bincount(codes, member, n)[:, None]
    draws = draw_clusters(n, resamples, seed)
    # A small group may be missing from a resample, which then says nothing about it.
    with np.errstate(invalid="ignore"):
        drawn = (draws @ sums) / (draws @ sizes)
    low, high = np.nanpercentile(drawn, [2.5, 97.5], axis=0)
    means = (values if group is None else values[group]).mean(axis=0)
    return [figure(*numbers) for numbers in zip(means, low, high, strict=True)]


def evaluate(
    predictions: pd.DataFrame, phrases: pd.DataFrame, boxes: pd.DataFrame, resamples=1000, seed=0
) -> dict:
    """Counts, and for each protocol each of `METRICS` as `{"value", "low", "high"}` in [0, 1].

    `phrases` and `boxes` are those of `entities.Entities`, already cut to the mentions to score.
    """
    scored = score_mentions(predictions, phrases, boxes)
    if scored.empty:
        raise ValueError("expected mentions with a box to score, got none in this split")
    first = predictions[predictions["rank"] == 1]
    draws = {"resamples": resamples, "seed": seed}
    result: dict = {
        "images": int(scored.image_id.nunique()),
        "mentions": len(scored),
        "answered": int(scored.answered.sum()),
        "predictions_not_asked_for": len(first.merge(phrases[KEY], on=KEY, how="left_anti")),
        "bootstrap": {"unit": "image", **draws, "level": 0.95},
        "recall": {},
    }
    groups = {"all": np.ones(len(scored), bool)}
    groups |= {kind: (scored.category == kind).to_numpy() for kind in CATEGORIES}
    for protocol in PROTOCOLS:
        iou = scored[f"iou_{protocol}"].to_numpy(np.float64)
        values = [iou, *(iou >= least for least in THRESHOLDS), scored[f"point_{protocol}"]]
        found = figures(np.stack(values, axis=1).astype(np.float64), scored.image_id, **draws)
        result[protocol] = dict(zip(METRICS, found, strict=True))
        names = [f"{name}_{protocol}" for name in RECALLS.values()]
        hits = (scored[names].to_numpy() >= 0.5).astype(np.float64)
        result["recall"][protocol] = {
            name: {"mentions": int(group.sum())}
            | dict(zip(RECALLS, figures(hits, scored.image_id, group, **draws), strict=True))
            for name, group in groups.items()
            if group.any()
        }
    return result


def differences(scored: dict[str, pd.DataFrame], **draws: int) -> pd.DataFrame:
    """Each model against each later one on the same mentions, by paired bootstrap over images.

    A row a pair and metric of `MAIN_METRICS`, merged box: better, worse (by value), metric, value
    (better minus worse), low, high, and `real`: the 95 % interval of the difference leaves out 0.
    Intervals are those of each pair alone; among many pairs some leave out 0 by chance.
    """
    rows = []
    for (one, first), (other, second) in combinations(scored.items(), 2):
        if not first[KEY].equals(second[KEY]):
            raise ValueError(f"expected the same mentions for {one} and {other}, got others")
        found = figures(main_values(first) - main_values(second), first.image_id, **draws)
        for metric, apart in zip(MAIN_METRICS, found, strict=True):
            row = {"better": one, "worse": other, "metric": metric} | apart
            if apart["value"] < 0:
                row |= {"better": other, "worse": one}
                row |= figure(-apart["value"], -apart["high"], -apart["low"])
            rows.append(row | {"real": not row["low"] <= 0 <= row["high"]})
    return pd.DataFrame(rows, columns=["better", "worse", "metric", "value", "low", "high", "real"])
