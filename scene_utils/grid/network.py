"""A model that scores places: a phrase's box from every cell of a grid, and which cell to trust.

One pass over a picture serves all its phrases. The backbone's maps of stride 8, 16 and 32 meet on
the grid of stride 16; a phrase is read by a bidirectional GRU over GloVe vectors and vectors of
the words' own with attention over its words, twice: once for what it names, once for what it says
beside that. Each reading becomes a 1x1 convolution of that grid, and each asks every cell for all
its words at once; the second looks for one place, which training may show it (`landmark_loss`), and
tells all cells how they lie from there. Residual blocks then compare places. Each cell gives a
score and its own box. (That a phrase falls into a subject and what it is told by is from MAttNet,
Yu et al., CVPR 2018.) The model takes square pictures of any side that is a multiple of 32. Boxes
here are fractions of the picture, `xyxy` in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
from keras import KerasTensor, layers, ops

from scene_utils.features import backbones
from scene_utils.features.backbones import Backbone
from scene_utils.features.folding import fold_norms
from scene_utils.grid.folders import PARTS, blank_vectors, member_folders, read_settings
from scene_utils.grid.layers import (
    AddPlace,
    Beside,
    CellBoxes,
    FromThere,
    PhraseConvolution,
    WithShares,
    WordsFit,
    small,
)
from scene_utils.words import FREQUENT

# Cells whose boxes may be the answer; more bring nothing.
CANDIDATES = 80
PRESENCE_WEIGHTS, INSTANCE_WEIGHTS = "presence.weights.h5", "instances.weights.h5"
# Settings of a run that the model is built by; see `batches.GridSettings`.
DESIGN = ("length", "channels", "blocks", "policy")


class Answered(NamedTuple):
    """What n phrases get from the cells of their pictures."""

    scores: KerasTensor  # (n, cells²)
    boxes: KerasTensor  # (n, cells², 4)
    # The map both are read from (n, cells, cells, channels); its last three are what single words
    # and places add to the scores.
    seen: KerasTensor
    phrases: KerasTensor  # (n, 2 d), one after the other what is named and what is said beside it
    weights: KerasTensor  # (n, length), of the words in the first of these, summing to 1
    keys: KerasTensor  # (n, length, d + 1), of the words, see `layers.WordsFit`
    gates: KerasTensor  # (n, length, 2), likewise
    looked: KerasTensor  # (n, cells²), log shares of the places where it looked for what is beside
    lies: KerasTensor  # (n, cells²), log probability that a cell lies as the phrase says from there


@dataclass(frozen=True)
class GridModel:
    """The three parts, apart because a picture is seen once and asked many times.

    `visual`: pixels (b, size, size, 3), RGB 0-255, to a map (b, cells, cells, d), of size / 16
    cells a side. `text`: tokens (n, length), 0 for padding, to phrases, weights, keys and gates of
    `Answered`. `head`: the map, and phrases, keys and gates by picture (b, p, ...), to scores,
    boxes, seen, looked and lies of b * p phrases.
    """

    length: int
    visual: keras.Model = field(repr=False)
    text: keras.Model = field(repr=False)
    head: keras.Model = field(repr=False)

    def parts(self) -> list[keras.Model]:
        return [self.visual, self.text, self.head]

    def ask(self, grid: KerasTensor, tokens: KerasTensor, training: bool = False) -> Answered:
        """Phrases `tokens (b, p, length)` of pictures' maps `grid`; n = b * p, by picture."""
        by_picture = ops.shape(tokens)[:2]
        read = self.text(ops.reshape(tokens, (-1, self.length)), training=training)
        phrases, weights, keys, gates = read
        asked = [ops.reshape(x, (*by_picture, *x.shape[1:])) for x in (phrases, keys, gates)]
        scores, boxes, seen, looked, lies = self.head([grid, *asked], training=training)
        return Answered(scores, boxes, seen, phrases, weights, keys, gates, looked, lies)

    def save(self, folder: Path) -> None:
        for name, part in zip(PARTS, self.parts(), strict=True):
            part.save_weights(folder / f"{name}.weights.h5")

    def load(self, folder: Path) -> None:
        for name, part in zip(PARTS, self.parts(), strict=True):
            part.load_weights(folder / f"{name}.weights.h5")


def folded_maps(backbone: Backbone, policy: str) -> keras.Model:
    """The backbone's C3, C4, C5 with each batch norm folded into the convolution before it.

    The function is the same, and a pass on CPU takes half the time. Layers up to C3 are not
    trained: their maps are large, their features general. Depthwise kernels of 5 and more stay in
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
            layer.trainable = not fixed
        fixed = fixed and layer.name != last_fixed
    return maps


def build_visual(backbone: Backbone, policy: str, depth: int) -> keras.Model:
    """Pixels to the fused map of stride 16, `(b, size / 16, size / 16, depth)`."""
    pixels = keras.Input((None, None, 3), name="pixels")
    c3, c4, c5 = folded_maps(backbone, policy)(pixels)
    c3 = layers.Conv2D(64, 3, strides=2, padding="same", activation="relu", name="from_c3")(c3)
    c5 = layers.Conv2D(depth, 1, activation="relu", name="from_c5")(c5)
    c5 = layers.UpSampling2D(2, interpolation="nearest")(c5)
    x = layers.Concatenate(name="concatenate")([c3, c4, c5])
    x = layers.Conv2D(depth, 1, activation="relu", name="fuse")(x)
    around = layers.Conv2D(depth, 3, padding="same", activation="relu", name="around")(x)
    x = layers.Conv2D(depth, 1, name="project")(x + around)
    # Map and phrase meet at one scale: without these norms the phrase is drowned at first, and the
    # model spends its first thousand steps as a blind one.
    x = layers.LayerNormalization(name="visual_norm")(AddPlace(name="place")(x))
    return keras.Model(pixels, x, name="visual")


def neck(visual: keras.Model) -> keras.Model:
    """The part of `build_visual`'s that is behind the backbone: C3, C4 and C5 to the fused map."""
    c4 = visual.get_layer("concatenate").input[1]
    ends = visual.get_layer("from_c3").input, c4, visual.get_layer("from_c5").input
    return keras.Model(ends, visual.output)


def word_vectors(
    tokens: KerasTensor, embeddings: np.ndarray, own: int, stddev: float
) -> KerasTensor:
    """Tokens `(n, length)` to vectors that start from `embeddings (words, d)`, and `own` numbers
    more of each frequent word: words that are used alike have nearly the same vector (red and blue,
    man and woman, above and below have cosines of .9 in GloVe 50-d)."""
    kwargs = {"dtype": "float32"}
    table = keras.initializers.Constant(embeddings)
    given = layers.Embedding(*embeddings.shape, table, name="words", **kwargs)(tokens)
    frequent = min(len(embeddings), FREQUENT)
    spread = keras.initializers.RandomNormal(stddev=stddev)
    own = layers.Embedding(frequent, own, spread, name="own", **kwargs)
    return layers.Concatenate(**kwargs)([given, own(ops.where(tokens < frequent, tokens, 1))])


def build_text(embeddings: np.ndarray, length: int, depth: int, units: int = 160) -> keras.Model:
    """The text part of `GridModel`, with vectors of `depth` numbers."""
    kwargs = {"dtype": "float32"}
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    x = word_vectors(tokens, embeddings, 64, 0.5)
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


def build_head(depth: int, length: int, policy: str, channels: int, blocks: int) -> keras.Model:
    """The head of `GridModel`: what each cell answers."""
    grid = keras.Input((None, None, depth), dtype=keras.DTypePolicy(policy).compute_dtype)
    phrases = keras.Input((None, 2 * depth), dtype="float32", name="phrases")
    keys = keras.Input((None, length, depth + 1), dtype="float32", name="keys")
    gates = keras.Input((None, length, 2), dtype="float32", name="gates")
    q = layers.Dropout(0.2, dtype="float32")(phrases)
    each = ops.reshape(q, (-1, 2 * depth))
    x = PhraseConvolution(channels, name="phrase")([grid, q[..., :depth]])
    beside = PhraseConvolution(channels // 2, name="beside")([grid, q[..., depth:]])
    fits = WordsFit(name="fits")([grid, keys, gates])
    told, share, looked = FromThere(channels, name="from_there")(
        [layers.ReLU()(beside), fits[..., 1]]
    )
    lies = Beside(name="lies", dtype="float32")([share, each])
    known = ops.maximum(ops.stack([fits[..., 0], fits[..., 1], lies], axis=-1), -12.0)
    x = layers.ReLU()(x + told + layers.Dense(channels, name="known")(known))
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
    score = layers.Reshape((-1,), **last)(score[..., 0] + (fits[..., 0] + lies))
    sides = layers.Conv2D(channels, 1, activation="relu", name="sides_in")(x)
    sides = layers.Conv2D(4, 1, kernel_initializer=small(), name="sides", **last)(sides)
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
    policy: str = "float32",
) -> GridModel:
    """A grid model on a backbone's ImageNet weights; the backbone itself is left as it is."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        return GridModel(
            length,
            build_visual(backbone, policy, depth),
            build_text(embeddings, length, depth),
            build_head(depth, length, policy, channels, blocks),
        )
    finally:
        keras.config.set_dtype_policy(before)


def load_grid(folder: Path, policy: str = "") -> GridModel:
    """The model that `train.train_grid` finished in the folder, in its own dtype policy or another.

    Raises FileNotFoundError for a folder that is no finished training.
    """
    settings = read_settings(folder)
    design = {name: settings[name] for name in DESIGN}
    # The trained files hold all weights; the backbone's own are only the shape to put them in.
    model = build_grid(
        backbones.load_backbone(settings["backbone"], untrained=True),
        blank_vectors(folder),
        **design | ({"policy": policy} if policy else {}),
    )
    model.load(folder)
    return model


def load_members(folder: Path, policy: str = "") -> tuple[GridModel, ...]:
    """The models that `train.train_members` left in the folder; see `folders.member_folders`."""
    return tuple(load_grid(member, policy) for member in member_folders(folder))


def candidates(
    scores: KerasTensor, boxes: KerasTensor, count: int = CANDIDATES
) -> tuple[KerasTensor, KerasTensor]:
    """The boxes `(n, k, 4)` of each phrase's `count` best cells, or of all if there are fewer, and
    their shares of probability `(n, k)`, which sum to 1, best first."""
    share, cell = ops.top_k(ops.softmax(scores), min(count, scores.shape[-1]))
    share /= ops.sum(share, axis=-1, keepdims=True)
    return ops.take_along_axis(boxes, cell[..., None], axis=1), share


def build_presence(model: GridModel, units: int = 256) -> keras.Model:
    """The head's map (n, c, c, d), scores (n, c²) and phrase vectors (n, e) to logits (n,)."""
    seen, scores = (
        keras.Input(model.head.outputs[index].shape[1:], dtype=model.head.outputs[index].dtype)
        for index in (2, 0)
    )
    phrase = keras.Input(model.text.outputs[0].shape[1:])
    whole = {"dtype": "float32"}
    places = ops.cast(layers.Reshape((-1, seen.shape[-1]))(seen), "float32")
    share = ops.softmax(scores, axis=-1)
    looked = ops.sum(share[..., None] * places, axis=1)
    # How peaked the scores are, and how high: a thing that is not there leaves them flat.
    spread = [
        -ops.sum(share * ops.log_softmax(scores, axis=-1), axis=-1, keepdims=True),
        ops.max(scores, axis=-1, keepdims=True),
        ops.logsumexp(scores, axis=-1, keepdims=True),
    ]
    asked = layers.Dense(units, activation="relu", name="asked", **whole)(phrase)
    parts = [looked, ops.mean(places, axis=1), asked, *spread]
    x = layers.LayerNormalization(**whole)(layers.Concatenate(**whole)(parts))
    x = layers.Dense(units, activation="relu", name="hidden", **whole)(x)
    x = layers.Dropout(0.2, **whole)(x)
    x = layers.Dense(1, kernel_initializer="zeros", name="logit", **whole)(x)
    return keras.Model([seen, scores, phrase], x[..., 0], name="presence")


def build_instances(model: GridModel, units: int = 64) -> keras.Model:
    """Each cell's logit of lying in the middle of one thing that the phrase names (n, c²), and that
    thing's box (n, c², 4): of the picture's map (b, c, c, d), and of what the head makes of it,
    map and scores, and phrases (b, p, e), with n = b * p."""
    grid, seen, scores = (
        keras.Input(part.shape[1:], dtype=part.dtype)
        for part in (model.head.inputs[0], model.head.outputs[2], model.head.outputs[0])
    )
    phrases = keras.Input((None, model.text.outputs[0].shape[-1]))
    whole = {"dtype": "float32"}
    x = layers.SpatialDropout2D(0.1, **whole)(WithShares(**whole)([seen, scores]))
    x = layers.Dense(units, name="from_seen", **whole)(x)
    from_map = PhraseConvolution(units, name="from_map", **whole)
    x = x + from_map([ops.cast(grid, "float32"), phrases])
    asked = layers.Dense(units, name="asked", **whole)(phrases)
    x = layers.ReLU(**whole)(x + ops.reshape(asked, (-1, 1, 1, units)))
    for number, rate in enumerate((1, 2, 1)):
        how = {"padding": "same", "kernel_initializer": "he_normal", "name": f"near{number}"}
        near = layers.Conv2D(units, 3, dilation_rate=rate, **how, **whole)(x)
        x = layers.ReLU(**whole)(x + near / 2)
    last = {"kernel_initializer": small(), **whole}
    rare = keras.initializers.Constant(-3.0)  # few cells are middles
    logit = layers.Conv2D(1, 1, bias_initializer=rare, name="logit", **last)(x)
    sides = layers.Dense(units, activation="relu", name="sides_in", **whole)(x)
    sides = layers.Conv2D(4, 1, name="sides", **last)(sides)
    outputs = [layers.Reshape((-1,), **whole)(logit[..., 0]), CellBoxes(**whole)(sides)]
    return keras.Model([grid, seen, scores, phrases], outputs, name="instances")


BESIDE = {PRESENCE_WEIGHTS: build_presence, INSTANCE_WEIGHTS: build_instances}


def load_beside(folder: Path, models: Sequence[GridModel], file: str) -> tuple[keras.Model, ...]:
    """The trained networks of `BESIDE` of those of a finished model's members that have one."""
    networks = []
    for model, member in zip(models, member_folders(folder), strict=True):
        if (member / file).is_file():
            networks.append(BESIDE[file](model))
            networks[-1].load_weights(member / file)
    return tuple(networks)
