"""Which candidates are the answer: those with the highest expected IoU."""

import numpy as np

from scene_utils import box_ops


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


def distinct(boxes: np.ndarray) -> np.ndarray:
    """Numbers of those of the boxes `(k, 4)`, best first, that overlap none before by over .8."""
    kept: list[int] = []
    for number, box in enumerate(boxes):
        if not kept or box_ops.iou(boxes[kept], box).max() <= 0.8:
            kept.append(number)
    return np.array(kept)


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
