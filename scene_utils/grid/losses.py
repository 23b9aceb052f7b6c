"""Losses of the grid model: scores, boxes, words against other pictures, teachers, landmarks.

n phrases of b pictures with cells² places each; boxes are fractions of the picture, `xyxy`.
"""

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import tensorflow as tf

from scene_utils.box_tensors import iou_and_giou
from scene_utils.grid.layers import cell_centres, log_fits
from scene_utils.grid.network import Answered


def cells_inside(truth: tf.Tensor, cells: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether each cell's centre lies in the box, `(n, cells²)` bool, and the way there from the
    box's middle `(n, cells², 2)`, of boxes `(n, 4)`. The nearest cell counts as inside."""
    centres = tf.reshape(cell_centres(cells), (1, -1, 2))
    inside = tf.reduce_all(
        (centres >= truth[:, None, :2]) & (centres < truth[:, None, 2:]), axis=-1
    )
    offset = centres - (truth[:, None, :2] + truth[:, None, 2:]) / 2
    nearest = tf.argmin(tf.reduce_sum(offset**2, axis=-1), axis=-1)
    # A box smaller than a cell may hold no centre.
    return inside | tf.one_hot(nearest, cells**2, on_value=True, off_value=False), offset


def grid_loss(scores: tf.Tensor, boxes: tf.Tensor, truth: tf.Tensor, cells: int) -> tuple:
    """Means over phrases of the score loss and the box loss; scores `(n, cells²)`, truth `(n, 4)`.

    Boxes: 1 - GIoU of the cells inside the truth, the nearer its middle the more. Scores: cross
    entropy towards IoU³ of the cells' own boxes, so that the cell that is trusted is the one whose
    box is good.
    """
    iou, giou = iou_and_giou(boxes, truth[:, None])
    inside, offset = cells_inside(truth, cells)
    inside = tf.cast(inside, tf.float32)
    half = tf.maximum((truth[:, 2:] - truth[:, :2]) / 2, 0.02)
    central = inside * (tf.exp(-tf.reduce_sum((offset / half[:, None]) ** 2, axis=-1)) + 1e-6)
    box_loss = tf.reduce_sum((1 - giou) * central, axis=-1) / tf.reduce_sum(central, axis=-1)
    target = inside * (tf.stop_gradient(iou) ** 3 + 1e-4)
    target /= tf.reduce_sum(target, axis=-1, keepdims=True)
    score_loss = -tf.reduce_sum(target * tf.nn.log_softmax(scores), axis=-1)
    return tf.reduce_mean(score_loss), tf.reduce_mean(box_loss)


def contrast_loss(
    grid: tf.Tensor, answered: Answered, truth: tf.Tensor, absent: tf.Tensor, cells: int
) -> tf.Tensor:
    """Mean over phrases of how little their words prefer their own place to all others, of their
    picture and of pictures where the thing is absent.

    Maps `(b, cells, cells, d)`, truth `(n, 4)`, and absent `(n, b)` bool, with n = b * p phrases.
    By score each picture alone decides where a phrase is; here its words are held against the whole
    batch, so that a cell's features tell things apart that never share a picture. A place's fit is
    the sum over words of the first gate times `log_fits`; the loss is that of noise-contrastive
    estimation (van den Oord et al. 2018) with the mean over the box's cells as the one that is
    right.
    """
    count, length = tf.shape(grid)[0], answered.gates.shape[1]
    own = tf.repeat(tf.eye(count, dtype=tf.bool), tf.shape(truth)[0] // count, axis=0)
    gates = tf.reshape(answered.gates[..., 0], (-1,))
    # Gates of padding are 0, and most words are padding.
    used = tf.where(gates > 0)[:, 0]
    words = tf.gather(tf.reshape(answered.keys, (-1, answered.keys.shape[-1])), used)
    fits = log_fits(tf.reshape(grid, (-1, grid.shape[-1])), words) * tf.gather(gates, used)
    fits = tf.math.unsorted_segment_sum(tf.transpose(fits), used // length, tf.shape(truth)[0])
    fits = tf.reshape(fits, (-1, count, cells**2))
    inside, _ = cells_inside(truth, cells)
    here = tf.boolean_mask(fits, own)
    size = tf.math.log(tf.reduce_sum(tf.cast(inside, tf.float32), axis=-1))
    right = tf.reduce_logsumexp(tf.where(inside, here, -1e9), axis=-1) - size
    counts = (own | absent)[..., None] & ~(own[..., None] & inside[:, None])
    wrong = tf.reduce_logsumexp(tf.where(counts, fits, -1e9), axis=(1, 2))
    return tf.reduce_mean(tf.nn.softplus(wrong - tf.math.log(float(cells**2)) - right))


def distillation_loss(answered: Answered, shares: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Mean over phrases of how far the answer is from that of teachers, whose probability of each
    cell is `shares (n, cells²)` and whose box there is `boxes (n, cells², 4)`.

    Of scores the Kullback-Leibler divergence from the teachers' (Hinton et al. 2015, "Distilling
    the Knowledge in a Neural Network"); of boxes 1 - GIoU with theirs, weighted by their shares.
    """
    apart = tf.math.log(shares + 1e-9) - tf.nn.log_softmax(answered.scores)
    _, giou = iou_and_giou(answered.boxes, boxes)
    return tf.reduce_mean(tf.reduce_sum(shares * (apart + 1 - giou), axis=-1))


def landmark_loss(
    answered: Answered, truth: tf.Tensor, landmarks: tf.Tensor, cells: int
) -> tf.Tensor:
    """How far the second reading is from looking where it is to look, and what is meant from lying
    as the phrase says from there: a mean over the phrases for which the first is known.

    Truth `(n, 4)`, and boxes `(n, k, 4)` to look into any of, NaN where there is none. The one is
    -log of the share of looks that falls there (supervised attention, as in Rohrbach et al.,
    "Grounding of Textual Phrases in Images by Reconstruction", ECCV 2016), the other -log of the
    mean probability of lying so over the truth's cells by that over all cells, which may be
    negative. By score alone both readings look for what is meant, which is learned soonest, and how
    it lies from something else is not learned at all.
    """
    known = ~tf.reduce_any(tf.math.is_nan(landmarks), axis=-1)
    there, _ = cells_inside(tf.reshape(landmarks, (-1, 4)), cells)
    there = tf.reshape(there, (-1, landmarks.shape[1], cells**2)) & known[..., None]
    meant, _ = cells_inside(truth, cells)

    def total(logs: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(tf.where(where, logs, -1e9), axis=-1)

    size = tf.math.log(tf.reduce_mean(tf.cast(meant, tf.float32), axis=-1))
    loss = tf.reduce_logsumexp(answered.lies, axis=-1) + size - total(answered.lies, meant)
    loss -= total(answered.looked, tf.reduce_any(there, axis=1))
    used = tf.reduce_any(known, axis=1)
    number = tf.reduce_sum(tf.cast(used, tf.float32))
    return tf.reduce_sum(tf.where(used, loss, 0.0)) / tf.maximum(1.0, number)
