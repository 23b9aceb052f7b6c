"""Features of the real backbones: right, the same however they are made, and told apart."""

import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

from scene_utils import images, paths
from scene_utils.features import backbones, encode, folding, keras_engine


@pytest.fixture(scope="module")
def backbone():
    return backbones.load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_crops):
    """Eleven crops of the photos, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    write_crops(folder, 11, first=100)
    return folder


def ids_of(folder):
    return [path.stem for path in folder.glob("*.jpg")]


def files_of(store):
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != ".lock"}


def cache(folder, backbone, store, ids=None, **options):
    ids = ids_of(folder) if ids is None else ids
    return encode.cache_features(folder, ids, backbone, store, 4, 4, progress=False, **options)


@pytest.fixture(scope="module")
def whole(folder, backbone, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "store"
    cache(folder, backbone, store)
    return store


def test_features_are_the_backbones_mean_map(whole, folder, backbone):
    store = encode.open_store(whole)
    pixels = images.read_squeezed(folder / "105.jpg", 224)[0][None].astype(np.float32)
    expected = np.asarray(backbone.model(pixels)).mean(axis=(1, 2))
    np.testing.assert_allclose(store.array(["105"]), expected, rtol=2e-3, atol=2e-3)
    assert list(store.unreadable.image_id) == ["700"]


def test_a_new_picture_gets_the_features_that_the_store_would_have(whole, folder, backbone):
    ids = [f"{100 + number}" for number in range(11)]
    stored = encode.open_store(whole).array(ids).astype(np.float32)
    for row, image_id in enumerate(ids):
        pixels = images.read_squeezed(folder / f"{image_id}.jpg", 224)[0][None]
        fresh = keras_engine.pooled_features(backbone, pixels)
        np.testing.assert_allclose(stored[row], fresh[0], rtol=1e-3, atol=1e-4)


def test_a_norm_that_cannot_be_folded_is_named():
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="lonely")(keras.layers.ReLU(name="relu")(pixels))
    with pytest.raises(ValueError, match="after a convolution, got lonely after relu"):
        folding.fold_norms(keras.Model(pixels, x))


def test_half_precision_gives_nearly_the_same_features(backbone):
    # On whole photos; details blown up to 224 px have lost their fine structure, and differ more.
    photos = [images.read_squeezed(path, 224)[0] for path in sorted(paths.PHOTOS.glob("*.jpg"))]
    a, b = (keras_engine.encoder(backbone, name)(np.stack(photos)) for name in encode.PRECISIONS)
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    assert cosine.min() > 0.997


def test_half_precision_makes_another_store(whole, folder, backbone, tmp_path):
    half = cache(folder, backbone, tmp_path / "half", precision="bfloat16")
    assert half.row == encode.open_store(whole).row
    with pytest.raises(ValueError, match="pass = 'keras, float32, batch norms folded', got 'keras"):
        cache(folder, backbone, tmp_path / "half")


def test_a_finished_store_needs_no_pass_and_no_right_to_write(whole, folder, backbone, monkeypatch):
    before = files_of(whole)
    monkeypatch.setattr(encode.feature_store, "writing", lambda *_: pytest.fail("wrote"))
    cache(folder, backbone, whole)
    assert files_of(whole) == before


def test_a_store_in_two_steps_is_the_store_in_one(whole, folder, backbone, tmp_path):
    store = tmp_path / "store"
    cache(folder, backbone, store, sorted(ids_of(folder))[:8])
    cache(folder, backbone, store)
    assert files_of(store) == files_of(whole)


def test_a_store_made_otherwise_is_refused(whole, folder, backbone):
    untrained = backbones.load_backbone("efficientnet_lite0", untrained=True)
    with pytest.raises(
        ValueError, match=r"untrained = True, got False; .*; weights_sha256 = '\w+', got '\w+'\. "
    ):
        cache(folder, untrained, whole, ["100"])
    with pytest.raises(ValueError, match="size = 320, got 224"):
        encode.open_store(whole, encode.describe(replace(backbone, size=320)))


def test_an_unknown_engine_is_refused(folder, backbone, tmp_path):
    with pytest.raises(ValueError, match="got 'abacus' and 'float32'"):
        cache(folder, backbone, tmp_path / "store", engine="abacus")


def test_the_chosen_store_is_the_one_that_opens(whole, tmp_path, backbone):
    shutil.copytree(whole, encode.store_folder(tmp_path, backbone))
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        encode.open_chosen(tmp_path)
    encode.choose(tmp_path, encode.open_store(encode.store_folder(tmp_path, backbone)))
    assert len(encode.open_chosen(tmp_path).row) == 11
