"""Train what tells whether a phrase is about the picture at all, and fit how far to trust a box.

A grid model always answers. A small network on top of each trained member, which stays as it is,
tells a picture's own phrases from those of other pictures; two logistic curves, fitted on val, turn
the mean of its logits, and the expected IoU of a box, into probabilities.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, count, islice
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from scene_utils import box_ops
from scene_utils.grid import batches
from scene_utils.grid.batches import GridSettings, Mentions
from scene_utils.grid.folders import member_folders, record
from scene_utils.grid.localizer import GridLocalizer, load_grid_localizer
from scene_utils.grid.network import PRESENCE_WEIGHTS, GridModel, build_presence, load_members
from scene_utils.grid.ranking import hit_features, last_tokens, ranked_boxes, rarity
from scene_utils.grid.trainer import descend, seen_at
from scene_utils.paths import read_finished, write_text
from scene_utils.runtime import fingerprint, make_deterministic, progress_bar
from scene_utils.stats import area_under_roc, fit_logistic
from scene_utils.words import Vocabulary


def _batches(mentions: Mentions, settings: GridSettings, vocabulary: Vocabulary) -> Iterator[tuple]:
    """Batches as of epochs after the last; tokens are a picture's own and then, as many, those of
    the picture before it in the batch, and `counts` says which of these to use."""
    mirrored = batches.opposite_tokens(vocabulary)
    # Read on, a phrase ends with another thing than the one it names.
    settings = replace(settings, lengthened=0)
    given = mentions, settings, mirrored
    epochs = (batches.epoch_batches(*given, settings.epochs + number) for number in count())
    for batch in islice(chain.from_iterable(epochs), settings.presence_steps):
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
) -> dict:
    """Train the networks of a finished grid model's members, fit the curves on val, and return what
    presence.json holds: the curves, and on val the area under the ROC curve and the mentions.

    Writes each member's presence.weights.h5 and, last, presence.json. A finished one is returned as
    it is.
    """
    finished = folder / "presence.json"
    steps = settings.presence_steps
    wanted = {"steps": steps, "fingerprint": fingerprint(__file__, record(folder))}
    if known := read_finished(finished, wanted):
        return known
    for model, member in zip(load_members(folder), member_folders(folder), strict=True):
        make_deterministic(settings.seed)
        made = batches.prefetched(_batches(train_set, settings, vocabulary))
        bar = progress_bar(made, total=steps, desc="presence", unit="step")
        _learn(model, settings, bar).save_weights(member / PRESENCE_WEIGHTS)
    found = wanted | fit_curves(load_grid_localizer(folder), val_set)
    write_text(finished, json.dumps(found, indent=1) + "\n")
    return found


def _learn(model: GridModel, settings: GridSettings, made: Iterable) -> keras.Model:
    network = build_presence(model)
    schedule = keras.optimizers.schedules.CosineDecay(1e-3, settings.presence_steps, alpha=0.01)
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay)

    def loss(pixels, windows, light, tokens, counts):
        pixels = seen_at(settings.size, pixels, windows, light)
        answered = model.ask(model.visual(pixels, training=False), tokens)
        # Of each picture's phrases the first half are its own.
        own = tf.tile(tf.repeat([1.0, 0.0], tf.shape(tokens)[1] // 2), tf.shape(tokens)[:1])
        weight = tf.reshape(tf.cast(counts, tf.float32), (-1,))
        logits = network([answered.seen, answered.scores, answered.phrases], training=True)
        each = tf.nn.sigmoid_cross_entropy_with_logits(own, logits)
        return tf.reduce_sum(each * weight) / tf.reduce_sum(weight)

    descend(loss, network.trainable_variables, optimizer, made)
    return network


def fit_curves(asked: GridLocalizer, val: Mentions) -> dict:
    """Fit the curves: each val picture's phrases, and as many of the next one's."""
    groups = batches.by_picture(val.rows)
    order = np.concatenate(groups)
    following = groups[1:] + groups[:1]
    others = np.concatenate(
        [np.resize(other, len(group)) for group, other in zip(groups, following, strict=True)]
    )
    rows = val.rows[np.concatenate([order, order])]
    tokens = val.tokens[np.concatenate([order, others])]
    boxes, shares, logits, *_ = asked.candidates(tokens, val.pictures, val.picture_rows[rows])
    own, words = np.arange(len(rows)) < len(order), len(asked.vocabulary.words)
    found, expected_iou = ranked_boxes(boxes[own], shares[own], 1)
    hits = box_ops.iou(found[:, 0], val.boxes[order]) >= 0.5
    rare = rarity(tokens[own], words)
    used = own | ~batches.words_of_pictures(val, words)[rows, last_tokens(tokens)]
    logits, own = logits[used], own[used]
    # Both kinds weigh the same, so that the probability is that of an even chance beforehand.
    weights = np.where(own, 0.5 / own.mean(), 0.5 / (1 - own.mean()))
    return {
        "presence": list(fit_logistic(own, logits, weights=weights)),
        "hit": list(fit_logistic(hits, *hit_features(expected_iou[:, 0], rare))),
        "val_auc": round(float(area_under_roc(logits[own], logits[~own])), 5),
        "val_mentions": [int(own.sum()), int((~own).sum())],
    }
