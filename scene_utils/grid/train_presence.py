"""Train what tells whether a phrase is about the picture at all, and fit how far to trust a box.

A small network on top of each trained member, which stays as it is, tells a picture's own phrases
from those of other pictures; two logistic curves are fitted on val, see `presence`.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from scene_utils import box_ops, imports
from scene_utils.grid.batches import (
    GridSettings,
    Mentions,
    epoch_batches,
    last_tokens,
    opposite_tokens,
    prefetched,
    words_of_pictures,
)
from scene_utils.grid.folders import member_folders, record
from scene_utils.grid.localizer import GridLocalizer, load_grid_localizer
from scene_utils.grid.network import PRESENCE_WEIGHTS, GridModel, build_presence, load_members
from scene_utils.grid.presence import rarity
from scene_utils.grid.ranking import ranked_boxes
from scene_utils.grid.trainer import seen_at
from scene_utils.paths import read_finished, write_text
from scene_utils.runtime import make_deterministic, progress_bar
from scene_utils.stats import area_under_roc, fit_logistic, log_odds
from scene_utils.words import Vocabulary

STEPS = 300


def _batches(
    mentions: Mentions, settings: GridSettings, vocabulary: Vocabulary, steps: int
) -> Iterator[tuple]:
    """Batches of `epoch_batches` without end of epochs; tokens are a picture's own and then, as
    many, those of the picture before it in the batch, and `counts` says which of these to use."""
    mirrored = opposite_tokens(vocabulary)
    # Read on, a phrase ends with another thing than the one it names.
    settings = replace(settings, lengthened=0)
    per_epoch = len(mentions.picture_rows) // settings.pictures_per_step
    for step in range(steps):
        epoch, number = divmod(step, per_epoch)
        if number == 0:
            made = epoch_batches(mentions, settings, mirrored, settings.epochs + epoch)
        batch = next(made)
        own, picture = batch.tokens, np.arange(len(batch.tokens))
        others = np.roll(own, 1, axis=0)
        # A word that the picture's own phrases use may well be there.
        absent = batch.absent[picture - 1, :, picture]
        counts = np.concatenate([np.ones(own.shape[:2], bool), absent], axis=1)
        tokens = np.concatenate([own, others], axis=1)
        yield batch.pixels, batch.windows, batch.light, tokens, counts


def train_presence(
    folder: Path,
    settings: GridSettings,
    vocabulary: Vocabulary,
    train_set: Mentions,
    val_set: Mentions,
    steps: int = STEPS,
    progress: bool = True,
) -> dict:
    """Train the networks of a finished grid model's members, fit the curves on val, and return what
    presence.json holds: the curves, and on val the area under the ROC curve and the mentions.

    Writes each member's presence.weights.h5 and, last, presence.json. A finished one is returned as
    it is.
    """
    finished = folder / "presence.json"
    digest = hashlib.sha256(imports.code_hash(__file__).encode() + record(folder))
    wanted = {"steps": steps, "fingerprint": digest.hexdigest()}
    if known := read_finished(finished, wanted):
        return known
    for model, member in zip(load_members(folder), member_folders(folder), strict=True):
        make_deterministic(settings.seed)
        batches = prefetched(_batches(train_set, settings, vocabulary, steps))
        bar = progress_bar(batches, total=steps, desc="presence", unit="step", disable=not progress)
        _trained(model, settings, bar, steps).save_weights(member / PRESENCE_WEIGHTS)
    found = wanted | fit_curves(load_grid_localizer(folder), val_set)
    write_text(finished, json.dumps(found, indent=1) + "\n")
    return found


def _trained(model: GridModel, settings: GridSettings, batches: Iterable, steps: int):
    network = build_presence(model)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, steps, alpha=0.01)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)

    @tf.function
    def step(pixels, windows, light, tokens, counts):
        pixels = seen_at(settings.size, pixels, windows, light)
        answered = model.ask(model.visual(pixels, training=False), tokens)
        # Of each picture's phrases the first half are its own.
        own = tf.tile(tf.repeat([1.0, 0.0], tf.shape(tokens)[1] // 2), tf.shape(tokens)[:1])
        weight = tf.reshape(tf.cast(counts, tf.float32), (-1,))
        with tf.GradientTape() as tape:
            inputs = [answered.seen, answered.scores, answered.phrases]
            logits = network(inputs, training=True)
            each = tf.nn.sigmoid_cross_entropy_with_logits(own, logits)
            loss = tf.reduce_sum(each * weight) / tf.reduce_sum(weight)
        gradients = tape.gradient(loss, network.trainable_variables)
        optimizer.apply_gradients(zip(gradients, network.trainable_variables, strict=True))

    for batch in batches:
        step(*map(tf.constant, batch))
    return network


def fit_curves(asked: GridLocalizer, val: Mentions) -> dict:
    """Fit the curves: each val picture's phrases, and as many of the next one's."""
    groups = val.of_picture()
    order = np.concatenate(groups)
    following = groups[1:] + groups[:1]
    others = np.concatenate(
        [np.resize(other, len(group)) for group, other in zip(groups, following, strict=True)]
    )
    rows = val.rows[np.concatenate([order, order])]
    tokens = val.tokens[np.concatenate([order, others])]
    boxes, shares, logits = asked.candidates(tokens, val.pictures, val.picture_rows[rows])
    own = np.arange(len(rows)) < len(order)
    found, expected_iou = ranked_boxes(boxes[own], shares[own], 1)
    hits = box_ops.iou(found[:, 0], val.boxes[order]) >= 0.5
    last = last_tokens(tokens)
    used = own | ~words_of_pictures(val, len(asked.vocabulary.words))[rows, last]
    logits, own_used = logits[used], own[used]
    # Both kinds weigh the same, so that the probability is that of an even chance beforehand.
    weights = np.where(own_used, 0.5 / own_used.mean(), 0.5 / (1 - own_used.mean()))
    area = area_under_roc(logits[own_used], logits[~own_used])
    rare = rarity(val.tokens[order], len(asked.vocabulary.words))
    return {
        "presence": list(fit_logistic(own_used, logits, weights=weights)),
        "hit": list(fit_logistic(hits, log_odds(expected_iou[:, 0]), rare)),
        "val_auc": round(float(area), 5),
        "val_mentions": [int(own_used.sum()), int((~own_used).sum())],
    }
