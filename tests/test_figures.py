"""Notebooks 05 to 05d from cached answers: no TensorFlow, same bytes twice; the README's tables."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scene_utils import box_ops, grounding, paths, plots
from scene_utils.analysis import metrics_file, predictions
from scene_utils.dataset import entities, sample
from scene_utils.dataset.mentions import PREDICTION_COLUMNS
from scene_utils.study import tables
from tests.benchmarks import pages
from tests.makers import phrase_table

# What needs a trained model: `test_presence`, `test_ablation`, `test_places` and `test_analysis`
# have these.
ASKED = ("presence", "perturbations", "photos", "alike", "things", "ablation")
TABLES = [name for name in pages.TABLES if name not in ASKED]


def answer(phrases, spread, count, rng):
    """Predictions near the truth, `count` ranked boxes a phrase, as a model would leave them."""
    table = phrases.loc[phrases.index.repeat(count)].reset_index(drop=True)
    size = table[["width", "height"] * 2].to_numpy(float)
    corners = table[box_ops.COLUMNS].fillna(10).to_numpy(float)
    corners = corners + rng.normal(0, spread, corners.shape) * size
    low, high = np.sort(corners.reshape(-1, 2, 2), axis=1).transpose(1, 0, 2)
    table[box_ops.COLUMNS] = np.concatenate([low, high + 5], axis=1)
    table["rank"] = np.tile(np.arange(1, count + 1), len(phrases))
    table["score"] = rng.random(len(table)) if count > 1 else 1.0
    return table[PREDICTION_COLUMNS]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder as the project's root, with a small sample and answers of three models."""
    root = tmp_path_factory.mktemp("project")
    cache = root / "data/cache/sample"
    sample.generate(cache / "scenes", train=24, val=4, test=16)
    found = entities.read_entities(cache / "scenes")
    entities.write_tables(found, cache)
    test = found.phrases[found.phrases.split == "test"].reset_index(drop=True)
    rng = np.random.default_rng(0)
    (cache / "predictions").mkdir()
    for name, spread, count in (("text-only", 0.3, 1), ("source", 0.1, 1), ("grid", 0.03, 12)):
        answer(test, spread, count, rng).to_parquet(cache / f"predictions/{name}.parquet")
    (root / "data/photos").symlink_to(paths.PHOTOS)
    (root / "requirements.lock").symlink_to(paths.ROOT / "requirements.lock")
    return root


def started(project, *words):
    """A process of this Python that has `project` as the project's root."""
    environment = {"SCENE_ROOT": str(project), "PYTHONPATH": str(paths.ROOT)}
    environment["PYTHONHASHSEED"] = str(len(list(project.rglob("*"))))
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


def draw(project):
    """Run notebooks 05 to 05d as scripts, which they are; returns what they printed."""
    books = sorted((paths.ROOT / "notebooks").glob("05*.py"))
    code = (
        "import runpy, sys, matplotlib; matplotlib.use('agg')\n"
        f"for path in {[str(path) for path in books]}:\n"
        "    runpy.run_path(path)\n"
        "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    )
    answer = started(project, "-c", code)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def fill(project, *words):
    return started(project, "-m", "tests.benchmarks.pages", *words)


@pytest.fixture(scope="module")
def drawn(project):
    printed = draw(project)
    return printed, project / "figures/sample"


@pytest.mark.slow
def test_drawing_needs_no_tensorflow_and_gives_the_same_figures_again(project, drawn):
    loaded = re.search(r"loaded: (.*)", drawn[0])[1].split()
    assert "matplotlib" in loaded
    assert not {"tensorflow", "keras"} & set(loaded)
    before = {path: path.read_bytes() for path in drawn[1].glob("*.*")}
    pngs, svgs = ({path.stem for path in drawn[1].glob(f"*.{kind}")} for kind in ("png", "svg"))
    assert pngs - svgs == {"gallery"}, "photos are kept as PNG alone"
    wanted = "models categories recall differences iou_distribution what_decides"
    wanted += " where_predictions_lie calibration mistakes gallery"
    assert pngs == set(wanted.split())
    for path in before:
        path.unlink()
    draw(project)
    assert {path: path.read_bytes() for path in drawn[1].glob("*.*")} == before


@pytest.mark.slow
def test_metrics_hold_what_their_description_says(drawn):
    metrics = metrics_file.read_metrics(drawn[1] / "metrics.json")
    page = (paths.ROOT / "figures/README.md").read_text()
    described = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(metrics) == set(described)
    assert list(metrics["models"]) == ["text-only", "source", "grid"]
    assert list(metrics["calibration"]) == ["grid"]
    recall = {name: found["recall"]["any"]["all"] for name, found in metrics["models"].items()}
    assert recall["source"]["1"] == recall["source"]["upper_bound"]
    assert recall["grid"]["1"]["value"] < recall["grid"]["upper_bound"]["value"]
    pairs = {(row["better"], row["worse"]) for row in metrics["differences"]}
    assert {("grid", "source"), ("grid", "text-only"), ("source", "best constant")} <= pairs
    shares = metrics["mistakes"]["source"]
    assert shares["right"] == pytest.approx(
        100 * metrics["models"]["source"]["merged"]["accuracy_0.5"]["value"], abs=0.01
    )
    path = str(drawn[1].parent.parent)
    assert path not in json.dumps(metrics)


@pytest.mark.slow
def test_an_equal_run_touches_no_file(project, drawn):
    metrics = drawn[1] / "metrics.json"
    known = json.loads(metrics.read_text())
    known["code"]["date"] = known["versions"]["python"] = "of an earlier day"
    metrics.write_text(json.dumps(known, indent=1) + "\n")
    before = {path: path.stat().st_mtime_ns for path in drawn[1].glob("*.*")}
    draw(project)
    assert {path: path.stat().st_mtime_ns for path in drawn[1].glob("*.*")} == before
    known["models"]["grid"]["mentions"] += 1
    metrics.write_text(json.dumps(known, indent=1) + "\n")
    draw(project)
    assert json.loads(metrics.read_text())["code"]["date"] != "of an earlier day"


def coloured(colour):
    figure, axes = plots.new_figure(2, 2)
    axes[0, 0].plot([0, 1], color=colour)
    return figure


def test_a_figure_is_written_only_where_it_differs(tmp_path):
    plots.save(coloured("red"), tmp_path / "a.png")
    files = [tmp_path / "a.png", tmp_path / "a.svg"]
    # The same pixels, compressed otherwise, as another machine would have left them.
    Image.open(files[0]).convert("RGB").save(files[0], compress_level=1)
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    plots.save(coloured("red"), tmp_path / "a.png")
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before
    plots.save(coloured("blue"), tmp_path / "a.png")
    assert not {path.read_bytes() for path in files} & {content for content, _ in before}
    files[0].write_bytes(b"damaged")
    plots.save(coloured("blue"), tmp_path / "a.png")
    assert Image.open(files[0]).size == (300, 300)


def test_a_readers_own_style_changes_nothing(tmp_path):
    def shown(name):
        plots.save(coloured("red"), tmp_path / f"{name}.png")
        return (tmp_path / f"{name}.svg").read_bytes()

    plain = shown("plain")
    with plots.plt.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.hashsalt": "mine"}):
        assert shown("own") == plain


# Answers in the cache.


@pytest.fixture
def cache(tmp_path):
    for name in ("source", "source-giou", "zebra", "text-only"):
        (tmp_path / "models" / name).mkdir(parents=True)
        (tmp_path / "models" / name / "settings.json").write_text('{"fingerprint": "x"}')
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions/grid.parquet").touch()
    return tmp_path


def stamp(cache, *names):
    for name in names:
        (cache / f"predictions/{name}.json").write_text(predictions._stamp(cache, name))


def test_models_stand_in_one_order_and_other_losses_of_the_source_stay_out(cache):
    assert predictions.names(cache) == ["text-only", "source", "grid", "zebra"]
    with pytest.raises(FileNotFoundError, match=r"expected tables of predictions, found none"):
        predictions.load(cache / "models")


def test_labels_say_which_inputs_made_a_model(cache):
    made_with = {"backbone": "resnet50", "vectors": "glove300", "untrained": True}
    pair = made_with | {"members": 2, "untrained": False, "backbone": "own.h5"}
    for settings, label in (
        (made_with, "source (ResNet50, untrained, GloVe 300)"),
        (made_with, "text-only (GloVe 300)"),
        (made_with, "image-only (ResNet50, untrained)"),
        (pair, "grid (2 x own.h5, GloVe 300)"),
        (predictions.settings(cache, "grid"), "grid"),  # put there by hand
    ):
        assert grounding.label(settings, label.split()[0]) == label


def test_a_grid_model_with_context_answers_whole_sentences_too(cache):
    (cache / "models/grid").mkdir()
    (cache / "models/grid/settings.json").write_text('{"fingerprint": "x"}')
    assert predictions.TOGETHER not in predictions.names(cache)
    (cache / "models/grid/context.json").write_text("{}")
    assert predictions.names(cache)[2:4] == ["grid", predictions.TOGETHER]
    assert predictions.settings(cache, predictions.TOGETHER) == {"fingerprint": "x"}
    stamp(cache, "grid", predictions.TOGETHER)
    (cache / "models/grid/context.json").write_text('{"weight": 1}')
    assert {"grid", predictions.TOGETHER} <= {*predictions.stale(cache)}


def test_answers_are_stale_when_what_they_came_from_has_changed(cache):
    names = ["text-only", "source", "zebra"]
    assert predictions.stale(cache) == names, "grid was put there by hand"
    stamp(cache, *names)
    assert predictions.stale(cache) == []
    (cache / "models/source/settings.json").write_text('{"fingerprint": "y"}')
    assert predictions.stale(cache) == ["source"]
    for damaged in (b'{"finger', b"\xff\xfe", b"[]"):
        (cache / "predictions/zebra.json").write_bytes(damaged)
        assert predictions.stale(cache) == ["source", "zebra"]
    (cache / "phrases.parquet").write_text("new phrases")
    assert predictions.stale(cache) == names


@pytest.mark.parametrize("sides", [4, 2])
def test_a_model_whose_answers_are_no_boxes_is_named(cache, monkeypatch, sides):
    tables = phrase_table([("a", 0, 1, 0, "it", "other", [(0, 0, 9, 9)])])
    for name, table in zip(("phrases", "boxes"), tables, strict=True):
        table.to_parquet(cache / f"{name}.parquet")
    model = SimpleNamespace(from_pixels=False, predict=lambda *_: None, seen=lambda *_: None)
    model.look = lambda texts, *_: (np.full((len(texts), sides), np.nan), None)
    monkeypatch.setattr("scene_utils.models.load_model", lambda *_: model)
    monkeypatch.setattr(
        "scene_utils.features.encode.open_chosen", lambda _: SimpleNamespace(row=["a"])
    )
    monkeypatch.setattr(predictions, "test_phrases", lambda phrases, _: phrases)
    with pytest.raises(ValueError, match=r"zebra: expected finite boxes \(2, 4\), got \(2, .*0 of"):
        predictions.make(cache, cache, ["zebra"])


# The README's tables.


@pytest.fixture
def readme(tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(paths, "figures", lambda profile: drawn[1].parent / profile)
    path = tmp_path / "README.md"
    marks = (f"<!-- table:sample/{name} -->\nas it was\n<!-- /table -->\n" for name in TABLES)
    path.write_text("\n".join(["# Study\n\nBefore.\n", *marks, "After.\n"]))
    return path


@pytest.mark.slow
def test_tables_are_written_between_their_marks_and_nowhere_else(project, readme):
    answer = fill(project, readme, "--check")
    assert answer.returncode == 1
    assert "tables differ from metrics.json. Run `make readme`" in answer.stderr
    assert "as it was" in readme.read_text(), "a check changes nothing"
    assert fill(project, readme).returncode == 0
    text = readme.read_text()
    before = "# Study\n\nBefore.\n\n<!-- table:sample/models -->\n| model | mean iou |"
    assert text.startswith(before)
    assert text.endswith("<!-- /table -->\n\nAfter.\n")
    assert "as it was" not in text
    metrics = metrics_file.read_metrics(project / "figures/sample/metrics.json")
    value = 100 * metrics["models"]["grid"]["merged"]["accuracy_0.5"]["value"]
    row = next(line for line in text.splitlines() if line.startswith("| grid |"))
    assert f"| {value:.1f} [" in row
    assert "| largest box (oracle) |" in text
    assert fill(project, readme, "--check").returncode == 0
    for part in text.split("<!-- /table -->")[:-1]:
        caption = part.rstrip().splitlines()[-1]
        assert "embedded sample, split test: 16 images" in caption
        assert "trained on 24 images" in caption


@pytest.mark.slow
def test_all_pages_of_the_project_are_filled_where_none_is_named(project, readme):
    pages = [project / name for name in ("README.md", "figures/sample/README.md")]
    for page in pages:
        page.write_text(readme.read_text())
    answer = fill(project, "--check")
    assert answer.returncode == 1
    assert all(f"{page}: tables differ" in answer.stderr for page in pages)
    assert fill(project).returncode == 0
    assert pages[0].read_text() == pages[1].read_text() != readme.read_text()
    assert fill(project, "--check").returncode == 0
    pages[1].unlink()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- table:sample/models -->\nno end\n", "got 1 beginnings and 0 ends"),
        ("<!-- table:sample/models --> x <!-- /table -->", "on a line of its own"),
        ("<!-- table:sample/nonsense -->\n<!-- /table -->", "got 'sample/nonsense'"),
        ("<!-- table:nowhere/models -->\n<!-- /table -->", "expected figures of notebook 05"),
        ("<!-- table:sample/presence -->\n<!-- /table -->", "presence: expected its figures"),
    ],
)
def test_marks_that_cannot_be_filled_are_refused(text, message, readme):
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(message)):
        pages.fill(text)


def test_differences_are_shown_both_ways_and_chance_is_marked():
    names = ["better", "worse", "value", "low", "high", "real"]
    rows = [("b", "a", 0.05, 0.01, 0.09, True), ("c", "b", 0.01, -0.02, 0.04, False)]
    found = pd.DataFrame(rows, columns=names).assign(metric="accuracy_0.5")
    table = tables.differences(found, ["a", "b", "c"])
    assert table.loc["b", "a"] == "+5.0 [1.0, 9.0]"
    assert table.loc["a", "b"] == "-5.0 [-9.0, -1.0]"
    assert table.loc["c", "b"] == "~ +1.0 [-2.0, 4.0]"
    assert table.loc["a", "c"] == table.loc["a", "a"] == ""
