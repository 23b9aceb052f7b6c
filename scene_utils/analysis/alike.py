"""Questions that no caption asks: of several things alike, the one on the left, right or between.

Made from annotations: a picture's things that phrases name by the same last word, or the things of
one plural, which differ in where they lie.
"""

import numpy as np
import pandas as pd

from scene_utils import box_ops

SIDES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}
GUESS = [f"{side}_guess" for side in box_ops.COLUMNS]  # a model's answers
APART = 0.1  # of the picture's side; things that lie closer are not told apart by it
MOST = 5  # of a plural; more are a crowd


def singular(word: str) -> str:
    """The singular of a plural, as far as endings tell; of another word an empty one.

    >>> singular("firemen"), singular("ladies"), singular("dogs"), singular("grass")
    ('fireman', 'lady', 'dog', '')
    """
    if word in ("people", "children"):
        return {"people": "person", "children": "child"}[word]
    if word.endswith("men"):
        return word[:-3] + "man"
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else ""


def questions(phrases: pd.DataFrame, boxes: pd.DataFrame) -> pd.DataFrame:
    """A row a question: image_id, phrase, `alike` (how many things), and the box of the one meant,
    relative. Things that overlap by more than half may be one thing, and are not asked for."""
    boxed = phrases[phrases.n_boxes > 0]
    relative = boxes.merge(boxed[["image_id", "width", "height"]].drop_duplicates())
    relative[box_ops.COLUMNS] = box_ops.relative(relative)
    each = {
        key: rows[box_ops.COLUMNS].to_numpy(np.float32)
        for key, rows in relative.groupby(["image_id", "phrase_id"])
    }
    named = boxed.assign(word=boxed.phrase.str.lower().str.split().str[-1])
    named = named.drop_duplicates(["image_id", "word", "phrase_id"])
    found = []
    for image_id, of in named.groupby("image_id"):
        groups = {}
        for word, rows in of.groupby("word"):
            if len(rows) > 1 and (rows.n_boxes == 1).all():
                groups[word] = np.concatenate([each[image_id, key] for key in rows.phrase_id])
        for word, rows in of.groupby("word"):
            one = singular(word)
            plural = len(rows) == 1 and 2 <= rows.n_boxes.iloc[0] <= MOST
            if one and plural and not (of.word == one).any():
                groups.setdefault(one, each[image_id, rows.phrase_id.iloc[0]])
        for word, things in groups.items():
            overlap = box_ops.iou(things[:, None], things[None]) - np.eye(len(things))
            if overlap.max() > 0.5:
                continue
            for side, row in _told(things).items():
                found.append((image_id, f"the {word} {SIDES[side]}", len(things), *things[row]))
    return pd.DataFrame(found, columns=["image_id", "phrase", "alike", *box_ops.COLUMNS])


def _told(things: np.ndarray) -> dict[str, int]:
    """Sides that tell one of the things `(n, 4)` from all others, and the number of that one."""
    told = {}
    for axis, (first, last) in enumerate((("left", "right"), ("top", "bottom"))):
        middle = (things[:, axis] + things[:, axis + 2]) / 2
        order = np.argsort(middle, kind="stable")
        gaps = np.diff(middle[order])
        if gaps[0] >= APART:
            told[first] = order[0]
        if gaps[-1] >= APART:
            told[last] = order[-1]
        if axis == 0 and len(things) == 3 and gaps.min() >= APART:
            told["middle"] = order[1]
    return told
