"""The pass of a backbone by OpenVINO, an optional extra: `pip install openvino`."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from scene_utils.features.portable import Portable, export

if TYPE_CHECKING:  # the benchmark runs this module where there is no Keras
    from scene_utils.features.backbones import Backbone

Encode = Callable[[np.ndarray], np.ndarray]


def build(network: Portable):
    """An `openvino.Model` from pixels `(n, size, size, 3)` uint8 to features `(n, channels)`."""
    import openvino as ov
    import openvino.opset13 as ops

    pixels = ops.parameter([-1, network.size, network.size, 3], np.uint8, name="pixels")
    made = {}
    for step in network.steps:
        x, *others = (made[name] for name in step["inputs"]) if step["inputs"] else (None,)
        match step["op"]:
            case "pixels":
                x = ops.transpose(ops.convert(pixels, "f32"), np.int64([0, 3, 1, 2]))
            case "flip":
                x = ops.gather(x, np.int64([2, 1, 0]), np.int64(1))
            case "affine":
                offset = np.float32(step["offset"]).reshape(1, 3, 1, 1)
                x = ops.add(ops.multiply(x, np.float32(step["scale"])), offset)
            case "conv":
                kernel = network.arrays[f"{step['name']}/kernel"]
                bias = network.arrays[f"{step['name']}/bias"].reshape(1, -1, 1, 1)
                groups, stride, pads = step["groups"], [step["stride"]] * 2, step["pads"]
                place = (stride, pads[:2], pads[2:], [1, 1])
                if groups == 1:
                    x = ops.convolution(x, kernel, *place)
                else:
                    shape = (groups, -1, *kernel.shape[1:])
                    x = ops.group_convolution(x, kernel.reshape(shape), *place)
                x = ops.add(x, bias)
            case "maxpool":
                window, pads = [step["size"]] * 2, step["pads"]
                x = ops.max_pool(x, [step["stride"]] * 2, [1, 1], pads[:2], pads[2:], window)
                x = x.output(0)
            case "relu":
                x = ops.relu(x)
            case "relu6":
                x = ops.clamp(x, 0.0, 6.0)
            case "add":
                x = ops.add(x, others[0])
            case "mean":
                x = ops.reduce_mean(x, np.int64([2, 3]), keep_dims=False)
        made[step["name"]] = x
    return ov.Model([x], [pixels], "backbone")


def compile_model(model, precision: str) -> Encode:
    """The model compiled for this CPU as a function of pixels; `precision` as in `features`.

    A batch is cut into one piece a core: each core then works on its own, without waiting for the
    others after every layer.
    """
    import openvino as ov

    hints = {"INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision]}
    compiled = ov.Core().compile_model(model, "CPU", hints | {"PERFORMANCE_HINT": "THROUGHPUT"})
    queue, busy = ov.AsyncInferQueue(compiled), threading.Lock()

    def run(pixels: np.ndarray) -> np.ndarray:
        with busy:  # one caller's callback and results at a time
            return infer(pixels)

    def infer(pixels: np.ndarray) -> np.ndarray:
        pieces = np.array_split(np.asarray(pixels, np.uint8), min(len(queue), len(pixels)))
        found: list[np.ndarray] = [None] * len(pieces)

        def keep(request, number: int) -> None:
            found[number] = request.get_output_tensor(0).data.copy()

        queue.set_callback(keep)
        for number, piece in enumerate(pieces):
            queue.start_async(piece, number)
        queue.wait_all()
        return np.concatenate(found)

    return run


def encoder(backbone: "Backbone", precision: str = "float32") -> Encode:
    """As `features.encoder`, for pixels in uint8. Raises ImportError that says what to install."""
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "engine openvino: expected the package openvino, found none. Install it with "
            "`.venv/bin/pip install 'scene-utils[openvino]'`, or use the engine keras"
        ) from error
    from scene_utils.features.folding import fold_norms

    return compile_model(build(export(fold_norms(backbone.model))), precision)
