"""The encoders give the published features, or say clearly why they cannot."""

import dataclasses
import hashlib
import io
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

from scene_utils.features import weights
from scene_utils.features.backbones import feature_maps, load_backbone

NAMES = ("resnet50", "efficientnet_lite0", "efficientnet_lite2")
LITE0 = weights.PRETRAINED / weights.WEIGHTS_FILES["efficientnet_lite0"].name
REFERENCES = Path(__file__).parent / "reference"


@pytest.fixture(scope="module")
def lite0():
    return load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def untrained():
    """All encoders with random weights, by name. Tests leave them as they are."""
    return {name: load_backbone(name, untrained=True) for name in NAMES}


def answers_of_pytorch(name):
    """PyTorch's answers for four photos, and their pixels (4, 224, 224, 3)."""
    arrays = dict(np.load(REFERENCES / f"{name}.npz"))
    tall = np.asarray(Image.open(io.BytesIO(arrays["png"].tobytes())))
    return arrays | {"pixels": tall.reshape(-1, 224, 224, 3).astype("float32")}


@pytest.fixture(scope="module")
def reference():
    return answers_of_pytorch("efficientnet_lite0")


@pytest.fixture
def no_weights(tmp_path, monkeypatch):
    """Empty data and Keras folders; gives the place that is searched first."""
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    (tmp_path / "pretrained").mkdir()
    (tmp_path / "keras" / "models").mkdir(parents=True)
    return tmp_path / "pretrained"


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_lite2"])
def test_lite_gives_the_features_of_the_published_network(name):
    backbone, reference = load_backbone(name), answers_of_pytorch(name)
    maps = backbone.model.predict(reference["pixels"].astype(np.uint8), verbose=0)
    assert maps.shape == (4, 7, 7, 1280)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), reference["pooled"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(maps[:, 3], reference["middle_row"], rtol=0, atol=1e-4)


def test_resnet50_preprocesses_like_keras_applications(untrained, reference):
    model = untrained["resnet50"].model
    pixels = reference["pixels"][:2]
    bare = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(224, 224, 3))
    bare.set_weights(model.get_weights())
    prepared = keras.applications.resnet50.preprocess_input(pixels.copy())
    expected = bare.predict(prepared, verbose=0)
    received = model.predict(pixels, verbose=0)
    tolerance = 1e-5 * expected.max()
    np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance)
    swapped = model.predict(pixels[..., ::-1], verbose=0)
    assert np.abs(swapped - expected).max() > 1000 * tolerance


def test_resnet50_reads_the_layout_of_the_published_file(no_weights, monkeypatch):
    """A file like the published one, with other numbers: every array reaches its own layer."""
    bare = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(224, 224, 3))
    rng = np.random.default_rng(0)
    bare.set_weights([rng.random(x.shape, dtype="float32") for x in bare.weights])
    path = no_weights / weights.WEIGHTS_FILES["resnet50"].name
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in bare.layers]
        for layer in bare.layers:
            group = file.create_group(layer.name)
            names = [f"{layer.name}/{x.name}:0" for x in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, x in zip(names, layer.get_weights(), strict=True):
                group[name] = x
    with open(path, "rb") as stream:
        md5 = hashlib.file_digest(stream, "md5").hexdigest()
    file = weights.WEIGHTS_FILES["resnet50"]
    published = dataclasses.replace(file, size=path.stat().st_size, digest=md5)
    monkeypatch.setitem(weights.WEIGHTS_FILES, "resnet50", published)
    backbone = load_backbone("resnet50")
    assert backbone.label == "resnet50"
    for layer in bare.layers:
        if layer.weights:
            loaded = backbone.model.get_layer(layer.name).get_weights()
            for expected, received in zip(layer.get_weights(), loaded, strict=True):
                np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("name", NAMES)
def test_missing_weights_say_what_is_missing_and_what_to_do(no_weights, name):
    file = weights.WEIGHTS_FILES[name]
    with pytest.raises(FileNotFoundError) as caught:
        load_backbone(name)
    message = str(caught.value)
    places = [no_weights, no_weights.parent / "keras" / "models"]
    hints = [file.digest, file.remedy, "weights=PATH", "untrained=True"]
    for part in [str(place / file.name) for place in places] + hints:
        assert part in message


def test_another_file_in_the_keras_folder_is_refused_with_both_hashes(no_weights):
    file = weights.WEIGHTS_FILES["resnet50"]
    place = no_weights.parent / "keras" / "models" / file.name
    place.write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not the published") as caught:
        load_backbone("resnet50")
    received = hashlib.md5(b"not weights").hexdigest()
    for part in (str(place), file.digest, "94,765,736 bytes", received, "11 bytes"):
        assert part in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "one bit"])
def test_damaged_or_missing_weights_are_refused_and_no_others_taken(tmp_path, damage):
    path, content = tmp_path / "mine.weights.h5", bytearray(LITE0.read_bytes())
    with pytest.raises(FileNotFoundError, match=r"mine\.weights\.h5"):
        load_backbone("efficientnet_lite0", weights=path)
    middle = len(content) // 2
    content[middle] ^= 1
    path.write_bytes(content[:middle] if damage == "cut" else content)
    with pytest.raises(ValueError, match=f"got {path.stat().st_size:,} bytes"):
        load_backbone("efficientnet_lite0", weights=path)


@pytest.mark.parametrize("name", NAMES)
def test_untrained_encoder_says_so_and_is_the_same_every_time(untrained, name):
    first = untrained[name]
    keras.utils.set_random_seed(123)
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (the global state is the subject)
    second = load_backbone(name, untrained=True)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert first.label == f"{name} (untrained)"
    assert first.sha256 == second.sha256


@pytest.mark.parametrize("name", NAMES)
def test_untrained_maps_tell_photos_apart_at_the_scale_of_trained_ones(untrained, name, reference):
    """Else a table's "untrained" row would measure vanished or exploded numbers."""
    pooled = untrained[name].model.predict(reference["pixels"], verbose=0).mean(axis=(1, 2))
    assert 0.1 < pooled.mean() < 10
    assert pooled.std(axis=0).mean() > 0.01 * pooled.mean()


def test_the_hash_identifies_the_file_or_the_arrays(lite0, untrained):
    assert lite0.sha256 == hashlib.sha256(LITE0.read_bytes()).hexdigest()
    assert lite0.label == "efficientnet_lite0"
    assert len({x.sha256 for x in (lite0, *untrained.values())}) == 4


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet50", (512, 1024, 2048)),
        ("efficientnet_lite0", (40, 112, 1280)),
        ("efficientnet_lite2", (48, 120, 1280)),
    ],
)
@pytest.mark.parametrize("size", [224, 320])
def test_maps_of_three_strides_at_any_size(name, channels, size):
    backbone = load_backbone(name, untrained=True, size=size)
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3)).astype("float32")
    maps = feature_maps(backbone).predict(pixels, verbose=0)
    sides = [(size // stride, size // stride) for stride in (8, 16, 32)]
    assert [x.shape[1:3] for x in maps] == sides
    assert tuple(x.shape[3] for x in maps) == channels
    assert backbone.channels == channels[-1]
    np.testing.assert_array_equal(maps[-1], backbone.model.predict(pixels, verbose=0))


def test_pretrained_weights_fit_another_input_size(reference):
    photos = reference["pixels"]
    framed = np.pad(photos, ((0, 0), (48, 48), (48, 48), (0, 0)), constant_values=127)
    large = load_backbone("efficientnet_lite0", size=320)
    pooled = large.model.predict(framed, verbose=0).mean(axis=(1, 2))
    np.testing.assert_allclose(pooled, reference["framed_pooled"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet"}, "resnet50, efficientnet_lite0"),
        ({"name": "resnet50", "size": 300}, "multiple of 32"),
        ({"name": "resnet50", "size": 0}, "multiple of 32"),
        ({"name": "resnet50", "untrained": True, "weights": "x.h5"}, "expected None"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        load_backbone(**arguments)
