"""The study in a copy of the repository: it repeats to the last bit, and takes published inputs."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from scene_utils import paths
from scene_utils.analysis import metrics_file
from scene_utils.dataset import entities, sample
from scene_utils.runtime import TERMINAL
from scene_utils.words import tokenize

BOOKS = ("01_explore", "02_vocabulary", "03_features", "04_train", "04b_grid", "05_iou_analysis")
SMOKE = "build/smoke"
pytestmark = pytest.mark.slow


def run(words, folder):
    environment = {"SCENE_ROOT": str(folder), "PYTHONPATH": str(folder), TERMINAL: os.devnull}
    answer = subprocess.run(
        [*map(str, words)], cwd=folder, capture_output=True, text=True, env=os.environ | environment
    )
    assert answer.returncode == 0, (answer.stdout + answer.stderr)[-3000:]
    return answer.stdout


def run_books(profile, folder, *parameters):
    command = (sys.executable, "-m", "scene_utils", "notebook")
    for name in BOOKS:
        book = (f"notebooks/{name}.py", f"build/{profile}/{name}.ipynb")
        run([*command, *book, "-p", f"profile={profile}", *parameters], folder)


@pytest.fixture
def copy(tmp_path):
    if not (paths.ROOT / ".venv/.done").exists():
        pytest.skip("needs a clone of the repository with its environment: `make env`")
    folder = tmp_path / "copy"
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard"], paths.ROOT)
    for name in listed.splitlines():
        target = folder / name
        if (paths.ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, target)
    (folder / ".venv").symlink_to(paths.ROOT / ".venv")
    return folder


def test_run_again_elsewhere_notebooks_state_the_same_facts_and_metrics(copy):
    # Nothing runs again where `make smoke` has just been.
    run(["make", "PROFILE=smoke", "html"], paths.ROOT)
    shutil.copytree(paths.ROOT / SMOKE, copy / SMOKE, ignore=shutil.ignore_patterns(".*", "*.html"))
    books = sorted((copy / SMOKE).glob("*.ipynb"))
    assert {book.stem for book in books} >= set(BOOKS)
    assert not any(str(paths.ROOT) in book.read_text() for book in books)
    # As if the study had run there: what it needs first is not made.
    run(["make", "PROFILE=smoke", "--old-file=reproduce", "check-notebooks"], copy)
    found = [
        metrics_file.read_metrics(f / "figures/smoke/metrics.json") for f in (paths.ROOT, copy)
    ]
    for metrics in found:
        assert "grid" in metrics["models"]
        del metrics["code"]  # the copy is no git repository
    assert found[0] == found[1]


def test_published_inputs_go_the_whole_way_and_are_called_untrained(copy, tmp_path):
    """ResNet50 with random weights, by the explicit setting, and vectors of 300 numbers."""
    root, vectors = tmp_path / "data", tmp_path / "vectors300.txt"
    sample.generate(root, train=32, val=8, test=8)
    found = entities.read_entities(root).phrases
    words = sorted({word for phrase in found.phrase for word in tokenize(phrase)})
    rows = np.random.default_rng(0).normal(size=(len(words), 300)).round(4)
    lines = [" ".join([word, *map(str, row)]) for word, row in zip(words, rows, strict=True)]
    vectors.write_text("\n".join(lines) + "\n")
    changes = f"features.untrained=true vocabulary.vectors={vectors} train.epochs=3"
    run_books("published", copy, "-p", f"data={root}", "-p", f"changes={changes}")

    cache, figures = copy / "data/cache/published", copy / "figures/published"
    assert np.load(cache / "embeddings.npy").shape[1] == 300
    settings = json.loads((cache / "models/source/settings.json").read_text())
    assert (settings["channels"], settings["loss"]) == (2048, "mse")
    loss = pd.read_csv(cache / "models/source/history.csv").loss
    assert loss.iloc[-1] < loss.iloc[0]
    metrics = metrics_file.read_metrics(figures / "metrics.json")
    for name in ("source", "image-only"):
        assert "untrained" in metrics["labels"][name]
    assert "untrained" in metrics_file.note(metrics["data"], metrics["labels"])
    for name in ("04_train", "05_iou_analysis"):
        assert "untrained" in (copy / f"build/published/{name}.ipynb").read_text()
