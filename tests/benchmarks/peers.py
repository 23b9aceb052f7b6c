"""One contender of the pass in a process of its own: it runs a batch when it is told to.

    python -m tests.benchmarks.peers RUNTIME PRECISION BACKBONE PIXELS.npy FEATURES.npy

It writes the features of all pixels, `(n, channels)`, says `ready`, and then answers each line on
standard input with the seconds that one batch, all pixels at once, took. A process that waits for a
line takes no time from the others.

Peers are what standard converters give: OpenVINO, and ONNX Runtime in float32 (it has no
convolution in bfloat16 on CPU). PyTorch is not among them: no converter makes it such a model.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scene_utils import paths
from tests.benchmarks import tools

BATCH = 32
Run = Callable[[np.ndarray], np.ndarray]


def contender(runtime: str, precision: str, name: str) -> Run:
    """The pass of an untrained backbone; ImportError where its runtime is not installed here."""
    from scene_utils.features import backbones, encode, folding

    if runtime == "onnxruntime":
        sys.path.append(str(paths.ROOT / "build/bench"))  # where `make bench` installs it
        import onnxruntime
        import tf2onnx  # noqa: F401 Keras asks for it only later
    backbone = backbones.load_backbone(name, untrained=True)
    match runtime:
        case "keras plain":  # the network as published
            plain = backbone.model.predict_on_batch
            return lambda pixels: plain(np.float32(pixels)).mean(axis=(1, 2))
        case "keras":
            return encode.keras_encoder(backbone, precision)
        case "openvino":
            return encode.openvino_encoder(backbone, precision)
        case "onnxruntime":
            model = folding.fold_norms(backbone.model)
            model(np.zeros((1, backbone.size, backbone.size, 3), np.float32))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                model.export(path, format="onnx", verbose=False)
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            (pixels,) = session.get_inputs()
            return lambda batch: session.run(None, {pixels.name: np.float32(batch)})[0].mean((1, 2))
    raise ValueError(f"runtime: expected a contender of the benchmark, got {runtime!r}")


def main() -> None:
    runtime, precision, name, pixels, features = sys.argv[1:]
    batch = np.load(pixels, allow_pickle=False)
    try:
        run = contender(runtime, precision, name)
    except ImportError as error:
        sys.exit(f"missing: {error}")
    np.save(features, np.asarray(run(batch), np.float32))
    run(batch)
    tools.answer(lambda: run(batch))


if __name__ == "__main__":
    main()
