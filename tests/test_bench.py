"""The benchmark: sections merge into one file, orders are fair, contenders compute the same."""

import json

import numpy as np
import pytest
from PIL import Image

from scene_utils import plots
from tests.benchmarks import __main__ as bench
from tests.benchmarks import features, plot, start, tools, training


def test_sections_are_merged_and_keep_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "bench.json"
    monkeypatch.setattr(bench, "measure_query", lambda: {"fresh_ms": 12.34567, "n": 3})
    path.write_text(json.dumps({"reading": {"rows_per_second": 5}}))
    result = bench.run(["query"], path)
    assert result["reading"] == {"rows_per_second": 5}
    assert (result["query"]["fresh_ms"], result["query"]["n"]) == (12.35, 3)
    machine = result["query"]["machine"]
    assert machine["cores"] >= 1
    assert machine["versions"]["numpy"] == np.__version__
    assert json.loads(path.read_text()) == result
    with pytest.raises(ValueError, match=r"expected sections of start, pass, .*, got 'abacus'"):
        bench.run(["abacus"], path)


def test_every_contender_has_its_turn_in_each_round():
    called = []
    measure = {name: lambda name=name: called.append(name) or 1.0 for name in "abcd"}
    assert tools.interleave(measure, 5) == {name: [1.0] * 5 for name in "abcd"}
    rounds = [called[start : start + 4] for start in range(0, 20, 4)]
    assert all(sorted(one) == list("abcd") for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_made_pictures_are_pictures(tmp_path):
    ids = tools.make_pictures(tmp_path, 300, (100, 75))
    assert len(list(tmp_path.glob("*.jpg"))) == len(ids) == 300
    for image_id in (ids[0], ids[299]):
        assert Image.open(tmp_path / f"{image_id}.jpg").size == (100, 75)


def test_a_store_is_read_as_it_was_written(tmp_path):
    features.fake_store(tmp_path, 70, channels=6, shard_size=32)
    from scene_utils.features import store as feature_store

    store = feature_store.open_store(tmp_path)
    assert len(store.row) == 70
    assert feature_store.verify(tmp_path, progress=False) == []


def test_the_plot_shows_what_is_there(tmp_path):
    machine = {"processor": "x", "cores": 2, "date": "2026-01-01"}
    row = {"pictures_per_second": {"keras float32": 10.0, "openvino bfloat16": 20.0}}
    shares = {"backbone": "resnet50", "precision": "float32", "pictures are": "small"}
    shares |= {"share": 0.9, "ceiling": 0.95}
    point = {"pictures": 1000, "seconds": 10.0}
    result = {
        "pass": {"machine": machine, "backbones": {"resnet50": row}},
        "caching": {"machine": machine, "rows": [shares]},
        "cost": {"machine": machine, "table": [point], "measured": [point]},
    }
    figure = plot.speed(result)
    assert figure.get_suptitle() == "x, 2 cores, 2026-01-01"
    plots.save(figure, tmp_path / "bench.png")
    assert Image.open(tmp_path / "bench.png").size[0] > 600
    result["cost"]["machine"] = machine | {"processor": "y"}
    lines = plot.speed(result).get_suptitle().splitlines()
    assert lines == ["pass, caching: x, 2 cores, 2026-01-01", "cost: y, 2 cores, 2026-01-01"]


def test_a_step_is_timed_at_each_size(monkeypatch):
    steps = []
    monkeypatch.setattr(training, "grid_step", lambda size: lambda: steps.append(size))
    found = training.measure(2, (224, 320))["sizes"]
    assert steps == [224] * 5 + [320] * 5
    assert list(found) == ["224", "320"]
    assert found["320"]["step_seconds"]["keras"] < 0.1


def test_a_process_is_measured_whole():
    seconds, mebibytes = start.cold(
        ["-c", "import time; x = bytes(range(256)) * 2**19; time.sleep(.3)"]
    )
    assert 0.3 < seconds < 30
    assert 128 < mebibytes < 300


@pytest.mark.slow
def test_contenders_answer_in_processes_of_their_own_and_agree(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 224, 224, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    found = {}
    for runtime in ("keras plain", "keras", "openvino"):
        out = tmp_path / f"{runtime}.npy"
        words = [runtime, "float32", "efficientnet_lite0", tmp_path / "pixels.npy", out]
        with tools.started("peers", words, tmp_path / "log") as process:
            assert tools.ask(process) > 0
            found[runtime] = np.load(out)
    for runtime in ("keras", "openvino"):
        assert tools.cosines(found[runtime], found["keras plain"]).min() > 0.99999
    with (
        pytest.raises(RuntimeError, match="abacus"),
        tools.started("peers", ["abacus", *words[1:]], tmp_path / "log"),
    ):
        pass
