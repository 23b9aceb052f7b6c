"""Does a model read the phrase, and does it look at the picture? Take one away and see.

A model is a callable, so that any kind can be asked: `predict(phrases, pictures)` with two
sequences of n gives the first box of each, `(n, 4)` as fractions of the picture. `pictures` holds
image ids; `BLANK` stands for a picture that is grey throughout. Nothing here knows of networks or
features: `predictions.make` makes such a callable of a trained model.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.analysis import metrics
from scene_utils.dataset.mentions import MENTION_KEY as KEY

Predict = Callable[[Sequence[str], Sequence[str]], np.ndarray]

BLANK = ""
ASKED = "as asked"
CHANGES = ("another phrase", "shuffled words", "another picture", "blank picture")
# A phrase with the picture it is about, and with another.
PAIRS = (ASKED, CHANGES[2])


def questions(phrases: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What is asked of each boxed mention: its key, `change`, `text`, `picture`.

    `another phrase`: a random mention of another phrase id of the same picture, boxed or not; left
    out where there is none. `shuffled words`: the same words in another order; left out where
    there is no other. `another picture`: each picture is answered with the features of one other
    of the split, each used once. `blank picture`: a grey one.
    """
    rng = np.random.default_rng(seed)
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    asked = boxed[KEY].assign(change=ASKED, text=boxed.phrase, picture=boxed.image_id)
    other = _another_phrase(boxed, phrases.reset_index(drop=True), rng)
    swapped = asked[other >= 0].assign(
        change=CHANGES[0], text=phrases.phrase.to_numpy()[other[other >= 0]]
    )
    codes, different = pd.factorize(boxed.phrase)
    shuffled = np.array([_shuffle(phrase, rng) for phrase in different], object)[codes]
    shuffled = asked.assign(change=CHANGES[1], text=shuffled)[shuffled != boxed.phrase.to_numpy()]
    codes, images = pd.factorize(boxed.image_id)
    order = rng.permutation(len(images))
    follower = np.empty(len(images), np.int64)
    follower[order] = np.roll(order, 1)
    parts = [asked, swapped, shuffled]
    if len(images) > 1:
        parts.append(asked.assign(change=CHANGES[2], picture=np.asarray(images)[follower[codes]]))
    parts.append(asked.assign(change=CHANGES[3], picture=BLANK))
    return pd.concat(parts, ignore_index=True)


def _another_phrase(boxed: pd.DataFrame, everything: pd.DataFrame, rng) -> np.ndarray:
    """For each boxed mention the row of a random one of its picture with another id, or -1."""
    names = ["image_id", "phrase_id"]
    pairs = (
        boxed[names]
        .reset_index(names="row")
        .merge(everything[names].reset_index(names="other"), on="image_id", suffixes=("", "_other"))
    )
    pairs = pairs[pairs.phrase_id != pairs.phrase_id_other]
    pairs = pairs.iloc[rng.permutation(len(pairs))].drop_duplicates("row")
    other = np.full(len(boxed), -1)
    other[pairs["row"].to_numpy()] = pairs["other"].to_numpy()
    return other


def _shuffle(phrase: str, rng) -> str:
    words = phrase.split()
    if len(set(words)) < 2:
        return phrase
    while True:
        mixed = list(rng.permutation(words))
        if mixed != words:
            return " ".join(mixed)


def ask(predict: Predict, asked: pd.DataFrame) -> pd.DataFrame:
    """The answers to `questions`: key, `change`, and the box as fractions of the picture."""
    boxes = predict(asked.text.tolist(), asked.picture.tolist())
    boxes = np.asarray(boxes, np.float32)
    if boxes.shape != (len(asked), 4) or not np.isfinite(boxes).all():
        raise ValueError(f"expected ({len(asked)}, 4) finite numbers, got {boxes.shape}")
    table = asked[[*KEY, "change"]].copy()
    table[box_ops.COLUMNS] = boxes
    return table


def falls(answered: pd.DataFrame, phrases: pd.DataFrame, **draws: int) -> pd.DataFrame:
    """What each change costs, on the mentions that it can be made for, merged boxes, IoU .5.

    A row a change: mentions, `asked` (accuracy as asked, of these mentions), `changed` (accuracy
    after), the fall as value, low, high by paired bootstrap over images, `real` (the interval
    leaves out 0), and `same` (mean IoU of the box before and after: 1 where nothing moved).
    """
    boxed = phrases[phrases.n_boxes > 0].astype(dict.fromkeys(KEY[1:], "int64"))
    truth = boxed[KEY].copy()
    truth[box_ops.COLUMNS] = box_ops.relative(boxed)
    answered = answered.astype(dict.fromkeys(KEY[1:], "int64"))
    before = answered[answered.change == ASKED].merge(truth, on=KEY, suffixes=("", "_true"))
    rows = []
    for change in CHANGES:
        after = answered[answered.change == change]
        if after.empty:
            continue
        both = before.merge(after, on=KEY, suffixes=("", "_after"))
        asked, true, changed = (
            both[[f"{side}{end}" for side in box_ops.COLUMNS]].to_numpy(np.float32)
            for end in ("", "_true", "_after")
        )
        hits = [(box_ops.iou(guess, true) >= 0.5).astype(float) for guess in (asked, changed)]
        fall = hits[0] - hits[1]
        low, high = metrics.bootstrap(fall[:, None], both.image_id, **draws)
        figure = metrics.figure(fall.mean(), low[0], high[0])
        rows.append(
            {"change": change, "mentions": len(both)}
            | {"asked": round(float(hits[0].mean()), 6), "changed": round(float(hits[1].mean()), 6)}
            | figure
            | {"real": bool(figure["low"] > 0 or figure["high"] < 0)}
            | {"same": round(float(box_ops.iou(asked, changed).mean()), 6)}
        )
    return pd.DataFrame(rows)
