"""The ablation's table and its extrapolation; training a row is for the slow tests."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from scene_utils import paths
from scene_utils.analysis import metrics_file
from scene_utils.models import SHIPPED
from tests.benchmarks import ablation, ablation_table, pages


def row(name, seed, value, low, high):
    figure = {"value": value, "low": low, "high": high}
    return {
        "row": name,
        "seed": seed,
        "pictures": 6560,
        "val": dict.fromkeys(("mean_iou", "accuracy_0.5", "pointing"), figure),
    }


def test_one_seed_shows_its_interval_and_several_their_range():
    rows = [row("one", 0, 0.5, 0.45, 0.55), row("more", 0, 0.6, 0.5, 0.7)]
    rows.append(row("more", 1, 0.64, 0.5, 0.7))
    table = ablation_table.table(rows)
    assert table.loc["one", "accuracy 0.5"] == "50.0 [45.0, 55.0]"
    assert table.loc["more", "accuracy 0.5"] == "62.0 [60.0, 64.0]"
    assert table.loc["more", "mean iou"] == "0.620 [0.600, 0.640]"
    assert table.seeds.tolist() == ["1", "2"]
    assert table["accuracy 0.5, lengthened"].tolist() == ["", ""]
    rows[0]["val_lengthened"] = rows[0]["val"]
    table = ablation_table.table(rows)
    assert table["accuracy 0.5, lengthened"].tolist() == ["50.0 [45.0, 55.0]", ""]


def test_recorded_rows_name_their_commit_and_those_of_today_are_not_trained_again(
    tmp_path, monkeypatch
):
    out = tmp_path / "ablation.json"
    recorded = paths.figures("flickr30k") / "ablation.json"
    out.write_bytes(recorded.read_bytes())
    rows = ablation_table.read(out)
    assert all(ablation_table.table(rows).commit)
    for words in ("phrases.parquet", "embeddings.npy", "vectors.json", "vocabulary.txt"):
        shutil.copy(SHIPPED["grid"] / "vocabulary.txt", tmp_path / words)
    (tmp_path / "vectors.json").write_text("{}")
    np.save(tmp_path / "embeddings.npy", np.zeros((2, 2)))
    pd.DataFrame().to_parquet(tmp_path / "phrases.parquet")
    monkeypatch.setattr(ablation.encode, "open_chosen", lambda cache: None)
    asked = [name for name in ablation.ROWS if name not in ("24 epochs", "36 epochs")]
    assert ablation.run(tmp_path, tmp_path, out, asked) == rows
    with pytest.raises((KeyError, AttributeError)):  # it begins to train
        ablation.run(tmp_path, tmp_path, out, ["24 epochs"])
    with pytest.raises(ValueError, match="expected some of source, squared error"):
        ablation.run(tmp_path, tmp_path, out, ["nothing"])


def test_its_table_stands_in_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path / profile)
    metrics = {"schema": metrics_file.SCHEMA, "data": {"name": "pictures"}}
    metrics["made_with"] = {"vectors": "glove50"}
    (tmp_path / "real").mkdir()
    (tmp_path / "real/metrics.json").write_text(json.dumps(metrics))
    text = "<!-- table:real/ablation -->\n<!-- /table -->"
    with pytest.raises(ValueError, match="real/ablation: expected its figures to have ablation"):
        pages.fill(text)
    rows = [row("one", 0, 0.5, 0.45, 0.55), row("more", 0, 0.6, 0.5, 0.7)]
    rows = [one | {"date": f"2026-11-2{day}"} for day, one in enumerate(rows)]
    for one in rows:
        one["val"] = one["val"] | {"mentions": 3239}
    (tmp_path / "real/ablation.json").write_text(json.dumps(rows))
    filled = pages.fill(text).splitlines()
    assert filled[1].startswith("| row | pictures | seeds | mean iou | accuracy 0.5 (%) |")
    assert filled[4].startswith("| more | 6,560 | 1 | 0.600 [0.500, 0.700] | 60.0 [50.0, 70.0] |")
    assert "split val: 3,239 boxed mentions; glove50; 2026-11-20 to 2026-11-21" in filled[-2]
