"""Notebook 05 from cached answers: no TensorFlow, same bytes twice, and the README's tables."""

import hashlib
import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops, paths, plots
from scene_utils.analysis import metrics_file, predictions
from scene_utils.dataset import entities, sample

# Presence needs a grid model: `test_presence` has that table.
TABLES = ["models", "recall", "categories", "differences", "probes", "mistakes", "misses"]


def answer(phrases, spread, count, rng):
    """Predictions near the truth, `count` ranked boxes a phrase, as a model would leave them."""
    table = phrases.loc[phrases.index.repeat(count)].reset_index(drop=True)
    size = table[["width", "height"] * 2].to_numpy(float)
    corners = table[box_ops.COLUMNS].fillna(10).to_numpy(float)
    corners = corners + rng.normal(0, spread, corners.shape) * size
    low = np.minimum(corners[:, :2], corners[:, 2:])
    table[box_ops.COLUMNS] = np.concatenate(
        [low, np.maximum(corners[:, :2], corners[:, 2:]) + 5], axis=1
    )
    table["rank"] = np.tile(np.arange(1, count + 1), len(phrases))
    table["score"] = rng.random(len(table)) if count > 1 else 1.0
    return table[entities.PREDICTION_COLUMNS]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder as the project's root, with a small sample and answers of three models."""
    root = tmp_path_factory.mktemp("project")
    cache = root / "data/cache/sample"
    sample.generate(cache / "scenes", train=24, val=4, test=16, progress=False)
    found = entities.load_entities(cache / "scenes", cache, progress=False)
    test = found.phrases[found.phrases.split == "test"].reset_index(drop=True)
    rng = np.random.default_rng(0)
    (cache / "predictions").mkdir()
    for name, spread, count in (("constant", 0.3, 1), ("seed", 0.1, 1), ("grid", 0.03, 12)):
        answer(test, spread, count, rng).to_parquet(cache / f"predictions/{name}.parquet")
    (root / "data/photos").symlink_to(paths.PHOTOS)
    (root / "requirements.lock").symlink_to(paths.ROOT / "requirements.lock")
    return root


def draw(project):
    """Run notebook 05 as a script, which a percent notebook is; returns what it printed."""
    code = (
        "import runpy, sys, matplotlib; matplotlib.use('agg')\n"
        f"runpy.run_path({str(paths.ROOT / 'notebooks/05_iou_analysis.py')!r})\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    environment = os.environ | {
        "SCENE_ROOT": str(project),
        "PYTHONPATH": str(paths.ROOT),
        "PYTHONHASHSEED": str(len(list(project.rglob("*")))),
    }
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.*")}


@pytest.fixture(scope="module")
def drawn(project):
    printed = draw(project)
    return printed, project / "figures/sample"


@pytest.mark.slow
def test_drawing_needs_no_tensorflow(drawn):
    loaded = re.search(r"loaded: (.*)", drawn[0])[1].split()
    assert "matplotlib" in loaded
    assert not {"tensorflow", "keras"} & set(loaded)


@pytest.mark.slow
def test_figures_come_as_png_and_svg_and_a_model_with_ranks_gets_its_own(drawn):
    kinds = {
        suffix: {path.stem for path in drawn[1].glob(f"*{suffix}")} for suffix in (".png", ".svg")
    }
    assert kinds[".png"] == kinds[".svg"]
    wanted = "models categories recall differences iou_distribution what_decides"
    wanted += " where_answers_lie calibration mistakes gallery"
    assert kinds[".png"] == set(wanted.split())


@pytest.mark.slow
def test_drawing_again_gives_the_same_bytes(project, drawn):
    before = hashes(drawn[1])
    assert len(before) == 21
    for path in drawn[1].glob("*.*"):
        path.unlink()
    draw(project)
    assert hashes(drawn[1]) == before


@pytest.mark.slow
def test_metrics_hold_what_their_description_says(drawn):
    metrics = metrics_file.read_metrics(drawn[1] / "metrics.json")
    described = re.findall(r"^    (\w+)  ", metrics_file.__doc__, re.MULTILINE)
    assert set(metrics) == set(described)
    assert list(metrics["models"]) == ["constant", "seed", "grid"]
    assert list(metrics["calibration"]) == ["grid"]
    recall = {name: found["recall"]["any"]["all"] for name, found in metrics["models"].items()}
    assert recall["seed"]["1"] == recall["seed"]["upper_bound"]
    assert recall["grid"]["1"]["value"] < recall["grid"]["upper_bound"]["value"]
    pairs = {(row["better"], row["worse"]) for row in metrics["differences"]}
    assert pairs == {("grid", "seed"), ("grid", "constant"), ("seed", "constant")}
    shares = metrics["mistakes"]["seed"]
    assert shares["right"] == pytest.approx(
        100 * metrics["models"]["seed"]["merged"]["accuracy_0.5"]["value"], abs=0.01
    )
    path = str(drawn[1].parent.parent)
    assert path not in json.dumps(metrics)


def test_a_readers_own_style_changes_nothing(tmp_path):
    sizes = {"a": np.linspace(0, 1, 50)}

    def shown(name):
        plots.save(plots.box_sizes(sizes, "x"), tmp_path / f"{name}.png")
        return hashlib.sha256((tmp_path / f"{name}.svg").read_bytes()).hexdigest()

    plain = shown("plain")
    with plots.plt.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "mine"}):
        assert shown("own") == plain


# Answers in the cache.


@pytest.fixture
def cache(tmp_path):
    for name in ("seed", "seed-giou", "zebra", "constant"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "settings.json").write_text('{"fingerprint": "x"}')
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/grid.parquet").touch()
    return tmp_path


def test_models_stand_in_one_order_and_other_losses_of_the_seed_stay_out(cache):
    assert predictions.names(cache) == ["constant", "seed", "grid", "zebra"]


def test_a_grid_model_with_context_answers_whole_sentences_too(cache):
    (cache / "models/grid").mkdir()
    (cache / "models/grid/settings.json").write_text('{"fingerprint": "x"}')
    assert predictions.TOGETHER not in predictions.names(cache)
    (cache / "models/grid/context.json").write_text("{}")
    assert predictions.names(cache)[2:4] == ["grid", predictions.TOGETHER]
    assert predictions.settings(cache, predictions.TOGETHER) == {"fingerprint": "x"}
    for name in ("grid", predictions.TOGETHER):
        stamp = {"fingerprint": predictions._fingerprint(cache, name)}
        (cache / f"predictions/{name}.json").write_text(json.dumps(stamp))
    (cache / "models/grid/context.json").write_text('{"weight": 1}')
    assert {"grid", predictions.TOGETHER} <= {*predictions.stale(cache)}


def test_answers_are_stale_when_what_they_came_from_has_changed(cache):
    assert predictions.stale(cache) == ["constant", "seed", "zebra"], "grid was put there by hand"
    for name in ("constant", "seed", "zebra"):
        stamp = {"fingerprint": predictions._fingerprint(cache, name)}
        (cache / f"predictions/{name}.json").write_text(json.dumps(stamp))
    assert predictions.stale(cache) == []
    (cache / "models/seed/settings.json").write_text('{"fingerprint": "y"}')
    assert predictions.stale(cache) == ["seed"]
    (cache / "entities.json").write_text("new phrases")
    assert predictions.stale(cache) == ["constant", "seed", "zebra"]


def test_no_answers_say_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected tables of predictions, found none"):
        predictions.load(tmp_path)


def test_photo_phrases_have_boxes_inside_photos_that_are_there():
    from PIL import Image

    table = predictions.photo_phrases()
    box_ops.check(table[box_ops.COLUMNS].to_numpy())
    for photo, group in table.groupby("photo"):
        width, height = Image.open(paths.PHOTOS / f"{photo}.jpg").size
        assert (group.x_max <= width).all()
        assert (group.y_max <= height).all()
    assert not table.duplicated(["photo", "phrase"]).any()


# The README's tables.


@pytest.fixture
def readme(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: drawn[1].parent / profile)
    path = tmp_path / "README.md"
    names = [name for name in TABLES if name != "probes"]
    path.write_text(
        "# Study\n\nBefore.\n\n"
        + "\n\n".join(f"<!-- table:sample/{name} -->\nas it was\n<!-- /table -->" for name in names)
        + "\n\nAfter.\n"
    )
    return path


def command(project, *words):
    return subprocess.run(
        [sys.executable, "-m", "scene_utils", "readme", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"SCENE_ROOT": str(project), "PYTHONPATH": str(paths.ROOT)},
    )


@pytest.mark.slow
def test_tables_are_written_between_their_marks_and_nowhere_else(project, readme):
    answer = command(project, readme, "--check")
    assert answer.returncode == 1
    assert "tables differ from metrics.json. Run `make readme`" in answer.stderr
    assert "as it was" in readme.read_text(), "a check changes nothing"
    assert command(project, readme).returncode == 0
    text = readme.read_text()
    assert text.startswith(
        "# Study\n\nBefore.\n\n<!-- table:sample/models -->\n| model | mean iou |"
    )
    assert text.endswith("<!-- /table -->\n\nAfter.\n")
    assert "as it was" not in text
    metrics = metrics_file.read_metrics(project / "figures/sample/metrics.json")
    value = 100 * metrics["models"]["grid"]["merged"]["accuracy_0.5"]["value"]
    row = next(line for line in text.splitlines() if line.startswith("| grid |"))
    assert f"| {value:.1f} [" in row
    assert "| largest box (oracle) |" in text
    assert command(project, readme, "--check").returncode == 0


@pytest.mark.slow
def test_a_figure_that_differs_by_one_digit_fails_the_check(project, readme):
    command(project, readme)
    text = readme.read_text()
    row = next(line for line in text.splitlines() if line.startswith("| seed |"))
    digit = re.search(r"\d(?= \[)", row)
    changed = row[: digit.start()] + str((int(digit[0]) + 1) % 10) + row[digit.end() :]
    readme.write_text(text.replace(row, changed, 1))
    assert command(project, readme, "--check").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:sample/models -->\nno end\n", "got 1 beginnings and 0 ends"),
        ("<!-- table:sample/models --> x <!-- /table -->", "on a line of its own"),
        ("<!-- table:sample/nonsense -->\n<!-- /table -->", "got 'sample/nonsense'"),
        ("<!-- table:nowhere/models -->\n<!-- /table -->", "expected figures of notebook 05"),
        ("<!-- table:sample/probes -->\n<!-- /table -->", "sample/probes: expected its figures"),
    ],
)
def test_marks_that_cannot_be_filled_are_refused(text, message, readme):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        metrics_file.fill_tables(text)


def test_text_without_marks_stays_as_it_is():
    assert metrics_file.fill_tables("# Title\n\ntext\n") == "# Title\n\ntext\n"


def test_differences_are_shown_both_ways_and_chance_is_marked():
    rows = [
        {
            "better": "b",
            "worse": "a",
            "metric": "accuracy_0.5",
            "value": 0.05,
            "low": 0.01,
            "high": 0.09,
            "real": True,
        },
        {
            "better": "c",
            "worse": "b",
            "metric": "accuracy_0.5",
            "value": 0.01,
            "low": -0.02,
            "high": 0.04,
            "real": False,
        },
    ]
    table = metrics_file.difference_table(pd.DataFrame(rows), ["a", "b", "c"], "accuracy_0.5")
    assert table.loc["b", "a"] == "+5.0 [1.0, 9.0]"
    assert table.loc["a", "b"] == "-5.0 [-9.0, -1.0]"
    assert table.loc["c", "b"] == "~ +1.0 [-2.0, 4.0]"
    assert table.loc["a", "c"] == table.loc["a", "a"] == ""


@pytest.mark.slow
def test_a_table_of_probes_is_written(drawn):
    metrics = metrics_file.read_metrics(drawn[1] / "metrics.json")
    row = {"change": "blank picture", "mentions": 9, "asked": 0.5, "changed": 0.2, "value": 0.3}
    row |= {"low": 0.1, "high": 0.4, "real": True, "same": 0.1}
    text = metrics_file.TABLES["probes"](metrics | {"probes": {"seed": [row]}})
    assert "| seed | 20.0, fall 30.0 [10.0, 40.0] |" in text


@pytest.mark.slow
def test_every_table_has_a_caption_that_says_what_it_rests_on(drawn):
    metrics = metrics_file.read_metrics(drawn[1] / "metrics.json")
    for name in set(TABLES) - {"probes"}:
        last = metrics_file.TABLES[name](metrics).splitlines()[-1]
        assert "embedded sample, split test: 16 images" in last, name
        assert "trained on 24 images" in last, name
    assert set(metrics_file.TABLES) == {*TABLES, "presence", "ablation"}
