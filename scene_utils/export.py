"""Write trained networks for OpenVINO, in float32: `python -m scene_utils.export KIND ... FOLDER`.

It needs TensorFlow, which those who ask a model do not; see `exported`.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import openvino as ov
import tensorflow as tf
from openvino.frontend.tensorflow import utils

# OpenVINO's own way to ask for TensorFlow's version fails under Python 3.13, by NameError.
utils.get_environment_setup = lambda _: {"tensorflow": tf.__version__}


def specs(model: keras.Model) -> list[tf.TensorSpec]:
    """Arrays that the model takes."""
    return [tf.TensorSpec(x.shape, x.dtype, x.name) for x in model.inputs]


def frozen(function: Callable, models: Sequence[keras.Model], *inputs: tf.TensorSpec) -> ov.Model:
    """`function` of arrays like `inputs`, with the weights of `models` as constants."""
    weights = [(v, v.numpy()) for model in models for v in model.variables]

    def with_weights(*arrays):
        with keras.StatelessScope([(v, tf.constant(value)) for v, value in weights]):
            return function(*arrays)

    made = tf.function(
        with_weights, input_signature=inputs, autograph=False
    ).get_concrete_function()
    model = ov.convert_model(made)
    # The conversion leaves loose ends behind those that were asked for.
    count = len(tf.nest.flatten(made.structured_outputs))
    return ov.Model(model.outputs[:count], model.get_parameters())


def grid(folder: str) -> dict[str, ov.Model]:
    """What a finished grid model answers with, see `grid.localizer`."""
    from scene_utils.grid import ensemble, network, sentence_network
    from scene_utils.grid.folders import STRIDE, read_settings

    path = Path(folder)
    settings = read_settings(path)
    members = network.load_members(path, policy="float32")
    beside = [network.load_beside(path, members, file) for file in network.BESIDE]
    asked = ensemble.Ensemble(members, *beside)
    size, cells = settings["size"], settings["size"] // STRIDE
    pixels = tf.TensorSpec((1, size, size, 3), tf.float32, "pixels")
    maps = [
        tf.TensorSpec((1, cells, cells, member.visual.output_shape[-1]), tf.float32, f"map{number}")
        for number, member in enumerate(members)
    ]
    made = {
        "see": frozen(asked.see, [member.visual for member in members], pixels),
        "ask": frozen(
            lambda *arrays: tuple(asked.ask(arrays[:-1], arrays[-1][None])),
            [part for member in members for part in (member.text, member.head)]
            + [part for networks in beside for part in networks],
            *maps,
            tf.TensorSpec((None, settings["length"]), tf.int32, "tokens"),
        ),
    }
    if pairs := sentence_network.load_networks(path):
        inputs = specs(pairs.reads) + specs(pairs.lies)
        made["context"] = frozen(pairs.said, [pairs.reads, pairs.lies], *inputs)
    return made


def source(folder: str) -> dict[str, ov.Model]:
    """The regressor of the source system or a control: feature and token ids to corners."""
    from scene_utils.source.train import load_regressor

    network = load_regressor(Path(folder))
    answer = frozen(lambda *x: network(list(x), training=False), [network], *specs(network))
    return {"regress": answer}


def backbone(name: str, weights: str, sha256: str, size: str) -> dict[str, ov.Model]:
    """A backbone's pass from pixels `(n, size, size, 3)` to pooled features `(n, channels)`;
    without a file of weights an untrained one's."""
    from scene_utils.features import backbones
    from scene_utils.features.folding import fold_norms

    loaded = backbones.load_backbone(name, weights or None, not weights, int(size))
    if loaded.sha256 != sha256:
        raise ValueError(f"{name}: expected weights of sha256 {sha256}, got {loaded.sha256}")
    network = fold_norms(loaded.model)
    pixels = tf.TensorSpec((None, loaded.size, loaded.size, 3), tf.float32, "pixels")

    def encode(pixels: tf.Tensor) -> tf.Tensor:
        return tf.reduce_mean(network(pixels, training=False), axis=(1, 2))

    return {"encode": frozen(encode, [network], pixels)}


KINDS = {"grid": grid, "source": source, "backbone": backbone}


def write(kind: str, *arguments: str | Path) -> None:
    """Write the networks of a kind into the folder that is the last of the arguments."""
    *arguments, folder = arguments
    for name, network in KINDS[kind](*arguments).items():
        ov.save_model(network, Path(folder) / f"{name}.xml", compress_to_fp16=False)


if __name__ == "__main__":
    write(*sys.argv[1:])
