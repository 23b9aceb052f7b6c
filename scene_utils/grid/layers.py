"""Layers of the grid model: what a phrase asks of every cell of a map, and what a cell answers.

Maps are (b, c, c, d): b pictures, c cells a side. Places and ways are fractions of the picture.
"""

import math

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
from keras import KerasTensor, layers, ops


def small() -> keras.initializers.Initializer:
    """Weights near zero, for a layer that is to say nothing at first."""
    # Made anew for each layer: one made at import would draw its seed before the caller sets any.
    return keras.initializers.RandomNormal(stddev=0.01)


def cell_centres(cells: int | KerasTensor) -> KerasTensor:
    """Centres of the grid's cells as fractions, x then y, `(cells, cells, 2)` float32."""
    centres = (ops.arange(cells, dtype="float32") + 0.5) / ops.cast(cells, "float32")
    y, x = ops.meshgrid(centres, centres, indexing="ij")
    return ops.stack([x, y], axis=-1)


@keras.saving.register_keras_serializable(package="scene_utils")
class AddPlace(layers.Layer):
    """Add a learned linear function of eight coordinates of each cell to a map (b, c, c, d)."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(8, shape[-1]), name="kernel")

    def call(self, x):
        xy = cell_centres(ops.shape(x)[1])
        edge = 2 * ops.abs(xy - 0.5)
        places = ops.concatenate([xy, 2 * xy - 1, edge, edge**2], axis=-1)
        return x + ops.matmul(ops.cast(places, x.dtype), ops.cast(self.kernel, x.dtype))


@keras.saving.register_keras_serializable(package="scene_utils")
class PhraseConvolution(layers.Layer):
    """A 1x1 convolution made by each phrase: (b, c, c, d) and (b, p, d) to (b * p, c, c, out).

    Its kernel is a fixed one plus one whose input channels the phrase scales, which is the product
    of map and phrase followed by a convolution, in one matrix product for all phrases.
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels

    def build(self, shapes):
        depth = shapes[0][-1]
        self.fixed = self.add_weight(shape=(depth, self.channels), name="fixed")
        self.scaled = self.add_weight(shape=(depth, self.channels), name="scaled")
        self.gate = self.add_weight(shape=(shapes[1][-1], depth), name="gate")
        self.gate_bias = self.add_weight(shape=(depth,), initializer="zeros", name="gate_bias")
        self.shift = self.add_weight(shape=(shapes[1][-1], self.channels), name="shift")
        self.shift_bias = self.add_weight((self.channels,), initializer="zeros", name="shift_bias")

    def call(self, inputs):
        grid, phrases = inputs
        p, cells, depth = ops.shape(phrases)[1], ops.shape(grid)[1], grid.shape[-1]
        gate = ops.tanh(ops.matmul(phrases, self.gate) + self.gate_bias)
        gate = ops.cast(gate, grid.dtype)
        kernel = gate[..., None] * ops.cast(self.scaled, grid.dtype)
        kernel = kernel + ops.cast(self.fixed, grid.dtype)
        kernel = ops.reshape(ops.transpose(kernel, (0, 2, 1, 3)), (-1, depth, p * self.channels))
        out = ops.matmul(ops.reshape(grid, (-1, cells**2, depth)), kernel)
        out = ops.reshape(out, (-1, cells, cells, p, self.channels))
        out = ops.transpose(out, (0, 3, 1, 2, 4))
        shift = ops.matmul(phrases, self.shift) + self.shift_bias
        shift = ops.cast(shift, grid.dtype)[:, :, None, None]
        return ops.reshape(out + shift, (-1, cells, cells, self.channels))


def log_fits(places: KerasTensor, words: KerasTensor) -> KerasTensor:
    """Log probability that each word fits each place: features (..., n, d) and keys
    (..., w, d + 1), whose last number is an offset, to (..., n, w) float32."""
    turned = ops.swapaxes(ops.cast(words[..., :-1], places.dtype), -1, -2)
    fits = ops.cast(ops.matmul(places, turned), "float32") / places.shape[-1] ** 0.5
    return ops.log_sigmoid(fits + words[..., None, :, -1])


@keras.saving.register_keras_serializable(package="scene_utils")
class WordsFit(layers.Layer):
    """How well the words of each phrase fit each cell together: sums of log probabilities.

    Map (b, c, c, d), keys (b, p, length, d + 1) and gates (b, p, length, 2), how much a word counts
    in each of two readings of its phrase, to (b * p, c, c, 2) float32: the sum over words of gate
    times `log_fits`. So words that were never seen together can be asked together.
    """

    def __init__(self, **kwargs):
        super().__init__(**{"dtype": "float32"} | kwargs)
        self.autocast = False

    def call(self, inputs):
        grid, keys, gates = inputs
        b, p, length, depth = ops.shape(keys)[0], ops.shape(keys)[1], keys.shape[2], grid.shape[-1]
        cells = ops.shape(grid)[1]
        places = ops.reshape(grid, (b, -1, depth))
        fits = log_fits(places, ops.reshape(keys, (b, p * length, depth + 1)))
        fits = ops.reshape(fits, (b, -1, p, length))
        return ops.reshape(ops.einsum("bcpl,bplr->bpcr", fits, gates), (b * p, cells, cells, 2))


@keras.saving.register_keras_serializable(package="scene_utils")
class FromThere(layers.Layer):
    """Look for one place in a map (n, c, c, k) and tell every cell how it lies from there.

    Where it looks is a softmax over cells of a linear function of the map, plus `fits (n, c, c)`.
    What each cell is told (n, c, c, channels) is a linear function of the place's features, of its
    own, and of the way from the place: in fractions of the picture, in their size, and in spreads
    of the attention. Beside it the shares of places (n, c, c) and their logarithms (n, c²).
    """

    def __init__(self, channels: int, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.autocast = False

    def build(self, shapes):
        depth = shapes[0][-1]
        self.look = self.add_weight(shape=(depth, 1), name="look")
        self.there = self.add_weight(shape=(depth, self.channels), name="there")
        self.here = self.add_weight(shape=(depth, self.channels), name="here")
        self.way = self.add_weight(shape=(7, self.channels), name="way")

    def call(self, inputs):
        x, fits = inputs
        cells = ops.shape(x)[1]
        flat = ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))
        look = ops.cast(ops.matmul(flat, ops.cast(self.look, x.dtype)), "float32")
        look = look + ops.reshape(fits, (ops.shape(x)[0], -1, 1))
        share = ops.softmax(look, axis=1)
        found = ops.sum(ops.cast(flat, "float32") * share, axis=1, keepdims=True)
        centres = ops.reshape(cell_centres(cells), (1, -1, 2))
        way = centres - ops.sum(centres * share, axis=1, keepdims=True)
        spread = ops.sum(ops.sum(way**2, axis=2, keepdims=True) * share, axis=1, keepdims=True)
        spread = ops.sqrt(spread + 1e-6)
        parts = [way, ops.abs(way), ops.tanh(way / spread), spread + 0 * way[..., :1]]
        told = 4 * ops.matmul(ops.concatenate(parts, axis=-1), self.way)
        told = ops.cast(told + ops.matmul(found, self.there), x.dtype)
        told = told + ops.matmul(flat, ops.cast(self.here, x.dtype))
        told = ops.reshape(told, (-1, cells, cells, self.channels))
        looked = ops.log_softmax(look[..., 0], axis=1)
        return told, ops.reshape(share, (-1, cells, cells)), looked


def relative_offsets(cells: int | KerasTensor) -> KerasTensor:
    """Seven features of each way from cell to cell, `(2 * cells, 2 * cells, 7)` float32.

    Row and column say how many cells down and to the right; those from `cells` on stand for ways up
    and to the left, as a Fourier transform counts.
    """
    step = ops.arange(2 * cells)
    step = ops.cast(ops.where(step < cells, step, step - 2 * cells), "float32")
    x, y = ops.meshgrid(step / ops.cast(cells, "float32"), step / ops.cast(cells, "float32"))
    near = ops.exp(-(x**2 + y**2) / 0.02)
    return ops.stack([x, y, ops.abs(x), ops.abs(y), ops.tanh(20 * x), ops.tanh(20 * y), near], -1)


def circular_convolution(kernel: KerasTensor, x: KerasTensor) -> KerasTensor:
    """Convolution `(n, c, c)` of `x (n, c, c)` with `kernel (n, 2 c, 2 c)`, whose places from c on
    stand for steps up and to the left.

    By discrete Fourier transforms written as matrix products: for few cells as fast as a fast
    transform, and every runtime knows them.
    """
    cells = ops.shape(x)[1]
    step = ops.arange(2 * cells, dtype="float32")
    turn = 2 * math.pi * step[:, None] * step / ops.cast(2 * cells, "float32")
    cos, sin = ops.cos(turn), ops.sin(turn)
    # Of a real array's frequencies along x, those beyond the middle repeat those before it.
    half = cells + 1
    twice = 2 - ops.cast((step[:half] == 0) | (step[:half] == step[half - 1]), "float32")

    def transform(a: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
        size = ops.shape(a)[1]
        real = ops.matmul(a, cos[:size, :half])
        imaginary = -ops.matmul(a, sin[:size, :half])
        down, turned = cos[:, :size], sin[:, :size]
        return (
            ops.matmul(down, real) + ops.matmul(turned, imaginary),
            ops.matmul(down, imaginary) - ops.matmul(turned, real),
        )

    (a, b), (c, d) = transform(kernel), transform(x)
    real, imaginary = a * c - b * d, a * d + b * c
    up, turned = cos[:cells], sin[:cells]
    real, imaginary = (
        ops.matmul(up, real) - ops.matmul(turned, imaginary),
        ops.matmul(up, imaginary) + ops.matmul(turned, real),
    )
    across = ops.transpose(cos[:cells, :half] * twice), ops.transpose(sin[:cells, :half] * twice)
    made = ops.matmul(real, across[0]) - ops.matmul(imaginary, across[1])
    return made / ops.cast((2 * cells) ** 2, "float32")


@keras.saving.register_keras_serializable(package="scene_utils")
class Beside(layers.Layer):
    """Log probability that a cell lies from some place as the phrase says.

    Shares of places (n, c, c) and phrases (n, e) to (n, c, c): the sum over places of their share
    times the logistic of a function of the way from there, which is linear in `relative_offsets`
    and made by the phrase. It is a convolution. (The relationship module of Hu et al. 2017,
    "Modeling Relationships in Referential Expressions with Compositional Modular Networks", for
    all pairs of places.)
    """

    def build(self, shapes):
        self.kernel = self.add_weight((shapes[1][-1], 8), initializer=small(), name="kernel")
        self.bias = self.add_weight((8,), initializer="zeros", name="bias")

    def call(self, inputs):
        share, phrases = inputs
        cells = ops.shape(share)[1]
        told = 4 * (ops.matmul(phrases, self.kernel) + self.bias)
        fits = ops.einsum("yxf,nf->nyx", relative_offsets(cells), told[:, :-1])
        fits = fits + told[:, -1, None, None]
        lies = circular_convolution(ops.sigmoid(fits + 1.0), share)
        return ops.log(ops.maximum(lies, 0.0) + 1e-3)

    def compute_output_shape(self, shapes):
        # Keras's JAX backend cannot tell it from sizes that are not known yet.
        return shapes[0]


@keras.saving.register_keras_serializable(package="scene_utils")
class CellBoxes(layers.Layer):
    """Four logarithms of distances (n, c, c, 4) to each cell's box (n, c², 4).

    The distances are those from the cell's centre to left, top, right and bottom, .2 of the picture
    before anything is learned; sides are cut at the picture's.
    """

    def call(self, sides):
        sides = 0.2 * ops.exp(ops.clip(sides, -6, 3))
        centres = cell_centres(ops.shape(sides)[1])
        corners = ops.concatenate([centres - sides[..., :2], centres + sides[..., 2:]], axis=-1)
        return ops.reshape(ops.clip(corners, 0.0, 1.0), (ops.shape(sides)[0], -1, 4))


@keras.saving.register_keras_serializable(package="scene_utils")
class WithShares(layers.Layer):
    """A map (n, c, c, d), and behind its channels the log share of each cell's score (n, c²)."""

    def call(self, inputs):
        seen, scores = inputs
        share = ops.maximum(ops.log_softmax(scores, axis=-1), -12.0) / 4
        share = ops.reshape(share, (-1, ops.shape(seen)[1], ops.shape(seen)[1], 1))
        return ops.concatenate([ops.cast(seen, "float32"), share], axis=-1)
