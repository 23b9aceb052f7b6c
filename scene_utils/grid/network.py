"""A model that scores places: a phrase's box from every cell of a grid, and which cell to trust.

One pass over a picture serves all its phrases. The backbone's maps of stride 8, 16 and 32 meet on
the grid of stride 16; a phrase is read by a bidirectional GRU over GloVe vectors and vectors of
the words' own with attention over its words, twice: once for what it names, once for what it says
beside that. Each reading becomes a 1x1 convolution of that grid, and each asks every cell for all
its words at once; the second looks for one place, which training may show it (`anchor_loss`), and
tells all cells how they lie from there. Residual blocks then compare places. Each cell gives a
score and its own box. (That a phrase falls into a subject and what it is told by is from MAttNet,
Yu et al., CVPR 2018.) The model takes square pictures of any side that is a multiple of 32. Boxes
here are fractions of the picture, `xyxy` in [0, 1].
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from scene_utils.features import backbones
from scene_utils.features.backbones import Backbone
from scene_utils.features.folding import fold_norms
from scene_utils.grid.layers import (
    AddPlace,
    Beside,
    CellBoxes,
    FromThere,
    PhraseConvolution,
    WordsFit,
    cell_centres,
    log_fits,
    small,
)

STRIDE = 16
PARTS = ("visual", "text", "head")
# A vocabulary stands by falling count: as many of its first words get a vector of their own.
FREQUENT = 2000
# Cells whose boxes may be the answer; more bring nothing.
CANDIDATES = 80
# Settings of a run that the model is built by; see `grid_training.GridSettings`.
DESIGN = ("length", "blocks", "tuned", "product", "own_vectors", "composed", "policy")


class Answered(NamedTuple):
    """What n phrases get from the cells of their pictures; see `GridModel` for the shapes."""

    scores: tf.Tensor
    boxes: tf.Tensor
    seen: tf.Tensor
    phrases: tf.Tensor
    weights: tf.Tensor
    keys: tf.Tensor
    gates: tf.Tensor
    looked: tf.Tensor
    lies: tf.Tensor


@dataclass(frozen=True)
class GridModel:
    """The three parts, apart because a picture is seen once and asked many times.

    `visual`: pixels (b, size, size, 3), RGB 0-255, to a map (b, cells, cells, d), of size / 16
    cells a side.
    `text`: tokens (n, length) to phrase vectors (n, 2 d), one after the other of what is named and
    of what is said beside it, the word weights of the first (n, length), and each word's key
    (n, length, d + 1) and gates (n, length, 2).
    `head`: maps (b, cells, cells, d), and vectors, keys and gates, each by picture (b, p, ...), to
    scores (b * p, cells²), boxes (b * p, cells², 4), and the map they are read from
    (b * p, cells, cells, channels), whose last three are what single words and places add to the
    scores; log shares of the places where it looked for what is beside (b * p, cells²); and the
    log probability that a cell lies as the phrase says from there (b * p, cells²).
    """

    length: int
    visual: keras.Model = field(repr=False)
    text: keras.Model = field(repr=False)
    head: keras.Model = field(repr=False)

    def parts(self) -> list[keras.Model]:
        return [self.visual, self.text, self.head]

    def ask(self, grid: tf.Tensor, tokens: tf.Tensor, training: bool = False) -> Answered:
        """Phrases `tokens (b, p, length)` of pictures' maps `grid`; n = b * p, by picture."""
        shape = tf.shape(tokens)
        read = self.text(tf.reshape(tokens, (-1, self.length)), training=training)
        phrases, weights, keys, gates = read
        asked = [
            tf.reshape(part, tf.concat([shape[:2], tf.shape(part)[1:]], axis=0))
            for part in (phrases, keys, gates)
        ]
        scores, boxes, seen, looked, lies = self.head([grid, *asked], training=training)
        return Answered(scores, boxes, seen, phrases, weights, keys, gates, looked, lies)

    def save(self, folder: Path) -> None:
        for name, part in zip(PARTS, self.parts(), strict=True):
            part.save_weights(folder / f"{name}.weights.h5")

    def load(self, folder: Path) -> None:
        for name, part in zip(PARTS, self.parts(), strict=True):
            part.load_weights(folder / f"{name}.weights.h5")


def folded_maps(backbone: Backbone, policy: str, tuned: bool) -> keras.Model:
    """The backbone's C3, C4, C5 with each batch norm folded into the convolution before it.

    With its statistics frozen a batch norm is a scale and a shift, so the function is the same and
    a pass on CPU takes half the time. Layers up to C3 are not trained: their maps are large, their
    features general. With `tuned` false no layer is. Depthwise kernels of 5 and more stay in
    float32, whose gradients TensorFlow computes five times as fast as bfloat16's.
    """
    source = backbones.feature_maps(backbone)
    prefix = backbones.MAPS[backbone.name]["C3"]
    last_fixed = [
        layer.name
        for layer in source.layers
        if layer.name.startswith(prefix) and not isinstance(layer, layers.BatchNormalization)
    ][-1]
    maps = fold_norms(
        source,
        policy,
        keras.Input((None, None, 3), name="pixels"),
        exact=lambda layer: isinstance(layer, layers.DepthwiseConv2D) and layer.kernel_size[0] >= 5,
        fixed=last_fixed,
    )
    fixed = True
    for layer in maps.layers:
        if isinstance(layer, layers.Layer):
            layer.trainable = tuned and not fixed
        fixed = fixed and layer.name != last_fixed
    return maps


def build_visual(backbone: Backbone, policy: str, depth: int, tuned: bool) -> keras.Model:
    """Pixels to the fused map of stride 16, `(b, size / 16, size / 16, depth)`."""
    pixels = keras.Input((None, None, 3), name="pixels")
    c3, c4, c5 = folded_maps(backbone, policy, tuned)(pixels)
    c3 = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="from_c3")(c3)
    c5 = layers.Conv2D(depth, 1, activation="relu", name="from_c5")(c5)
    c5 = layers.UpSampling2D(2, interpolation="nearest")(c5)
    x = layers.Concatenate()([c3, c4, c5])
    x = layers.Conv2D(depth, 1, activation="relu", name="fuse")(x)
    around = layers.Conv2D(depth, 3, padding="same", activation="relu", name="around")(x)
    x = layers.Conv2D(depth, 1, name="project")(x + around)
    # Map and phrase meet at one scale: without these norms the phrase is drowned at first, and the
    # model spends its first thousand steps as a blind one.
    x = layers.LayerNormalization(name="visual_norm")(AddPlace(name="place")(x))
    return keras.Model(pixels, x, name="visual")


def build_text(
    embeddings: np.ndarray, length: int, depth: int, own_vectors: bool = True, units: int = 160
) -> keras.Model:
    """Tokens `(n, length)`, 0 for padding, to the phrase's two vectors `(n, 2 * depth)`; its words'
    weights in the first `(n, length)`, which sum to 1; and each word's key `(n, length, depth + 1)`
    and gates `(n, length, 2)`, see `grid_layers.WordsFit`."""
    kwargs = {"dtype": "float32"}
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    table = keras.initializers.Constant(embeddings)
    x = layers.Embedding(*embeddings.shape, embeddings_initializer=table, name="words", **kwargs)(
        tokens
    )
    # Words that are used alike have nearly the same vector (red and blue, man and woman, above and
    # below have cosines of .9 in GloVe 50-d), so each frequent word also gets one of its own.
    if own_vectors:
        frequent = min(len(embeddings), FREQUENT)
        own = keras.initializers.RandomNormal(stddev=0.5)
        own = layers.Embedding(frequent, 64, embeddings_initializer=own, name="own", **kwargs)(
            ops.where(tokens < frequent, tokens, 1)
        )
        x = layers.Concatenate(**kwargs)([x, own])
    x = layers.Dropout(0.2, **kwargs)(x)
    x = layers.Dense(units, activation="relu", name="word", **kwargs)(x)
    gru = {"return_sequences": True, "unroll": True, **kwargs}
    forward = layers.GRU(units, name="forward", **gru)(x)
    backward = ops.flip(layers.GRU(units, go_backwards=True, name="backward", **gru)(x), axis=1)
    x = layers.Concatenate(**kwargs)([forward, backward, x])
    x = layers.Dense(depth, activation="relu", name="read", **kwargs)(x)
    weights = layers.Dense(2, name="attention", **kwargs)(x)
    weights = ops.softmax(ops.where(tokens[..., None] > 0, weights, -1e9), axis=1)
    phrase = ops.sum(x[:, :, None] * weights[..., None], axis=1)
    phrase = layers.LayerNormalization(name="text_norm", **kwargs)(phrase)
    phrase = layers.Flatten(**kwargs)(phrase)
    keys = layers.Dense(depth + 1, name="keys", **kwargs)(x)
    gates = layers.Dense(2, activation="sigmoid", name="gates", **kwargs)(x)
    gates = ops.where(tokens[..., None] > 0, gates, 0.0)
    return keras.Model(tokens, [phrase, weights[..., 0], keys, gates], name="text")


def build_head(
    depth: int,
    length: int,
    policy: str,
    channels: int,
    blocks: int,
    product: bool,
    composed: bool = True,
) -> keras.Model:
    """Map, phrase vectors, keys and gates to each cell's score and box, the map before, where it
    looked for what is beside, and how cells lie from there; see `GridModel`."""
    grid = keras.Input((None, None, depth), dtype=keras.DTypePolicy(policy).compute_dtype)
    phrases = keras.Input((None, 2 * depth), dtype="float32", name="phrases")
    keys = keras.Input((None, length, depth + 1), dtype="float32", name="keys")
    gates = keras.Input((None, length, 2), dtype="float32", name="gates")
    q = layers.Dropout(0.2, dtype="float32")(phrases)
    each = ops.reshape(q, (-1, 2 * depth))
    x = PhraseConvolution(channels, product, name="phrase")([grid, q[..., :depth]])
    beside = PhraseConvolution(channels // 2, product, name="beside")([grid, q[..., depth:]])
    if composed:
        fits = WordsFit(name="fits")([grid, keys, gates])
    else:
        fits = ops.cast(ops.zeros_like(beside[..., :2]), "float32")
    told, share, looked = FromThere(channels, name="from_there")(
        [layers.ReLU()(beside), fits[..., 1]]
    )
    x, sure, lies = x + told, 0.0, ops.zeros_like(share)
    if composed:
        lies = Beside(name="lies", dtype="float32")([share, each])
        sure = fits[..., 0] + lies
        known = ops.maximum(ops.stack([fits[..., 0], fits[..., 1], lies], axis=-1), -12.0)
        x = x + layers.Dense(channels, name="known")(known)
    x = layers.ReLU()(x)
    same = {"padding": "same", "use_bias": False}
    for number in range(1, blocks + 1):
        y = layers.Conv2D(channels, 3, name=f"block{number}_in", **same)(x)
        everywhere = layers.Dense(channels, name=f"block{number}_picture")(ops.mean(x, axis=(1, 2)))
        asked = layers.Dense(channels, name=f"block{number}_phrase")(each)
        y = layers.ReLU()(y + (everywhere + asked)[:, None, None])
        name = f"block{number}_out"
        y = layers.Conv2D(channels, 3, kernel_initializer=small(), name=name, **same)(y)
        x = layers.ReLU()(x + y)
    x = layers.Conv2D(channels, 3, padding="same", activation="relu", name="out")(x)
    score = layers.Conv2D(channels, 1, activation="relu", name="score_in")(x)
    last = {"dtype": "float32"}
    score = layers.Conv2D(1, 1, kernel_initializer=small(), name="score", **last)(score)
    score = layers.Reshape((-1,), **last)(score[..., 0] + sure)
    sides = layers.Conv2D(channels, 1, activation="relu", name="sides_in")(x)
    sides = layers.Conv2D(4, 1, kernel_initializer=small(), name="sides", **last)(sides)
    if composed:
        x = ops.concatenate([x, ops.cast(known, x.dtype)], axis=-1)
    lies = layers.Reshape((-1,), **last)(lies)
    outputs = [score, CellBoxes(**last)(sides), x, looked, lies]
    return keras.Model([grid, phrases, keys, gates], outputs, name="head")


def build_grid(
    backbone: Backbone,
    embeddings: np.ndarray,
    length: int = 12,
    depth: int = 256,
    channels: int = 128,
    blocks: int = 3,
    tuned: bool = True,
    product: bool = True,
    own_vectors: bool = True,
    composed: bool = True,
    policy: str = "mixed_bfloat16",
) -> GridModel:
    """A grid model on a backbone's ImageNet weights; the backbone itself is left as it is.

    See `grid_training.GridSettings` for the parts that can be left out.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return GridModel(
            length,
            build_visual(backbone, policy, depth, tuned),
            build_text(embeddings, length, depth, own_vectors),
            build_head(depth, length, policy, channels, blocks, product, composed),
        )
    finally:
        keras.config.set_dtype_policy(before)


def load_grid(folder: Path) -> GridModel:
    """The model that `grid_training.train_grid` finished in the folder.

    Raises FileNotFoundError for a folder that is no finished training.
    """
    missing = [
        name
        for name in ("settings.json", *(f"{part}.weights.h5" for part in PARTS))
        if not (folder / name).is_file()
    ]
    if missing:
        raise FileNotFoundError(
            f"{folder}: expected a finished grid model, found no {', '.join(missing)}"
        )
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    words = len((folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines())
    # The trained files hold all weights; the backbone's own are only the shape to put them in.
    model = build_grid(
        backbones.load_backbone(settings["backbone"], untrained=True),
        np.zeros((words, settings["word_dim"]), np.float32),
        **{name: settings[name] for name in DESIGN},
    )
    model.load(folder)
    return model


def pair_iou(first: tf.Tensor, second: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """IoU and GIoU (Rezatofighi et al., CVPR 2019) of boxes that broadcast, `(..., 4)`."""
    # Side by side: where four numbers are the last axis, no operation uses the processor's width.
    (left, top, right, bottom), (left2, top2, right2, bottom2) = (
        tf.unstack(box, axis=-1) for box in (first, second)
    )
    width = tf.nn.relu(tf.minimum(right, right2) - tf.maximum(left, left2))
    height = tf.nn.relu(tf.minimum(bottom, bottom2) - tf.maximum(top, top2))
    both = width * height
    area = tf.nn.relu(right - left) * tf.nn.relu(bottom - top)
    area2 = tf.nn.relu(right2 - left2) * tf.nn.relu(bottom2 - top2)
    either = area + area2 - both
    hull = (tf.maximum(right, right2) - tf.minimum(left, left2)) * (
        tf.maximum(bottom, bottom2) - tf.minimum(top, top2)
    )
    iou = both / tf.maximum(either, 1e-7)
    return iou, iou - (hull - either) / tf.maximum(hull, 1e-7)


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
    iou, giou = pair_iou(boxes, truth[:, None])
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


def taught_loss(answered: Answered, shares: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Mean over phrases of how far the answer is from that of teachers, whose probability of each
    cell is `shares (n, cells²)` and whose box there is `boxes (n, cells², 4)`.

    Of scores the Kullback-Leibler divergence from the teachers' (Hinton et al. 2015, "Distilling
    the Knowledge in a Neural Network"); of boxes 1 - GIoU with theirs, weighted by their shares.
    """
    apart = tf.math.log(shares + 1e-9) - tf.nn.log_softmax(answered.scores)
    _, giou = pair_iou(answered.boxes, boxes)
    return tf.reduce_mean(tf.reduce_sum(shares * (apart + 1 - giou), axis=-1))


def anchor_loss(answered: Answered, truth: tf.Tensor, anchors: tf.Tensor, cells: int) -> tf.Tensor:
    """How far the second reading is from looking where it is to look, and what is meant from lying
    as the phrase says from there: a mean over the phrases for which the first is known.

    Truth `(n, 4)`, and boxes `(n, k, 4)` to look into any of, NaN where there is none. The one is
    -log of the share of looks that falls there (supervised attention, as in Rohrbach et al.,
    "Grounding of Textual Phrases in Images by Reconstruction", ECCV 2016), the other -log of the
    mean probability of lying so over the truth's cells by that over all cells, which may be
    negative. By score alone both readings look for what is meant, which is learned soonest, and how
    it lies from something else is not learned at all.
    """
    known = ~tf.reduce_any(tf.math.is_nan(anchors), axis=-1)
    there, _ = cells_inside(tf.reshape(anchors, (-1, 4)), cells)
    there = tf.reshape(there, (-1, anchors.shape[1], cells**2)) & known[..., None]
    meant, _ = cells_inside(truth, cells)

    def total(logs: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
        return tf.reduce_logsumexp(tf.where(where, logs, -1e9), axis=-1)

    size = tf.math.log(tf.reduce_mean(tf.cast(meant, tf.float32), axis=-1))
    loss = tf.reduce_logsumexp(answered.lies, axis=-1) + size - total(answered.lies, meant)
    loss -= total(answered.looked, tf.reduce_any(there, axis=1))
    used = tf.reduce_any(known, axis=1)
    number = tf.reduce_sum(tf.cast(used, tf.float32))
    return tf.reduce_sum(tf.where(used, loss, 0.0)) / tf.maximum(1.0, number)


def candidates(
    scores: tf.Tensor, boxes: tf.Tensor, count: int = CANDIDATES
) -> tuple[tf.Tensor, tf.Tensor]:
    """The boxes `(n, k, 4)` of each phrase's `count` best cells, or of all if there are fewer, and
    their shares of probability `(n, k)`, which sum to 1, best first."""
    share, cell = tf.math.top_k(tf.nn.softmax(scores), min(count, scores.shape[-1]))
    share /= tf.reduce_sum(share, axis=-1, keepdims=True)
    return tf.gather(boxes, cell, batch_dims=1), share


def ranked_boxes(boxes: tf.Tensor, share: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The `count` best boxes `(n, count, 4)` of each phrase and their expected IoU `(n, count)`.

    Of candidates `(n, k, 4)` with shares `(n, k)`. A box's worth is the IoU with the others' boxes
    that their shares let one expect; the next ranks avoid what overlaps the ranks before by more
    than .7.
    """
    overlap, _ = pair_iou(boxes[:, :, None], boxes[:, None])
    worth = tf.einsum("nij,nj->ni", overlap, share)
    chosen, values = [], []
    left = worth
    for _ in range(count):
        best = tf.argmax(left, axis=-1)
        chosen.append(tf.gather(boxes, best, batch_dims=1))
        values.append(tf.gather(worth, best, batch_dims=1))
        near = tf.gather(overlap, best, batch_dims=1) > 0.7
        taken = 10 * tf.one_hot(best, tf.shape(left)[-1])
        left = tf.where(near, left - 1, left) - taken
    return tf.stack(chosen, axis=1), tf.stack(values, axis=1)
