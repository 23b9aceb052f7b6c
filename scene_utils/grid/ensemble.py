"""Grid models that answer together: every cell of each is a candidate.

Models that differ in their seed alone err in different places (Lakshminarayanan et al. 2017,
"Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"). Each member has an
equal part of the probability, and the box with the highest expected IoU under it is one that
several members agree on. Here they may also differ in how long they were trained, and by whom they
were taught. One model is an ensemble of one.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from scene_utils.grid.batches import phrase_batches
from scene_utils.grid.folders import STRIDE
from scene_utils.grid.network import CANDIDATES, GridModel, candidates
from scene_utils.grid.ranking import ranked_boxes


class Asked(NamedTuple):
    """What n phrases get: `boxes (n, k, 4)` and `shares (n, k)`, see `candidates`, k of
    them as `Ensemble.count` says; `heat (n, cells²)`, the probability of each cell; the words'
    `weights (n, length)`; the `logits (n,)` of `presence`, NaN where there is no network; and
    `landmark (n, cells²)`, the share of the second reading's looks at each cell."""

    boxes: tf.Tensor
    shares: tf.Tensor
    heat: tf.Tensor
    weights: tf.Tensor
    logits: tf.Tensor
    landmark: tf.Tensor


@dataclass(frozen=True)
class Ensemble:
    """Members of one vocabulary and input size; for each the network of `presence`, or none."""

    members: tuple[GridModel, ...] = field(repr=False)
    networks: tuple[keras.Model, ...] = field(repr=False, default=())

    @property
    def length(self) -> int:
        """Words of a phrase that are read."""
        return self.members[0].length

    def count(self, size: int) -> int:
        """Candidates of a phrase in a picture seen at `size` px."""
        return len(self.members) * min(CANDIDATES, (size // STRIDE) ** 2)

    def see(self, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Each member's map of pictures `(b, size, size, 3)`, see `GridModel`."""
        return tuple(member.visual(pixels, training=False) for member in self.members)

    def ask(self, maps: tuple[tf.Tensor, ...], tokens: tf.Tensor) -> Asked:
        """Phrases `tokens (b, p, length)` of the pictures that gave the maps; n = b * p."""
        each = [member.ask(grid, tokens) for member, grid in zip(self.members, maps, strict=True)]
        scores = [one.scores for one in each]
        if len(each) > 1:
            # Members' scores have no common zero; their logarithms of probability do.
            scores = [tf.nn.log_softmax(one) for one in scores]
        boxes = tf.concat([one.boxes for one in each], axis=1)
        found = candidates(tf.concat(scores, axis=-1), boxes, len(each) * CANDIDATES)
        logits = [
            network([one.seen, one.scores, one.phrases], training=False)
            for network, one in zip(self.networks, each, strict=bool(self.networks))
        ] or [tf.fill(tf.shape(scores[0])[:1], np.nan)]
        heat = [tf.nn.softmax(one) for one in scores]
        weights = [one.weights for one in each]
        landmark = [tf.exp(one.looked) for one in each]
        means = (tf.add_n(p) / len(p) for p in (heat, weights, logits, landmark))
        return Asked(*found, *means)


class Asker:
    """Answers phrases with models that see pictures at `size` px; compiled once."""

    def __init__(self, ensemble: Ensemble, size: int):
        self.ensemble, self.size = ensemble, size

    @tf.function(reduce_retracing=True)
    def _ask(self, pixels, tokens):
        pixels = tf.cast(pixels, tf.float32)
        if pixels.shape[1] != self.size:
            pixels = tf.image.resize(pixels, (self.size, self.size))
        told = self.ensemble.ask(self.ensemble.see(pixels), tokens)
        return told.boxes, told.shares

    def ask(
        self, pictures: np.ndarray, picture_rows: np.ndarray, rows: np.ndarray, tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best relative box `(n, 1, 4)` of n phrases and its expected IoU `(n, 1)`, see
        `batches.Mentions`."""
        return ranked_boxes(*self.candidates(pictures, picture_rows, rows, tokens), 1)

    def candidates(
        self,
        pictures: np.ndarray,
        picture_rows: np.ndarray,
        rows: np.ndarray,
        tokens: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `ask`, but the candidates instead of the best of them, see `Asked`."""
        count = self.ensemble.count(self.size)
        boxes = np.zeros((len(rows), count, 4), np.float32)
        shares = np.zeros((len(rows), count), np.float32)
        for index in phrase_batches(rows):
            pixels = pictures[picture_rows[rows[index[:, 0]]]]
            found, share = self._ask(pixels, tokens[index])
            boxes[index] = np.reshape(found, (*index.shape, count, 4))
            shares[index] = np.reshape(share, (*index.shape, count))
        return boxes, shares
