"""Score predicted boxes against Flickr30k Entities, in NumPy and pandas alone.

The only inputs are a table of predictions and the annotations. Every mention with at least one box
counts; a mention without a prediction counts as missed. The protocols are those of MDETR's
Flickr30k evaluation (Kamath et al., ICCV 2021): `merged`, truth is the one box around all of the
phrase's boxes; `any`, the best of the phrase's boxes counts. Recall at k: one of the k first
boxes reaches IoU .5; the upper bound lets all of a mention's boxes count. MDETR counts a phrase
of several categories in each of them, here it counts in the first as written, so that categories
add up to all: of the 14,481 boxed test mentions 77 have two categories.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset.entities import MENTION_KEY as KEY
from scene_utils.dataset.entities import PREDICTION_COLUMNS

PROTOCOLS = ("merged", "any")
THRESHOLDS = (0.3, 0.5, 0.7)
RANKS = (1, 5, 10)
CATEGORIES = (
    *("people", "clothing", "bodyparts", "animals", "vehicles", "instruments", "scene", "other"),
)
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
        corners = table[box_ops.COLUMNS].to_numpy(np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name}: expected numbers in {', '.join(box_ops.COLUMNS)}, got {error}"
        ) from error
    table[box_ops.COLUMNS] = box_ops.check(corners, name)
    twice = table.duplicated([*KEY, "rank"])
    if twice.any():
        row = table.loc[twice.idxmax(), [*KEY, "rank"]].to_dict()
        raise ValueError(f"{name}: expected each rank once for a mention, got twice {row}")
    return table


def score_mentions(
    predictions: pd.DataFrame, phrases: pd.DataFrame, boxes: pd.DataFrame
) -> pd.DataFrame:
    """A row for each boxed mention of `phrases`, in their order: its key, phrase, category, and

    `answered` (there is a box of rank 1), `score` (of it, else NaN), `candidates` (number of
    boxes), and for each protocol `iou_merged` and `point_merged` of rank 1 (IoU in [0, 1]; the
    box's centre lies in a true box), `top5_merged`, `top10_merged` and `best_merged`, the highest
    IoU among the 5 and 10 first and among all boxes. `top1` would be `iou`.
    """
    truth = phrases[phrases.n_boxes > 0].astype(dict.fromkeys(KEY[1:], "int64"))
    known = pd.MultiIndex.from_frame(boxes[["image_id", "phrase_id"]])
    if not pd.MultiIndex.from_frame(truth[["image_id", "phrase_id"]]).isin(known).all():
        raise ValueError("expected a box in `boxes` for each phrase with n_boxes > 0")
    table = truth[[*KEY, "phrase", "category"]].reset_index(drop=True)
    given = predictions[[*KEY, "rank", "score", *box_ops.COLUMNS]].merge(
        table[KEY].reset_index(names="row"), on=KEY, how="inner"
    )
    rows, first = given["row"].to_numpy(), (given["rank"] == 1).to_numpy()
    guess = given[box_ops.COLUMNS].to_numpy(np.float32)
    table["answered"] = np.bincount(rows[first], minlength=len(table)) > 0
    table["score"] = np.nan
    table.loc[rows[first], "score"] = given["score"].to_numpy(np.float64)[first]
    table["candidates"] = np.bincount(rows, minlength=len(table))
    merged = truth[box_ops.COLUMNS].to_numpy(np.float32)[rows]
    for protocol, iou, points in (
        ("merged", box_ops.iou(guess, merged), _points_into(guess, merged)),
        ("any", *_best_of_each(given, guess, boxes)),
    ):
        for name, last in (("iou", 1), ("top5", 5), ("top10", 10), ("best", np.inf)):
            counts = (given["rank"] <= last).to_numpy()
            best = np.zeros(len(table))
            np.maximum.at(best, rows[counts], iou[counts])
            table[f"{name}_{protocol}"] = best
        table[f"point_{protocol}"] = False
        table.loc[rows[first], f"point_{protocol}"] = points[first]
    return table


def _best_of_each(given: pd.DataFrame, guess: np.ndarray, boxes: pd.DataFrame):
    """Highest IoU with a box of the phrase, and whether the centre lies in one, `(n,)` each."""
    pairs = given[["image_id", "phrase_id"]].reset_index(names="guess")
    pairs = pairs.merge(boxes, on=["image_id", "phrase_id"], how="inner")
    single = pairs[box_ops.COLUMNS].to_numpy(np.float32)
    number = pairs["guess"].to_numpy()
    iou, points = np.zeros(len(guess)), np.zeros(len(guess), bool)
    np.maximum.at(iou, number, box_ops.iou(guess[number], single))
    np.logical_or.at(points, number, _points_into(guess[number], single))
    return iou, points


def _points_into(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    centre = (guess[:, :2] + guess[:, 2:]) / 2
    return ((centre >= truth[:, :2]) & (centre < truth[:, 2:])).all(axis=1)


def metric_values(scored: pd.DataFrame, protocol: str) -> np.ndarray:
    """The `METRICS` of each mention, `(n, 5)` float64; their means are the figures."""
    iou = scored[f"iou_{protocol}"].to_numpy(np.float64)
    columns = [iou, *(iou >= threshold for threshold in THRESHOLDS), scored[f"point_{protocol}"]]
    return np.stack(columns, axis=1).astype(np.float64)


def recall_values(scored: pd.DataFrame, protocol: str) -> np.ndarray:
    """Hits at IoU .5 among the 1, 5, 10 first and all boxes of each mention, `(n, 4)` float64."""
    names = [f"{name}_{protocol}" for name in ("iou", "top5", "top10", "best")]
    return (scored[names].to_numpy() >= 0.5).astype(np.float64)


def bootstrap(
    values: np.ndarray,
    clusters: Sequence,
    resamples: int = 1000,
    seed: int = 0,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """95 % percentile interval of column means when whole clusters (images) are drawn anew.

    `values` `(n, m)`, `clusters` `(n,)`; gives low and high, `(m,)` each. Mentions of one image
    are not independent, so images are the unit (Efron & Tibshirani 1993, ch. 8). `weights`
    `(n, m)` make the means weighted ones: a column of 0 and 1 cuts it to a group of mentions.
    """
    codes, names = pd.factorize(np.asarray(clusters))
    n = len(names)
    if weights is None:
        weights = np.ones((len(values), 1))
    sums, sizes = (
        np.stack([np.bincount(codes, column, n) for column in columns.T], axis=1)
        for columns in (values * weights, weights)
    )
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples)
    draws = draws.astype(np.float64)
    drawn, sizes = np.broadcast_arrays(draws @ sums, draws @ sizes)
    # A small group may be missing from a resample, which then says nothing about it.
    means = np.divide(drawn, sizes, out=np.full(drawn.shape, np.nan), where=sizes > 0)
    low, high = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high


def figure(value: float, low: float, high: float) -> dict[str, float]:
    """A figure with its interval, as all results hold it."""
    pairs = zip(("value", "low", "high"), (value, low, high), strict=True)
    return {name: round(float(number), 6) for name, number in pairs}


def grouped(
    values: np.ndarray,
    groups: np.ndarray,
    clusters: Sequence,
    resamples: int = 1000,
    seed: int = 0,
) -> list[list[dict]]:
    """Means of each column within each group, with intervals: a list a group of figures.

    `values` `(n, m)`, `groups` `(n, g)` bool, each with a mention in it.
    """
    m = values.shape[1]
    weights = np.repeat(groups.astype(np.float64), m, axis=1)
    tiled = np.tile(values, groups.shape[1])
    means = (tiled * weights).sum(axis=0) / weights.sum(axis=0)
    low, high = bootstrap(tiled, clusters, resamples, seed, weights)
    flat = [figure(*numbers) for numbers in zip(means, low, high, strict=True)]
    return [flat[start : start + m] for start in range(0, len(flat), m)]


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
    everything = np.ones((len(scored), 1), bool)
    kinds = [name for name in CATEGORIES if (scored.category == name).any()]
    groups = np.stack([everything[:, 0], *((scored.category == name) for name in kinds)], axis=1)
    result["recall"] = {}
    for protocol in PROTOCOLS:
        values = metric_values(scored, protocol)
        (figures,) = grouped(values, everything, scored.image_id, resamples, seed)
        result[protocol] = dict(zip(METRICS, figures, strict=True))
        recall = grouped(recall_values(scored, protocol), groups, scored.image_id, resamples, seed)
        result["recall"][protocol] = {
            name: {"mentions": int(group.sum())}
            | dict(zip((*map(str, RANKS), "upper_bound"), figures, strict=True))
            for name, group, figures in zip(("all", *kinds), groups.T, recall, strict=True)
        }
    return result


def differences(
    scored: dict[str, pd.DataFrame],
    protocol: str = "merged",
    metrics: Sequence[str] = ("mean_iou", "accuracy_0.5"),
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Each model against each later one on the same mentions, by paired bootstrap over images.

    A row a pair and metric: better, worse (by value), metric, value (better minus worse), low,
    high, and `real`: the 95 % interval of the difference leaves out 0. Intervals are those of
    each pair alone; among many pairs some leave out 0 by chance.
    """
    names, columns = list(scored), [METRICS.index(metric) for metric in metrics]
    keys = scored[names[0]][KEY]
    for name in names[1:]:
        if not scored[name][KEY].equals(keys):
            raise ValueError(f"expected the same mentions for {names[0]} and {name}, got others")
    values = [metric_values(scored[name], protocol)[:, columns] for name in names]
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    rows = []
    if pairs:
        apart = np.concatenate([values[i] - values[j] for i, j in pairs], axis=1)
        low, high = bootstrap(apart, scored[names[0]].image_id, resamples, seed)
        numbers = np.stack([apart.mean(axis=0), low, high], axis=1)
        tasks = [(i, j, metric) for i, j in pairs for metric in metrics]
        for (i, j, metric), (value, below, above) in zip(tasks, numbers, strict=True):
            if value < 0:
                i, j, value, below, above = j, i, -value, -above, -below
            real = bool(below > 0 or above < 0)
            rows.append(
                {"better": names[i], "worse": names[j], "metric": metric}
                | figure(value, below, above)
                | {"real": real}
            )
    return pd.DataFrame(rows, columns=["better", "worse", "metric", "value", "low", "high", "real"])


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


def recall_table(results: dict[str, dict], protocol: str = "any") -> pd.DataFrame:
    """One row a model: recall at 1, 5, 10 and the upper bound over all mentions, in %."""
    rows = {}
    for model, result in results.items():
        found = result["recall"][protocol]["all"]
        rows[model] = {f"R@{rank}": _cell(found[str(rank)], "recall") for rank in RANKS}
        rows[model]["upper bound"] = _cell(found["upper_bound"], "recall")
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def category_table(results: dict[str, dict], protocol: str = "any", rank: int = 1) -> pd.DataFrame:
    """One row a model, one column a category with its number of mentions: recall at `rank`, %."""
    rows = {}
    for model, result in results.items():
        rows[model] = {
            f"{name} ({found['mentions']:,})": f"{100 * found[str(rank)]['value']:.1f}"
            for name, found in result["recall"][protocol].items()
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
