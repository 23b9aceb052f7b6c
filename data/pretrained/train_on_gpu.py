"""Train a grid model on a GPU, with JAX, into a folder as `grid_training.train_grid` leaves it.

    .venv/bin/python -m pip install "jax[cuda13]==0.10.2"
    .venv/bin/python data/pretrained/train_on_gpu.py FOLDER --data-root DATA [--profile flickr30k]
        [--teacher FOLDER]... [setting=value]...

It needs what notebooks 01 to 03 leave in `data/cache/<profile>`; settings are those of
`grid_training.GridSettings`. Model, batches, losses and rates are the project's own, by Keras's
JAX backend, but for `seen_at`, `contrast_loss` and the step over them, which say the same in JAX;
random numbers differ from TensorFlow's, so the weights do. With EfficientNet-Lite2 at
320 px an NVIDIA H200 makes a step in 8 ms, where two CPU cores take about a second. A stopped run
starts anew. `join_grids.py` has the commands that made what ships.
"""

import argparse
import dataclasses
import json
import os
import sys
import time
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"

import jax
import jax.numpy as jnp
import numpy as np


def in_jax() -> types.ModuleType:
    """A module with as much of TensorFlow as the grid model's functions use, in JAX."""
    tf = types.ModuleType("tensorflow")
    tf.__spec__ = ModuleSpec("tensorflow", None)
    # Keras asks whether it is in a TensorFlow graph, and seeds TensorFlow where it is there.
    tf.executing_eagerly = lambda: True
    tf.random = types.SimpleNamespace(set_seed=lambda seed: None)
    tf.Tensor, tf.float32, tf.bool = jax.Array, jnp.float32, jnp.bool_
    for name in ("minimum", "maximum", "exp", "where", "einsum", "stack", "argmin", "argmax"):
        setattr(tf, name, getattr(jnp, name))
    for name in ("all", "any", "sum", "mean"):
        setattr(tf, f"reduce_{name}", _over_axes(getattr(jnp, name)))
    tf.reduce_logsumexp = _over_axes(jax.nn.logsumexp)
    tf.meshgrid, tf.stop_gradient = jnp.meshgrid, jax.lax.stop_gradient
    tf.shape = lambda array: tuple(array.shape)
    tf.reshape = lambda array, shape: jnp.reshape(array, tuple(shape))
    tf.concat = lambda shapes, axis: sum(map(tuple, shapes), ())  # of shapes alone
    tf.cast = lambda array, dtype: jnp.asarray(array).astype(dtype)
    tf.range = lambda count, dtype: jnp.arange(count, dtype=dtype)
    tf.unstack = lambda array, axis: list(jnp.moveaxis(array, axis, 0))
    tf.gather = lambda array, index, batch_dims: jax.vmap(lambda a, i: a[i])(array, index)
    tf.one_hot = lambda index, depth, on_value=1.0, off_value=0.0: jnp.where(
        jnp.arange(depth) == index[..., None], on_value, off_value
    )
    tf.function = lambda function=None, **_: function or (lambda plain: plain)
    tf.nn = types.SimpleNamespace(
        relu=jax.nn.relu, softmax=jax.nn.softmax, log_softmax=jax.nn.log_softmax
    )
    tf.math = types.SimpleNamespace(log=jnp.log, is_nan=jnp.isnan, top_k=jax.lax.top_k)
    tf.signal = types.SimpleNamespace(rfft2d=jnp.fft.rfft2, irfft2d=jnp.fft.irfft2)
    return tf


def _over_axes(function):
    return lambda array, axis=None, keepdims=False: function(
        jnp.asarray(array), axis=axis, keepdims=keepdims
    )


sys.modules["tensorflow"] = in_jax()

import keras  # noqa: E402
import pandas as pd  # noqa: E402
from keras.src.utils.module_utils import tensorflow as known_to_keras  # noqa: E402

known_to_keras._available = False

from scene_utils import paths, words  # noqa: E402
from scene_utils.features import encode  # noqa: E402
from scene_utils.features.backbones import load_backbone  # noqa: E402
from scene_utils.grid import network  # noqa: E402
from scene_utils.grid import train as grid_training  # noqa: E402
from scene_utils.grid.ensemble import phrase_batches  # noqa: E402
from scene_utils.grid.layers import log_fits  # noqa: E402
from scene_utils.grid.train import ANCHOR_WEIGHT, ANCHORS, Batch, GridSettings  # noqa: E402


def seen_at(size: int, pixels: jax.Array, windows: jax.Array, light: jax.Array) -> jax.Array:
    """As `grid_training.seen_at`, whose bilinear sampling is here a product with two matrices."""
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


def contrast_loss(grid, answered, truth, absent, cells) -> jax.Array:
    """As `network.contrast_loss`, which leaves padding out; here shapes must be known."""
    count, phrases, length = grid.shape[0], truth.shape[0], answered.gates.shape[1]
    own = jnp.repeat(jnp.eye(count, dtype=bool), phrases // count, axis=0)
    keys = jnp.reshape(answered.keys, (phrases * length, -1))
    fits = log_fits(jnp.reshape(grid, (-1, grid.shape[-1])), keys)
    fits = jnp.reshape(fits, (-1, phrases, length))
    fits = jnp.einsum("cnl,nl->nc", fits, answered.gates[..., 0])
    fits = jnp.reshape(fits, (phrases, count, cells**2))
    inside, _ = network.cells_inside(truth, cells)
    here = jnp.sum(jnp.where(own[..., None], fits, 0.0), axis=1)
    size = jnp.log(jnp.sum(inside.astype(jnp.float32), axis=-1))
    right = jax.nn.logsumexp(jnp.where(inside, here, -1e9), axis=-1) - size
    counts = (own | absent)[..., None] & ~(own[..., None] & inside[:, None])
    wrong = jax.nn.logsumexp(jnp.where(counts, fits, -1e9), axis=(1, 2))
    return jnp.mean(jax.nn.softplus(wrong - np.log(float(cells**2)) - right))


class Trainer:
    """Model, optimisers and averaged weights, as of `grid_training.Trainer`, and many steps a call.

    Pictures stay on the device; a batch's `pixels` are their numbers.
    """

    def __init__(self, model, settings: GridSettings, steps: int, teachers: Sequence, pictures):
        self.model, self.settings, self.pictures = model, settings, jnp.asarray(pictures)
        self.trained = grid_training.fast_and_slow(model)
        self.other = [v for part in model.parts() for v in part.non_trainable_variables]
        self.teachers = [(teacher, self._variables(teacher)) for teacher in teachers]
        rates = (settings.learning_rate, settings.backbone_rate)
        self.optimizers = [
            grid_training.make_optimizer(rate, settings.weight_decay, steps, variables)
            for rate, variables in zip(rates, self.trained, strict=True)
        ]
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
        numbers, windows, light, tokens, truth, anchors, absent = batch
        seen = seen_at(size, pictures[numbers], windows, light)
        told = []
        for (teacher, variables), values in zip(self.teachers, taught, strict=True):
            with keras.StatelessScope(list(zip(variables, values, strict=True))):
                told.append(teacher.ask(teacher.visual(seen, training=False), tokens))
        truth, cells = jnp.reshape(truth, (-1, 4)), size // network.STRIDE

        def total(trained):
            with self._scope(trained, state["other"]) as scope:
                grid = self.model.visual(seen, training=True)
                answered = self.model.ask(grid, tokens, training=True)
                other = [scope.get_current_value(v) for v in self.other]
            losses = network.grid_loss(answered.scores, answered.boxes, truth, cells)
            loss = losses[0] + 2 * losses[1]
            if self.settings.contrasted:
                missing = jnp.reshape(absent, (-1, len(grid)))
                loss += contrast_loss(grid, answered, truth, missing, cells)
            if self.settings.anchored:
                places = jnp.reshape(anchors, (-1, ANCHORS, 4))
                loss += ANCHOR_WEIGHT * network.anchor_loss(answered, truth, places, cells)
            if told:
                shares = jnp.mean(jnp.stack([jax.nn.softmax(one.scores) for one in told]), axis=0)
                boxes = jnp.mean(jnp.stack([one.boxes for one in told]), axis=0)
                loss += network.taught_loss(answered, shares, boxes)
            return loss, (jnp.stack(losses), other)

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
        return network.ranked_boxes(found, share, 1)

    def ask(self, pictures, picture_rows, rows, tokens):
        """As `ensemble.Asker.ask` with one rank, by the averaged weights."""
        boxes, worth = np.zeros((len(rows), 1, 4), np.float32), np.zeros((len(rows), 1), np.float32)
        for index in phrase_batches(rows, batch=32):
            numbers = pictures[picture_rows[rows[index[:, 0]]]]
            found = self._answer(self.state, numbers, tokens[index], self.pictures)
            boxes[index], worth[index] = (
                np.reshape(f, (*index.shape, *f.shape[1:])) for f in found
            )
        return boxes, worth, None

    def save(self, folder: Path) -> None:
        """Write the averaged weights as `GridModel.save` does."""
        values = [*self.state["averaged"][0], *self.state["averaged"][1]]
        for variable, value in zip([*self.trained[0], *self.trained[1]], values, strict=True):
            variable.assign(value)
        self.model.save(folder)


def train(folder: Path, cache: Path, root: Path, settings: GridSettings, teachers: Sequence[Path]):
    """Train into the folder; a line an epoch."""
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
    made_with = json.loads((cache / "vectors.json").read_text(encoding="utf-8"))
    rows = encode.open_chosen(cache).row
    asked = phrases, rows, root, cache, vocabulary, settings.size, settings.length
    store, sets = grid_training.open_sets(*asked)
    sets[0] = sets[0].part(settings.share, settings.seed)
    backbone = load_backbone(settings.backbone)
    made_with |= {"untrained": False}
    given = settings, sets, embeddings, vocabulary, made_with, backbone, teachers
    wanted = grid_training.described_run(*given)
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
    mirrored = grid_training.opposite_tokens(vocabulary)
    history: list[dict] = []
    for epoch in range(settings.epochs):
        began, losses, batches = time.perf_counter(), [], []
        made = grid_training.epoch_batches(numbered[0], settings, mirrored, epoch)
        for number, batch in enumerate(grid_training.prefetched(made, 2 * together), start=1):
            batches.append(batch)
            if len(batches) == together:
                done = epoch * per_epoch + number - together
                losses.append(trainer.steps(settings.size_in(epoch), batches, done))
                batches = []
        losses, seconds = np.concatenate(losses).mean(axis=0), time.perf_counter() - began
        row = grid_training._val_row(epoch + 1, losses, trainer, numbered[1], seconds)
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
    settings = GridSettings(backbone="efficientnet_lite2", anchored=False)
    settings = dataclasses.replace(settings, teachers=len(arguments.teacher))
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
    train(arguments.folder, cache, arguments.data_root, settings, arguments.teacher)


if __name__ == "__main__":
    main()
