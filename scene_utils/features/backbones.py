"""Pretrained picture encoders: from RGB pixels to the last map of a convolutional network.

All are trained for classification on ImageNet-1k: `resnet50` (He et al. 2016, "Deep Residual
Learning for Image Recognition"; 2048 channels), `efficientnet_lite0` and `efficientnet_lite2` (Tan
and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", without
squeeze-and-excitation, with ReLU6 and an unscaled stem and head; 1280 channels).

Every model takes RGB pixels in 0..255. Colour order and scaling are the first layers of the graph,
so that no caller can pair a network with the preprocessing of another.
"""

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np

from scene_utils.features.weights import SIZE, WEIGHTS_FILES, Weights, find

# Multipliers of channels and of repeats (Tan and Le 2019, section 3.3).
SCALES = {"efficientnet_lite0": (1.0, 1.0), "efficientnet_lite2": (1.1, 1.2)}

# Layer-name prefix of the part of each network that ends in the map of stride 8, 16 and 32.
MAPS = {
    "resnet50": {"C3": "conv3_", "C4": "conv4_", "C5": "conv5_"},
    **{name: {"C3": "stage3_", "C4": "stage5_", "C5": "head_"} for name in SCALES},
}

# EfficientNet's seven stages: repeats, kernel side, stride, expansion, output channels.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True, eq=False)
class Backbone(Weights):
    """A built encoder: `model` maps pixels (n, size, size, 3), RGB in 0..255, to the last map
    (n, size / 32, size / 32, channels)."""

    model: keras.Model = field(repr=False)


def load_backbone(
    name: str, weights: str | Path | None = None, untrained: bool = False, size: int = SIZE
) -> Backbone:
    """Build the encoder `name`, a key of `WEIGHTS_FILES`, and load its ImageNet weights.

    `weights` is the path of the weights file; without it the file is looked for in
    `data/pretrained` and in the Keras models folder. `untrained=True` gives random weights instead,
    the same ones on every call. `size` is the side of the input in px, a multiple of 32; the
    published weights were trained at 224 (`efficientnet_lite2`: 260). Raises FileNotFoundError when
    the weights file is missing, ValueError when it is not the published one and for arguments that
    do not fit.
    """
    if name not in WEIGHTS_FILES:
        raise ValueError(f"name: expected one of {', '.join(WEIGHTS_FILES)}, got {name!r}")
    if size < 32 or size % 32:
        raise ValueError(f"size: expected a positive multiple of 32 px, got {size}")
    if untrained and weights is not None:
        raise ValueError(f"weights: expected None with untrained=True, got {str(weights)!r}")
    # The file comes first: a missing one is then reported at once, not after the build.
    file, sha256 = (None, "") if untrained else find(name, weights)
    model = resnet50(size) if name == "resnet50" else efficientnet_lite(name, size)
    if untrained:
        _randomise(model, residual=name == "resnet50")
        arrays = [np.ascontiguousarray(array, "<f4") for array in model.get_weights()]
        sha256 = hashlib.sha256(b"".join(arrays)).hexdigest()
    else:
        model.load_weights(file)
    return Backbone(name, size, model.output_shape[-1], untrained, file, sha256, model)


def feature_maps(backbone: Backbone) -> keras.Model:
    """Model from the same pixels to the maps of strides 8, 16 and 32, (N, size / stride, size /
    stride, channels). It shares its layers with `backbone.model`: training one trains the other."""
    last = [
        [layer for layer in backbone.model.layers if layer.name.startswith(prefix)][-1].output
        for prefix in MAPS[backbone.name].values()
    ]
    return keras.Model(backbone.model.inputs[0], last, name=f"{backbone.name}_maps")


def resnet50(size: int = 224) -> keras.Model:
    """ResNet50 without its classifier, random weights. The published weights expect BGR minus the
    ImageNet means and no scaling (those of Caffe)."""
    pixels = keras.Input((size, size, 3), name="pixels")
    x = keras.ops.flip(pixels, axis=-1)
    x = keras.layers.Rescaling(1.0, offset=[-103.939, -116.779, -123.68], name="minus_mean")(x)
    return keras.applications.ResNet50(include_top=False, weights=None, input_tensor=x)


def scaled_repeats(stage: int, repeats: int, depth: float) -> int:
    """Blocks of stage 1 to 7 at a multiplier of depth; Lite leaves the first and last alone."""
    return repeats if stage in (1, len(STAGES)) else math.ceil(depth * repeats)


def efficientnet_lite(name: str = "efficientnet_lite0", size: int = 224) -> keras.Model:
    """EfficientNet-Lite without its classifier, random weights; stem and head keep their width."""
    width, depth = SCALES[name]
    pixels = keras.Input((size, size, 3), name="pixels")
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="scale")(pixels)
    x = _conv(x, "stem", 32, kernel=3, stride=2)
    for stage, (repeats, kernel, stride, expansion, channels) in enumerate(STAGES, start=1):
        for block in range(1, scaled_repeats(stage, repeats, depth) + 1):
            prefix = f"stage{stage}_block{block}"
            channels_out = _round_channels(channels * width)
            x = _block(x, prefix, channels_out, kernel, stride if block == 1 else 1, expansion)
    x = _conv(x, "head", 1280, kernel=1)
    return keras.Model(pixels, x, name=name)


def _round_channels(channels: float) -> int:
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _conv(x, prefix: str, channels: int | None, kernel=1, stride=1, activate=True):
    """Filter, norm, ReLU6; without `channels` each channel is filtered by itself."""
    how = {"padding": "same", "use_bias": False, "name": f"{prefix}_conv"}
    if channels is None:
        x = keras.layers.DepthwiseConv2D(kernel, stride, **how)(x)
    else:
        x = keras.layers.Conv2D(channels, kernel, stride, **how)(x)
    x = keras.layers.BatchNormalization(name=f"{prefix}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{prefix}_relu6")(x) if activate else x


def _block(x, prefix: str, channels: int, kernel: int, stride: int, expansion: int):
    """Inverted bottleneck: expand, filter, project (Sandler et al. 2018, MobileNetV2)."""
    shortcut, channels_in = x, x.shape[-1]
    if expansion != 1:
        x = _conv(x, f"{prefix}_expand", channels_in * expansion)
    x = _conv(x, f"{prefix}_depthwise", None, kernel, stride)
    x = _conv(x, f"{prefix}_project", channels, activate=False)
    if stride == 1 and channels == channels_in:
        x = keras.layers.Add(name=f"{prefix}_add")([shortcut, x])
    return x


def _randomise(model: keras.Model, residual: bool) -> None:
    """Draw every kernel anew, N(0, variance), so that maps keep the order of magnitude of trained
    ones; by the defaults of Keras those of EfficientNet-Lite0 shrink to 1e-12.

    The variance is 2 / fan in (He et al. 2015) for a plain chain of layers. Where most layers lie
    on residual branches, which add up, it is 2 / (fan in + fan out) (Glorot and Bengio 2010).
    """
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
            *sides, channels_in, channels_out = shape = layer.kernel.shape
            alone = isinstance(layer, keras.layers.DepthwiseConv2D)
            fans = 1 if alone else channels_in + channels_out * residual
            spread = np.float32(math.sqrt(2 / (math.prod(sides) * fans)))
            layer.kernel.assign(rng.standard_normal(shape, dtype=np.float32) * spread)
