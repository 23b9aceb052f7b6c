"""What decides whether a merged box is right (IoU .5), which mistakes are made, what scores say."""

import re
from collections import Counter
from collections.abc import Container, Sequence

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.analysis import metrics, perturbations
from scene_utils.analysis.alike import GUESS
from scene_utils.dataset.mentions import MENTION_KEY as KEY
from scene_utils.grounding import ABSENT
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

# The bins by name, each with the number that it begins at; the last is open.
BINS = {
    "box area (% of the picture)": "0-2 2-5 5-10 10-20 20-40 40-70 70-100",
    "words in the phrase": "1 2 3 4 5 6+",
    "objects of its category": "1 2 3 4-5 6-8 9+",
    "boxes of the phrase": "1 2 3 4-5 6+",
    "words unknown to GloVe": "0 1+",
}
UNSAID = {"kept": None, "flagged": None}  # of a model that says nothing of it
# Highest number of each bin.
FREQUENCIES = {"never": 0, "1-5": 5, "6-20": 20, "21-100": 100, "101-500": 500, ">500": np.inf}
MISTAKES = (
    *("right", "another object of its category", "another object", "too large", "too small"),
    *("beside it", "nowhere near", "no answer"),
)


def describe(phrases: pd.DataFrame, known: Container[str]) -> pd.DataFrame:
    """What may decide, for each boxed mention of `phrases` in their order: categorical columns.

    `phrases` holds all mentions of its pictures, so that objects can be counted: phrase ids with a
    box and of the same category in the picture, the mention's own among them. `known` are GloVe's
    words. Thirds of the picture are those of the merged box's centre.
    """
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    relative = box_ops.relative(boxed)
    words = boxed.phrase.map({phrase: tokenize(phrase) for phrase in boxed.phrase.unique()})
    objects = boxed.groupby(["image_id", "category"]).phrase_id.transform("nunique")
    numbers = {
        "box area (% of the picture)": 100 * box_ops.area(relative),
        "words in the phrase": words.map(len).clip(lower=1),
        "objects of its category": objects,
        "boxes of the phrase": boxed.n_boxes,
        "words unknown to GloVe": words.map(lambda them: sum(w not in known for w in them)),
    }
    table = {}
    for name, values in numbers.items():
        labels = BINS[name].split()
        edges = [int(re.match(r"\d+", label)[0]) for label in labels]
        table[name] = pd.cut(values, [*edges, np.inf], right=False, labels=labels)
    colour, other, relation = (
        words.map(lambda them, listed=listed: any(word in listed for word in them))
        for listed in map(str.split, (COLOURS, OTHERS, RELATIONS))
    )
    kind = np.where(colour, 1, np.where(other, 2, 0))
    across, down = np.clip(((relative[:, :2] + relative[:, 2:]) / 2 * 3).astype(int), 0, 2).T
    named = pd.Categorical.from_codes
    table["attribute word"] = named(kind, ["none", "colour, pattern", "other"])
    table["relation word"] = named(relation.astype(int), ["no", "yes"])
    table["place across"] = named(across, ["left", "middle", "right"])
    table["place down"] = named(down, ["top", "middle", "bottom"])
    return pd.DataFrame(table)


def by_group(
    scored: dict[str, pd.DataFrame], described: pd.DataFrame, least: int = 10, **draws: int
) -> pd.DataFrame:
    """Accuracy of each model in each bin of each column of `described`, a row each: model, what,
    bin, mentions, value, low, high. Bins of fewer than `least` mentions are left out.
    """
    images = next(iter(scored.values())).image_id
    hits = np.stack([table.iou_merged >= 0.5 for table in scored.values()], axis=1).astype(float)
    rows = []
    for what in described:
        for label in described[what].cat.categories:
            member = (described[what] == label).to_numpy()
            if (count := int(member.sum())) >= least:
                row = {"what": what, "bin": label, "mentions": count}
                found = metrics.figures(hits, images, member, **draws)
                rows += [{"model": m} | row | f for m, f in zip(scored, found, strict=True)]
    return pd.DataFrame(rows)


def by_frequency(
    scored: dict[str, pd.DataFrame], phrases: pd.DataFrame, train: pd.DataFrame, **draws: int
) -> list[dict]:
    """Accuracy by how often a phrase's last word stands in the phrases of `train`.

    Rows of `by_group` with `score`, the mean of the answered ones, None for a model whose scores
    are all equal. A phrase without a word counts as never seen.
    """
    counts = Counter(word for phrase in train.phrase for word in tokenize(phrase))
    last = [(tokenize(phrase) or [""])[-1] for phrase in phrases[phrases.n_boxes > 0].phrase]
    edges = [-1, *FREQUENCIES.values()]
    bins = pd.cut([counts[word] for word in last], edges, labels=list(FREQUENCIES))
    table = by_group(scored, pd.DataFrame({"seen": bins}), 1, **draws)
    rows = table.drop(columns="what").to_dict("records")
    for row in rows:
        mentions = scored[row["model"]]
        mean = mentions.score[mentions.answered & (bins == row["bin"])].mean()
        differ = mentions.score.nunique() > 1 and not np.isnan(mean)
        row["score"] = round(float(mean), 6) if differ else None
    return rows


def by_part(scored: dict[str, pd.DataFrame], parts: Sequence[str], **draws: int) -> dict[str, dict]:
    """Of each part of a split, which `parts` names for each mention: `mentions`, and `models`, by
    name the figures of `metrics.MAIN_METRICS`."""
    found: dict[str, dict] = {}
    for part in sorted(set(parts)):
        member = np.asarray(parts) == part
        found[part] = {"mentions": int(member.sum()), "models": {}}
        for name, table in scored.items():
            values = metrics.main_values(table[member])
            figures = metrics.figures(values, table.image_id[member], **draws)
            found[part]["models"][name] = dict(zip(metrics.MAIN_METRICS, figures, strict=True))
    return found


def mistakes(
    scored: pd.DataFrame, predictions: pd.DataFrame, phrases: pd.DataFrame
) -> pd.DataFrame:
    """For each row of `scored`: what became of its box, and whether another's would be right.

    `mistake` is `no answer`, or the first of the other `MISTAKES` that holds: IoU .5 with the
    truth; IoU .5 with the merged box of another phrase id of the picture, of the same category or
    not; the box holds .8 of the truth's area (too large); .8 of the box lies in the truth (too
    small); it touches the truth (beside it); it does not. `another_right`: the first box of another
    phrase id of the picture reaches IoU .5 with this mention's truth. `others_right`: the share of
    those that do, what a mention answered with the wrong phrase would get; NaN where the picture
    has no other.
    """
    boxed = phrases[phrases.n_boxes > 0]
    first = predictions[predictions["rank"] == 1][[*KEY, *box_ops.COLUMNS]]
    table = scored[[*KEY, "category"]].merge(boxed[[*KEY, *box_ops.COLUMNS]], on=KEY, how="left")
    guess = table[KEY].merge(first, on=KEY, how="left")[box_ops.COLUMNS]
    guess = guess.fillna(0).to_numpy(np.float32)
    truth = table[box_ops.COLUMNS].to_numpy(np.float32)
    own = table[["image_id", "phrase_id", "category"]].reset_index(names="row")

    def against_others(mine: np.ndarray, theirs: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        pairs = own.merge(theirs, on="image_id", suffixes=("", "_other"))
        pairs = pairs[pairs.phrase_id != pairs.phrase_id_other]
        corners = pairs[box_ops.COLUMNS].to_numpy(np.float32)
        return pairs, box_ops.iou(mine[pairs["row"]], corners) >= 0.5

    def count(rows: pd.Series) -> np.ndarray:
        return np.bincount(rows, minlength=len(table))

    pairs, hit = against_others(guess, boxed.drop_duplicates(["image_id", "phrase_id"]))
    same = (pairs.category == pairs.category_other).to_numpy()
    shared = box_ops.intersection(guess, truth)
    kinds = {
        "no answer": ~scored.answered.to_numpy(),
        "right": scored.iou_merged.to_numpy() >= 0.5,
        "another object of its category": count(pairs["row"][hit & same]) > 0,
        "another object": count(pairs["row"][hit & ~same]) > 0,
        "too large": shared >= 0.8 * box_ops.area(truth),
        "too small": shared >= 0.8 * box_ops.area(guess),
        "beside it": shared > 0,
    }
    mistake = np.select(list(kinds.values()), list(kinds), "nowhere near")
    # The other way round: boxes that the picture's other phrases got, against this one's truth.
    pairs, hit = against_others(truth, first)
    hits, others = count(pairs["row"][hit]), count(pairs["row"])
    share = np.divide(hits, others, out=np.full(len(table), np.nan), where=others > 0)
    found = {"mistake": pd.Categorical(mistake, list(MISTAKES))}
    return pd.DataFrame(found | {"another_right": hits > 0, "others_right": share})


def mistake_shares(found: pd.DataFrame) -> dict[str, float]:
    """Of `mistakes`, in %: each of `MISTAKES`, of the missed mentions those that another phrase's
    box of the picture would have answered rightly, and how often a random other one would."""
    share = found.mistake.value_counts(normalize=True)[list(MISTAKES)].to_dict()
    missed = found.another_right[found.mistake != "right"]
    share["missed, another's box right"] = missed.mean() if len(missed) else 0
    share["a random other's box right"] = found.others_right.mean()
    return {kind: round(100 * float(value), 4) for kind, value in share.items()}


def calibration(scored: pd.DataFrame, **draws: int) -> dict | None:
    """Score against accuracy in ten equally filled bins, or None where all scores are equal.

    `error` is the expected calibration error: the mean of |score - accuracy| over mentions (Guo et
    al., ICML 2017). Mentions without a box are left out.
    """
    answered = scored[scored.answered]
    score = answered.score.to_numpy(np.float64)
    if len(score) == 0 or score.min() == score.max():
        return None
    edges = np.unique(np.quantile(score, np.linspace(0, 1, 11)))
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, len(edges) - 2)
    hits = (answered.iou_merged.to_numpy() >= 0.5).astype(np.float64)[:, None]
    rows = []
    for group in (place == number for number in np.unique(place)):
        (found,) = metrics.figures(hits, answered.image_id, group, **draws)
        rows.append({"score": float(score[group].mean()), "mentions": int(group.sum())} | found)
    apart = [abs(row["score"] - row["value"]) for row in rows]
    error = np.average(apart, weights=[row["mentions"] for row in rows])
    return {"error": round(float(error), 6), "bins": rows}


def falls(answered: pd.DataFrame, phrases: pd.DataFrame, **draws: int) -> pd.DataFrame:
    """What each change costs, on the mentions that it can be made for, merged boxes, IoU .5.

    `answered` has the answers to `perturbations.questions`: key, `change` and the box as fractions.
    A row a change: mentions, accuracy `asked` and `changed`, the fall as a figure by paired
    bootstrap, `real` (its interval leaves out 0), and `same` (mean IoU of both boxes).
    """
    boxed = phrases[phrases.n_boxes > 0]
    truth = boxed[KEY].copy()
    truth[box_ops.COLUMNS] = box_ops.relative(boxed)
    as_asked = answered[answered.change == perturbations.ASKED]
    before = as_asked.merge(truth, on=KEY, suffixes=("", "_true"))
    rows = []
    for change in perturbations.CHANGES:
        both = before.merge(answered[answered.change == change], on=KEY, suffixes=("", "_after"))
        if both.empty:
            continue
        asked, true, changed = (
            both[[f"{side}{end}" for side in box_ops.COLUMNS]].to_numpy(np.float32)
            for end in ("", "_true", "_after")
        )
        hits = [(box_ops.iou(guess, true) >= 0.5).astype(float) for guess in (asked, changed)]
        (fall,) = metrics.figures((hits[0] - hits[1])[:, None], both.image_id, **draws)
        means = (round(float(x.mean()), 6) for x in (*hits, box_ops.iou(asked, changed)))
        row = dict(zip(("asked", "changed", "same"), means, strict=True)) | fall
        real = not fall["low"] <= 0 <= fall["high"]
        rows.append(row | {"change": change, "mentions": len(both), "real": real})
    columns = "change mentions asked changed value low high real same"
    return pd.DataFrame(rows, columns=columns.split())


def things(
    predictions: pd.DataFrame, phrases: pd.DataFrame, boxes: pd.DataFrame, **draws: int
) -> dict:
    """How single things are told apart, at IoU .5.

    `predictions` have a box for each thing that a mention names. `any`: the first is one of them.
    Of the mentions of several things, `several`, as means over mentions: `precision`, the share of
    boxes that are each another thing, and `recall`, that of the things that have a box, see
    `box_ops.each_another`.
    """
    scored = metrics.score_mentions(predictions, phrases, boxes)
    several = phrases[phrases.n_boxes > 1][KEY]
    each = several.merge(boxes, on=["image_id", "phrase_id"]).groupby(KEY)
    each = {key: rows[box_ops.COLUMNS].to_numpy(np.float32) for key, rows in each}
    found = []
    answers = predictions.sort_values("rank").merge(several, on=KEY).groupby(KEY)
    for key, rows in answers:
        guess = rows[box_ops.COLUMNS].to_numpy(np.float32)
        right = box_ops.each_another(guess, each[key]).sum()
        found.append((key[0], right / len(guess), right / len(each[key])))
    images, *shares = zip(*found, strict=True) if found else ((), (), ())
    figures = metrics.figures(np.stack(shares, axis=1), images, **draws) if found else [{}, {}]
    first = metrics.figures((scored[["iou_any"]] >= 0.5).to_numpy(float), scored.image_id, **draws)
    named = zip(("any", "precision", "recall"), (*first, *figures), strict=True)
    return {"mentions": len(scored), "several": len(several), **dict(named)}


def of_alike(answered: pd.DataFrame, **draws: int) -> dict:
    """How `alike.questions` were answered, boxes in `alike.GUESS`: their number, that of pictures,
    accuracy at IoU .5, and the share of questions of which a random one of the things is right."""
    truth, guess = (answered[columns].to_numpy(np.float32) for columns in (box_ops.COLUMNS, GUESS))
    hits = (box_ops.iou(truth, guess) >= 0.5).astype(float)[:, None]
    (right,) = metrics.figures(hits, answered.image_id, **draws)
    return {
        "questions": len(answered),
        "pictures": int(answered.image_id.nunique()),
        "accuracy": right,
        "chance": round(float((1 / answered.alike).mean()), 6),
    }


def _limited(own: pd.Series, other: pd.Series) -> dict[str, float]:
    """Of `present` of own phrases the share at the limit or above, of others that below."""
    kept, flagged = (own >= ABSENT).mean(), (other < ABSENT).mean()
    return {"kept": round(float(kept), 6), "flagged": round(float(flagged), 6)}


def photos(answered: pd.DataFrame, drawn: pd.DataFrame, **draws: int) -> dict[str, dict]:
    """How the phrases of `data/photos/boxes.csv`, `drawn`, were answered, by its `split`.

    `answered` has photo, phrase, box and `present`. Of each split `photos`, `phrases`, the figures
    of `metrics.MAIN_METRICS` with intervals by photo, `kinds` (by kind, phrases and accuracy), and
    the shares of phrases `kept` and of absent things `flagged` (`present` of `grounding.ABSENT` or
    more, and below), None where `present` is not said.
    """
    table = drawn.merge(answered, on=["photo", "phrase"], suffixes=("", "_guess"))
    guess = table[GUESS].to_numpy(np.float32)
    table["iou_merged"] = box_ops.iou(table[box_ops.COLUMNS].to_numpy(np.float32), guess)
    found = {}
    for split, rows in table.groupby("split"):
        absent = rows.kind == "absent"
        here, said = rows[~absent], rows.present.notna().all()
        figures = metrics.figures(metrics.main_values(here), here.photo, **draws)
        hits = (here.iou_merged >= 0.5).groupby(here.kind).agg(["size", "mean"])
        found[split] = {
            "photos": int(here.photo.nunique()),
            "phrases": len(here),
            **dict(zip(metrics.MAIN_METRICS, figures, strict=True)),
            "kinds": {k: [int(n), round(float(share), 6)] for k, n, share in hits.itertuples()},
            **(_limited(here.present, rows.present[absent]) if said else UNSAID),
        }
    return found


def presence(asked: pd.DataFrame, phrases: pd.DataFrame, **draws: int) -> dict[str, dict]:
    """Does a model's `present` tell a picture's phrases from those of another picture?

    `asked` has each boxed mention twice, about its picture and about another: key, `change`,
    `text`, `picture`, `present`. Three kinds of pairs: `any phrase`; `absent things`, whose last
    word no phrase of the other picture uses ("a man" may still name its "two males"); and `absent
    categories`, of whose category it has none as well. Of each kind: `area` under the ROC curve,
    `kept` and `flagged` (shares of own phrases at `grounding.ABSENT` or more, of others below), and
    the curve: at each threshold the shares of own (`false_alarms`) and of others (`found`) below.
    """
    if asked.present.isna().any():
        return {}
    words = phrases.groupby("image_id").phrase.agg(lambda them: set(tokenize(" ".join(them))))
    own, other = (asked[asked.change == change] for change in perturbations.PAIRS)
    absent = [
        not (said := tokenize(text)) or said[-1] not in words[picture]
        for text, picture in zip(other.text, other.picture, strict=True)
    ]
    categories = phrases.groupby("image_id").category.agg(set)
    asked_for = other.merge(phrases[[*KEY, "category"]], on=KEY, how="left").category
    strange = [c not in categories[p] for c, p in zip(asked_for, other.picture, strict=True)]
    kinds = {"any phrase": other, "absent things": other[absent]}
    kinds["absent categories"] = other[np.array(absent) & strange]
    return {n: _presence_of(own, kind, **draws) for n, kind in kinds.items() if len(kind)}


def _presence_of(
    own: pd.DataFrame, other: pd.DataFrame, resamples: int = 1000, seed: int = 0
) -> dict:
    both = pd.concat([own, other])
    images, names = pd.factorize(both.image_id)
    draws = metrics.draw_clusters(len(names), resamples, seed)
    scores = (own.present.to_numpy(), other.present.to_numpy())
    weights = (draws[:, images[: len(own)]], draws[:, images[len(own) :]])
    # Of few pictures a draw may have none.
    both_drawn = np.logical_and(*(of.any(axis=1) for of in weights))
    areas = area_under_roc(*scores, *(of[both_drawn] for of in weights))
    low, high = np.percentile(areas, [2.5, 97.5])
    mine = (np.arange(len(both)) < len(own))[np.argsort(both.present, kind="stable")]
    at = np.unique(np.linspace(0, len(both) - 1, 200).astype(int))
    return {
        "mentions": [len(own), len(other)],
        "area": metrics.figure(area_under_roc(*scores), low, high),
        **_limited(own.present, other.present),
        "false_alarms": (np.cumsum(mine) / mine.sum())[at].round(5).tolist(),
        "found": (np.cumsum(~mine) / (~mine).sum())[at].round(5).tolist(),
    }
