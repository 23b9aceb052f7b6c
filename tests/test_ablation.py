"""The ablation's table and its extrapolation; training a row is for the slow tests."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest

from scene_utils import paths
from scene_utils.analysis import metrics_file
from scene_utils.grid.localizer import SHIPPED
from scene_utils.grid.train import GridSettings
from scene_utils.study import ablation, ablation_plots, ablation_table, readme_tables
from scene_utils.words import Vocabulary


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


def test_figures_show_every_row_and_shares_once_there_are_three(tmp_path):
    rows = [row(name, 0, 0.5, 0.45, 0.55) for name in ("one", ablation_table.ALL)]
    rows[0]["val_lengthened"] = rows[0]["val"]
    shares = [row(f"1/{n} of the pictures", 0, 0.4, 0.3, 0.5) for n in (4, 2)]
    for one, n in zip(shares, (4, 2), strict=True):
        one["pictures"] //= n
    ablation_plots.save_all(rows + shares[:1], tmp_path, "a note")
    assert not (tmp_path / "data_scaling.png").exists()
    ablation_plots.save_all(rows + shares, tmp_path, "a note")
    drawn = (tmp_path / "ablation.svg").read_text()
    assert all(f"<!-- {one['row']} -->" in drawn for one in rows + shares)
    assert (tmp_path / "data_scaling.png").exists()
    assert ablation_table.shares(rows + shares) == [(1640, 0.4), (3280, 0.4), (6560, 0.5)]


def test_a_power_law_is_found_again():
    pictures = [820, 1640, 3280, 6560]
    errors = [3 * n**-0.25 for n in pictures]
    error, exponent = ablation_table.extrapolate(pictures, errors, 29_783)
    assert exponent == pytest.approx(0.25)
    assert error == pytest.approx(3 * 29_783**-0.25)


def test_each_step_changes_one_thing_of_the_step_before():
    steps = [ablation.STEPS[name] for name in ablation.CHAIN]
    small = replace(ablation.STEPS["anchors shown, 224 px"], anchored=False)
    assert small == ablation.STEPS[ablation_table.ALL]
    for before, after in pairwise(steps):
        changed = {
            name
            for name in GridSettings.__dataclass_fields__
            if getattr(before, name) != getattr(after, name)
        }
        assert len(changed) == 1


def test_a_row_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="expected some of source, squared error"):
        ablation.run(tmp_path, tmp_path, tmp_path / "ablation.json", ["nothing"])


def test_its_table_stands_in_the_readme(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: tmp_path / profile)
    metrics = {"schema": metrics_file.SCHEMA, "data": {"name": "pictures"}}
    metrics["made_with"] = {"vectors": "glove50"}
    (tmp_path / "real").mkdir()
    (tmp_path / "real/metrics.json").write_text(json.dumps(metrics))
    text = "<!-- table:real/ablation -->\n<!-- /table -->"
    with pytest.raises(ValueError, match="real/ablation: expected its figures to have ablation"):
        readme_tables.fill(text)
    rows = [row("one", 0, 0.5, 0.45, 0.55), row("more", 0, 0.6, 0.5, 0.7)]
    rows = [one | {"date": f"2026-11-2{day}"} for day, one in enumerate(rows)]
    for one in rows:
        one["val"] = one["val"] | {"mentions": 3239}
    (tmp_path / "real/ablation.json").write_text(json.dumps(rows))
    filled = readme_tables.fill(text).splitlines()
    assert filled[1] == (
        "| row | pictures | seeds | mean iou | accuracy 0.5 (%) | pointing (%) "
        "| accuracy 0.5, lengthened (%) |"
    )
    assert filled[4].startswith("| more | 6,560 | 1 | 0.600 [0.500, 0.700] | 60.0 [50.0, 70.0] |")
    assert "split val: 3,239 boxed mentions; glove50; 2026-11-20 to 2026-11-21" in filled[-2]


@pytest.fixture
def both():
    known = json.loads((SHIPPED / "settings.json").read_text())
    return GridSettings(**{name: known[name] for name in GridSettings.__dataclass_fields__})


@pytest.fixture
def words():
    return Vocabulary.load(SHIPPED / "vocabulary.txt")


def test_what_ships_is_not_trained_again(both, words):
    assert replace(ablation.STEPS["36 epochs and the taught one (ship)"], seed=both.seed) == both
    taught = replace(ablation.STEPS["16 epochs, taught by two models"], seed=6)
    assert ablation.shipped(replace(both, members=1), words) == [SHIPPED]
    assert ablation.shipped(taught, words) == [SHIPPED / "member2"]
    assert ablation.shipped(both, words) == [SHIPPED, SHIPPED / "member2"]


def test_another_seed_recipe_or_vocabulary_is_trained(both, words):
    assert ablation.shipped(replace(both, seed=both.seed + 1), words) == []
    assert ablation.shipped(replace(both, epochs=13), words) == []
    assert ablation.shipped(replace(both, members=3), words) == []
    assert ablation.shipped(both, replace(words, words=words.words[:-1])) == []
