"""Notebooks and their settings: scripts are sound, a failed run leaves nothing, make is right."""

import re
import subprocess

import jupytext
import pytest

from scene_utils import imports, paths
from scene_utils.study import run_notebook, settings

SCRIPTS = sorted((paths.ROOT / "notebooks").glob("*.py"))
HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

"""


def write(folder, body):
    script = folder / "book.py"
    script.write_text(HEADER + '# %% tags=["parameters"]\nvalue = 1\n\n# %%\n' + body)
    return script


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_round_trip_and_declare_what_papermill_needs(script):
    book = jupytext.read(script)
    written = jupytext.writes(book, fmt="py:percent")
    # Past the header, where jupytext would note its own version.
    assert written.split("# ---\n")[2] == script.read_text().split("# ---\n")[2]
    assert book.metadata["kernelspec"]["language"] == "python"
    tagged = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    given = [line.split("  #")[0] for line in tagged[0].source.splitlines()]
    assert given == ['profile = "sample"', 'data = ""', 'changes = ""']
    assert any("runtime.check()" in cell.source for cell in book.cells)


@pytest.fixture(scope="module")
def rules():
    return make("-pn", "help").stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_make_knows_every_module_that_a_notebook_uses(script, rules):
    needed = {str(path.relative_to(paths.ROOT)) for path in imports.closure([script])}
    rule = re.search(rf"^build/sample/{script.stem}\.ipynb: (.*)$", rules, re.MULTILINE)
    assert needed <= set(rule[1].split())
    # The evaluator may change without anything but the analysis running again.
    metrics = "scene_utils/analysis/metrics.py" in needed
    assert metrics == script.stem.startswith("05")


def test_an_unknown_parameter_runs_nothing_and_a_failing_cell_leaves_no_result(tmp_path):
    target = tmp_path / "book.ipynb"
    target.write_text("an older result")
    with pytest.raises(ValueError, match=r"got \['vlaue'\]"):
        run_notebook.run_notebook(write(tmp_path, "pass\n"), target, {"vlaue": 7})
    assert target.read_text() == "an older result"
    with pytest.raises(RuntimeError, match=r"cell 2 failed: ZeroDivisionError"):
        run_notebook.run_notebook(write(tmp_path, "value / 0\n"), target, {})
    assert not target.exists()
    assert "division by zero" in (tmp_path / "book.failed.ipynb").read_text()


def test_a_profile_takes_the_rest_from_another_and_changes_are_for_one_run():
    sample, smoke = settings.read("sample"), settings.read("smoke", "seed=3 grid.progressive=true")
    assert sample.keys() == smoke.keys() == settings.read("published").keys()
    assert (smoke["seed"], smoke["grid.progressive"], smoke["explore.train"]) == (3, True, 64)
    loaded = settings.load("smoke", changes="train.epochs=7 weights=/a=b")
    assert (loaded.train.epochs, loaded.weights, loaded.seed) == (7, "/a=b", 0)
    assert loaded.root == paths.cache("smoke") / "scenes"


@pytest.mark.parametrize("changes", ["epochs=3", "train.epochs=many", "seed", "renew=True"])
def test_a_change_that_is_no_setting_is_an_error(changes):
    with pytest.raises(ValueError, match=f"train.epochs=8 .*got '{changes}'"):
        settings.read("sample", changes)


def test_real_data_need_a_folder_and_the_sample_has_none(monkeypatch, tmp_path):
    monkeypatch.delenv("FLICKR30K", raising=False)
    with pytest.raises(ValueError, match="expected a folder of Flickr30k Entities"):
        settings.load("flickr30k")
    with pytest.raises(ValueError, match="expected none, it draws its own"):
        settings.load("sample", str(tmp_path))
    with pytest.raises(ValueError, match="expected one of sample, smoke, flickr30k, published"):
        settings.load("real", str(tmp_path))
    monkeypatch.setenv("FLICKR30K", str(tmp_path))
    assert settings.load("flickr30k").root == tmp_path
    assert not settings.load("sample").real


def make(*words):
    return subprocess.run(
        ["make", "--no-print-directory", *words], cwd=paths.ROOT, capture_output=True, text=True
    )


def test_make_writes_a_notebooks_own_settings_and_stops_at_an_unknown_one(tmp_path):
    build = f"BUILD={tmp_path}"
    stamp = tmp_path / ".settings.04b_grid"
    assert make(build, "PROFILE=smoke", "SET=grid.epochs=2", str(stamp)).returncode == 0
    written = stamp.read_text()
    assert "grid.epochs 2\n" in written
    assert "seed 0\n" in written
    assert "train.epochs" not in written
    answer = make(build, "SET=epochs=2", str(stamp))
    assert answer.returncode != 0
    assert "got 'epochs=2'" in answer.stderr
    assert stamp.read_text() == written


def test_a_bare_make_lists_every_target():
    listed = set(re.findall(r"^([a-z-]+) ", make().stdout, re.MULTILINE))
    wanted = "env lock data reproduce features smoke figures bench ablation readme check-readme"
    wanted += (
        " html test test-slow check-notebooks lint audit lab widget screenshots clean distclean"
    )
    assert set(wanted.split()) <= listed


@pytest.mark.parametrize("target", ["reproduce", "features", "ablation", "widget"])
def test_real_data_without_a_folder_says_what_to_do(target):
    answer = make("-n", target, "PROFILE=flickr30k")
    assert answer.returncode != 0
    assert "PROFILE=flickr30k needs DATA=<folder" in answer.stderr


def test_the_widget_opens_without_running_the_study_first():
    planned = make("-n", "widget", "PROFILE=smoke")
    assert "scene_utils widget --profile smoke" in planned.stdout
    assert "04_train" not in planned.stdout


def test_parameters_reach_the_notebook_and_progress_the_terminal_alone(tmp_path, monkeypatch):
    shown = tmp_path / "terminal"
    monkeypatch.setattr("os.ttyname", lambda _: str(shown))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    body = "from scene_utils.runtime import progress_bar\n"
    body += (
        "for _ in progress_bar(range(3), desc='counting'):\n    pass\nprint('value is', value)\n"
    )
    target = tmp_path / "out" / "book.ipynb"
    run_notebook.run_notebook(write(tmp_path, body), target, {"value": 7})
    assert "counting: 100%" in shown.read_text()
    assert "counting: " not in target.read_text()
    assert "value is 7" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["book.ipynb"]


def test_a_model_folder_is_replaced_as_a_whole_in_both_orders(tmp_path):
    for name, files in (("one", ["settings.json"]), ("two", ["settings.json", "context.json"])):
        for file in files:
            (tmp_path / name / "member").mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_text(name)
    for name in ("two", "one", "two"):
        paths.replace_folder(tmp_path / name, tmp_path / "models" / "grid")
        kept = {path.name for path in (tmp_path / "models/grid").iterdir()}
        assert kept == {path.name for path in (tmp_path / name).iterdir()}
        assert [path.name for path in (tmp_path / "models").iterdir()] == ["grid"]
    with pytest.raises(FileNotFoundError):
        paths.replace_folder(tmp_path / "missing", tmp_path / "models" / "grid")
    assert (tmp_path / "models/grid/settings.json").read_text() == "two"
