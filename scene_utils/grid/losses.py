"""Losses of the grid model: scores, boxes, words against other pictures, landmarks.

n phrases of b pictures with cells² places each; boxes are fractions of the picture, `xyxy`.
"""

import math

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
from keras import KerasTensor, ops

from scene_utils.box_tensors import iou_and_giou
from scene_utils.grid.layers import cell_centres, log_fits
from scene_utils.grid.network import Answered

LANDMARK_WEIGHT = 0.5


def cells_inside(truth: KerasTensor, cells: int) -> tuple[KerasTensor, KerasTensor]:
    """Whether each cell's centre lies in the box, `(n, cells²)` bool, and the way there from the
    box's middle `(n, cells², 2)`, of boxes `(n, 4)`. The nearest cell counts as inside."""
    centres = ops.reshape(cell_centres(cells), (1, -1, 2))
    inside = ops.all((centres >= truth[:, None, :2]) & (centres < truth[:, None, 2:]), axis=-1)
    offset = centres - (truth[:, None, :2] + truth[:, None, 2:]) / 2
    nearest = ops.argmin(ops.sum(offset**2, axis=-1), axis=-1)
    # A box smaller than a cell may hold no centre.
    return inside | ops.one_hot(nearest, cells**2, dtype="bool"), offset


def grid_loss(scores: KerasTensor, boxes: KerasTensor, truth: KerasTensor, cells: int) -> tuple:
    """Means over phrases of the score loss and the box loss; scores `(n, cells²)`, truth `(n, 4)`.

    Boxes: 1 - GIoU of the cells inside the truth, the nearer its middle the more. Scores: cross
    entropy towards IoU³ of the cells' own boxes, so that the cell that is trusted is the one whose
    box is good.
    """
    iou, giou = iou_and_giou(boxes, truth[:, None])
    inside, offset = cells_inside(truth, cells)
    inside = ops.cast(inside, "float32")
    half = ops.maximum((truth[:, 2:] - truth[:, :2]) / 2, 0.02)
    central = inside * (ops.exp(-ops.sum((offset / half[:, None]) ** 2, axis=-1)) + 1e-6)
    box_loss = ops.sum((1 - giou) * central, axis=-1) / ops.sum(central, axis=-1)
    target = inside * (ops.stop_gradient(iou) ** 3 + 1e-4)
    target /= ops.sum(target, axis=-1, keepdims=True)
    score_loss = -ops.sum(target * ops.log_softmax(scores), axis=-1)
    return ops.mean(score_loss), ops.mean(box_loss)


def contrast_loss(
    grid: KerasTensor, answered: Answered, truth: KerasTensor, absent: KerasTensor, cells: int
) -> KerasTensor:
    """Mean over phrases of how little their words prefer their own place to all others, of their
    picture and of pictures where the thing is absent.

    Maps `(b, cells, cells, d)`, truth `(n, 4)`, and absent `(n, b)` bool, with n = b * p phrases.
    So a cell's features tell things apart that never share a picture. A place's fit is that of the
    first reading in `layers.WordsFit`; the loss is that of noise-contrastive estimation (van den
    Oord et al. 2018) with the mean over the box's cells as the one that is right.
    """
    count, phrases, length = ops.shape(grid)[0], ops.shape(truth)[0], answered.gates.shape[1]
    own = ops.repeat(ops.eye(count, dtype="bool"), phrases // count, axis=0)
    keys = ops.reshape(answered.keys, (phrases * length, answered.keys.shape[-1]))
    fits = log_fits(ops.reshape(grid, (-1, grid.shape[-1])), keys)
    fits = ops.reshape(fits, (-1, phrases, length))
    fits = ops.einsum("cnl,nl->nc", fits, answered.gates[..., 0])
    fits = ops.reshape(fits, (phrases, count, cells**2))
    inside, _ = cells_inside(truth, cells)
    here = ops.sum(ops.where(own[..., None], fits, 0.0), axis=1)
    size = ops.log(ops.sum(ops.cast(inside, "float32"), axis=-1))
    right = ops.logsumexp(ops.where(inside, here, -1e9), axis=-1) - size
    counts = (own | absent)[..., None] & ~(own[..., None] & inside[:, None])
    wrong = ops.logsumexp(ops.where(counts, fits, -1e9), axis=(1, 2))
    return ops.mean(ops.softplus(wrong - math.log(cells**2) - right))


def landmark_loss(
    answered: Answered, truth: KerasTensor, landmarks: KerasTensor, cells: int
) -> KerasTensor:
    """How far the second reading is from looking where it is to look, and what is meant from lying
    as the phrase says from there: a mean over the phrases for which the first is known.

    Truth `(n, 4)`, and boxes `(n, k, 4)` to look into any of, NaN where there is none. The one is
    -log of the share of looks that falls there (supervised attention, as in Rohrbach et al.,
    "Grounding of Textual Phrases in Images by Reconstruction", ECCV 2016), the other -log of the
    mean probability of lying so over the truth's cells by that over all cells, which may be
    negative. By score alone both readings look for what is meant, which is learned soonest, and how
    it lies from something else is not learned at all.
    """
    known = ~ops.any(ops.isnan(landmarks), axis=-1)
    there, _ = cells_inside(ops.reshape(landmarks, (-1, 4)), cells)
    there = ops.reshape(there, (-1, landmarks.shape[1], cells**2)) & known[..., None]
    meant, _ = cells_inside(truth, cells)

    def total(logs: KerasTensor, where: KerasTensor) -> KerasTensor:
        return ops.logsumexp(ops.where(where, logs, -1e9), axis=-1)

    size = ops.log(ops.mean(ops.cast(meant, "float32"), axis=-1))
    loss = ops.logsumexp(answered.lies, axis=-1) + size - total(answered.lies, meant)
    loss -= total(answered.looked, ops.any(there, axis=1))
    used = ops.any(known, axis=1)
    number = ops.sum(ops.cast(used, "float32"))
    return ops.sum(ops.where(used, loss, 0.0)) / ops.maximum(1.0, number)


def total_loss(
    grid: KerasTensor,
    answered: Answered,
    truth: KerasTensor,
    landmarks: KerasTensor,
    absent: KerasTensor,
    landmarks_shown: bool,
) -> tuple:
    """What training minimises, and the score and box loss in it.

    Maps of b pictures, the answers to p phrases of each, truth `(b, p, 4)`, landmarks
    `(b, p, k, 4)` and absent `(b, p, b)`.
    """
    truth, cells = ops.reshape(truth, (-1, 4)), grid.shape[1]
    score_loss, box_loss = grid_loss(answered.scores, answered.boxes, truth, cells)
    total = score_loss + 2 * box_loss
    absent = ops.reshape(absent, (-1, ops.shape(grid)[0]))
    total = total + contrast_loss(grid, answered, truth, absent, cells)
    if landmarks_shown:
        landmarks = ops.reshape(landmarks, (-1, *landmarks.shape[2:]))
        total = total + LANDMARK_WEIGHT * landmark_loss(answered, truth, landmarks, cells)
    return total, (score_loss, box_loss)
