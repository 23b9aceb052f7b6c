"""A step of training the grid model, compiled by TensorFlow."""

from collections.abc import Sequence

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import tensorflow as tf

from scene_utils.grid.batches import GridSettings
from scene_utils.grid.folders import PARTS
from scene_utils.grid.losses import total_loss
from scene_utils.grid.network import GridModel
from scene_utils.grid.train import fast_and_slow, make_optimizer


def seen_at(size: int, pixels: tf.Tensor, windows: tf.Tensor, light: tf.Tensor) -> tf.Tensor:
    """Views `(b, size, size, 3)` of pictures as `epoch_batches` says them; beyond an edge, grey."""
    seen = tf.image.crop_and_resize(
        tf.cast(pixels, tf.float32),
        windows,
        tf.range(tf.shape(pixels)[0]),
        (size, size),
        extrapolation_value=127.0,
    )
    light = light[:, None, None]
    seen = (seen - 127) * light[..., :1] + 127 + light[..., 1:2]
    grey = tf.reduce_mean(seen, axis=-1, keepdims=True)
    return tf.clip_by_value(grey + (seen - grey) * light[..., 2:], 0, 255)


class Trainer:
    """Model, optimisers and averaged weights of one run, and the compiled step over them.

    What the `teachers` say of a view is learned too.
    """

    def __init__(
        self,
        model: GridModel,
        settings: GridSettings,
        steps: int,
        teachers: Sequence[GridModel] = (),
    ):
        self.model, self.settings, self.teachers = model, settings, teachers
        self.fast, self.slow = fast_and_slow(model)
        self.variables = [*self.slow, *self.fast]
        self.averaged = [tf.Variable(v.value, trainable=False) for v in self.variables]
        rates = (settings.learning_rate, settings.backbone_rate)
        self.optimizers = [
            make_optimizer(rate, settings.weight_decay, steps, variables)
            for rate, variables in zip(rates, (self.fast, self.slow), strict=True)
        ]
        parts = dict(zip(PARTS, model.parts(), strict=True))
        self.checkpoint = tf.train.Checkpoint(
            optimizers=self.optimizers, averaged=self.averaged, **parts
        )

    @tf.function
    def step(self, size: int, pixels, windows, light, tokens, truth, landmarks, absent):
        """One update on pictures seen at `size` px; gives score loss and box loss."""
        seen = seen_at(size, pixels, windows, light)
        told = [model.ask(model.visual(seen, training=False), tokens) for model in self.teachers]
        with tf.GradientTape() as tape:
            grid = self.model.visual(seen, training=True)
            answered = self.model.ask(grid, tokens, training=True)
            given = truth, landmarks, absent, self.settings.landmarks_shown
            total, losses = total_loss(grid, answered, told, *given)
        gradients = tape.gradient(total, self.variables)
        count = len(self.slow)
        self.optimizers[0].apply_gradients(zip(gradients[count:], self.fast, strict=True))
        self.optimizers[1].apply_gradients(zip(gradients[:count], self.slow, strict=True))
        done = tf.cast(self.optimizers[0].iterations, tf.float32)
        keep = tf.minimum(0.999, (1 + done) / (10 + done))
        for average, variable in zip(self.averaged, self.variables, strict=True):
            average.assign_sub((1 - keep) * (average - variable))
        return losses

    def swap(self) -> None:
        """Exchange the model's weights with their moving average."""
        for average, variable in zip(self.averaged, self.variables, strict=True):
            kept = tf.identity(variable.value)
            variable.assign(average)
            average.assign(kept)
