"""The benchmark: sections merge into one file, orders are fair, contenders compute the same."""

import json

import numpy as np
import pytest

from tests.benchmarks import __main__ as bench
from tests.benchmarks import tools


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
    unknown = tools.started("peers", ["abacus", *words[1:]], tmp_path / "log")
    with pytest.raises(RuntimeError, match="abacus"), unknown:
        pass
