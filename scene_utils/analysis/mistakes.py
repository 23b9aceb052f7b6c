"""Which mistakes a model makes; merged boxes at IoU .5 throughout."""

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset.mentions import MENTION_KEY as KEY

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


def shares(found: pd.DataFrame) -> dict[str, float]:
    """Of `mistakes`, in %: each of `MISTAKES`, of the missed mentions those that another phrase's
    box of the picture would have answered rightly, and how often a random other one would."""
    share = found.mistake.value_counts(normalize=True)[list(MISTAKES)].to_dict()
    missed = found.another_right[found.mistake != "right"]
    share["missed, another's box right"] = missed.mean() if len(missed) else 0
    share["a random other's box right"] = found.others_right.mean()
    return {kind: round(100 * float(value), 4) for kind, value in share.items()}
