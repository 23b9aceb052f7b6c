"""One contender of the benchmark in a process of its own: it runs a batch when it is told to.

    python -m tests.benchmarks.peers RUNTIME PRECISION NETWORK.npz PIXELS.npy FEATURES.npy

It writes the features of all pixels, `(n, channels)`, says `ready`, and then answers each line on
standard input with the seconds that one batch, all pixels at once, took. A process that waits for a
line takes no time from the others. Runs in an environment without Keras, but for its own contender.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scene_utils.features.portable import Portable
from tests.benchmarks import tools

BATCH = 32
Run = Callable[[np.ndarray], np.ndarray]


def _keras(name: str, precision: str, plain: bool) -> Run:
    """`plain` is the network as published, by `predict_on_batch`; else that of `features`."""
    from scene_utils.features import backbones, encode

    backbone = backbones.load_backbone(name, untrained=True)
    if not plain:
        return encode.encoder(backbone, precision)
    return lambda pixels: backbone.model.predict_on_batch(np.float32(pixels)).mean(axis=(1, 2))


def _torch(network: Portable, precision: str, compiled: bool) -> Run:
    import torch

    dtype = getattr(torch, precision)

    class Twin(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterDict()
            for name, array in network.arrays.items():
                weight = torch.from_numpy(array).to(dtype)
                if array.ndim == 4:
                    weight = weight.contiguous(memory_format=torch.channels_last)
                weight = torch.nn.Parameter(weight, requires_grad=False)
                self.weights[name.replace("/", "_")] = weight

        def forward(self, pixels):
            made = {}
            for step in network.steps:
                given = [made[name] for name in step["inputs"]] or [pixels]
                made[step["name"]] = torch_step(step, given, self.weights, dtype)
            return made[network.steps[-1]["name"]]

    function = Twin().eval()

    def run(pixels):
        with torch.inference_mode():
            return function(torch.from_numpy(pixels)).numpy()

    if compiled:
        from torch._inductor import config

        # Weights as constants, laid out once: the faster way, which fails for some networks.
        config.freezing, eager = True, function
        function = torch.compile(eager)
        try:
            run(np.zeros((BATCH, network.size, network.size, 3), np.uint8))
        except torch._dynamo.exc.BackendCompilerFailed:
            torch.compiler.reset()
            config.freezing = False
            function = torch.compile(eager)
    return run


def torch_step(step: dict, given: list, weights, dtype):
    """One step of a `Portable` on PyTorch tensors; `dtype` is that of its scaled pixels."""
    import torch
    from torch.nn import functional

    x = given[0]
    if "pads" in step:
        top, left, bottom, right = step["pads"]
        even = (top, left) == (bottom, right)
        pads = (top, left) if even else (0, 0)
        if not even:
            x = functional.pad(x, (left, right, top, bottom))
    match step["op"]:
        case "pixels":
            # Of a (n, rows, columns, 3) array this is a view that is channels_last.
            return x.permute(0, 3, 1, 2).float()
        case "flip":
            return x.flip(1)
        case "affine":
            x = x * step["scale"] + torch.tensor(step["offset"]).reshape(1, 3, 1, 1)
            return x.to(dtype).contiguous(memory_format=torch.channels_last)
        case "conv":
            kernel, bias = (weights[f"{step['name']}_{part}"] for part in ("kernel", "bias"))
            return functional.conv2d(x, kernel, bias, step["stride"], pads, groups=step["groups"])
        case "maxpool":
            return functional.max_pool2d(x, step["size"], step["stride"], pads)
        case "relu":
            return functional.relu_(x)
        case "relu6":
            return functional.relu6(x, inplace=True)
        case "add":
            return x + given[1]
        case "mean":
            return x.float().mean((2, 3))


def onnx_model(network: Portable) -> bytes:
    """The network in ONNX, from pixels uint8 to features."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, weights = [], []

    def constant(name: str, array) -> str:
        weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(kind: str, inputs: list[str], output: str, **attributes) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))

    for step in network.steps:
        name, given = step["name"], step["inputs"]
        place = {}
        if "pads" in step:
            place = {"strides": [step["stride"]] * 2, "pads": step["pads"]}
            place["kernel_shape"] = [step["size"]] * 2
        match step["op"]:
            case "pixels":
                node("Cast", ["input"], f"{name}/float", to=TensorProto.FLOAT)
                node("Transpose", [f"{name}/float"], name, perm=[0, 3, 1, 2])
            case "flip":
                node(
                    "Gather", [*given, constant(f"{name}/order", np.int64([2, 1, 0]))], name, axis=1
                )
            case "affine":
                offset = np.float32(step["offset"]).reshape(1, 3, 1, 1)
                scale = constant(f"{name}/scale", np.float32(step["scale"]))
                node("Mul", [*given, scale], f"{name}/scaled")
                node("Add", [f"{name}/scaled", constant(f"{name}/offset", offset)], name)
            case "conv":
                parts = [
                    constant(f"{name}/{part}", network.arrays[f"{name}/{part}"])
                    for part in ("kernel", "bias")
                ]
                node("Conv", [*given, *parts], name, group=step["groups"], **place)
            case "maxpool":
                node("MaxPool", given, name, **place)
            case "relu":
                node("Relu", given, name)
            case "relu6":
                if "zero" not in [one.name for one in weights]:
                    constant("zero", np.float32(0))
                    constant("six", np.float32(6))
                node("Clip", [*given, "zero", "six"], name)
            case "add":
                node("Add", given, name)
            case "mean":
                node("GlobalAveragePool", given, f"{name}/map")
                node("Flatten", [f"{name}/map"], name)
    shape = ["n", network.size, network.size, 3]
    pixels = helper.make_tensor_value_info("input", TensorProto.UINT8, shape)
    features = helper.make_tensor_value_info("mean", TensorProto.FLOAT, ["n", None])
    graph = helper.make_graph(nodes, "backbone", [pixels], [features], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString()


def _onnxruntime(network: Portable, precision: str, pixels: np.ndarray) -> Run:
    import tempfile

    import onnxruntime

    model = onnx_model(network)
    if precision == "int8":
        from onnxruntime.quantization import CalibrationDataReader, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Calibration(CalibrationDataReader):
            rows = iter(pixels)

            def get_next(self):
                row = next(self.rows, None)
                return None if row is None else {"input": row[None]}

        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("full.onnx", "ready.onnx", "int8.onnx")]
            paths[0].write_bytes(model)
            quant_pre_process(paths[0], paths[1])
            quantize_static(paths[1], paths[2], Calibration(), per_channel=True)
            model = paths[2].read_bytes()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda batch: session.run(None, {"input": batch})[0]


def _openvino(network: Portable, precision: str, pixels: np.ndarray) -> Run:
    from scene_utils.features import openvino_engine

    model = openvino_engine.build(network)
    if precision == "int8":
        import nncf

        rows = nncf.Dataset([row[None] for row in pixels])
        model, precision = nncf.quantize(model, rows, subset_size=len(pixels)), "bfloat16"
    return openvino_engine.compile_model(model, precision)


def contender(runtime: str, precision: str, network: Portable, name: str, pixels) -> Run:
    """The pass of `network` by `runtime`; ImportError where it is not installed here."""
    match runtime:
        case "keras plain" | "keras":
            return _keras(name, precision, plain=runtime == "keras plain")
        case "torch" | "torch compiled":
            return _torch(network, precision, compiled=runtime == "torch compiled")
        case "onnxruntime":
            return _onnxruntime(network, precision, pixels)
        case "openvino":
            return _openvino(network, precision, pixels)
    raise ValueError(f"runtime: expected a contender of the benchmark, got {runtime!r}")


def main() -> None:
    runtime, precision, network, pixels, features = sys.argv[1:]
    batch = np.load(pixels, allow_pickle=False)
    try:
        run = contender(runtime, precision, Portable.load(Path(network)), Path(network).stem, batch)
        np.save(features, np.asarray(run(batch), np.float32))
        run(batch)
    except ImportError as error:
        sys.exit(f"missing: {error}")
    tools.answer(lambda: run(batch))


if __name__ == "__main__":
    main()
