"""Features of the real backbones: right, the same however they are made, and told apart."""

import os
import shutil
import signal
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from scene_utils import images, paths
from scene_utils.features import backbones, encode
from tests.makers import PHOTOS, files_of, write_crops


@pytest.fixture(scope="module")
def backbone():
    return backbones.load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven crops of the photos, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    write_crops(folder, 11, first=100)
    return folder


def ids_of(folder):
    return [path.stem for path in folder.glob("*.jpg")]


def cache(folder, backbone, store, ids=None, **options):
    ids = ids_of(folder) if ids is None else ids
    return encode.cache_features(folder, ids, backbone, store, 4, 4, **options)


@pytest.fixture(scope="module")
def whole(folder, backbone, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "store"
    cache(folder, backbone, store)
    return store


def test_features_are_the_backbones_mean_map(whole, folder, backbone):
    store = encode.open_store(whole)
    pixels = images.read_squeezed(folder / "105.jpg", 224)[0][None].astype(np.float32)
    expected, stored = np.asarray(backbone.model(pixels)).mean(axis=(1, 2)), store.array(["105"])
    np.testing.assert_allclose(stored, expected, rtol=2e-3, atol=2e-3)
    # A new picture gets the features that it would have in the store.
    fresh = encode.keras_encoder(backbone)(pixels)
    np.testing.assert_allclose(stored.astype(np.float32), fresh, rtol=1e-3, atol=1e-4)
    assert list(store.unreadable.image_id) == ["700"]


def test_a_finished_store_needs_no_pass_and_no_right_to_write(whole, folder, backbone, monkeypatch):
    before = files_of(whole)
    monkeypatch.setattr(encode.feature_store, "writing", lambda *_: pytest.fail("wrote"))
    cache(folder, backbone, whole)
    assert files_of(whole) == before


def test_a_store_made_otherwise_and_an_unknown_engine_are_refused(whole, folder, backbone):
    untrained = backbones.load_backbone("efficientnet_lite0", untrained=True)
    with pytest.raises(
        ValueError, match=r"untrained = True, got False; .*; weights_sha256 = '\w+', got '\w+'\. "
    ):
        cache(folder, untrained, whole, ["100"])
    with pytest.raises(ValueError, match="size = 320, got 224"):
        cache(folder, replace(backbone, size=320), whole)
    with pytest.raises(ValueError, match=r"pass = 'keras, bfloat16.*, got 'keras, float32, batch"):
        cache(folder, backbone, whole, precision="bfloat16")
    with pytest.raises(ValueError, match="got 'abacus' and 'float32'"):
        cache(folder, backbone, whole, engine="abacus")


def test_the_chosen_store_is_the_one_that_opens(whole, tmp_path, backbone):
    shutil.copytree(whole, encode.store_folder(tmp_path, backbone))
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        encode.open_chosen(tmp_path)
    encode.choose(tmp_path, encode.open_store(encode.store_folder(tmp_path, backbone)))
    assert len(encode.open_chosen(tmp_path).row) == 11


# OpenVINO.


@pytest.fixture(scope="module")
def photos():
    return np.stack([images.read_squeezed(path, 224)[0] for path in PHOTOS])


def cosine(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_openvino_gives_the_features_of_keras(name, photos):
    backbone = backbones.load_backbone(name, untrained=name == "resnet50")
    expected = encode.keras_encoder(backbone)(photos)
    found = encode.openvino_encoder(backbone)(photos)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert cosine(found, expected).min() > 0.99999
    assert np.abs(found - expected).max() < 1e-3 * expected.std()
    # In half precision they are nearly the same; on whole photos: details blown up to 224 px have
    # lost their fine structure, and differ more.
    for encoder, least in ((encode.keras_encoder, 0.997), (encode.openvino_encoder, 0.99)):
        half = encoder(backbone, "bfloat16")(photos)
        assert cosine(half, expected).min() > least


def test_a_picture_has_its_features_whatever_is_beside_it(backbone, photos):
    encoder = encode.openvino_encoder(backbone)
    together = encoder(photos)
    for number, row in enumerate(together):
        np.testing.assert_allclose(encoder(photos[number][None])[0], row, rtol=1e-4, atol=1e-5)


def test_a_store_says_that_openvino_made_it(backbone, tmp_path):
    ids = [path.stem for path in PHOTOS]
    given = (paths.PHOTOS, ids, backbone)
    made = encode.cache_features(*given, tmp_path / "a", engine="openvino")
    keras = encode.cache_features(*given, tmp_path / "b")
    a, b = (store.array(ids).astype(np.float32) for store in (made, keras))
    assert cosine(a, b).min() > 0.999
    with pytest.raises(ValueError, match="'keras, float32, batch norms folded', got 'openvino, "):
        encode.cache_features(*given, tmp_path / "a")


# Ray: the features of the local engine but for rounding, and a killed worker costs only its shard.


def assert_alike(folder, other):
    one, two = (encode.open_store(store) for store in (folder, other))
    assert one.row == two.row
    assert one.unreadable.equals(two.unreadable)
    rows = [store.array(list(one.row)).astype(np.float32) for store in (one, two)]
    np.testing.assert_allclose(*rows, rtol=2e-3, atol=1e-4)


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="needs Ray: .venv/bin/pip install 'scene-utils[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def small():
    return backbones.load_backbone("efficientnet_lite0", size=64)


@pytest.fixture(scope="module")
def sixty(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_crops(folder, 60)
    return folder


@pytest.mark.slow
def test_ray_makes_the_same_features_and_goes_on_where_it_stopped(cluster, sixty, small, tmp_path):
    cache(sixty, small, tmp_path / "local")
    cache(sixty, small, tmp_path / "ray", engine="ray")
    assert_alike(tmp_path / "ray", tmp_path / "local")
    before = files_of(tmp_path / "ray")
    for number in (1, 5, 6):
        (tmp_path / "ray" / f"{number:05d}.json").unlink()
    cache(sixty, small, tmp_path / "ray", engine="ray")
    assert files_of(tmp_path / "ray") == before
    assert list(encode.open_store(tmp_path / "ray").unreadable.image_id) == ["700"]


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_shard(cluster, sixty, small, tmp_path, monkeypatch):
    cache(sixty, small, tmp_path / "local")
    seen = tmp_path / "seen"
    seen.mkdir()

    class Noted(encode.RayWorker):
        """Writes down who computed which shard, and takes its time, so that a kill finds it."""

        def __call__(self, batch):
            (seen / f"{os.getpid()} {int(batch['number'][0])} {time.monotonic_ns()}").touch()
            time.sleep(0.3)
            return super().__call__(batch)

    monkeypatch.setattr(encode, "RayWorker", Noted)
    killed = []

    def kill_one():
        until = time.monotonic() + 300
        while len(list(seen.iterdir())) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        last = max(seen.iterdir(), key=lambda path: int(path.name.split()[2]))
        killed.append(last.name.split()[:2])
        os.kill(int(killed[0][0]), signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    cache(sixty, small, tmp_path / "ray", engine="ray")
    killer.join()
    assert_alike(tmp_path / "ray", tmp_path / "local")
    numbers = [int(path.name.split()[1]) for path in seen.iterdir()]
    again = {n for n in numbers if numbers.count(n) > 1}
    assert again <= {int(killed[0][1])}, "only what the killed worker was at is done again"
    assert len(np.unique(numbers)) == 16
