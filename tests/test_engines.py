"""Other runtimes give the features that Keras gives; where they are missing they say what to do."""

import importlib.util
import sys

import numpy as np
import pytest

from scene_utils import images, paths
from scene_utils.features import backbones, encode, folding, openvino_engine, portable

openvino_here = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason="needs OpenVINO: .venv/bin/pip install 'scene-utils[openvino]'",
)


@pytest.fixture(scope="module")
def photos():
    found = [images.read_squeezed(path, 224)[0] for path in sorted(paths.PHOTOS.glob("*.jpg"))]
    return np.stack(found)


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_a_written_network_has_the_published_number_of_operations(name, tmp_path):
    source = backbones.load_backbone(name, untrained=True).model
    network = portable.export(folding.fold_norms(source))
    # He et al. 2016, table 1: 3.8 billion multiply-adds; EfficientNet-Lite's page: 407 million,
    # both with their classifier, which adds .5 %.
    published = {"resnet50": 3.86e9, "efficientnet_lite0": 0.384e9}[name]
    assert network.flops() / 2 == pytest.approx(published, rel=0.07)
    network.save(tmp_path / "network.npz")
    loaded = portable.Portable.load(tmp_path / "network.npz")
    assert loaded.steps == network.steps
    assert all(np.array_equal(loaded.arrays[key], network.arrays[key]) for key in network.arrays)


@openvino_here
@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_openvino_gives_the_features_of_keras(name, photos):
    backbone = backbones.load_backbone(name, untrained=name == "resnet50")
    expected = encode.encoder(backbone)(photos)
    found = openvino_engine.encoder(backbone)(photos)
    assert found.shape == expected.shape
    assert cosine(found, expected).min() > 0.99999
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std(), rtol=1e-3)
    half = openvino_engine.encoder(backbone, "bfloat16")(photos)
    assert cosine(half, expected).min() > 0.99


@openvino_here
def test_a_store_says_that_openvino_made_it(tmp_path):
    backbone = backbones.load_backbone("efficientnet_lite0")
    ids = [path.stem for path in paths.PHOTOS.glob("*.jpg")]
    given = (paths.PHOTOS, ids, backbone)
    made = encode.cache_features(*given, tmp_path / "a", progress=False, engine="openvino")
    keras = encode.cache_features(*given, tmp_path / "b", progress=False)
    a, b = (store.array(ids).astype(np.float32) for store in (made, keras))
    assert cosine(a, b).min() > 0.999
    with pytest.raises(ValueError, match="'keras, float32, batch norms folded', got 'openvino, "):
        encode.cache_features(*given, tmp_path / "a", progress=False)


def test_a_missing_runtime_says_what_to_install(monkeypatch):
    backbone = backbones.load_backbone("efficientnet_lite0", untrained=True, size=32)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError, match=r"pip install 'scene-utils\[openvino\]'"):
        openvino_engine.encoder(backbone)
