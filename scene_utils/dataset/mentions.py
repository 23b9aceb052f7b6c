"""Mentions as models take them: phrases that have a box, with their pictures."""

from collections.abc import Container

import numpy as np
import pandas as pd

from scene_utils import box_ops

# What tells one mention from all others, and what a table of predictions has for it.
MENTION_KEY = ["image_id", "sentence_id", "phrase_id", "first_word_index"]
PREDICTION_COLUMNS = [*MENTION_KEY, "phrase", "rank", "score", *box_ops.COLUMNS]


def boxed_mentions(
    phrases: pd.DataFrame, split: str, known: Container[str]
) -> tuple[pd.DataFrame, np.ndarray, pd.Index, np.ndarray]:
    """Boxed mentions of `split` whose picture is known: their n rows of the table, the picture of
    each as a number `(n,)`, the image id behind each number, and the merged boxes `(n, 4)` as
    fractions of the picture. Raises ValueError where there is none."""
    chosen = phrases[(phrases.split == split) & (phrases.n_boxes > 0)]
    chosen = chosen[chosen.image_id.isin(known)]
    if chosen.empty:
        raise ValueError(f"expected boxed mentions with a picture in split {split!r}, got none")
    rows, ids = pd.factorize(chosen.image_id)
    return chosen, rows, ids, np.clip(box_ops.relative(chosen), 0, 1)


def prediction_table(phrases: pd.DataFrame, boxes: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """A prediction table for rows of a phrase table: `boxes (n, k, 4)` as fractions of the picture,
    best first, with `scores (n, k)`."""
    ranks = boxes.shape[1]
    repeated = phrases.iloc[np.repeat(np.arange(len(phrases)), ranks)].reset_index(drop=True)
    table = repeated[[*MENTION_KEY, "phrase"]]
    table["rank"] = np.tile(np.arange(1, ranks + 1), len(phrases))
    table["score"] = np.ravel(scores)
    size = repeated.width.to_numpy(), repeated.height.to_numpy()
    table[box_ops.COLUMNS] = box_ops.to_pixels(boxes.reshape(-1, 4), *size)
    return table[PREDICTION_COLUMNS]
