"""Features by Ray: the bits of the local engine, and a killed worker that costs only its shard."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from scene_utils.features import backbones, encode, ray_engine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="needs Ray: .venv/bin/pip install 'scene-utils[ray]'")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
    yield ray
    ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_crops):
    folder = tmp_path_factory.mktemp("pictures")
    write_crops(folder, 60)
    return folder


@pytest.fixture(scope="module")
def backbone():
    return backbones.load_backbone("efficientnet_lite0", size=64)


def files_of(store):
    return {path.name: path.read_bytes() for path in store.iterdir() if path.name != ".lock"}


def cache(folder, backbone, store, **options):
    ids = [path.stem for path in folder.glob("*.jpg")]
    return encode.cache_features(folder, ids, backbone, store, 4, 4, progress=False, **options)


def test_ray_makes_the_same_bits_and_goes_on_where_it_stopped(cluster, folder, backbone, tmp_path):
    cache(folder, backbone, tmp_path / "local")
    cache(folder, backbone, tmp_path / "ray", engine="ray")
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
    for number in (1, 5, 6):
        (tmp_path / "ray" / f"{number:05d}.json").unlink()
    cache(folder, backbone, tmp_path / "ray", engine="ray")
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
    assert list(encode.open_store(tmp_path / "ray").unreadable.image_id) == ["700"]


def test_a_killed_worker_costs_only_its_shard(cluster, folder, backbone, tmp_path, monkeypatch):
    cache(folder, backbone, tmp_path / "local")
    seen = tmp_path / "seen"
    seen.mkdir()

    class Noted(ray_engine.Worker):
        """Writes down who computed which shard, and takes its time, so that a kill finds it."""

        def __call__(self, batch):
            (seen / f"{os.getpid()} {int(batch['number'][0])} {time.monotonic_ns()}").touch()
            time.sleep(0.3)
            return super().__call__(batch)

    monkeypatch.setattr(ray_engine, "Worker", Noted)
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
    cache(folder, backbone, tmp_path / "ray", engine="ray")
    killer.join()
    assert files_of(tmp_path / "ray") == files_of(tmp_path / "local")
    numbers = [int(path.name.split()[1]) for path in seen.iterdir()]
    again = {n for n in numbers if numbers.count(n) > 1}
    assert again <= {int(killed[0][1])}, "only what the killed worker was at is done again"
    assert len(np.unique(numbers)) == 16
