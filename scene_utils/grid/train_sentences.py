"""Train what the phrases of a sentence say of each other's boxes; see `sentences`.

Of the entities of a picture that are of a phrase's category, which is the one, given the box of
another phrase of the sentence? No picture is looked at, so all annotated train pictures serve, also
those that are not at hand, and no picture can be learned by heart.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from scene_utils import box_ops
from scene_utils.features.pixels import PictureStore
from scene_utils.grid.batches import opposite_tokens
from scene_utils.grid.folders import record
from scene_utils.grid.localizer import GridLocalizer, load_grid_localizer
from scene_utils.grid.ranking import hit_features, ranked_boxes, rarity
from scene_utils.grid.sentence_network import WEIGHTS, PairNetworks, build_networks, saved
from scene_utils.grid.sentences import Pairs, agree, factors, pairs_of
from scene_utils.grid.trainer import descend
from scene_utils.paths import read_finished, write_text
from scene_utils.runtime import fingerprint, make_deterministic, progress_bar
from scene_utils.stats import fit_logistic
from scene_utils.words import Vocabulary

STEPS = 6_000
PAIRS_PER_STEP = 512
ENTITIES = 10  # of a picture and category that a phrase may mean, itself the first
WEIGHT_GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


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
    boxes = box_ops.relative(boxed)
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


def _losses(networks: PairNetworks, tokens, order, may, other, right, known, training: bool):
    """Losses, and shares of right choices, from the phrase alone and with the other's box."""
    barred = tf.where(known, 0.0, -1e9)
    right = tf.cast(right, tf.float32)
    alone = networks.prior([tokens, may], training=training) + barred
    said = tf.einsum(
        "md,mkd->mk",
        networks.reads([tokens, order], training=training),
        networks.lies([may, other])[:, :, 0],
    )
    target = right / tf.reduce_sum(right, axis=-1, keepdims=True)
    found = []
    for scores in (alone, tf.stop_gradient(alone) + said):
        loss = -tf.reduce_sum(target * tf.nn.log_softmax(scores), axis=-1)
        hit = tf.gather(right, tf.argmax(scores, axis=-1), batch_dims=1)
        found += [tf.reduce_mean(loss), tf.reduce_mean(hit)]
    return found


def train_context(
    folder: Path,
    phrases: pd.DataFrame,
    vocabulary: Vocabulary,
    embeddings: np.ndarray,
    pictures: PictureStore,
    seed: int = 0,
    steps: int = STEPS,
) -> dict:
    """Train beside the finished grid model of `folder`, and return what context.json holds.

    The networks see the train split's annotations alone. How much they count (`weight`), and the
    curve `hit`, are chosen on the val pictures of the store. On val are, too: how often the right
    one is chosen from the phrase `alone` and `with_another`'s box, and mean IoU and accuracy at
    IoU .5 of the grid model by weight, 0 first. A finished training is returned as it is.
    """
    finished = folder / "context.json"
    said = phrases[["image_id", "phrase_id", "phrase", "split"]].to_csv()
    digest = fingerprint(__file__, embeddings, said, record(folder))
    wanted = {"seed": seed, "steps": steps, "fingerprint": digest}
    if known := read_finished(finished, wanted):
        return known
    make_deterministic(seed)
    networks = build_networks(embeddings)
    found = wanted | learn(networks, phrases, vocabulary, seed, steps)
    saved(networks).save_weights(folder / WEIGHTS)
    found |= fit_curves(load_grid_localizer(folder), phrases, pictures)
    write_text(finished, json.dumps(found, indent=1) + "\n")
    return found


def learn(
    networks: PairNetworks, phrases: pd.DataFrame, vocabulary: Vocabulary, seed=0, steps=STEPS
) -> dict:
    """Train the networks on the annotations of the train split; the figures on those of val."""
    rng = np.random.default_rng(seed)
    train_set, val_set = (_annotated(phrases, split, vocabulary) for split in ("train", "val"))
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.02)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.01)
    parts = (networks.reads, networks.lies, networks.prior)
    every = (variable for part in parts for variable in part.trainable_variables)
    variables = list({id(variable): variable for variable in every}.values())
    mirrored = opposite_tokens(vocabulary)
    bar = progress_bar(range(steps), desc="context", unit="step")
    chosen = (rng.choice(train_set.usable, PAIRS_PER_STEP) for _ in bar)
    batches = (_batch(train_set, pairs, mirrored, rng) for pairs in chosen)

    def loss(*batch):
        alone, _, with_another, _ = _losses(networks, *batch, training=True)
        return alone + with_another

    descend(loss, variables, optimizer, batches)

    @tf.function(reduce_retracing=True)
    def hits(*batch):
        _, alone, _, both = _losses(networks, *batch, training=False)
        return tf.stack([alone, both])

    right = [
        len(part) * hits(*map(tf.constant, _batch(val_set, part, mirrored, None))).numpy()
        for part in np.array_split(val_set.usable, -(-len(val_set.usable) // 1000))
    ]
    alone, both = np.sum(right, axis=0) / max(1, len(val_set.usable))
    return {
        "train_pairs": len(train_set.usable),
        "val_pairs": len(val_set.usable),
        "alone": round(float(alone), 5),
        "with_another": round(float(both), 5),
    }


def fit_curves(asked: GridLocalizer, phrases: pd.DataFrame, pictures: PictureStore) -> dict:
    # Whether a phrase has a box is not known when a sentence is asked: all its phrases are.
    val = phrases[(phrases.split == "val") & phrases.image_id.isin(pictures.row)]
    val = val.reset_index(drop=True)
    boxed = (val.n_boxes > 0).to_numpy()
    truth = box_ops.relative(val)[boxed]
    rows = val.image_id.map(pictures.row).to_numpy(int)
    tokens = asked.vocabulary.encode(val.phrase, asked.settings["length"])
    boxes, shares, *_ = asked.candidates(tokens, pictures.pictures, rows)
    pairs = pairs_of(val, asked.vocabulary)
    said = factors(asked.said, boxes, pairs)
    rare = rarity(tokens[boxed], len(asked.vocabulary.words))
    by_weight, curves = {}, {}
    for weight in WEIGHT_GRID:
        found, expected_iou = ranked_boxes(boxes, agree(said, shares, pairs, weight), 1)
        iou = box_ops.iou(found[boxed, 0], truth)
        by_weight[weight] = round(float(iou.mean()), 5), round(float((iou >= 0.5).mean()), 5)
        curves[weight] = fit_logistic(iou >= 0.5, *hit_features(expected_iou[boxed, 0], rare))
    best = max(by_weight, key=by_weight.get)
    return {
        "weight": best,
        "hit": list(curves[best]),
        "val_by_weight": [[weight, *figures] for weight, figures in by_weight.items()],
    }
