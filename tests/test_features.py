"""The feature store: right features, and nothing lost or half taken whatever happens to a run."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from scene_utils import backbones, features, images, paths

BAD = {
    "700": b"",
    "701": b"this is no picture",
    "702": None,  # truncated below
}


@pytest.fixture(scope="module")
def backbone():
    return backbones.load_backbone("efficientnet_lite0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eleven crops of the photos, three files that are no whole picture, one that is missing."""
    folder = tmp_path_factory.mktemp("pictures")
    photos = [images.open_image(path) for path in sorted(paths.PHOTOS.glob("*.jpg"))]
    for number in range(11):
        photo = photos[number % len(photos)]
        photo.crop((number * 7, number * 5, 220 + number * 9, 190 + number * 11)).save(
            folder / f"{100 + number}.jpg"
        )
    for name, content in BAD.items():
        content = (folder / "100.jpg").read_bytes()[:3000] if content is None else content
        (folder / f"{name}.jpg").write_bytes(content)
    return folder


def ids_of(folder):
    return [path.stem for path in folder.glob("*.jpg")] + ["999"]


def files_of(store):
    return {path.name: path.read_bytes() for path in sorted(store.iterdir())}


@pytest.fixture(scope="module")
def whole(folder, backbone, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "store"
    features.cache_features(folder, ids_of(folder), backbone, store, 4, 4, progress=False)
    return store


def test_features_are_the_backbones_mean_map(whole, folder, backbone):
    store = features.open_store(whole)
    pixels = images.read_squeezed(folder / "105.jpg", 224)[0][None].astype(np.float32)
    expected = np.asarray(backbone.model(pixels)).mean(axis=(1, 2))
    np.testing.assert_allclose(store.array(["105"]), expected, rtol=2e-3, atol=2e-3)


def test_rows_come_in_the_order_asked_for(whole):
    store = features.open_store(whole)
    together = store.array(["110", "100", "104"])
    for row, image_id in enumerate(["110", "100", "104"]):
        np.testing.assert_array_equal(together[row], store.array([image_id])[0])
    assert len(np.unique(together, axis=0)) == 3


def test_unreadable_pictures_are_listed_with_name_and_reason(whole):
    store = features.open_store(whole)
    assert len(store.row) == 11
    reasons = dict(store.unreadable.itertuples(index=False))
    assert set(reasons) == {"700", "701", "702", "999"}
    assert "999.jpg: expected a picture, found no such file" in reasons["999"]
    assert reasons["702"].startswith("702.jpg: expected a whole picture")
    with pytest.raises(KeyError, match="702"):
        store.array(["100", "702"])


def test_a_second_run_computes_nothing(whole, folder, backbone, monkeypatch):
    before = files_of(whole)
    monkeypatch.setattr(features, "pooled_features", lambda *_: pytest.fail("computed again"))
    features.cache_features(folder, ids_of(folder), backbone, whole, 4, 4, progress=False)
    assert files_of(whole) == before


def test_new_and_repaired_pictures_are_added(whole, folder, backbone, tmp_path):
    store, pictures = tmp_path / "store", tmp_path / "pictures"
    shutil.copytree(whole, store)
    shutil.copytree(folder, pictures)
    shutil.copy(pictures / "103.jpg", pictures / "702.jpg")
    shutil.copy(pictures / "104.jpg", pictures / "104000.jpg")
    opened = features.cache_features(
        pictures, [*ids_of(pictures)], backbone, store, 4, 4, progress=False
    )
    np.testing.assert_array_equal(opened.array(["702"]), opened.array(["103"]))
    np.testing.assert_array_equal(opened.array(["104000"]), opened.array(["104"]))
    assert "702" not in set(opened.unreadable.image_id)


def test_a_kill_in_the_middle_loses_nothing(whole, folder, tmp_path):
    store = tmp_path / "store"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from scene_utils import backbones, features\n"
        "pooled = features.pooled_features\n"
        "def slow(*given):\n"
        "    time.sleep(0.5)\n"
        "    return pooled(*given)\n"
        "features.pooled_features = slow\n"
        "pictures, store = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "ids = [path.stem for path in pictures.glob('*.jpg')] + ['999']\n"
        "backbone = backbones.load_backbone('efficientnet_lite0')\n"
        "features.cache_features(pictures, ids, backbone, store, 4, 4, progress=False)\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(store)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        until = time.monotonic() + 60
        while not (store / features.MANIFEST).is_file() and time.monotonic() < until:
            time.sleep(0.02)
        running.send_signal(signal.SIGKILL)
    stopped = json.loads((store / features.MANIFEST).read_text())
    assert 1 <= len(stopped["shards"]) < 4
    (store / ".00009.npy.half").write_bytes(b"\x93NUMPY")  # what a kill while writing leaves
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    (store / ".00009.npy.half").unlink()
    assert files_of(store) == files_of(whole)


def test_a_full_disk_names_the_shard_and_keeps_what_was_done(whole, folder, backbone, tmp_path):
    store = tmp_path / "store"
    pooled, calls = features.pooled_features, []

    def fill_the_disk(*given):
        calls.append(1)
        if len(calls) == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))
        return pooled(*given)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    features.pooled_features = fill_the_disk
    try:
        with pytest.raises(OSError, match=r"could not write 00001\.npy.*run again"):
            features.cache_features(folder, ids_of(folder), backbone, store, 4, 4, progress=False)
    finally:
        features.pooled_features = pooled
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in store.iterdir()) == ["00000.npy", features.MANIFEST]
    features.cache_features(folder, ids_of(folder), backbone, store, 4, 4, progress=False)
    assert files_of(store) == files_of(whole)


def test_a_store_made_otherwise_is_refused(whole, folder, backbone):
    untrained = backbones.load_backbone("efficientnet_lite0", untrained=True)
    with pytest.raises(
        ValueError, match=r"expected features made with untrained = True, got False"
    ):
        features.cache_features(folder, ["100"], untrained, whole, progress=False)
    with pytest.raises(ValueError, match="size = 320, got 224"):
        features.open_store(whole, features.describe(replace(backbone, size=320)))


def test_a_shard_cut_short_is_not_taken(whole, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(whole, store)
    shard = store / "00000.npy"
    os.truncate(shard, shard.stat().st_size - 100)
    with pytest.raises(ValueError, match=r"00000\.npy"):
        features.open_store(store)


def test_no_store_says_what_to_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        features.open_store(tmp_path)
