"""A network for inference: the same function with fewer operations."""

from collections.abc import Callable

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
from keras import layers, ops

CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


def fold_norms(
    source: keras.Model,
    policy: str = "float32",
    pixels: keras.KerasTensor | None = None,
    exact: Callable[[keras.Layer], bool] = lambda layer: False,
    fixed: str | None = None,
) -> keras.Model:
    """A copy of `source` with each batch norm folded into the convolution before it.

    At inference a batch norm is a scale and a shift, so the function is the same. `policy` is the
    copy's dtype policy, of its weights too; layers that `exact` names stay in float32. `pixels` is
    the copy's input, where it is to be another than the source's; no gradient passes the layer
    named `fixed`. Raises ValueError for a batch norm that follows no convolution. After Jacob et
    al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", section 3.2.
    """
    norms = {}
    for layer in source.layers:
        if isinstance(layer, layers.BatchNormalization):
            before = layer.input._keras_history.operation
            if not isinstance(before, CONVOLUTIONS):
                raise ValueError(
                    f"{source.name}: expected each batch norm after a convolution, got "
                    f"{layer.name} after {before.name}"
                )
            norms[before.name] = layer

    def clone(layer):
        if not isinstance(layer, layers.Layer):
            return layer  # a plain operation has neither weights nor a dtype
        config = layer.get_config()
        if isinstance(layer, CONVOLUTIONS):
            config["use_bias"] = True
        # Scaling stays exact: in bfloat16 a pixel minus its mean would lose half of its bits.
        whole = isinstance(layer, layers.InputLayer | layers.Rescaling) or exact(layer)
        config["dtype"] = "float32" if whole else policy
        return layer.__class__.from_config(config)

    def call(layer, *args, **kwargs):
        if isinstance(layer, layers.BatchNormalization):
            return args[0]
        output = layer(*args, **kwargs)
        return ops.stop_gradient(output) if layer.name == fixed else output

    folded = keras.models.clone_model(source, pixels, clone_function=clone, call_function=call)
    for layer in source.layers:
        if isinstance(layer, CONVOLUTIONS):
            kernel, bias = layer.kernel.numpy(), layer.bias.numpy() if layer.use_bias else 0.0
            if norm := norms.get(layer.name):
                scale = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
                depthwise = isinstance(layer, layers.DepthwiseConv2D)
                kernel = kernel * (scale[:, None] if depthwise else scale)
                bias = (bias - norm.moving_mean.numpy()) * scale + norm.beta.numpy()
            target = folded.get_layer(layer.name)
            target.set_weights([kernel, np.broadcast_to(bias, target.bias.shape)])
    return folded
