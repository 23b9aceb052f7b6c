"""Train what tells single things apart on top of the shipped grid model; its networks stay.

    .venv/bin/python data/pretrained/train_instances.py DATA

DATA is a folder of Flickr30k Entities; notebooks 01 to 03 have run on it (profile flickr30k). Of
the first member: keep in the cache what it sees of mentions of several things, of as many of one,
and of questions of place (9 minutes on two cores with AMX, 8 GB), train `network.build_instances`
on that (7 minutes), and write instances.weights.h5. Then fit on val when a thing is told, and how
sure it is: instances.json. A finished cache is used again.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import openvino as ov
import pandas as pd
import tensorflow as tf
from ship_grid import halve

from scene_utils import box_ops, paths
from scene_utils.analysis import alike
from scene_utils.box_tensors import iou_and_giou
from scene_utils.dataset import entities
from scene_utils.dataset.mentions import boxed_mentions
from scene_utils.export import frozen
from scene_utils.exported import Network
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid import batches, network
from scene_utils.grid.batches import Mentions
from scene_utils.grid.folders import STRIDE, read_settings, record
from scene_utils.grid.layers import cell_centres
from scene_utils.grid.localizer import load_grid_localizer
from scene_utils.grid.ranking import ranked_boxes, single_things
from scene_utils.grid.trainer import descend, seen_at
from scene_utils.paths import read_finished
from scene_utils.runtime import fingerprint, make_deterministic, progress_bar
from scene_utils.stats import fit_logistic, log_odds
from scene_utils.words import Vocabulary

FOLDER = paths.PRETRAINED / "grid"
CACHE = paths.cache("flickr30k")
PLACED = 3  # questions of `alike` a picture, at most
THINGS = 10  # of one phrase; the largest
EPOCHS, BATCH, RATE, WARM = 3, 64, 1e-3, 50
# The middle of a thing, in which a cell answers for it, in sides each way; at least a cell.
MIDDLE = 0.3
LEAST = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5)


class View(NamedTuple):
    """A picture as it is seen once, and the mentions asked about it."""

    row: int  # of the store
    window: np.ndarray  # (4,), `xyxy` in fractions; x swapped in a mirrored picture
    light: np.ndarray  # (3,), as in `batches.Batch`
    tokens: np.ndarray  # (m, length)
    things: np.ndarray  # (m, THINGS, 4) in the window, NaN behind the last


def thing_boxes(chosen: pd.DataFrame, boxes: pd.DataFrame) -> np.ndarray:
    """The boxes of each of n mentions' things as fractions, `(n, THINGS, 4)`, NaN behind the last.

    `chosen` are rows of the phrase table, `boxes` the table of single boxes.
    """
    found = np.full((len(chosen), THINGS, 4), np.nan, np.float32)
    sides = dict(iter(boxes.groupby(["image_id", "phrase_id"])[box_ops.COLUMNS]))
    for number, row in enumerate(chosen.itertuples()):
        own = sides[row.image_id, row.phrase_id].to_numpy(np.float32)
        own = own[np.argsort(-box_ops.area(own), kind="stable")[:THINGS]]
        found[number, : len(own)] = own / np.tile([row.width, row.height], 2)
    return np.clip(found, 0, 1)


def with_questions(
    mentions: Mentions,
    things: np.ndarray,
    asked: pd.DataFrame,
    store: PictureStore,
    vocabulary: Vocabulary,
) -> tuple[Mentions, np.ndarray]:
    """The mentions and their things, and behind them, as if mentioned too, what some questions of
    `alike.questions` ask for."""
    asked = asked.sample(frac=1, random_state=0).groupby("image_id").head(PLACED)
    number = {row: place for place, row in enumerate(mentions.picture_rows)}
    more = {
        "rows": asked.image_id.map(store.row).map(number).to_numpy(int),
        "tokens": vocabulary.encode(asked.phrase, mentions.tokens.shape[1]),
        "boxes": asked[box_ops.COLUMNS].to_numpy(np.float32),
    }
    meant = np.full((len(asked), THINGS, 4), np.nan, np.float32)
    meant[:, 0] = more["boxes"]
    joined = {name: np.concatenate([getattr(mentions, name), new]) for name, new in more.items()}
    return replace(mentions, **joined), np.concatenate([things, meant])


def choose(
    mentions: Mentions, things: np.ndarray, rng: np.random.Generator, questions: int = 0
) -> np.ndarray:
    """Numbers of the mentions of several things, of as many of the same pictures that name one, and
    of the last ones, which are `questions`; by picture."""
    keep = np.isfinite(things[..., 0]).sum(axis=1) > 1
    room = np.bincount(mentions.rows[keep], minlength=len(mentions.picture_rows))
    order = rng.permutation(len(keep))
    for mention in order[~keep[order]]:
        row = mentions.rows[mention]
        keep[mention] = room[row] > 0
        room[row] -= keep[mention]
    keep[len(keep) - questions :] = questions > 0
    kept = np.flatnonzero(keep)
    return kept[np.argsort(mentions.rows[kept], kind="stable")]


def views(
    mentions: Mentions, things: np.ndarray, vocabulary: Vocabulary, questions: int = 0
) -> Iterator[View]:
    """Each picture whole, and then once more in a random view, as `batches.epoch_batches` has it;
    there mentions are left out of which one of several things is left."""
    rng, mirrored = np.random.default_rng(0), batches.opposite_tokens(vocabulary)
    kept = choose(mentions, things, rng, questions)
    groups = [kept[group] for group in batches.by_picture(mentions.rows[kept])]
    plain = np.float32([1, 0, 1])
    for group in groups:
        row = mentions.picture_rows[mentions.rows[group[0]]]
        yield View(row, batches.WHOLE, plain, mentions.tokens[group], things[group])
    for group in groups:
        window, tokens, boxes = batches.random_window(rng), mentions.tokens[group], things[group]
        there = np.isfinite(boxes[..., 0])
        moved, share = batches.in_view(boxes, window)
        seen = np.nan_to_num(share) >= batches.VISIBLE
        usable = seen.any(axis=1) & ((seen.sum(axis=1) > 1) == (there.sum(axis=1) > 1))
        if usable.any():
            moved[~seen] = np.nan
            boxes = moved[usable]
        else:
            window, usable = batches.WHOLE, np.ones(len(group), bool)
        tokens, light = tokens[usable], [rng.uniform(*ends) for ends in batches.LIGHT]
        if rng.random() < 0.5:
            window, boxes, tokens = window[[2, 1, 0, 3]], box_ops.mirror(boxes), mirrored[tokens]
        row = mentions.picture_rows[mentions.rows[group[0]]]
        yield View(row, window, np.float32(light), tokens, boxes)


def member_networks(model: network.GridModel, settings: dict) -> tuple[Network, Network]:
    """A member by OpenVINO: pixels to the map; map and tokens to the head's map, scores and
    phrases."""

    def ask(grid: tf.Tensor, tokens: tf.Tensor) -> tuple:
        answered = model.ask(grid, tokens[None])
        return answered.seen, answered.scores, answered.phrases

    def see(pixels: tf.Tensor) -> tf.Tensor:
        return model.visual(pixels, training=False)

    size, cells = settings["size"], settings["size"] // STRIDE
    depth = model.visual.output_shape[-1]
    pixels = tf.TensorSpec((None, size, size, 3), tf.float32, "pixels")
    grid = tf.TensorSpec((1, cells, cells, depth), tf.float32, "map")
    tokens = tf.TensorSpec((None, settings["length"]), tf.int32, "tokens")
    made = {
        "see": frozen(see, [model.visual], pixels),
        "ask": frozen(ask, [model.text, model.head], grid, tokens),
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name, part in made.items():
            ov.save_model(part, Path(scratch) / f"{name}.xml", compress_to_fp16=False)
        see, ask = (Network(Path(scratch) / f"{name}.xml") for name in made)
    return see, ask


def keep(folder: Path, given: list[View], pictures: np.ndarray) -> None:
    """Write what the first member makes of the views, as arrays of one row a mention, and `map` of
    one a view, to which `view` points. Nothing to do where that was done with the same model."""
    finished, wanted = folder / "kept.json", {"fingerprint": fingerprint(__file__, record(FOLDER))}
    if read_finished(finished, wanted):
        return
    finished.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    settings = read_settings(FOLDER)
    model = network.load_grid(FOLDER, policy="float32")
    see, ask = member_networks(model, settings)
    counts = [len(view.tokens) for view in given]
    ends = np.cumsum(counts).tolist()  # NumPy writes its own integers so that it cannot read them
    cells = settings["size"] // STRIDE
    shapes = {
        "map": ((len(given), cells**2, model.visual.output_shape[-1]), np.float16),
        "seen": ((ends[-1], cells**2, model.head.outputs[2].shape[-1]), np.float16),
        "scores": ((ends[-1], cells**2), np.float32),
        "phrases": ((ends[-1], model.text.outputs[0].shape[-1]), np.float32),
        "things": ((ends[-1], THINGS, 4), np.float32),
        "view": ((ends[-1],), np.int32),
    }
    arrays = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape)
        for name, (shape, kind) in shapes.items()
    }

    def look(view: View) -> np.ndarray:
        pixels = pictures[view.row][None].astype(np.float32)
        if (view.window != batches.WHOLE).any():
            window = view.window[None, [1, 0, 3, 2]]
            light = view.light[None]
            pixels = seen_at(settings["size"], *map(tf.constant, (pixels, window, light))).numpy()
        return see(pixels)[0]

    looked = batches.prefetched(map(look, given))
    bar = progress_bar(looked, total=len(given), desc="views", unit="view")
    for number, (grid, end, count) in enumerate(zip(bar, ends, counts, strict=True)):
        rows = slice(end - count, end)
        seen, scores, phrases = ask(grid, given[number].tokens.astype(np.int32))
        arrays["map"][number] = grid.reshape(arrays["map"].shape[1:])
        arrays["seen"][rows] = seen.reshape(count, cells**2, -1)
        arrays["scores"][rows], arrays["phrases"][rows] = scores, phrases
        arrays["things"][rows], arrays["view"][rows] = given[number].things, number
    paths.write_text(finished, json.dumps(wanted) + "\n")


def things_loss(logits: tf.Tensor, boxes: tf.Tensor, things: tf.Tensor, cells: int) -> tuple:
    """Means over n phrases of score loss and box loss; logits `(n, cells²)`, boxes
    `(n, cells², 4)`, `things (n, k, 4)`.

    A cell in the middle of a thing answers for it, the smallest where there are several, and its
    score learns the IoU of its own box ("Varifocal loss", Zhang et al., CVPR 2021). Boxes learn by
    1 - GIoU.
    """
    known = ~tf.math.is_nan(things[..., 0])
    things = tf.where(known[..., None], things, tf.zeros_like(things))
    centres = tf.reshape(cell_centres(cells), (1, 1, -1, 2))
    middle, sides = (things[..., :2] + things[..., 2:]) / 2, things[..., 2:] - things[..., :2]
    half = tf.maximum(MIDDLE * sides, 0.5 / cells)
    near = tf.reduce_all(tf.abs(centres - middle[:, :, None]) <= half[:, :, None], axis=-1)
    near &= known[..., None]
    size = tf.where(near, tf.reduce_prod(sides, axis=-1)[..., None], np.float32(9))
    truth = tf.gather(things, tf.argmin(size, axis=1), axis=1, batch_dims=1)
    used = tf.cast(tf.reduce_any(near, axis=1), tf.float32)
    number = tf.maximum(1.0, tf.reduce_sum(used, axis=1))
    iou, giou = iou_and_giou(boxes, truth)
    box_loss = tf.reduce_sum(used * (1 - giou), axis=1) / number
    target = used * tf.stop_gradient(iou)
    weight = tf.where(used > 0, target + 0.1, 0.75 * tf.stop_gradient(tf.sigmoid(logits)) ** 2)
    each = tf.nn.sigmoid_cross_entropy_with_logits(target, logits) * weight
    return tf.reduce_mean(tf.reduce_sum(each, axis=1) / number), tf.reduce_mean(box_loss)


def learn(folder: Path, model: network.GridModel) -> keras.Model:
    """Train on what `keep` left in the folder."""
    make_deterministic(0)
    names = ("map", "seen", "scores", "phrases", "things", "view")
    kept = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
    cells = round(kept["map"].shape[1] ** 0.5)
    made, total = network.build_instances(model), len(kept["view"])
    steps = int(EPOCHS * (total // BATCH))
    schedule = keras.optimizers.schedules.CosineDecay(
        RATE / 10, steps - WARM, alpha=0.01, warmup_target=RATE, warmup_steps=WARM
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=0.05, global_clipnorm=5.0)

    def loss(grid, seen, scores, phrases, things):
        logits, boxes = made([grid, seen, scores, phrases], training=True)
        score_loss, box_loss = things_loss(logits, boxes, things, cells)
        return score_loss + 2 * box_loss

    def batch(rows: np.ndarray) -> list[np.ndarray]:
        rows = np.sort(rows)
        grid = kept["map"][kept["view"][rows]].reshape(len(rows), cells, cells, -1)
        seen = kept["seen"][rows].reshape(len(rows), cells, cells, -1)
        given = grid, seen, kept["scores"][rows], kept["phrases"][rows][:, None]
        return [array.astype(np.float32) for array in (*given, kept["things"][rows])]

    rng = np.random.default_rng(0)
    order = np.concatenate([rng.permutation(total) for _ in range(int(np.ceil(EPOCHS)) + 1)])
    parts = (order[number * BATCH : (number + 1) * BATCH] for number in range(steps))
    made_of = batches.prefetched(map(batch, parts))
    bar = progress_bar(made_of, total=steps, desc="instances", unit="step")
    descend(loss, made.trainable_variables, optimizer, bar)
    return made


def fit(phrases: pd.DataFrame, boxes: pd.DataFrame, pictures: PictureStore) -> dict:
    """From how likely on a thing is told (`least`), by the highest F1 on val mentions of several
    things; the curve (`hit`) to the probability that it is one; and on val by `least`: precision
    and recall there, over boxes, and the share of all mentions whose first box is one of theirs."""
    asked = load_grid_localizer(FOLDER)
    val = batches.make_mentions(
        phrases, "val", pictures, asked.vocabulary, asked.settings["length"]
    )
    chosen, *_ = boxed_mentions(phrases, "val", pictures.row)
    truth = thing_boxes(chosen, boxes)
    rows = val.picture_rows[val.rows]
    likely_boxes, shares, _, things, likely = asked.candidates(val.tokens, val.pictures, rows)
    merged, _ = ranked_boxes(likely_boxes, shares, 1)

    several = np.isfinite(truth[..., 0]).sum(axis=1)
    table, hits, scores = [], {}, {}
    for least in LEAST:
        first, counts = [], np.zeros(3)
        hits[least], scores[least] = [], []
        for mention in range(len(truth)):
            kept = single_things(things[mention], likely[mention], least)
            guess = things[mention, kept] if len(kept) > 1 else merged[mention]
            found = box_ops.each_another(guess, truth[mention, : several[mention]])
            first.append(found[0])
            if several[mention] > 1:
                counts += len(guess), several[mention], found.sum()
            if len(kept) > 1:
                hits[least].extend(found)
                scores[least].extend(likely[mention, kept])
        precision, recall = counts[2] / counts[:2]
        table.append([least, precision, recall, float(np.mean(first))])
    best = max(table, key=lambda row: row[1] * row[2] / (row[1] + row[2]))[0]
    curve = fit_logistic(np.array(hits[best]), log_odds(scores[best]))
    rounded = [[round(float(number), 5) for number in row] for row in table]
    return {"least": best, "hit": list(curve), "val_by_least": rounded}


def main() -> None:
    root = Path(sys.argv[1])
    phrases, boxes = (pd.read_parquet(CACHE / f"{name}.parquet") for name in ("phrases", "boxes"))
    settings = read_settings(FOLDER)
    vocabulary = Vocabulary.load(FOLDER / "vocabulary.txt")
    here = entities.image_ids(root)
    ids = [i for split in ("train", "val") for i in entities.read_ids(root, split) if i in here]
    store = squeeze_pictures(entities.image_folder(root), ids, settings["size"], CACHE / "squeezed")
    train = batches.make_mentions(phrases, "train", store, vocabulary, settings["length"])
    chosen, *_ = boxed_mentions(phrases, "train", store.row)
    known = phrases[(phrases.split == "train") & phrases.image_id.isin(store.row)]
    asked, things = alike.questions(known, boxes), thing_boxes(chosen, boxes)
    joined, things = with_questions(train, things, asked, store, vocabulary)
    given = list(views(joined, things, vocabulary, len(joined.rows) - len(train.rows)))
    folder = CACHE / "instances"
    keep(folder, given, store.pictures)
    trained = learn(folder, network.load_grid(FOLDER, policy="float32"))
    trained.save_weights(folder / network.INSTANCE_WEIGHTS)
    halve(folder / network.INSTANCE_WEIGHTS, FOLDER / network.INSTANCE_WEIGHTS)
    found = fit(phrases, boxes, store)
    paths.write_text(FOLDER / "instances.json", json.dumps(found, indent=1) + "\n")
    print(*found.items(), sep="\n")


if __name__ == "__main__":
    main()
