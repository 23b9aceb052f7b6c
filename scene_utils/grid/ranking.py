"""Which candidates are the answer, those with the highest expected IoU, and how far to trust it.

Expected IoU becomes a probability by a logistic curve fitted on val (Platt 1999, "Probabilistic
Outputs for Support Vector Machines"). A rare word promises too much, and the more the surer the
answer is, so the curve takes the word's rarity too, and its product with the log odds.
"""

from collections.abc import Sequence

import numpy as np

from scene_utils import box_ops
from scene_utils.stats import log_odds, logistic


def ranked_boxes(
    boxes: np.ndarray, shares: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` best boxes `(n, count, 4)` of each phrase and their expected IoU `(n, count)`.

    Of candidates `(n, k, 4)` with shares of probability `(n, k)`. A box's expected IoU is the mean
    IoU with the candidates' boxes by their shares; the next ranks avoid what overlaps the ranks
    before by more than .7.
    """
    parts = [(boxes[:0, :1].repeat(count, axis=1), shares[:0, :1].repeat(count, axis=1))]
    for start in range(0, len(boxes), 64):
        part = slice(start, start + 64)
        parts.append(_ranked(boxes[part], shares[part], count))
    return tuple(np.concatenate(found) for found in zip(*parts, strict=True))


def _ranked(boxes: np.ndarray, shares: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    overlap = box_ops.iou(boxes[:, :, None], boxes[:, None]).astype(np.float32)
    expected = (overlap @ shares[..., None])[..., 0]
    every, left = np.arange(len(boxes)), expected.copy()
    chosen = np.zeros((len(boxes), count), int)
    for rank in range(count):
        chosen[:, rank] = best = left.argmax(axis=1)
        left -= overlap[every, best] > 0.7
        left[every, best] -= 10
    rows = every[:, None]
    return boxes[rows, chosen], expected[rows, chosen]


def distinct(boxes: np.ndarray, overlap: float = 0.8) -> np.ndarray:
    """Numbers of those of the boxes `(k, 4)`, best first, that none before overlaps by more."""
    kept: list[int] = []
    for number, box in enumerate(boxes):
        if not kept or box_ops.iou(boxes[kept], box).max() <= overlap:
            kept.append(number)
    return np.array(kept)


def single_things(boxes: np.ndarray, likely: np.ndarray, least: float) -> np.ndarray:
    """Numbers of those of the boxes `(k, 4)`, likeliest first, that are told as single things: none
    less `likely (k,)` than `least`, but the first always, and none over another by more than .5."""
    enough = max(1, int((likely >= least).sum()))
    return distinct(boxes[:enough], 0.5)


def around(box: np.ndarray, scale: float = 2.0, least: float = 0.3) -> np.ndarray:
    """The part of a picture about a box `(4,)`: `scale` times its sides, at least `least` of the
    picture's, moved to lie within; all as fractions."""
    size = np.clip(scale * (box[2:] - box[:2]), least, 1.0)
    corner = np.clip((box[:2] + box[2:] - size) / 2, 0.0, 1.0 - size)
    return np.concatenate([corner, corner + size])


def last_tokens(tokens: np.ndarray) -> np.ndarray:
    """The last word of each phrase, mostly the thing it names: `(..., length)` to `(...)`."""
    last = np.maximum((tokens > 0).sum(axis=-1) - 1, 0)
    return np.take_along_axis(tokens, last[..., None], axis=-1)[..., 0]


def rarity(tokens: np.ndarray, words: int) -> np.ndarray:
    """Logarithm of the rank by frequency in train of each phrase's last word, `(n, length)` to
    `(n,)`; one that is not among the `words` known has the rank after them."""
    last = last_tokens(tokens)
    return np.log1p(np.where(last > 1, last, words).astype(np.float64))


def hit_features(expected_iou: np.ndarray, rarity: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the curve of `hit_probability` has a slope for; both arrays broadcast."""
    odds = log_odds(expected_iou)
    return odds, rarity, rarity * odds


def hit_probability(
    curve: Sequence[float], expected_iou: np.ndarray, rarity: np.ndarray
) -> np.ndarray:
    """Probability `(n, k)` that boxes of expected IoU `(n, k)` for phrases of `rarity (n,)` have an
    IoU of .5 with the truth."""
    return logistic(curve, *hit_features(expected_iou, rarity[:, None]))
