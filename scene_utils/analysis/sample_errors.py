"""Which word of a phrase does a wrong answer on the embedded sample miss?

Its objects are known one by one, so the one under a wrong box can be held against each word.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset.entities import read_ids
from scene_utils.dataset.mentions import MENTION_KEY
from scene_utils.dataset.sample_layout import COLOURS, KINDS, RELATIONS, SIZES, TEXTURES, Thing
from scene_utils.dataset.sample_phrases import PLURALS, Scene, describe, scene_phrase_kind

PROPERTIES = {"size": SIZES, "texture": TEXTURES, "colour": tuple(COLOURS), "kind": KINDS}
# What a wrong answer misses; several words at once are "several".
MISSES = ("right", *PROPERTIES, "several", "relation", "part of them", "no object")
_SINGULAR = {plural: kind for kind, plural in PLURALS.items()}
_PROPERTY = {word: name for name, words in PROPERTIES.items() for word in words}


def scenes_of(root: Path, split: str) -> dict[str, Scene]:
    """What is in the pictures of a split of the sample that `sample.generate` wrote to `root`."""
    seed = json.loads((root / "sample.json").read_text(encoding="utf-8"))["seed"]
    found = (describe(seed, split, index) for index in range(len(read_ids(root, split))))
    return {scene.image_id: scene for scene in found}


def missed_word(phrase: str, things: Sequence[Thing]) -> str:
    """The one of `MISSES` that the things, or some of them, lack of what the phrase names.

    Where they lack nothing, "relation" if the phrase has one, else "part of them".

    >>> missed_word("the red car", [Thing("big", "plain", "blue", "car", *[None] * 5)])
    'colour'
    """
    told, relation, _ = _named(phrase)
    missed = [_PROPERTY[word] for word in told if any(word not in one.words for one in things)]
    if missed:
        return missed[0] if len(missed) == 1 else "several"
    return "part of them" if relation is None else "relation"


def _named(phrase: str) -> tuple[tuple[str, ...], str | None, tuple[str, ...]]:
    """The properties that a phrase names of its own things, how these stand to another, and the
    properties that it names of that."""
    words = [_SINGULAR.get(word, word) for word in phrase.lower().split()]
    firsts = {relation.split()[0]: relation for relation in RELATIONS}
    end = next((place for place, word in enumerate(words) if word in firsts), len(words))
    relation = firsts[words[end]] if end < len(words) else None
    own, landmark = (tuple(w for w in p if w in _PROPERTY) for p in (words[:end], words[end:]))
    return own, relation, landmark


def unread(scenes: Iterable[Scene]) -> dict[str, float]:
    """How many relation phrases of the sample, in %, one can be right about who reads not all.

    `without_landmark` phrases of a picture that differ only in the landmark get one answer,
    `without_relation` those that differ only in the relation. ValueError where there are none.
    """
    names = ["scene", "own", "relation", "landmark", "targets"]
    rows = [
        (place, *_named(mention.phrase), mention.targets)
        for place, scene in enumerate(scenes)
        for mention in scene.mentions
        if mention.mark == "box"
    ]
    said = pd.DataFrame(rows, columns=names).dropna(subset="relation")
    if said.empty:
        raise ValueError("scenes: expected some with relation phrases, got none")
    found: dict[str, float] = {"mentions": len(said)}
    for sort, rest in (("without_landmark", "relation"), ("without_relation", "landmark")):
        # Of phrases that are read alike, the most frequent meaning can be right.
        counts = said.groupby(["scene", "own", rest, "targets"]).size()
        right = counts.groupby(["scene", "own", rest]).max().sum()
        found[sort] = round(100 * float(right) / len(said), 2)
    return found


def misses(
    scored: pd.DataFrame, predictions: pd.DataFrame, scenes: dict[str, Scene]
) -> pd.DataFrame:
    """For each row of `scored` on the sample: its phrase's kind, and the one of `MISSES`.

    What a wrong box means is the object with which it has the highest IoU, for a plural the one,
    two or three objects; `no object` where that is below .5, or there is no box.
    """
    first = predictions[predictions["rank"] == 1][[*MENTION_KEY, *box_ops.COLUMNS]]
    table = scored[[*MENTION_KEY, "phrase", "iou_merged"]].merge(first, on=MENTION_KEY, how="left")
    kinds = table.phrase.map(scene_phrase_kind)
    found = []
    for row, kind in zip(table.itertuples(), kinds, strict=True):
        if row.iou_merged >= 0.5:
            found.append("right")
            continue
        things = scenes[row.image_id].things
        most = 3 if kind == "plural" else 1
        groups = [g for count in range(1, most + 1) for g in combinations(things, count)]
        each = (box_ops.from_inclusive([thing.box for thing in group]) for group in groups)
        truth = np.stack([[*box[:, :2].min(axis=0), *box[:, 2:].max(axis=0)] for box in each])
        guess = np.nan_to_num(np.float32([row.x_min, row.y_min, row.x_max, row.y_max]))
        overlap = box_ops.iou(guess, truth)
        under = groups[overlap.argmax()]
        found.append(missed_word(row.phrase, under) if overlap.max() >= 0.5 else "no object")
    return pd.DataFrame({"phrase": kinds, "missed": pd.Categorical(found, list(MISSES))})


def shares(missed: pd.DataFrame) -> pd.DataFrame:
    """Of `misses`, a row a kind of phrase: mentions, and the share of each of `MISSES` in %."""
    table = pd.crosstab(missed.phrase, missed.missed, normalize="index", dropna=False) * 100
    table.insert(0, "mentions", missed.phrase.value_counts())
    return table.rename_axis(columns=None).round(2)
