"""Notebooks: scripts are sound, a failed run leaves nothing that looks finished, make is right."""

import re
import subprocess

import jupytext
import pytest

from scene_utils import imports, paths
from scene_utils.study import run_notebook

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


def test_there_are_six_numbered_notebooks():
    assert [path.stem[:2] for path in SCRIPTS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_scripts_round_trip_and_declare_what_papermill_needs(script):
    book = jupytext.read(script)
    written = jupytext.writes(book, fmt="py:percent")
    # Past the header, where jupytext would note its own version.
    assert written.split("# ---\n")[2] == script.read_text().split("# ---\n")[2]
    assert book.metadata["kernelspec"]["language"] == "python"
    tagged = [cell for cell in book.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert 'profile = "sample"' in tagged[0].source
    assert any("runtime.check()" in cell.source for cell in book.cells)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_make_knows_every_module_that_a_notebook_uses(script):
    needed = {str(path.relative_to(paths.ROOT)) for path in imports.closure([script])}
    printed = make("-pn", "help").stdout
    rule = re.search(rf"^build/sample/{script.stem}\.ipynb: (.*)$", printed, re.MULTILINE)
    assert needed <= set(rule[1].split())
    # The evaluator may change without anything but the analysis running again.
    metrics = "scene_utils/analysis/metrics.py" in needed
    assert metrics == (script.stem == "05_iou_analysis")


def test_parameters_reach_the_notebook(tmp_path):
    script = write(tmp_path, "print('value is', value)\n")
    target = tmp_path / "out" / "book.ipynb"
    run_notebook.run_notebook(script, target, {"value": 7})
    assert "value is 7" in target.read_text()
    assert [path.name for path in target.parent.iterdir()] == ["book.ipynb"]


def test_a_failing_cell_leaves_nothing_that_looks_finished(tmp_path):
    target = tmp_path / "book.ipynb"
    target.write_text("an older result")
    with pytest.raises(RuntimeError, match=r"cell 2 failed: ZeroDivisionError"):
        run_notebook.run_notebook(write(tmp_path, "value / 0\n"), target, {})
    assert not target.exists()
    assert "division by zero" in (tmp_path / "book.failed.ipynb").read_text()


def test_an_unknown_parameter_is_an_error(tmp_path):
    target = tmp_path / "book.ipynb"
    target.write_text("an older result")
    with pytest.raises(ValueError, match=r"got \['vlaue'\]"):
        run_notebook.run_notebook(write(tmp_path, "pass\n"), target, {"vlaue": 7})
    assert target.read_text() == "an older result"


def test_parameters_from_the_command_line_keep_their_types():
    given = ["profile=sample", "seed=3", "untrained=false", "data=", "path=/a=b"]
    assert run_notebook.parse_parameters(given) == {
        "profile": "sample",
        "seed": 3,
        "untrained": False,
        "data": "",
        "path": "/a=b",
    }
    with pytest.raises(ValueError, match="expected name=value, got 'seed'"):
        run_notebook.parse_parameters(["seed"])


def make(*words):
    return subprocess.run(
        ["make", "--no-print-directory", *words], cwd=paths.ROOT, capture_output=True, text=True
    )


def test_a_bare_make_lists_every_target():
    listed = set(re.findall(r"^([a-z-]+) ", make().stdout, re.MULTILINE))
    wanted = "env lock data reproduce smoke figures html test check-notebooks lint lab widget"
    wanted += " readme check-readme"
    assert set(f"{wanted} clean distclean".split()) <= listed


@pytest.mark.parametrize("target", ["reproduce", "features", "ablation", "widget"])
def test_real_data_without_a_folder_says_what_to_do(target):
    answer = make("-n", target, "PROFILE=flickr30k")
    assert answer.returncode != 0
    assert "PROFILE=flickr30k needs DATA=<folder" in answer.stderr


def test_the_widget_opens_without_running_the_study_first():
    planned = make("-n", "widget", "PROFILE=not_there_yet")
    assert "scene_utils.widget.page --profile not_there_yet" in planned.stdout
    assert "04_train" not in planned.stdout


def test_progress_is_shown_on_the_terminal_and_not_in_the_result(tmp_path, monkeypatch):
    shown = tmp_path / "terminal"
    monkeypatch.setattr("os.ttyname", lambda _: str(shown))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    body = "from scene_utils.runtime import progress_bar\n"
    body += "for _ in progress_bar(range(3), desc='counting'):\n    pass\n"
    target = tmp_path / "out" / "book.ipynb"
    run_notebook.run_notebook(write(tmp_path, body), target, {})
    assert "counting: 100%" in shown.read_text()
    assert "counting: " not in target.read_text()


def test_durations_of_executed_notebooks(tmp_path):
    run_notebook.run_notebook(write(tmp_path, "pass\n"), tmp_path / "out" / "01_book.ipynb", {})
    seconds = run_notebook.durations(tmp_path / "out")
    assert list(seconds) == ["01_book"]
    assert 0 < seconds["01_book"] < 60
