"""The source system and its controls as one Keras model, and losses for its four coordinates,
which are fractions of the image, `xyxy` in [0, 1]; `answer` gives pixels."""

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
from keras import ops

from scene_utils.box_tensors import iou_and_giou

# Which inputs the source system and its controls may use: (picture, phrase).
INPUTS = {"source": (True, True), "text-only": (False, True), "image-only": (True, False)}


@keras.saving.register_keras_serializable(package="scene_utils")
class MeanVector(keras.layers.Layer):
    """Mean of a phrase's word vectors, padding (id 0) left out: `(n, length)` ids to `(n, d)`.

    The table of vectors is not trained.
    """

    def __init__(self, words: int, dim: int, **kwargs):
        super().__init__(**kwargs)
        self.words, self.dim = words, dim

    def build(self, input_shape):
        size = self.words, self.dim
        self.table = self.add_weight(size, initializer="zeros", trainable=False, name="vectors")

    def call(self, tokens):
        known = ops.cast(ops.not_equal(tokens, 0), self.compute_dtype)[..., None]
        vectors = ops.take(self.table, tokens, axis=0)
        return ops.sum(vectors * known, axis=1) / ops.maximum(ops.sum(known, axis=1), 1)


@keras.saving.register_keras_serializable(package="scene_utils")
class Corners(keras.layers.Layer):
    """Centre and size, each in [0, 1], to corners cut at the image's edge: `(n, 4)` to `(n, 4)`."""

    def call(self, centre_size):
        centre, half = centre_size[:, :2], centre_size[:, 2:] / 2
        return ops.clip(ops.concatenate([centre - half, centre + half], axis=-1), 0.0, 1.0)


def build_regressor(
    inputs: tuple[bool, bool],
    channels: int,
    embeddings: np.ndarray,
    length: int,
    widths: tuple[int, ...],
    dropout: float,
) -> keras.Model:
    """Source system: pooled feature and mean GloVe vector, concatenated, dense layers with dropout.

    Takes `feature (n, channels)` and `tokens (n, length)`, gives corners `(n, 4)`. `inputs` says
    whether it may see the picture and the phrase; a control ignores the other input.
    """
    picture, phrase = inputs
    feature = keras.Input((channels,), name="feature")
    tokens = keras.Input((length,), dtype="int32", name="tokens")
    parts = [feature] if picture else []
    if phrase:
        parts.append(MeanVector(*embeddings.shape, name="mean_vector")(tokens))
    x = keras.layers.Concatenate()(parts) if len(parts) == 2 else parts[0]
    for number, width in enumerate(widths, start=1):
        x = keras.layers.Dense(width, activation="relu", name=f"dense_{number}")(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{number}")(x)
    x = keras.layers.Dense(4, activation="sigmoid", name="centre_size")(x)
    model = keras.Model([feature, tokens], Corners(name="corners")(x))
    if phrase:
        model.get_layer("mean_vector").set_weights([embeddings])
    return model


@keras.saving.register_keras_serializable(package="scene_utils")
def giou_loss(true, predicted):
    """1 - generalised IoU, `(n, 4)` corners to `(n,)` in [0, 2] (Rezatofighi et al., CVPR 2019)."""
    return 1 - iou_and_giou(true, predicted)[1]


@keras.saving.register_keras_serializable(package="scene_utils")
def iou_loss(true, predicted):
    """1 - IoU, `(n, 4)` corners to `(n,)` in [0, 1]."""
    return 1 - iou_and_giou(true, predicted)[0]


@keras.saving.register_keras_serializable(package="scene_utils")
def smooth_l1_loss(true, predicted):
    """Huber loss of the corners with delta .1, `(n, 4)` to `(n,)` (Girshick, Fast R-CNN, 2015)."""
    return keras.losses.huber(true, predicted, delta=0.1)


LOSSES = {"mse": "mse", "smooth_l1": smooth_l1_loss, "iou": iou_loss, "giou": giou_loss}
