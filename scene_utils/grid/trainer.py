"""Steps of training the grid model and what is trained beside it, compiled by TensorFlow."""

from collections.abc import Callable, Iterable
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from scene_utils.grid.batches import Batch, GridSettings, Mentions
from scene_utils.grid.folders import PARTS
from scene_utils.grid.losses import total_loss
from scene_utils.grid.network import GridModel, neck
from scene_utils.grid.train import fast_and_slow, make_optimizers


def seen_at(size: int, pixels: tf.Tensor, windows: tf.Tensor, light: tf.Tensor) -> tf.Tensor:
    """Views `(b, size, size, 3)` of pictures as `epoch_batches` says them; beyond an edge, grey."""
    given = tf.cast(pixels, tf.float32), windows, tf.range(tf.shape(pixels)[0])
    seen = tf.image.crop_and_resize(*given, (size, size), extrapolation_value=127.0)
    light = light[:, None, None]
    seen = (seen - 127) * light[..., :1] + 127 + light[..., 1:2]
    grey = tf.reduce_mean(seen, axis=-1, keepdims=True)
    return tf.clip_by_value(grey + (seen - grey) * light[..., 2:], 0, 255)


class Trainer:
    """Model, optimisers and averaged weights of one run, and the compiled step over them."""

    def __init__(self, model: GridModel, settings: GridSettings, steps: int):
        self.model, self.settings, self.neck = model, settings, neck(model.visual)
        self.maps: list[np.ndarray] = []
        self.fast, self.slow = fast_and_slow(model, settings)
        self.variables = [*self.slow, *self.fast]
        self.averaged = [tf.Variable(v.value, trainable=False) for v in self.variables]
        self.optimizers = make_optimizers(settings, steps, self.fast, self.slow)
        parts = dict(zip(PARTS, model.parts(), strict=True))
        self.checkpoint = tf.train.Checkpoint(
            optimizers=self.optimizers, averaged=self.averaged, **parts
        )

    def keep_maps(self, mentions: Mentions) -> None:
        """Make the maps of all pictures once, for steps in which neither view nor backbone change;
        they take .2 MB a picture of 224 px."""
        see, rows = tf.function(self.model.visual.layers[1]), mentions.picture_rows
        for start in range(0, len(rows), 8):
            made = see(tf.constant(mentions.pictures[rows[start : start + 8]], tf.float32))
            if not self.maps:
                self.maps = [np.empty((len(rows), *of.shape[1:]), np.float16) for of in made]
            for kept, of in zip(self.maps, made, strict=True):
                kept[start : start + 8] = of

    def step(self, size: int, batch: Batch) -> list[float]:
        """One update on a batch of pictures seen at `size` px; gives score loss and box loss."""
        given, asked = batch[1:4], batch[4:]
        if self.maps:
            given = [made[batch.pictures].astype(np.float32) for made in self.maps]
        losses = self._update(size, list(map(tf.constant, given)), list(map(tf.constant, asked)))
        return [float(loss) for loss in losses]

    @tf.function(autograph=False)
    def _update(self, size: int, given: list, asked: list):
        tokens, truth, landmarks, absent = asked
        with tf.GradientTape() as tape:
            if self.maps:
                grid = self.neck(given, training=True)
            else:
                grid = self.model.visual(seen_at(size, *given), training=True)
            answered = self.model.ask(grid, tokens, training=True)
            given = truth, landmarks, absent, self.settings.landmarks_shown
            total, losses = total_loss(grid, answered, *given)
        slow, fast = tape.gradient(total, [self.slow, self.fast])
        self.optimizers[0].apply_gradients(zip(fast, self.fast, strict=True))
        if slow:
            self.optimizers[1].apply_gradients(zip(slow, self.slow, strict=True))
        done = tf.cast(self.optimizers[0].iterations, tf.float32)
        keep = tf.minimum(0.999, (1 + done) / (10 + done))
        for average, variable in zip(self.averaged, self.variables, strict=True):
            average.assign_sub((1 - keep) * (average - variable))
        return losses

    def resume(self, folder: Path) -> int:
        """Go on from what `save` left in the folder, if anything; the number of steps done."""
        self.states = tf.train.CheckpointManager(self.checkpoint, folder, max_to_keep=1)
        self.states.restore_or_initialize()
        return int(self.optimizers[0].iterations)

    def save(self, step: int) -> None:
        """Keep what `resume` takes, and none older."""
        self.states.save(step)

    def swap(self) -> None:
        """Exchange the model's weights with their moving average."""
        for average, variable in zip(self.averaged, self.variables, strict=True):
            kept = tf.identity(variable.value)
            variable.assign(average)
            average.assign(kept)


def descend(
    loss: Callable, variables: list, optimizer: keras.optimizers.Optimizer, batches: Iterable
) -> None:
    """Update the variables by the slope of `loss`, a function of the arrays of a batch, with each
    of the batches."""

    @tf.function(autograph=False)
    def step(*batch):
        with tf.GradientTape() as tape:
            found = loss(*batch)
        optimizer.apply_gradients(zip(tape.gradient(found, variables), variables, strict=True))

    for batch in batches:
        step(*map(tf.constant, batch))
