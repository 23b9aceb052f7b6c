"""OpenVINO gives the features that Keras gives, and a store says which of them made it."""

import numpy as np
import pytest

from scene_utils import images, paths
from scene_utils.features import backbones, encode, keras_engine, openvino_engine


@pytest.fixture(scope="module")
def photos():
    found = [images.read_squeezed(path, 224)[0] for path in sorted(paths.PHOTOS.glob("*.jpg"))]
    return np.stack(found)


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_openvino_gives_the_features_of_keras(name, photos):
    backbone = backbones.load_backbone(name, untrained=name == "resnet50")
    expected = keras_engine.encoder(backbone)(photos)
    found = openvino_engine.encoder(backbone)(photos)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert cosine(found, expected).min() > 0.99999
    assert np.abs(found - expected).max() < 1e-3 * expected.std()
    half = openvino_engine.encoder(backbone, "bfloat16")(photos)
    assert cosine(half, expected).min() > 0.99


def test_a_picture_has_its_features_whatever_is_beside_it(photos):
    encoder = openvino_engine.encoder(backbones.load_backbone("efficientnet_lite0"))
    together = encoder(photos)
    for number, row in enumerate(together):
        np.testing.assert_allclose(encoder(photos[number][None])[0], row, rtol=1e-4, atol=1e-5)


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
