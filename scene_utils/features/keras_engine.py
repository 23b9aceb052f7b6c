"""The pass of a backbone by Keras."""

from functools import lru_cache

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import tensorflow as tf

from scene_utils.features.backbones import Backbone
from scene_utils.features.folding import fold_norms
from scene_utils.features.store import Encode


@lru_cache(maxsize=2)
def encoder(backbone: Backbone, precision: str = "float32") -> Encode:
    """The backbone's pass as it is now: pixels `(n, size, size, 3)` RGB 0-255, uint8 or float, to
    the global average of its last map, `(n, channels)` float32."""
    network = fold_norms(backbone.model, precision)

    @tf.function(reduce_retracing=True)
    def run(pixels):
        maps = network(tf.cast(pixels, tf.float32), training=False)
        return tf.reduce_mean(tf.cast(maps, tf.float32), axis=(1, 2))

    return lambda pixels: run(tf.constant(pixels)).numpy()
