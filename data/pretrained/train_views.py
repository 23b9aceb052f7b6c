"""Train a finished member of the grid model further, on views and phrases that captions lack.

    .venv/bin/python data/pretrained/train_views.py DATA MEMBER FOLDER [--seed 11 --steps 4400]

DATA is a folder of Flickr30k Entities, on which notebooks 01 to 03 have run (profile flickr30k),
MEMBER the folder of a finished member, FOLDER where the new one goes. A step takes 1.2 s on
two cores of a Xeon with AMX. The member sees

- four pictures pasted together, where things stand small and beside strangers ("YOLOv4",
  Bochkovskiy et al. 2020), asked for what the three others have nothing like;
- questions of `analysis.alike`: of several things alike the one on the left, in other words too;
- closer and wider views than `batches.random_window` gives.

The backbone is trained from its last stage on. A stopped run goes on from where it was
saved last, every 550 steps.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from scene_utils import box_ops, paths
from scene_utils.analysis import alike
from scene_utils.features import encode
from scene_utils.grid import batches, network
from scene_utils.grid.batches import Batch, GridSettings, Mentions
from scene_utils.grid.ensemble import Ensemble
from scene_utils.grid.folders import read_settings
from scene_utils.grid.ranking import last_tokens
from scene_utils.grid.train import val_row
from scene_utils.grid.trainer import Trainer
from scene_utils.runtime import progress_bar
from scene_utils.words import Vocabulary

CACHE = paths.cache("flickr30k")
SAVED, SCORED = 550, 1100
RATES = {"learning_rate": 4e-4, "backbone_rate": 6e-5}
FROM = "stage7"  # the first stage of the backbone that is trained
MOSAIC = 0.5  # of the pictures that have no question
QUESTIONS = 3  # a picture, of its eight phrases
NEAR = 0.62  # cosine of their vectors from which on two words may name the same
CROPS, CROPS_OF_FOUR = (0.4, 1.3), (0.5, 1.1)  # ends of a view's side, in sides of the picture
# A place in other words than those of `alike`.
SAID = {
    "left": "the {} on the left|the left {}|the leftmost {}|{} on the left side|the {} to the left",
    "right": "the {} on the right|the right {}|the rightmost {}|{} on the right side|"
    "the {} to the right",
    "top": "the {} at the top|the upper {}|the {} at the top of the picture|top {}",
    "bottom": "the {} at the bottom|the lower {}|the {} at the bottom of the picture|bottom {}",
    "middle": "the {} in the middle|the {} in the center|the middle {}|the {} in the centre",
}


class Views:
    """Batches of the mentions of train, a function of seed and step alone."""

    def __init__(
        self,
        mentions: Mentions,
        settings: GridSettings,
        vocabulary: Vocabulary,
        table: np.ndarray,
    ):
        """`table (words, d)` has the vector of each word of the vocabulary."""
        self.mentions, self.settings = mentions, settings
        self.groups = batches.by_picture(mentions.rows)
        self.steps_of_epoch = len(self.groups) // settings.pictures_per_step
        self.held = batches.words_of_pictures(mentions, len(vocabulary.words))
        self.mirrored = batches.opposite_tokens(vocabulary)
        self.last = last_tokens(mentions.tokens[None])[0]
        self.unit = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-6)
        self.questions: list[list] = [[] for _ in mentions.picture_rows]

    def ask(self, asked: pd.DataFrame, row: dict[str, int], vocabulary: Vocabulary) -> None:
        """Take the questions of `alike.questions`; `row` of each picture in the store."""
        number = {place: count for count, place in enumerate(self.mentions.picture_rows)}
        boxes = asked[box_ops.COLUMNS].to_numpy(np.float32)
        for image_id, phrase, box in zip(asked.image_id, asked.phrase, boxes, strict=True):
            side, tail = next(found for found in alike.SIDES.items() if phrase.endswith(found[1]))
            word = phrase.removeprefix("the ").removesuffix(f" {tail}")
            forms = [form.format(word) for form in SAID[side].split("|")]
            tokens = vocabulary.encode(forms, self.settings.length)
            self.questions[number[row[image_id]]].append((tokens, box))

    def four(self, rng: np.random.Generator, first: int) -> tuple:
        """A picture and three others pasted together: their numbers, pixels, and the mentions that
        only one of them can mean, with their boxes in the whole."""
        chosen = rng.permutation(np.r_[first, rng.choice(len(self.groups), 3, replace=False)])
        size = self.mentions.pictures.shape[1]
        x, y = np.round(rng.uniform(0.38, 0.62, 2) * size).astype(int)
        quarters = (0, 0, x, y), (x, 0, size, y), (0, y, x, size), (x, y, size, size)
        pixels = np.empty((size, size, 3), np.uint8)
        mentions, boxes = [], []
        for number, quarter in zip(chosen, quarters, strict=True):
            left, top, right, bottom = quarter
            whole = Image.fromarray(self.picture(number))
            whole = whole.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
            pixels[top:bottom, left:right] = whole
            group, others = self.groups[number], chosen[chosen != number]
            words = np.unique(np.concatenate([self.last[self.groups[n]] for n in others]))
            own = self.last[group]
            near = (self.unit[own] @ self.unit[words].T).max(axis=1) >= NEAR
            group = group[~near & ~self.held[others][:, own].any(axis=0)]
            place = np.float32(quarter) / size
            mentions.append(group)
            inside = self.mentions.boxes[group] * np.tile(place[2:] - place[:2], 2)
            boxes.append(inside + np.tile(place[:2], 2))
        return chosen, pixels, np.concatenate(mentions), np.concatenate(boxes)

    def picture(self, number: int) -> np.ndarray:
        return self.mentions.pictures[self.mentions.picture_rows[number]]

    def picked(self, rng: np.random.Generator, number: int) -> tuple:
        """One row of a batch: pixels, window, tokens, boxes in it, and the words of what is
        shown."""
        mentions, per = self.mentions, self.settings.phrases_per_picture
        questions = self.questions[number]
        shown, pixels, group = np.array([number]), self.picture(number), self.groups[number]
        boxes = mentions.boxes[group]
        window = random_window(rng, *CROPS, 0.8)
        if not questions and rng.random() < MOSAIC:
            pasted = self.four(rng, number)
            narrow = random_window(rng, *CROPS_OF_FOUR, 0.9)
            if (batches.in_view(pasted[3], narrow)[1] >= batches.VISIBLE).sum() >= 3:
                (shown, pixels, group, boxes), window = pasted, narrow
        moved, seen = batches.in_view(boxes, window)
        usable = np.flatnonzero(seen >= batches.VISIBLE)
        if len(usable) < min(3, len(group)):
            window, moved, usable = batches.WHOLE, boxes, np.arange(len(group))
        pick = rng.permutation(usable)[:per]
        pick = np.concatenate([pick, rng.choice(usable, per - len(pick))])
        longer = rng.random((per, 1)) < self.settings.lengthened
        asked = group[pick]
        tokens = np.where(longer, mentions.longer[asked], mentions.tokens[asked])
        boxes = moved[pick]
        for slot in range(QUESTIONS if questions else 0):
            forms, box = questions[rng.integers(len(questions))]
            (box,), (share,) = batches.in_view(box[None], window)
            if share >= batches.VISIBLE:
                tokens[slot], boxes[slot] = forms[rng.integers(len(forms))], box
        if rng.random() < 0.5:
            window, boxes = window[[2, 1, 0, 3]], box_ops.mirror(boxes)
            tokens = self.mirrored[tokens]
        return pixels, window[[1, 0, 3, 2]], tokens, boxes, self.held[shown].any(axis=0)

    def batch(self, step: int) -> Batch:
        count, seed = self.settings.pictures_per_step, self.settings.seed
        epoch, number = divmod(step, self.steps_of_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(len(self.groups))
        rng = np.random.default_rng([seed, epoch, number])
        chosen = order[number * count : (number + 1) * count]
        light = np.stack([rng.uniform(*ends, count) for ends in batches.LIGHT], axis=1)
        rows = [self.picked(rng, picture) for picture in chosen]
        pixels, windows, tokens, boxes, held = map(np.stack, zip(*rows, strict=True))
        absent = ~held[:, last_tokens(tokens)].transpose(1, 2, 0)
        tokens, boxes = tokens.astype(np.int32), boxes.astype(np.float32)
        nowhere = np.full((*boxes.shape[:2], batches.LANDMARKS, 4), np.nan, np.float32)
        asked = tokens, boxes, nowhere, absent
        return Batch(chosen, pixels, windows.astype(np.float32), light.astype(np.float32), *asked)


def random_window(rng: np.random.Generator, low: float, high: float, often: float) -> np.ndarray:
    """A random view, as `batches.random_window` gives, of sides between `low` and `high`."""
    if rng.random() > often:
        return batches.WHOLE
    scale, aspect = np.exp(rng.uniform(*np.log([low, high]))), np.exp(rng.uniform(-0.25, 0.25))
    return batches.window_of(rng, scale, aspect)


def train(
    made: network.GridModel,
    folder: Path,
    before: pd.DataFrame,
    views: Views,
    val: Mentions,
    steps: int,
    known: int,
) -> None:
    """Train a member for so many steps, and leave it with averaged weights.

    Of its table of words the rows from number `known` on stay as they are. Its history, which is
    `before`, goes on in history.csv.
    """
    fixed = True
    for layer in made.visual.layers[1].layers:
        fixed = fixed and not layer.name.startswith(FROM)
        layer.trainable = not fixed
    trainer = Trainer(made, views.settings, steps)
    table = made.text.get_layer("words").embeddings
    unknown = tf.constant(table[known:])
    alone, log = Ensemble((made,)), folder / "history.csv"
    first = trainer.resume(folder / "state")
    rows = (pd.read_csv(log) if first >= SCORED else before).to_dict("records")
    rows = rows[: len(before) + first // SCORED]
    made_of = batches.prefetched(map(views.batch, range(first, steps)))
    bar = progress_bar(made_of, initial=first, total=steps, desc="views", unit="step")
    losses, began = [], time.perf_counter()
    for step, batch in enumerate(bar, start=first + 1):
        losses.append(trainer.step(views.settings.size, batch))
        if step % SCORED == 0:
            seconds = time.perf_counter() - began
            epoch = round(len(before) + step / views.steps_of_epoch, 1)
            trainer.swap()
            row = val_row(epoch, np.mean(losses, axis=0), alone.answer, val, seconds)
            rows, losses, began = [*rows, row], [], time.perf_counter()
            paths.write_text(log, pd.DataFrame(rows).to_csv(index=False))
            trainer.swap()
        if step % SAVED == 0:
            trainer.save(step)
    trainer.swap()
    table.assign(tf.concat([table[:known], unknown], axis=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in ("data", "member", "folder"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--steps", type=int, default=4400)
    given = parser.parse_args()
    member, folder = given.member, given.folder
    settings = read_settings(member)
    names = GridSettings.__dataclass_fields__.keys() & settings
    chosen = GridSettings(**{name: settings[name] for name in names})
    chosen = replace(chosen, **RATES, seed=given.seed, policy="mixed_bfloat16")
    phrases, boxes = (pd.read_parquet(CACHE / f"{name}.parquet") for name in ("phrases", "boxes"))
    vocabulary = Vocabulary.load(member / "vocabulary.txt")
    rows = encode.open_chosen(CACHE).row
    asked = phrases, rows, given.data, CACHE, vocabulary, chosen.size, chosen.length
    store, (mentions, val) = batches.open_sets(*asked)
    keras.utils.set_random_seed(given.seed)
    made = network.load_grid(member, policy="mixed_bfloat16")
    views = Views(mentions, chosen, vocabulary, made.text.get_layer("words").get_weights()[0])
    shown = phrases[(phrases.split == "train") & phrases.image_id.isin(store.row)]
    views.ask(alike.questions(shown, boxes), store.row, vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    history = pd.read_csv(member / "history.csv")
    known = len(Vocabulary.load(CACHE / "vocabulary.txt").words)
    train(made, folder, history, views, val, given.steps, known)
    made.save(folder)
    vocabulary.save(folder / "vocabulary.txt")
    settings |= {"seed": given.seed, "views": given.steps}
    paths.write_text(folder / "settings.json", json.dumps(settings, indent=1) + "\n")


if __name__ == "__main__":
    main()
