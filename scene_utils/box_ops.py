"""Boxes as plain NumPy arrays, in one format.

A box is `xyxy`: x_min, y_min, x_max, y_max in absolute pixels of the original image, 0-based,
x_max and y_max exclusive, so that width = x_max - x_min. An array of boxes is `(..., 4)` float32.
"""

import itertools

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

COLUMNS = ["x_min", "y_min", "x_max", "y_max"]


def check(boxes: ArrayLike, where: str = "boxes") -> np.ndarray:
    """Return `boxes` as `(..., 4)` float32, or refuse what cannot be a box.

    Raises ValueError that shows the first offender: not four numbers, not finite, or no area.

    >>> check([[1, 2, 4, 6]]).shape
    (1, 4)
    """
    array = np.asarray(boxes, dtype=np.float32)
    if array.shape[-1:] != (4,):
        raise ValueError(
            f"{where}: expected (..., 4) as x_min, y_min, x_max, y_max, got shape {array.shape}"
        )
    flat = array.reshape(-1, 4)
    bad = ~np.isfinite(flat).all(axis=1) | (flat[:, 2] <= flat[:, 0]) | (flat[:, 3] <= flat[:, 1])
    if bad.any():
        first = int(np.argmax(bad))
        raise ValueError(
            f"{where}: expected finite x_min < x_max and y_min < y_max, got "
            f"{flat[first].tolist()} in row {first} ({int(bad.sum())} such rows of {len(flat)})"
        )
    return array


def from_inclusive(boxes: ArrayLike) -> np.ndarray:
    """Turn 1-based inclusive pixels (Flickr30k Entities' XML) into the box type, `(..., 4)`.

    >>> from_inclusive([1, 1, 10, 20]).tolist()
    [0.0, 0.0, 10.0, 20.0]
    """
    return np.asarray(boxes, dtype=np.float32) - np.float32([1, 1, 0, 0])


def area(boxes: np.ndarray) -> np.ndarray:
    """Area in square pixels, `(...)`; 0 where a box is empty."""
    sides = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    return sides[..., 0] * sides[..., 1]


def intersection(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Area that two boxes share, `(...)` of boxes that broadcast against each other."""
    # Side by side: where two or four numbers are the last axis, NumPy is ten times slower.
    width = np.minimum(first[..., 2], second[..., 2]) - np.maximum(first[..., 0], second[..., 0])
    height = np.minimum(first[..., 3], second[..., 3]) - np.maximum(first[..., 1], second[..., 1])
    return np.maximum(width, 0) * np.maximum(height, 0)


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes that broadcast against each other, in [0, 1].

    Pairs: `iou(a, b)` with both `(n, 4)` gives `(n,)`; all against all:
    `iou(a[:, None], b[None])` gives `(n, m)`. A pair with no area on either side gives 0.

    >>> round(float(iou(np.float32([0, 0, 2, 2]), np.float32([1, 0, 3, 2]))), 4)
    0.3333
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    both = intersection(first, second)
    either = area(first) + area(second) - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def each_another(guess: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Whether each box of `guess (n, 4)`, best first, has IoU .5 with one of `truth (m, 4)` that no
    box before has taken, `(n,)` bool; it takes the one that it overlaps most of those left."""
    overlap, found = iou(guess[:, None], truth[None]), np.zeros(len(guess), bool)
    for row in range(len(guess)):
        best = overlap[row].argmax()
        found[row] = overlap[row, best] >= 0.5
        overlap[:, best] *= not found[row]
    return found


def holds_centre(truth: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Whether the centre of `guess` lies in `truth`, `(...)` of boxes that broadcast.

    This is the pointing game's hit, with a box's centre as the point (Zhang et al., IJCV 2018).

    >>> bool(holds_centre(np.float32([0, 0, 4, 4]), np.float32([2, 1, 6, 3])))
    False
    """
    centre = (guess[..., :2] + guess[..., 2:]) / 2
    return ((centre >= truth[..., :2]) & (centre < truth[..., 2:])).all(axis=-1)


def mirror(boxes: np.ndarray) -> np.ndarray:
    """Boxes `(..., 4)` in fractions of a picture where left and right are exchanged in it."""
    return np.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], axis=-1)


def relative(table: pd.DataFrame) -> np.ndarray:
    """Boxes of a table's rows as fractions of their pictures, `(n, 4)` float32.

    The table has `COLUMNS`, and `width` and `height` of the picture, in pixels.
    """
    return table[COLUMNS].to_numpy(np.float32) / _scale(table.width, table.height)


def to_pixels(boxes: np.ndarray, width: ArrayLike, height: ArrayLike) -> np.ndarray:
    """Fractions of the image to the box type, `(n, 4)` float32, clipped to the image."""
    return np.asarray(np.clip(boxes, 0, 1) * _scale(width, height), np.float32)


def _scale(width: ArrayLike, height: ArrayLike) -> np.ndarray:
    return np.stack(np.broadcast_arrays(width, height, width, height), axis=-1).astype(np.float32)


def coverage(relative: np.ndarray, cells: int = 50) -> np.ndarray:
    """Share of boxes `(n, 4)`, fractions of the picture, that cover each place, `(cells, cells)`"""
    centres = (np.arange(cells) + 0.5) / cells
    across = (relative[:, 0, None] <= centres) & (centres < relative[:, 2, None])
    down = (relative[:, 1, None] <= centres) & (centres < relative[:, 3, None])
    return (down.T.astype(np.float32) @ across.astype(np.float32)) / max(len(relative), 1)


def best_constant(boxes: np.ndarray) -> np.ndarray:
    """The one box, in fractions of the image, with the highest mean IoU to `(n, 4)` boxes.

    Coordinate ascent from the centred .8 box, step halved until .001. IoU is taken in fractions:
    an image's width and height cancel out of the ratio.
    """
    boxes = check(boxes, "boxes to fit")
    best = np.float32([0.1, 0.1, 0.9, 0.9])
    score = iou(best, boxes).mean()
    step = 0.1
    while step >= 0.001:
        before = score
        for side, move in itertools.product(range(4), (-step, step)):
            trial = best.copy()
            trial[side] = np.clip(trial[side] + move, 0, 1)
            value = iou(trial, boxes).mean()  # 0 of a box turned inside out
            if value > score:
                best, score = trial, value
        if score == before:
            step /= 2
    return best
