"""Grid models that answer together: every cell of each is a candidate.

Models that differ in their seed alone err in different places (Lakshminarayanan et al. 2017,
"Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"). Each member has an
equal part of the probability, and the box with the highest expected IoU under it is one that
several members agree on. One model is an ensemble of one.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from scene_utils.grid.network import CANDIDATES, GridModel, candidates

THINGS = 100  # likeliest cells from which single things are told


class Asked(NamedTuple):
    """What n phrases get, of k candidates and cells² places."""

    boxes: tf.Tensor  # (n, k, 4), see `candidates`
    shares: tf.Tensor  # (n, k)
    heat: tf.Tensor  # (n, cells²), the probability of each cell
    weights: tf.Tensor  # (n, length), of the words
    logits: tf.Tensor  # (n,), of `network.build_presence`, NaN where there is no such network
    landmark: tf.Tensor  # (n, cells²), the share of the second reading's looks at each cell
    # Single things and how likely each is one, best first: (n, t, 4) and (n, t), of
    # `network.build_instances`; t is 1 and all 0 where there is no such network.
    things: tf.Tensor
    likely: tf.Tensor


@dataclass(frozen=True)
class Ensemble:
    """Members of one vocabulary and input size; for each its presence network, or none; and the
    first one's network of single things, or none."""

    members: tuple[GridModel, ...] = field(repr=False)
    networks: tuple[keras.Model, ...] = field(repr=False, default=())
    parting: tuple[keras.Model, ...] = field(repr=False, default=())

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
        return Asked(*found, *means, *self._things(maps, tokens, each))

    def _things(self, maps: tuple, tokens: tf.Tensor, each: list) -> tuple[tf.Tensor, tf.Tensor]:
        if not self.parting:
            none = tf.zeros_like(each[0].scores[:, :1])
            return tf.zeros_like(each[0].boxes[:, :1]), none
        (network,), one = self.parting, each[0]
        phrases = tf.reshape(one.phrases, (*tf.unstack(tf.shape(tokens)[:2]), -1))
        given = [maps[0], one.seen, one.scores, phrases]
        logits, boxes = network(given, training=False)
        likely, cell = tf.math.top_k(tf.sigmoid(logits), THINGS)
        return tf.gather(boxes, cell, batch_dims=1), likely

    @tf.function(autograph=False, reduce_retracing=True)
    def answer(self, pixels: tf.Tensor, tokens: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Candidates and shares of phrases `(b, p, length)` in pictures, for `best_boxes`."""
        asked = self.ask(self.see(tf.cast(pixels, tf.float32)), tokens)
        return asked.boxes, asked.shares
