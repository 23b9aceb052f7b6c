"""What several test files make: tables of phrases, boxes and predictions."""

import numpy as np
import pandas as pd

from scene_utils.analysis.metrics import check_predictions
from scene_utils.dataset.entities import MENTION_KEY as KEY

SIDES = ["x_min", "y_min", "x_max", "y_max"]


def phrase_table(rows):
    """Rows (image, sentence, id, first word, phrase, category, boxes) of pictures of 100 x 100
    pixels: the two tables of `entities.Entities`."""
    flat, boxes = [], []
    for *key, phrase, category, own in rows:
        own = np.reshape(own, (-1, 4)).astype(float)
        merged = [*own[:, :2].min(axis=0), *own[:, 2:].max(axis=0)] if len(own) else [np.nan] * 4
        flat.append((*key, phrase, category, len(own), *merged))
        boxes += [(key[0], key[2], *box) for box in own]
    types = {"sentence_id": "int8", "phrase_id": "int32", "first_word_index": "int16"}
    types |= dict.fromkeys(SIDES, "float32")
    phrases = pd.DataFrame(flat, columns=[*KEY, "phrase", "category", "n_boxes", *SIDES])
    boxes = pd.DataFrame(boxes, columns=["image_id", "phrase_id", *SIDES]).drop_duplicates()
    return (
        phrases.assign(width=100, height=100).astype(types),
        boxes.astype({name: types[name] for name in ("phrase_id", *SIDES)}),
    )


def random_boxes(count, seed):
    """Relative boxes `(count, 4)` of any place and size."""
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def predicted(phrases, boxes):
    """A checked table of predictions, one box a row of `phrases`."""
    table = phrases[[*KEY, "phrase"]].copy()
    table[SIDES] = np.array(boxes, float)
    return check_predictions(table.assign(rank=1, score=1.0))
