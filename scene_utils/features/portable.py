"""A network for inference as a short list of operations, which any runtime can build.

Written from a folded Keras model (`folding`), so that OpenVINO, ONNX Runtime and PyTorch run the
very network that Keras runs, with its weights.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene_utils.paths import atomic


@dataclass(frozen=True)
class Portable:
    """`steps`, each a dict with `op`, `name`, `inputs` (names of steps) and what the operation
    needs; `arrays`, the weights by name; `size` of the input in px.

    Operations: `pixels` (n, size, size, 3), RGB 0-255; `flip` of the colours; `affine`, x * scale +
    offset a channel; `conv` with kernel (out, in / groups, rows, columns), bias, stride, groups and
    pads (top, left, bottom, right); `maxpool` with size, stride and pads; `relu`; `relu6`; `add`;
    `mean` over places, the last, which gives (n, channels).
    """

    size: int
    steps: list[dict]
    arrays: dict[str, np.ndarray]

    def save(self, path: Path) -> None:
        header = json.dumps({"size": self.size, "steps": self.steps})
        with atomic(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, header=np.array(header), **self.arrays)

    @classmethod
    def load(cls, path: Path) -> "Portable":
        with np.load(path, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        header = json.loads(str(arrays.pop("header")))
        return cls(header["size"], header["steps"], arrays)

    def flops(self) -> int:
        """Floating-point operations of the convolutions for one picture, a multiplication and an
        addition counted as two."""
        sides, total = {}, 0
        for step in self.steps:
            if step["op"] == "pixels":
                sides[step["name"]] = self.size
                continue
            side = sides[step["inputs"][0]]
            if step["op"] in ("conv", "maxpool"):
                side = (side + step["pads"][0] + step["pads"][2] - step["size"]) // step[
                    "stride"
                ] + 1
            if step["op"] == "conv":
                total += 2 * self.arrays[f"{step['name']}/kernel"].size * side * side
            sides[step["name"]] = side
        return total


def export(folded) -> Portable:
    """The steps of a folded Keras model with one input; ValueError names a layer it cannot write.

    Zero padding becomes part of the convolution or pooling behind it; behind a ReLU a zero is no
    more than what max pooling would take.
    """
    from keras import layers

    size = folded.inputs[0].shape[1]
    steps, arrays, alias, padded, sides = [], {}, {}, {}, {}
    for layer in folded.operations:
        name = layer.name
        if isinstance(layer, layers.InputLayer):
            steps.append({"op": "pixels", "name": name, "inputs": []})
            sides[name] = size
            continue
        given = layer.input if isinstance(layer.input, list) else [layer.input]
        origin = [tensor._keras_history.operation.name for tensor in given]
        sides[name] = layer.output.shape[1]
        step = {"op": "", "name": name, "inputs": [alias.get(one, one) for one in origin]}
        kind = type(layer).__name__
        if kind == "ZeroPadding2D":
            (top, bottom), (left, right) = layer.padding
            padded[name], alias[name] = [top, left, bottom, right], step["inputs"][0]
            continue
        if kind in ("Conv2D", "DepthwiseConv2D", "MaxPooling2D"):
            window = layer.pool_size if kind == "MaxPooling2D" else layer.kernel_size
            pads = padded.get(origin[0], [0, 0, 0, 0])
            if layer.padding == "same":
                pads = _same_pads(sides[origin[0]], window[0], layer.strides[0])
            step |= {"size": window[0], "stride": layer.strides[0], "pads": pads}
        if kind in ("Conv2D", "DepthwiseConv2D"):
            depthwise = kind == "DepthwiseConv2D"
            order = (2, 3, 0, 1) if depthwise else (3, 2, 0, 1)
            kernel = np.ascontiguousarray(layer.kernel.numpy().transpose(order))
            step |= {"op": "conv", "groups": len(kernel) if depthwise else 1}
            arrays[f"{name}/kernel"] = kernel
            arrays[f"{name}/bias"] = layer.bias.numpy()
        elif kind == "Rescaling":
            offset = np.broadcast_to(np.float64(layer.offset), 3)
            step |= {"op": "affine", "scale": float(layer.scale), "offset": offset.tolist()}
        else:
            step["op"] = _simple(layer, kind)
        steps.append(step)
    steps.append({"op": "mean", "name": "mean", "inputs": [steps[-1]["name"]]})
    return Portable(size, steps, arrays)


def _same_pads(side: int, window: int, stride: int) -> list[int]:
    """TensorFlow's padding "same": what is left over goes to the bottom and to the right."""
    total = max((math.ceil(side / stride) - 1) * stride + window - side, 0)
    return [total // 2, total // 2, total - total // 2, total - total // 2]


def _simple(layer, kind: str) -> str:
    if kind == "ReLU" and layer.max_value == 6:
        return "relu6"
    if kind == "Activation" and layer.activation.__name__ == "relu":
        return "relu"
    known = {"MaxPooling2D": "maxpool", "Add": "add", "Flip": "flip"}
    if kind not in known:
        raise ValueError(f"{layer.name}: expected a layer of a folded backbone, got a {kind}")
    return known[kind]
