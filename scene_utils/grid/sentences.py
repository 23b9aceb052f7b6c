"""The phrases of a sentence help each other: a box of one makes boxes of another likelier.

In "a man in a blue shirt" the man is he whose box holds the shirt's. What a pair of boxes says is
learned from annotations alone: of the entities of a picture that are of a phrase's category, which
is the one, given the box of another phrase of the sentence? No picture is looked at, so all
annotated train pictures serve, also those that are not at hand, and no picture can be learned by
heart. A grid model's candidates for all phrases of a sentence are then weighed together. (Wang et
al. 2016, "Structured Matching for Phrase Localization", couple phrases in a like way.)
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers, ops

from scene_utils import box_ops
from scene_utils.features.pixels import PictureStore
from scene_utils.grid.ensemble import Asker, Ensemble, load_members, record
from scene_utils.grid.network import FREQUENT
from scene_utils.grid.train import opposite_tokens
from scene_utils.paths import read_finished, write_text
from scene_utils.runtime import make_deterministic, progress_bar
from scene_utils.stats import fit_logistic, log_odds, logistic
from scene_utils.words import Vocabulary, tokenize

WEIGHTS = "context.weights.h5"
STEPS = 6_000
PAIRS_PER_STEP = 512
PHRASE, JOINT = 8, 5  # the last words of a phrase, the words between two, that are read
ENTITIES = 10  # of a picture and category that a phrase may mean, itself the first
HELPERS = 32  # best candidates of another phrase that are heard
ROUNDS = 2
# What one phrase may say of a box, in units of log probability.
LOUDEST = 4.0
WEIGHT_GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of phrases of one sentence: `one (m,)` is helped by `other (m,)`, both row
    numbers of a table of phrases; `tokens (m, 8 + 5 + 8)` of the one, of the words between if they
    are neighbours, and of the other; `order (m, 3)`: whether the one comes first, whether they are
    neighbours with few words between, and how many phrases apart they are, in fourths up to 1."""

    one: np.ndarray
    other: np.ndarray
    tokens: np.ndarray
    order: np.ndarray


def pairs_of(phrases: pd.DataFrame, vocabulary: Vocabulary) -> Pairs:
    """All pairs of the table; it has image_id, sentence_id, first_word_index, phrase, sentence."""
    first = phrases.first_word_index.to_numpy(int)
    end = first + phrases.phrase.str.split().str.len().to_numpy(int)
    words = phrases.sentence.str.lower().str.split().tolist()
    ids = [
        [vocabulary.index.get(token, 1) for token in tokenize(phrase)] for phrase in phrases.phrase
    ]
    one, other, tokens, order = [], [], [], []
    sentences = phrases.groupby(["image_id", "sentence_id"], sort=False).indices
    for rows in sentences.values():
        rows = rows[np.argsort(first[rows], kind="stable")]
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                if i == j:
                    continue
                low, high = (a, b) if i < j else (b, a)
                joint = words[a][end[low] : first[high]]
                near = abs(i - j) == 1 and len(joint) <= JOINT
                line = np.zeros(PHRASE + JOINT + PHRASE, np.int32)
                line[: len(ids[a][-PHRASE:])] = ids[a][-PHRASE:]
                if near:
                    line[PHRASE : PHRASE + len(joint)] = [
                        vocabulary.index.get(word, 1) for word in joint
                    ]
                line[PHRASE + JOINT :][: len(ids[b][-PHRASE:])] = ids[b][-PHRASE:]
                one.append(a)
                other.append(b)
                tokens.append(line)
                order.append((i < j, near, min(abs(i - j), 4) / 4))
    return Pairs(
        np.array(one, np.int64),
        np.array(other, np.int64),
        np.array(tokens, np.int32).reshape(-1, PHRASE + JOINT + PHRASE),
        np.array(order, np.float32).reshape(-1, 3),
    )


def phrases_of(sentence: str, phrases: Sequence[str]) -> pd.DataFrame:
    """A table for `pairs_of` of phrases that stand in a sentence, in any case and order.

    A phrase given twice is its second occurrence. Raises ValueError for one that is not there.
    """
    words = sentence.lower().split()
    taken, first = set(), []
    for phrase in phrases:
        own = phrase.lower().split()
        places = [
            place
            for place in range(len(words))
            if words[place : place + len(own)] == own and (place, len(own)) not in taken
        ]
        if not own or not places:
            raise ValueError(f"sentence: expected to find '{phrase}' in it, got '{sentence}'")
        first.append(places[0])
        taken.add((places[0], len(own)))
    return pd.DataFrame(
        {
            "image_id": "",
            "sentence_id": 0,
            "first_word_index": first,
            "phrase": list(phrases),
            "sentence": sentence,
        }
    )


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
        low, high = (
            choose(one[..., part], other[..., part])
            for choose, part in ((ops.maximum, slice(0, 2)), (ops.minimum, slice(2, 4)))
        )
        both = ops.prod(ops.maximum(high - low, 0.0), axis=-1, keepdims=True)
        areas = [ops.prod(side, axis=-1, keepdims=True) for side in (size, extent)]
        gap = ops.maximum(low - high, 0.0)
        features = [2 * way, 2 * ops.abs(way), way / extent / 2, way / size / 2]
        features += [ops.log(size / extent), both / areas[0], both / areas[1]]
        features += [both / (areas[0] + areas[1] - both), 2 * gap, ops.tanh(20 * way)]
        return ops.concatenate([*features, here, there], axis=-1)


@dataclass(frozen=True)
class Context:
    """Trained networks, and how much they count.

    `reads`: tokens (m, 21) and order (m, 3) of `Pairs` to (m, d). `lies`: boxes (m, k, 4) and
    (m, l, 4) to (m, k, l, d). Their product is what the other's box says for the one's, a log
    ratio of probabilities. `prior`: tokens and boxes (m, k, 4) to (m, k), what the phrase says by
    itself; it is needed in training alone, so that the rest learns what the other adds. `weight`
    of what is said counts; `hit` is as `presence.Presence`'s, for the expected IoU after it.
    """

    reads: keras.Model = field(repr=False)
    lies: keras.Model = field(repr=False)
    prior: keras.Model = field(repr=False)
    weight: float = 1.0
    hit: tuple[float, float] = (1.0, 0.0)

    def hit_probability(self, worth: np.ndarray) -> np.ndarray:
        """Probability that a box of this expected IoU has an IoU of .5 with the truth."""
        return logistic(log_odds(worth), self.hit)


def build_context(embeddings: np.ndarray, units: int = 256, depth: int = 64) -> Context:
    """Untrained networks whose words start from `embeddings (words, d)`."""
    count, width = embeddings.shape
    tokens = keras.Input((PHRASE + JOINT + PHRASE,), dtype="int32", name="tokens")
    order = keras.Input((3,), name="order")
    table = keras.initializers.Constant(embeddings)
    x = layers.Embedding(count, width, embeddings_initializer=table, name="words")(tokens)
    own = keras.initializers.RandomNormal(stddev=0.3)
    frequent = min(count, FREQUENT)
    own = layers.Embedding(frequent, 32, embeddings_initializer=own, name="own")
    x = layers.Concatenate()([x, own(ops.where(tokens < frequent, tokens, 1))])
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
    return Context(
        keras.Model([tokens, order], read, name="reads"),
        keras.Model([one, other], lie, name="lies"),
        keras.Model([tokens, one], prior, name="prior"),
    )


@dataclass(frozen=True)
class _Annotated:
    """Pairs of the boxed phrases of one split, each with the entities that its one may mean."""

    pairs: Pairs
    boxes: np.ndarray
    entities: np.ndarray
    known: np.ndarray
    usable: np.ndarray


def _annotated(phrases: pd.DataFrame, split: str, vocabulary: Vocabulary) -> _Annotated:
    boxed = phrases[(phrases.split == split) & (phrases.n_boxes > 0)].reset_index(drop=True)
    boxes = box_ops.to_relative(
        boxed[box_ops.COLUMNS].to_numpy(), boxed.width.to_numpy(), boxed.height.to_numpy()
    )
    entities = np.tile(np.arange(len(boxed))[:, None], (1, ENTITIES))
    known = np.zeros((len(boxed), ENTITIES), bool)
    known[:, 0] = True
    kinds = boxed.category.str.split("/").str[0]
    ids = boxed.phrase_id.to_numpy()
    for rows in boxed.groupby([boxed.image_id, kinds], sort=False).indices.values():
        _, firsts = np.unique(ids[rows], return_index=True)
        for row in rows:
            others = [other for other in rows[firsts] if ids[other] != ids[row]][: ENTITIES - 1]
            entities[row, 1 : 1 + len(others)] = others
            known[row, 1 : 1 + len(others)] = True
    pairs = pairs_of(boxed, vocabulary)
    # Where the picture has no second such thing there is nothing to learn.
    apart = box_ops.iou(boxes[entities], boxes[:, None]) < 0.5
    usable = np.flatnonzero((apart & known).any(axis=1)[pairs.one])
    return _Annotated(pairs, boxes, entities, known, usable)


def _moved(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    sides = np.tile(boxes[..., 2:] - boxes[..., :2], 2)
    return np.clip(boxes + sides * rng.normal(0, 0.08, boxes.shape), 0, 1)


def _batch(
    data: _Annotated, chosen: np.ndarray, mirrored: np.ndarray, rng: np.random.Generator | None
) -> tuple[np.ndarray, ...]:
    """Tokens, order, boxes that the one may mean, the other's, and the targets; with `rng` boxes
    are moved a little, as a model's are, and half of the batches mirrored."""
    one, tokens = data.pairs.one[chosen], data.pairs.tokens[chosen]
    may, truth = data.boxes[data.entities[one]], data.boxes[one][:, None]
    other, known = data.boxes[data.pairs.other[chosen]][:, None], data.known[one]
    right = (box_ops.iou(may, truth) >= 0.5) & known
    if rng is not None:
        may, other = _moved(may, rng), _moved(other, rng)
        if rng.random() < 0.5:
            may, other, tokens = box_ops.mirror(may), box_ops.mirror(other), mirrored[tokens]
    boxes = (box.astype(np.float32) for box in (may, other))
    return tokens.astype(np.int32), data.pairs.order[chosen], *boxes, right, known


def _losses(context: Context, tokens, order, may, other, right, known, training: bool):
    """Losses, and shares of right choices, from the phrase alone and with the other's box."""
    barred = tf.where(known, 0.0, -1e9)
    right = tf.cast(right, tf.float32)
    alone = context.prior([tokens, may], training=training) + barred
    said = tf.einsum(
        "md,mkd->mk",
        context.reads([tokens, order], training=training),
        context.lies([may, other])[:, :, 0],
    )
    target = right / tf.reduce_sum(right, axis=-1, keepdims=True)
    found = []
    for scores in (alone, tf.stop_gradient(alone) + said):
        loss = -tf.reduce_sum(target * tf.nn.log_softmax(scores), axis=-1)
        hit = tf.gather(right, tf.argmax(scores, axis=-1), batch_dims=1)
        found += [tf.reduce_mean(loss), tf.reduce_mean(hit)]
    return found


_ASKED = [
    tf.TensorSpec((None, PHRASE + JOINT + PHRASE), tf.int32),
    tf.TensorSpec((None, 3), tf.float32),
    tf.TensorSpec((None, None, 4), tf.float32),
    tf.TensorSpec((None, None, 4), tf.float32),
]


class Together:
    """Weighs the candidates of all phrases of a sentence together; compiled once."""

    def __init__(self, context: Context):
        self.context = context

    @tf.function(input_signature=_ASKED)
    def _said(self, tokens, order, one, other):
        read, lie = self.context.reads([tokens, order]), self.context.lies([one, other])
        return tf.clip_by_value(tf.einsum("md,mkld->mkl", read, lie), -2 * LOUDEST, 2 * LOUDEST)

    def factors(self, boxes: np.ndarray, pairs: Pairs) -> np.ndarray:
        """How much likelier each candidate of each pair's one is for each of its other's first
        `HELPERS`, `(m, k, l)`; `boxes (n, k, 4)` are the candidates of the n phrases."""
        heard = boxes[:, :HELPERS]
        said = [np.zeros((0, boxes.shape[1], heard.shape[1]), np.float32)]
        for start in range(0, len(pairs.one), 64):
            part = slice(start, start + 64)
            one, other = boxes[pairs.one[part]], heard[pairs.other[part]]
            asked = pairs.tokens[part], pairs.order[part], one, other
            said.append(self._said(*map(tf.constant, asked)).numpy())
        return np.exp(np.concatenate(said))

    def weigh(
        self, boxes: np.ndarray, shares: np.ndarray, pairs: Pairs, weight: float | None = None
    ) -> np.ndarray:
        """`agree` on the candidates `boxes (n, k, 4)`, with the context's weight or another."""
        weight = self.context.weight if weight is None else weight
        return agree(self.factors(boxes, pairs), shares, pairs, weight)


def agree(factors: np.ndarray, shares: np.ndarray, pairs: Pairs, weight: float) -> np.ndarray:
    """New shares `(n, k)` of the candidates of n phrases with these `pairs`; see `Together`.

    Each phrase hears from each other of its sentence how likely its own boxes are, the mean over
    the other's boxes by their shares; in the second round these are the new ones.
    """
    if not len(factors):
        return shares
    before, new = np.log(shares + 1e-9), shares
    for _ in range(ROUNDS):
        told = new[pairs.other, :HELPERS]
        told = told / told.sum(axis=1, keepdims=True)
        message = np.log(np.einsum("mkl,ml->mk", factors, told))
        middle = (message * new[pairs.one]).sum(axis=1, keepdims=True)
        heard_of = np.zeros_like(before)
        np.add.at(heard_of, pairs.one, np.clip(message - middle, -LOUDEST, LOUDEST))
        logits = before + weight * heard_of
        new = np.exp(logits - logits.max(axis=1, keepdims=True))
        new /= new.sum(axis=1, keepdims=True)
    return new


def train_context(
    folder: Path,
    phrases: pd.DataFrame,
    vocabulary: Vocabulary,
    embeddings: np.ndarray,
    pictures: PictureStore,
    seed: int = 0,
    steps: int = STEPS,
    progress: bool = True,
) -> dict:
    """Train beside the finished grid model of `folder`, and return what context.json holds.

    The networks see the annotations of the train split alone, whose pictures need not be at hand.
    How much they count, and the curve from expected IoU to the probability of a hit, are chosen on
    the val pictures of the store. Beside these context.json has the figures on val: how often the
    right one of a picture's like entities is chosen, from the phrase alone (`alone`) and with the
    box of another phrase of its sentence (`with_another`), and mean IoU and accuracy at IoU .5 of
    the grid model by weight, 0 first. A finished training is returned as it is.
    """
    finished = folder / "context.json"
    digest = hashlib.sha256(Path(__file__).read_bytes() + embeddings.tobytes())
    digest.update(phrases[["image_id", "phrase_id", "phrase", "split"]].to_csv().encode())
    digest.update(record(folder))
    wanted = {"seed": seed, "steps": steps, "fingerprint": digest.hexdigest()}
    if known := read_finished(finished, wanted):
        return known
    make_deterministic(seed)
    context = build_context(embeddings)
    found = wanted | learn(context, phrases, vocabulary, seed, steps, progress)
    found |= _on_val(context, folder, phrases, vocabulary, pictures)
    _saved(context).save_weights(folder / WEIGHTS)
    write_text(finished, json.dumps(found, indent=1) + "\n")
    return found


def learn(
    context: Context,
    phrases: pd.DataFrame,
    vocabulary: Vocabulary,
    seed: int = 0,
    steps: int = STEPS,
    progress: bool = True,
) -> dict:
    """Train the networks on the annotations of the train split; the figures on those of val."""
    rng = np.random.default_rng(seed)
    train_set, val_set = (_annotated(phrases, split, vocabulary) for split in ("train", "val"))
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.02)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    variables = {
        id(variable): variable
        for part in (context.reads, context.lies, context.prior)
        for variable in part.trainable_variables
    }
    variables = list(variables.values())

    @tf.function
    def step(*batch):
        with tf.GradientTape() as tape:
            first, _, second, _ = _losses(context, *batch, training=True)
            total = first + second
        gradients = tape.gradient(total, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))

    @tf.function(reduce_retracing=True)
    def hits(*batch):
        _, alone, _, both = _losses(context, *batch, training=False)
        return tf.stack([alone, both])

    mirrored = opposite_tokens(vocabulary)
    for _ in progress_bar(range(steps), desc="context", unit="step", disable=not progress):
        chosen = rng.choice(train_set.usable, PAIRS_PER_STEP)
        step(*map(tf.constant, _batch(train_set, chosen, mirrored, rng)))
    parts = np.array_split(val_set.usable, -(-len(val_set.usable) // 1000))
    right = [
        len(part) * hits(*map(tf.constant, _batch(val_set, part, mirrored, None))).numpy()
        for part in parts
    ]
    alone, both = np.sum(right, axis=0) / max(1, len(val_set.usable))
    return {
        "train_pairs": len(train_set.usable),
        "val_pairs": len(val_set.usable),
        "alone": round(float(alone), 5),
        "with_another": round(float(both), 5),
    }


def _on_val(
    context: Context,
    folder: Path,
    phrases: pd.DataFrame,
    vocabulary: Vocabulary,
    pictures: PictureStore,
) -> dict:
    ensemble = Ensemble(load_members(folder))
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    # Whether a phrase has a box is not known when a sentence is asked: all its phrases are.
    val = phrases[(phrases.split == "val") & phrases.image_id.isin(pictures.row)]
    val = val.reset_index(drop=True)
    boxed = (val.n_boxes > 0).to_numpy()
    truth = box_ops.to_relative(
        val[box_ops.COLUMNS].to_numpy(), val.width.to_numpy(), val.height.to_numpy()
    )[boxed]
    rows = val.image_id.map(pictures.row).to_numpy(int)
    tokens = vocabulary.encode(val.phrase, ensemble.length)
    asker = Asker(ensemble, settings["size"])
    every = np.arange(len(pictures.pictures))
    boxes, shares, _ = asker.candidates(pictures.pictures, every, rows, tokens)
    pairs = pairs_of(val, vocabulary)
    factors = Together(context).factors(boxes, pairs)
    by_weight, worths = {}, {}
    for weight in WEIGHT_GRID:
        found, worth = asker.rank(boxes, agree(factors, shares, pairs, weight))
        iou = box_ops.iou(found[boxed, 0], truth)
        by_weight[weight] = round(float(iou.mean()), 5), round(float((iou >= 0.5).mean()), 5)
        worths[weight] = log_odds(worth[boxed, 0]), iou >= 0.5
    best = max(by_weight, key=by_weight.get)
    return {
        "weight": best,
        "hit": list(fit_logistic(*worths[best])),
        "val_by_weight": [[weight, *figures] for weight, figures in by_weight.items()],
    }


def _saved(context: Context) -> keras.Model:
    """The networks that answering needs, as one model."""
    inputs = context.reads.inputs + context.lies.inputs
    return keras.Model(inputs, context.reads.outputs + context.lies.outputs, name="context")


def load_context(folder: Path, vocabulary: Vocabulary, word_dim: int) -> Context | None:
    """What `train_context` left in the folder, or None where it has not been."""
    path = folder / "context.json"
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    context = build_context(np.zeros((len(vocabulary.words), word_dim), np.float32))
    _saved(context).load_weights(folder / WEIGHTS)
    return replace(context, weight=known["weight"], hit=tuple(known["hit"]))
