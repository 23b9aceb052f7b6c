"""What a pair of boxes says: networks that score a phrase's box by the box of another phrase."""

from dataclasses import dataclass, field
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from scene_utils.grid.folders import blank_vectors
from scene_utils.grid.network import word_vectors
from scene_utils.grid.sentences import JOINT, LOUDEST, PHRASE

WEIGHTS = "context.weights.h5"


def _place(box: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Centre and size of boxes, and both as features of like magnitude."""
    centre = (box[..., :2] + box[..., 2:]) / 2
    size = ops.maximum(box[..., 2:] - box[..., :2], 0.01)
    return centre, size, ops.concatenate([2 * centre - 1, ops.log(size) + 1, 2 * box - 1], axis=-1)


@keras.saving.register_keras_serializable(package="scene_utils")
class HowTheyLie(layers.Layer):
    """Features of each pair of boxes `(n, k, 4)` and `(n, l, 4)`: `(n, k, l, 31)`."""

    def call(self, inputs):
        one, other = inputs[0][:, :, None], inputs[1][:, None]
        one, other = one + 0 * other, other + 0 * one
        (centre, size, here), (middle, extent, there) = _place(one), _place(other)
        way = centre - middle
        low = ops.maximum(one[..., :2], other[..., :2])
        high = ops.minimum(one[..., 2:], other[..., 2:])
        both = ops.prod(ops.maximum(high - low, 0.0), axis=-1, keepdims=True)
        areas = [ops.prod(side, axis=-1, keepdims=True) for side in (size, extent)]
        gap = ops.maximum(low - high, 0.0)
        features = [2 * way, 2 * ops.abs(way), way / extent / 2, way / size / 2]
        features += [ops.log(size / extent), both / areas[0], both / areas[1]]
        features += [both / (areas[0] + areas[1] - both), 2 * gap, ops.tanh(20 * way)]
        return ops.concatenate([*features, here, there], axis=-1)


@dataclass(frozen=True)
class PairNetworks:
    """What is learned of pairs of phrases.

    `reads`: tokens (m, 21) and order (m, 3) of `Pairs` to (m, d). `lies`: boxes (m, k, 4) and
    (m, l, 4) to (m, k, l, d). Their product is what the other's box says for the one's, a log
    ratio of probabilities. `prior`: tokens and boxes (m, k, 4) to (m, k), what the phrase says by
    itself; it is needed in training alone, so that the rest learns what the other adds.
    """

    reads: keras.Model = field(repr=False)
    lies: keras.Model = field(repr=False)
    prior: keras.Model = field(repr=False)

    def said(self, tokens, order, one, other):
        """What the other's boxes say for those of the one, `(m, k, l)`; `sentences.factors`."""
        read, lie = self.reads([tokens, order]), self.lies([one, other])
        return tf.clip_by_value(tf.einsum("md,mkld->mkl", read, lie), -2 * LOUDEST, 2 * LOUDEST)


def build_networks(embeddings: np.ndarray, units: int = 256, depth: int = 64) -> PairNetworks:
    """Untrained networks whose words start from `embeddings (words, d)`."""
    tokens = keras.Input((PHRASE + JOINT + PHRASE,), dtype="int32", name="tokens")
    order = keras.Input((3,), name="order")
    x = word_vectors(tokens, embeddings, 32, 0.3)
    held = ops.cast(tokens > 0, "float32")[..., None]
    x = layers.Dropout(0.1)(x) * held

    def phrase(start: int) -> list:
        part, there = x[:, start : start + PHRASE], held[:, start : start + PHRASE]
        number = ops.maximum(ops.sum(there, axis=1, keepdims=True), 1.0)
        last = ops.equal(number, ops.arange(1, PHRASE + 1, dtype="float32")[None, :, None])
        last = ops.cast(last, "float32")
        return [ops.sum(part, axis=1) / number[:, 0], ops.sum(part * last, axis=1)]

    joint = layers.Flatten()(x[:, PHRASE : PHRASE + JOINT])
    read = layers.Concatenate()([*phrase(0), joint, *phrase(PHRASE + JOINT), order])
    read = layers.Dense(units, activation="relu", name="read_in")(read)
    read = layers.Dropout(0.2)(read)
    read = layers.Dense(units, activation="relu", name="read")(read)
    read = layers.Dense(depth, name="asked")(read)
    one, other = keras.Input((None, 4), name="one"), keras.Input((None, 4), name="other")
    lie = layers.Dense(128, activation="relu", name="lie_in")(HowTheyLie()([one, other]))
    lie = layers.Dense(depth, name="lie")(lie) / depth**0.5
    alone = layers.Dense(128, activation="relu", name="alone_in")(layers.Concatenate()(phrase(0)))
    alone = layers.Dense(depth, name="alone")(alone)
    here = layers.Dense(128, activation="relu", name="here_in")(_place(one)[2])
    here = layers.Dense(depth, name="here")(here)
    prior = ops.einsum("md,mkd->mk", alone, here) / depth**0.5
    return PairNetworks(
        keras.Model([tokens, order], read, name="reads"),
        keras.Model([one, other], lie, name="lies"),
        keras.Model([tokens, one], prior, name="prior"),
    )


def saved(networks: PairNetworks) -> keras.Model:
    """The networks that answering needs, as one model."""
    reads, lies = networks.reads, networks.lies
    return keras.Model(reads.inputs + lies.inputs, reads.outputs + lies.outputs, name="context")


def load_networks(folder: Path) -> PairNetworks | None:
    """What `train_context` left in the folder, or None where it has not been."""
    if not (folder / WEIGHTS).is_file():
        return None
    networks = build_networks(blank_vectors(folder))
    saved(networks).load_weights(folder / WEIGHTS)
    return networks
