"""Train a grid model on a GPU, with JAX, into a folder as `train.train_grid` leaves it.

    .venv/bin/python -m pip install "jax[cuda13]==0.10.2"
    .venv/bin/python data/pretrained/train_on_gpu.py FOLDER --data-root DATA [--profile flickr30k]
        [--teacher FOLDER]... [setting=value]...

It needs what notebooks 01 to 03 leave in `data/cache/<profile>`; settings are those of
`batches.GridSettings`. Model, batches, losses and rates are the project's own, by Keras's JAX
backend; `seen_at` and the step over them say the same in JAX. Random numbers differ from
TensorFlow's, so the weights do. What finished models, the teachers, say of each view can be learned
too; this is done here alone. With EfficientNet-Lite2 at 320 px an NVIDIA H200 makes a step in
8 ms, where two CPU cores take about a second. A stopped run starts anew. `join_grids.py` has the
commands that made what ships.
"""

import argparse
import dataclasses
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pandas as pd

from scene_utils import paths, words
from scene_utils.box_tensors import iou_and_giou
from scene_utils.features import encode
from scene_utils.features.backbones import load_backbone
from scene_utils.grid import network, train
from scene_utils.grid.batches import (
    Batch,
    GridSettings,
    epoch_batches,
    open_sets,
    opposite_tokens,
    prefetched,
)
from scene_utils.grid.folders import read_settings
from scene_utils.grid.losses import total_loss


def seen_at(size: int, pixels: jax.Array, windows: jax.Array, light: jax.Array) -> jax.Array:
    """As `trainer.seen_at`, whose bilinear sampling is here a product with two matrices."""
    side = pixels.shape[1] - 1

    def lines(low, high):
        at = (low[:, None] + (high - low)[:, None] * jnp.arange(size) / (size - 1)) * side
        weights = jnp.maximum(0.0, 1 - jnp.abs(at[..., None] - jnp.arange(side + 1)))
        return weights * ((at >= 0) & (at <= side))[..., None]

    y, x = lines(windows[:, 0], windows[:, 2]), lines(windows[:, 1], windows[:, 3])
    seen = jnp.einsum("bsh,bhwc->bswc", y, pixels.astype(jnp.float32) - 127)
    seen = jnp.einsum("btw,bswc->bstc", x, seen)
    light = light[:, None, None]
    seen = seen * light[..., :1] + 127 + light[..., 1:2]
    grey = jnp.mean(seen, axis=-1, keepdims=True)
    return jnp.clip(grey + (seen - grey) * light[..., 2:], 0, 255)


def distillation_loss(answered: network.Answered, told: Sequence[network.Answered]) -> jax.Array:
    """Mean over phrases of how far the answer is from the mean of what the teachers told.

    Of scores the Kullback-Leibler divergence from the teachers' (Hinton et al. 2015, "Distilling
    the Knowledge in a Neural Network"); of boxes 1 - GIoU with theirs, weighted by their shares of
    probability.
    """
    shares = jnp.mean(jnp.stack([jax.nn.softmax(one.scores) for one in told]), axis=0)
    boxes = jnp.mean(jnp.stack([one.boxes for one in told]), axis=0)
    apart = jnp.log(shares + 1e-9) - jax.nn.log_softmax(answered.scores)
    _, giou = iou_and_giou(answered.boxes, boxes)
    return jnp.mean(jnp.sum(shares * (apart + 1 - giou), axis=-1))


class Trainer:
    """Model, optimisers and averaged weights, as of `trainer.Trainer`, and many steps a call.

    Pictures stay on the device; a batch's `pixels` are their numbers.
    """

    def __init__(self, model, settings: GridSettings, steps: int, teachers: Sequence, pictures):
        self.model, self.settings, self.pictures = model, settings, jnp.asarray(pictures)
        self.trained = train.fast_and_slow(model, settings)
        self.other = [v for part in model.parts() for v in part.non_trainable_variables]
        self.teachers = [(teacher, self._variables(teacher)) for teacher in teachers]
        self.optimizers = train.make_optimizers(settings, steps, *self.trained)
        self.state = jax.tree.map(
            jnp.array,  # copies, since each call gives the last state's memory away
            {
                "trained": [[v.value for v in part] for part in self.trained],
                "averaged": [[v.value for v in part] for part in self.trained],
                "other": [v.value for v in self.other],
                "optimizers": [[v.value for v in made.variables] for made in self.optimizers],
            },
        )
        self._steps = jax.jit(self._several, static_argnums=0, donate_argnums=1)
        self._answer = jax.jit(self._answered)

    @staticmethod
    def _variables(model) -> list:
        return [v for part in model.parts() for v in part.variables]

    def _scope(self, trained, other):
        variables = [*self.trained[0], *self.trained[1], *self.other]
        values = [*trained[0], *trained[1], *other]
        return keras.StatelessScope(list(zip(variables, values, strict=True)))

    def steps(self, size: int, batches: Sequence[Batch], done: int) -> np.ndarray:
        """Updates on batches seen at `size` px, after `done` others; score and box loss of each."""
        given = [np.stack(part) for part in zip(*(batch[1:] for batch in batches), strict=True)]
        done = np.arange(done + 1, done + 1 + len(batches))
        keep = np.minimum(0.999, (1 + done) / (10 + done)).astype(np.float32)
        taught = [[v.value for v in variables] for _, variables in self.teachers]
        self.state, losses = self._steps(size, self.state, (given, keep), taught, self.pictures)
        return np.asarray(losses)

    def _several(self, size, state, batches, taught, pictures):
        return jax.lax.scan(
            lambda state, batch: self._step(size, state, *batch, taught, pictures), state, batches
        )

    def _step(self, size, state, batch, keep, taught, pictures):
        numbers, windows, light, tokens, truth, landmarks, absent = batch
        seen = seen_at(size, pictures[numbers], windows, light)
        told = []
        for (teacher, variables), values in zip(self.teachers, taught, strict=True):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                told.append(teacher.ask(teacher.visual(seen, training=False), tokens))

        def total(trained):
            with self._scope(trained, state["other"]) as scope:
                grid = self.model.visual(seen, training=True)
                answered = self.model.ask(grid, tokens, training=True)
                other = [scope.get_current_value(v) for v in self.other]
            given = truth, landmarks, absent, self.settings.landmarks_shown
            loss, parts = total_loss(grid, answered, *given)
            if told:
                loss = loss + distillation_loss(answered, told)
            return loss, (jnp.stack(parts), other)

        slopes, (losses, other) = jax.grad(total, has_aux=True)(state["trained"])
        made = [
            optimizer.stateless_apply(kept, slope, values) if values else (values, kept)
            for optimizer, kept, slope, values in zip(
                self.optimizers, state["optimizers"], slopes, state["trained"], strict=True
            )
        ]
        trained = [values for values, _ in made]
        averaged = jax.tree.map(
            lambda mean, value: mean - (1 - keep) * (mean - value), state["averaged"], trained
        )
        optimizers = [kept for _, kept in made]
        state = {"trained": trained, "averaged": averaged, "other": other, "optimizers": optimizers}
        return state, losses

    def _answered(self, state, numbers, tokens, pictures):
        with self._scope(state["averaged"], state["other"]):
            pixels = pictures[numbers].astype(jnp.float32)
            answered = self.model.ask(self.model.visual(pixels, training=False), tokens)
            found, share = network.candidates(answered.scores, answered.boxes)
        return found, share

    def answer(self, numbers, tokens):
        """As `ensemble.Ensemble.answer`, by the averaged weights."""
        return self._answer(self.state, numbers, tokens, self.pictures)

    def save(self, folder: Path) -> None:
        """Write the averaged weights as `GridModel.save` does."""
        values = [*self.state["averaged"][0], *self.state["averaged"][1]]
        for variable, value in zip([*self.trained[0], *self.trained[1]], values, strict=True):
            variable.assign(value)
        self.model.save(folder)


def train_here(
    folder: Path, cache: Path, root: Path, settings: GridSettings, teachers: Sequence[Path]
):
    """Train into the folder; a line an epoch. FileNotFoundError for a teacher that is not finished,
    ValueError for one that reads other words."""
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
    made_with = json.loads((cache / "vectors.json").read_text(encoding="utf-8"))
    rows = encode.open_chosen(cache).row
    asked = phrases, rows, root, cache, vocabulary, settings.size, settings.length
    store, sets = open_sets(*asked)
    backbone = load_backbone(settings.backbone)
    made_with |= {"untrained": False, "teachers": len(teachers), "taught_by": []}
    for path in teachers:
        known = read_settings(path)
        if words.Vocabulary.load(path / "vocabulary.txt").words != vocabulary.words:
            raise ValueError(f"{path}: expected a teacher of the same vocabulary, got another")
        mark = f"{known['epochs']} epochs, seed {known['seed']}, {known['fingerprint'][:8]}"
        made_with["taught_by"].append(mark)
    wanted = train.described_run(settings, sets, embeddings, made_with, backbone)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "settings.json").unlink(missing_ok=True)
    vocabulary.save(folder / "vocabulary.txt")
    keras.utils.set_random_seed(settings.seed)
    design = {name: getattr(settings, name) for name in network.DESIGN}
    model = network.build_grid(backbone, embeddings, **design)
    per_epoch = len(sets[0].picture_rows) // settings.pictures_per_step
    loaded = [network.load_grid(path) for path in teachers]
    trainer = Trainer(model, settings, settings.epochs * per_epoch, loaded, store.pictures)
    numbered = [dataclasses.replace(s, pictures=np.arange(len(store.pictures))) for s in sets]
    together = max(count for count in range(1, 17) if per_epoch % count == 0)
    mirrored = opposite_tokens(vocabulary)
    history: list[dict] = []
    for epoch in range(settings.epochs):
        began, losses, batches = time.perf_counter(), [], []
        made = epoch_batches(numbered[0], settings, mirrored, epoch)
        for number, batch in enumerate(prefetched(made, 2 * together), start=1):
            batches.append(batch)
            if len(batches) == together:
                done = epoch * per_epoch + number - together
                losses.append(trainer.steps(settings.size_in(epoch), batches, done))
                batches = []
        losses, seconds = np.concatenate(losses).mean(axis=0), time.perf_counter() - began
        row = train.val_row(epoch + 1, losses, trainer.answer, numbered[1], seconds)
        print(json.dumps(row), flush=True)
        if row["val_mean_iou"] > max((r["val_mean_iou"] for r in history), default=-1):
            trainer.save(folder)
        history.append(row)
    paths.write_text(folder / "history.csv", pd.DataFrame(history).to_csv(index=False))
    paths.write_text(folder / "settings.json", json.dumps(wanted, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("changes", nargs="*", metavar="setting=value")
    parser.add_argument("--profile", default="flickr30k")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, action="append", default=[])
    arguments = parser.parse_intermixed_args()
    ships = {"backbone": "efficientnet_lite2", "landmarks_shown": False, "policy": "mixed_bfloat16"}
    settings = GridSettings(**ships)
    known = dataclasses.asdict(settings)
    for change in arguments.changes:
        name, _, value = change.partition("=")
        try:
            kind = type(known[name])
            value = {"true": True, "false": False}[value] if kind is bool else kind(value)
        except (KeyError, ValueError):
            parser.error(f"expected a setting of GridSettings and a value for it, got {change!r}")
        settings = dataclasses.replace(settings, **{name: value})
    cache = paths.cache(arguments.profile)
    train_here(arguments.folder, cache, arguments.data_root, settings, arguments.teacher)


if __name__ == "__main__":
    main()
