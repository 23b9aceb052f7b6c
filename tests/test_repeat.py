"""One seed on one machine gives the same figures, by make and by Run All, to the last bit."""

import os
import shutil
import subprocess
import sys

import pytest

from scene_utils import paths

BOOKS = ("01_explore", "02_vocabulary", "03_features", "04_train", "04b_grid", "05_iou_analysis")


def run(words, folder):
    environment = {"SCENE_ROOT": str(folder), "PYTHONPATH": str(folder)}
    answer = subprocess.run(
        [*words], cwd=folder, capture_output=True, text=True, env=os.environ | environment
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return answer.stdout


@pytest.mark.slow
def test_make_and_the_notebooks_own_defaults_give_the_same_metrics(tmp_path):
    if not (paths.ROOT / ".venv/.done").exists():
        pytest.skip("needs a clone of the repository with its environment: `make env`")
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], paths.ROOT)
    for name in listed.splitlines():
        target = tmp_path / name
        if (paths.ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, target)
    (tmp_path / ".venv").symlink_to(paths.ROOT / ".venv")
    metrics, build = tmp_path / "figures/smoke/metrics.json", tmp_path / "build/smoke"

    run(["make", "-o", ".venv/.done", "PROFILE=smoke", f"build/smoke/{BOOKS[-1]}.ipynb"], tmp_path)
    by_make = metrics.read_bytes()
    executed = [(build / f"{name}.ipynb").read_text() for name in BOOKS]
    assert not any(str(place) in text for text in executed for place in (tmp_path, paths.ROOT))
    assert b'"grid"' in by_make

    metrics.unlink()
    for folder in (build, tmp_path / "data/cache/smoke"):
        shutil.rmtree(folder)
    command = (sys.executable, "-m", "scene_utils", "notebook")
    for name in BOOKS:
        book = (f"notebooks/{name}.py", f"build/smoke/{name}.ipynb")
        run([*command, *book, "-p", "profile=smoke"], tmp_path)
    assert metrics.read_bytes() == by_make
