"""What decides whether a box is right, which mistakes are made, and what a score is worth.

Pure functions on `metrics.score_mentions`' rows and the entities tables; boxes are the one box
type. Everything here is about the merged box at IoU .5, the field's usual figure.
"""

from collections.abc import Container
from itertools import pairwise

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.analysis import metrics, perturbations
from scene_utils.dataset.entities import MENTION_KEY as KEY
from scene_utils.stats import area_under_roc
from scene_utils.words import tokenize

# Common words of captions, for want of a tagger.
COLOURS = (
    "red orange yellow green blue purple pink brown black white grey gray tan beige blond blonde "
    "dark light bright colorful colored striped checked plaid spotted dotted plain"
)
OTHERS = (
    "small big large little tiny huge tall short long old young elderly middle-aged wooden metal "
    "hooded shirtless bald bearded muddy snowy sandy rocky grassy wet dirty crowded empty"
)
RELATIONS = (
    "on in with of at by near behind under below above over beside between against around inside "
    "next front left right top wearing holding"
)

# Edges of each bin are lower ones; the last bin is open.
BINS = {
    "box area (% of the picture)": [0, 2, 5, 10, 20, 40, 70],
    "words in the phrase": [1, 2, 3, 4, 5, 6],
    "objects of its category": [1, 2, 3, 4, 6, 9],
    "boxes of the phrase": [1, 2, 3, 4, 6],
    "words unknown to GloVe": [0, 1],
}


def describe(phrases: pd.DataFrame, known: Container[str]) -> pd.DataFrame:
    """What may decide, for each boxed mention of `phrases` in their order: columns of labels.

    `phrases` holds all mentions of its pictures, so that objects can be counted: phrase ids with a
    box and of the same category in the picture, the mention's own among them. `known` are GloVe's
    words. An attribute or relation word is one of the lists above; thirds are of the merged box's
    centre. Each column is an ordered categorical.
    """
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    relative = box_ops.to_relative(
        boxed[box_ops.COLUMNS].to_numpy(np.float32),
        boxed.width.to_numpy(),
        boxed.height.to_numpy(),
    )
    words, which = _words(boxed.phrase)
    objects = boxed.groupby(["image_id", "category"]).phrase_id.transform("nunique")
    numbers = {
        "box area (% of the picture)": 100 * box_ops.area(relative),
        "words in the phrase": np.maximum([len(found) for found in words], 1)[which],
        "objects of its category": objects,
        "boxes of the phrase": boxed.n_boxes,
        "words unknown to GloVe": np.array([sum(w not in known for w in ws) for ws in words])[
            which
        ],
    }
    table = {name: _binned(np.asarray(values), BINS[name]) for name, values in numbers.items()}
    has = {
        name: np.array([not set(listed.split()).isdisjoint(found) for found in words])[which]
        for name, listed in (("colour", COLOURS), ("other", OTHERS), ("relation", RELATIONS))
    }
    attribute = np.where(has["colour"], "colour, pattern", np.where(has["other"], "other", "none"))
    table["attribute word"] = _ordered(attribute, ["none", "colour, pattern", "other"])
    table["relation word"] = _ordered(np.where(has["relation"], "yes", "no"), ["no", "yes"])
    third = np.clip(((relative[:, :2] + relative[:, 2:]) / 2 * 3).astype(int), 0, 2)
    for axis, name, labels in (
        (0, "place across", ["left", "middle", "right"]),
        (1, "place down", ["top", "middle", "bottom"]),
    ):
        table[name] = _ordered(np.array(labels)[third[:, axis]], labels)
    return pd.DataFrame(table)


def _words(phrases: pd.Series) -> tuple[list[list[str]], np.ndarray]:
    """Words of each different phrase, and which of them each mention has."""
    codes, different = pd.factorize(phrases)
    return [tokenize(phrase) for phrase in different], codes


def _ordered(values: np.ndarray, labels: list[str]) -> pd.Categorical:
    return pd.Categorical(values, labels, ordered=True)


def _binned(values: np.ndarray, edges: list[int]) -> pd.Categorical:
    whole = np.issubdtype(values.dtype, np.integer)
    labels = []
    for low, high in pairwise(edges):
        last = high - 1 if whole else high
        labels.append(f"{low}" if low == last else f"{low}-{last}")
    labels.append(f"{edges[-1]}+" if whole else f"{edges[-1]}-100")
    place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(labels) - 1)
    return pd.Categorical.from_codes(place, labels, ordered=True)


def by_group(
    scored: dict[str, pd.DataFrame],
    described: pd.DataFrame,
    least: int = 10,
    resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Accuracy at IoU .5 of each model in each bin of each column of `described`.

    A row a model, column and bin: model, what, bin, mentions, value, low, high. Bins of fewer than
    `least` mentions are left out: no interval means anything there.
    """
    tasks, groups = [], []
    for what in described:
        for label in described[what].cat.categories:
            member = (described[what] == label).to_numpy()
            if member.sum() >= least:
                tasks.append((what, label, int(member.sum())))
                groups.append(member)
    images = next(iter(scored.values())).image_id
    hits = np.stack([table.iou_merged >= 0.5 for table in scored.values()], axis=1).astype(float)
    found = metrics.grouped(hits, np.stack(groups, axis=1), images, resamples, seed)
    rows = [
        {"model": model, "what": what, "bin": label, "mentions": count} | figure
        for (what, label, count), figures in zip(tasks, found, strict=True)
        for model, figure in zip(scored, figures, strict=True)
    ]
    return pd.DataFrame(rows)


def calibration(scored: pd.DataFrame, bins: int = 10, resamples: int = 1000, seed: int = 0):
    """Score against accuracy in `bins` equally filled bins, or None where all scores are equal.

    A row a bin: score (mean), mentions, value, low, high; `attrs["error"]` is the expected
    calibration error, the mean of |score - accuracy| over mentions (Guo et al., ICML 2017).
    Mentions without a box are left out.
    """
    answered = scored[scored.answered]
    score = answered.score.to_numpy(np.float64)
    if len(score) == 0 or score.min() == score.max():
        return None
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(edges) - 2)
    groups = place[:, None] == np.arange(len(edges) - 1)
    groups = groups[:, groups.any(axis=0)]
    hits = (answered.iou_merged.to_numpy() >= 0.5).astype(np.float64)[:, None]
    found = metrics.grouped(hits, groups, answered.image_id, resamples, seed)
    table = pd.DataFrame(
        {"score": float(score[group].mean()), "mentions": int(group.sum())} | figures[0]
        for group, figures in zip(groups.T, found, strict=True)
    )
    error = np.average(np.abs(table.score - table.value), weights=table.mentions)
    table.attrs["error"] = round(float(error), 6)
    return table


def presence(
    asked: pd.DataFrame, phrases: pd.DataFrame, resamples: int = 1000, seed: int = 0
) -> dict[str, dict]:
    """Does a model's `present` tell a picture's phrases from those of another picture?

    `asked` has each boxed mention twice, about its picture and about another: key, `change`,
    `text`, `picture`, `present`. Two kinds of pairs: `any phrase`, and `absent things`, those whose
    last word no phrase of the other picture uses ("a man" is in most). Of each kind: `mentions`
    (own, other), `area` under the ROC curve with its interval over images, `kept` and `flagged`
    (shares of own phrases at .5 or more, of others below), and the curve, `false_alarms` and
    `found`: for each threshold the shares of own and of other phrases that fall below it.
    """
    words = phrases.groupby("image_id").phrase.agg(lambda them: set(tokenize(" ".join(them))))
    own = asked[asked.change == perturbations.PAIRS[0]]
    other = asked[asked.change == perturbations.PAIRS[1]]
    there = np.array(
        [
            bool(said := tokenize(text)) and said[-1] in words[picture]
            for text, picture in zip(other.text, other.picture, strict=True)
        ]
    )
    kinds = {"any phrase": other, "absent things": other[~there]}
    return {
        name: _presence_of(own, kind, resamples, seed)
        for name, kind in kinds.items()
        if len(kind) and asked.present.notna().all()
    }


def _presence_of(own: pd.DataFrame, other: pd.DataFrame, resamples: int, seed: int) -> dict:
    both = pd.concat([own, other])
    images, names = pd.factorize(both.image_id)
    draws = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=resamples
    )
    scores = (own.present.to_numpy(), other.present.to_numpy())
    weights = (draws[:, images[: len(own)]], draws[:, images[len(own) :]])
    low, high = np.percentile(area_under_roc(*scores, *weights), [2.5, 97.5])
    mine = (np.arange(len(both)) < len(own))[np.argsort(both.present, kind="stable")]
    at = np.unique(np.linspace(0, len(both) - 1, 200).astype(int))
    return {
        "mentions": [len(own), len(other)],
        "area": metrics.figure(area_under_roc(*scores), low, high),
        "kept": round(float((own.present >= 0.5).mean()), 6),
        "flagged": round(float((other.present < 0.5).mean()), 6),
        "false_alarms": (np.cumsum(mine) / mine.sum())[at].round(5).tolist(),
        "found": (np.cumsum(~mine) / (~mine).sum())[at].round(5).tolist(),
    }


def presence_table(found: dict[str, dict[str, dict]]) -> pd.DataFrame:
    """A row a model and kind: area under the ROC curve with its interval, and what .5 does."""
    rows = [
        {
            "model": model,
            "phrases": kind,
            "own, other": "{:,}, {:,}".format(*of["mentions"]),
            "area": "{value:.3f} [{low:.3f}, {high:.3f}]".format(**of["area"]),
            "own kept (%)": f"{100 * of['kept']:.1f}",
            "other flagged (%)": f"{100 * of['flagged']:.1f}",
        }
        for model, kinds in found.items()
        for kind, of in kinds.items()
    ]
    return pd.DataFrame(rows)


MISTAKES = (
    "right",
    "another object of its category",
    "another object",
    "too large",
    "too small",
    "beside it",
    "nowhere near",
    "no answer",
)


def mistakes(
    scored: pd.DataFrame, predictions: pd.DataFrame, phrases: pd.DataFrame
) -> pd.DataFrame:
    """For each row of `scored`: what became of its box, and whether another's would be right.

    `mistake` is the first of `MISTAKES` that holds: IoU .5 with the truth; IoU .5 with the merged
    box of another phrase id of the picture, of the same category or not; the box holds .8 of the
    truth's area (too large); .8 of the box lies in the truth (too small); it touches the truth
    (beside it); it does not. `another_right`: the first box of another phrase id of the picture
    reaches IoU .5 with this mention's truth. `others_right`: the share of those that do, what a
    mention answered with the wrong phrase would get; NaN where the picture has no other.
    """
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    boxed = boxed.astype(dict.fromkeys(KEY[1:], "int64"))
    first = predictions[predictions["rank"] == 1][[*KEY, *box_ops.COLUMNS]]
    table = scored[[*KEY, "category"]].merge(boxed[[*KEY, *box_ops.COLUMNS]], on=KEY, how="left")
    guess = table[KEY].merge(first, on=KEY, how="left")[box_ops.COLUMNS].to_numpy(np.float32)
    guess = np.nan_to_num(guess)
    truth = table[box_ops.COLUMNS].to_numpy(np.float32)

    objects = boxed.drop_duplicates(["image_id", "phrase_id"])
    own = table[["image_id", "phrase_id", "category"]].reset_index(names="row")
    pairs = own.merge(objects, on="image_id", suffixes=("", "_other"))
    pairs = pairs[pairs.phrase_id != pairs.phrase_id_other]
    rows = pairs["row"].to_numpy()
    hit = box_ops.iou(guess[rows], pairs[box_ops.COLUMNS].to_numpy(np.float32)) >= 0.5
    same = (pairs.category == pairs.category_other).to_numpy()
    falls_on = {
        name: np.bincount(rows[chosen], minlength=len(table)) > 0
        for name, chosen in (("same", hit & same), ("other", hit & ~same))
    }

    iou = scored.iou_merged.to_numpy()
    low, high = np.maximum(guess[:, :2], truth[:, :2]), np.minimum(guess[:, 2:], truth[:, 2:])
    shared = box_ops.area(np.concatenate([low, high], axis=1))
    kinds = [
        (~scored.answered.to_numpy(), "no answer"),
        (iou >= 0.5, "right"),
        (falls_on["same"], "another object of its category"),
        (falls_on["other"], "another object"),
        (shared >= 0.8 * box_ops.area(truth), "too large"),
        (shared >= 0.8 * box_ops.area(guess), "too small"),
        (shared > 0, "beside it"),
    ]
    mistake = np.select([kind for kind, _ in kinds], [name for _, name in kinds], "nowhere near")

    # The other way round: boxes that the picture's other phrases got, against this one's truth.
    pairs = own[["row", "image_id", "phrase_id"]].merge(
        first, on="image_id", suffixes=("", "_other")
    )
    pairs = pairs[pairs.phrase_id != pairs.phrase_id_other]
    rows = pairs["row"].to_numpy()
    hit = box_ops.iou(truth[rows], pairs[box_ops.COLUMNS].to_numpy(np.float32)) >= 0.5
    hits, others = (
        np.bincount(rows[hit], minlength=len(table)),
        np.bincount(rows, minlength=len(table)),
    )
    return pd.DataFrame(
        {
            "mistake": _ordered(mistake, list(MISTAKES)),
            "another_right": hits > 0,
            "others_right": np.divide(
                hits, others, out=np.full(len(table), np.nan), where=others > 0
            ),
        }
    )


def mistake_table(found: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Shares of mentions in %, a row a model: each of `MISTAKES`, and of the missed ones those
    that another phrase's box of the picture would have answered rightly."""
    rows = {}
    for model, table in found.items():
        share = table.mistake.value_counts(normalize=True, sort=False) * 100
        missed = table.mistake != "right"
        rows[model] = {name: float(share.get(name, 0)) for name in MISTAKES}
        rows[model]["missed, another's box right"] = 100 * float(
            table.another_right[missed].mean() if missed.any() else 0
        )
        rows[model]["a random other's box right"] = 100 * float(table.others_right.mean())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model").round(2)


def pick(seen: pd.DataFrame, each: int = 3, scores: bool = False, seed: int = 0) -> pd.DataFrame:
    """Mentions to look at: `seen` with a column `group`, `each` rows a group.

    The best tenth's, those around the median and the worst tenth's by `iou_merged`, drawn at
    random, each of another picture; with `scores` also the misses of the highest score.
    """
    table = seen[seen.answered].sample(frac=1, random_state=seed)
    table = table.sort_values("iou_merged", ascending=False, kind="stable").reset_index(drop=True)
    tenth = max(len(table) // 10, each)
    middle = max(len(table) // 2 - tenth // 2, 0)
    parts = [
        (table[:tenth].sample(frac=1, random_state=seed), "best tenth"),
        (table[middle : middle + tenth].sample(frac=1, random_state=seed), "around the median"),
        (table[-tenth:].sample(frac=1, random_state=seed), "worst tenth"),
    ]
    if scores:
        missed = table[table.iou_merged < 0.5]
        parts.append((missed.sort_values("score", ascending=False, kind="stable"), "surest misses"))
    return pd.concat(
        [part.drop_duplicates("image_id")[:each].assign(group=name) for part, name in parts],
        ignore_index=True,
    )
