"""Training with JAX leaves a model that the study's own code, in TensorFlow, answers alike."""

import json
import subprocess
import sys

import pandas as pd
import pytest

from scene_utils import ablation, entities, features, paths, text
from scene_utils.ensemble import Ensemble
from scene_utils.grid_model import load_grid
from scene_utils.grid_training import make_mentions
from scene_utils.pictures import squeeze_pictures

pytest.importorskip("jax", reason="needs JAX: .venv/bin/pip install 'scene-utils[jax]'")
SCRIPT = paths.ROOT / "data/pretrained/train_on_gpu.py"
SMALL = ("backbone=efficientnet_lite0", "size=64", "blocks=1", "pictures_per_step=4")
SMALL += ("policy=float32", "progressive=false")


@pytest.fixture(scope="module")
def root():
    if not (paths.cache("smoke") / "features" / "chosen.txt").is_file():
        made = ["make", "PROFILE=smoke", "build/smoke/03_features.ipynb"]
        subprocess.run(made, cwd=paths.ROOT, check=True)
    return paths.data_root("smoke")


def run(folder, root, *arguments):
    command = [sys.executable, SCRIPT, folder, "--profile", "smoke", "--data-root", root]
    subprocess.run([*command, *SMALL, *arguments], check=True, timeout=900)


@pytest.mark.slow
def test_what_jax_trained_answers_in_tensorflow_as_it_did_and_teaches(root, tmp_path):
    run(tmp_path / "first", root, "epochs=2")
    run(tmp_path / "second", root, "epochs=1", "seed=1", "--teacher", tmp_path / "first")
    settings = json.loads((tmp_path / "second" / "settings.json").read_text())
    assert settings["taught_by"] == ["2 epochs, seed 0"]
    cache = paths.cache("smoke")
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = text.Vocabulary.load(cache / "vocabulary.txt")
    store = squeeze_pictures(
        entities.image_folder(root), features.open_chosen(cache).row, 64, cache / "squeezed"
    )
    val = make_mentions(phrases, "val", store, vocabulary, 12)
    for name in ("first", "second"):
        history = pd.read_csv(tmp_path / name / "history.csv")
        best = history.loc[history.val_mean_iou.idxmax()]
        found = ablation.score_grid(Ensemble((load_grid(tmp_path / name),)), 64, val)
        assert found["mean_iou"]["value"] == pytest.approx(best.val_mean_iou, abs=2e-3)
        assert found["accuracy_0.5"]["value"] == pytest.approx(best["val_accuracy_0.5"], abs=0.02)
