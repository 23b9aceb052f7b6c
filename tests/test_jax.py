"""JAX computes what TensorFlow does, and trains a model that the study's own code answers alike."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from scene_utils import paths, words
from scene_utils.box_tensors import iou_and_giou
from scene_utils.dataset import entities
from scene_utils.features import encode
from scene_utils.features.pixels import squeeze_pictures
from scene_utils.grid import batches, losses, network, trainer
from scene_utils.grid.ensemble import Ensemble
from tests.benchmarks import ablation
from tests.makers import random_boxes

pytest.importorskip("jax", reason="needs JAX: .venv/bin/pip install 'scene-utils[jax]'")
pytestmark = pytest.mark.slow
SCRIPT = paths.ROOT / "data/pretrained/train_on_gpu.py"
SMALL = ("backbone=efficientnet_lite0", "size=64", "blocks=1", "pictures_per_step=4")
SMALL += ("policy=float32", "progressive=false")
CELLS, PICTURES, EACH, WORDS = 4, 3, 2, 5
# Reads arrays that the test wrote and answers with the script's functions, apart from TensorFlow.
ASKED = """
import importlib.util, sys
import numpy as np
spec = importlib.util.spec_from_file_location("script", sys.argv[1])
script = importlib.util.module_from_spec(spec)
spec.loader.exec_module(script)
assert "tensorflow" not in sys.modules
z = {name: script.jnp.asarray(value) for name, value in np.load(sys.argv[2]).items()}
fields = script.network.Answered._fields
answered, told = (
    script.network.Answered(*[z.get(kind + name) for name in fields]) for kind in ("", "told_")
)
given = [z[name] for name in ("truth", "landmarks", "absent")]
total, parts = script.total_loss(z["map"], answered, *given, True)
taught = script.distillation_loss(answered, [told, told])
seen = script.seen_at(32, z["pixels"], z["windows"], z["light"])
np.savez(sys.argv[3], seen=seen, losses=script.jnp.stack([total, *parts, taught]))
"""


def test_views_and_losses_are_those_of_tensorflow(tmp_path):
    rng = np.random.default_rng(0)
    n, places = PICTURES * EACH, CELLS**2
    gates = rng.random((n, WORDS, 2)).astype(np.float32)
    gates[:, 3:] = 0  # padding
    landmarks = random_boxes(n * 4, 1).reshape(PICTURES, EACH, 4, 4)
    landmarks[0, :, 1:] = np.nan
    windows = random_boxes(PICTURES, 2) * 1.4 - 0.2
    given = {
        "pixels": rng.integers(0, 256, (PICTURES, 40, 40, 3), dtype=np.uint8),
        "windows": windows[:, [0, 3, 2, 1]],  # mirrored
        "light": np.float32([[1, 0, 1], [0.7, 20, 1.4], [1.3, -30, 0.5]]),
        "map": rng.normal(size=(PICTURES, CELLS, CELLS, 8)).astype(np.float32),
        "keys": rng.normal(size=(n, WORDS, 9)).astype(np.float32),
        "gates": gates,
        "scores": rng.normal(size=(n, places)).astype(np.float32),
        "boxes": random_boxes(n * places, 3).reshape(n, places, 4),
        "looked": np.log(rng.dirichlet(np.ones(places), n)).astype(np.float32),
        "lies": np.log(rng.random((n, places))).astype(np.float32),
        "truth": random_boxes(n, 4).reshape(PICTURES, EACH, 4),
        "landmarks": landmarks,
        "absent": rng.random((PICTURES, EACH, PICTURES)) < 0.5,
        "told_scores": rng.normal(size=(n, places)).astype(np.float32),
        "told_boxes": random_boxes(n * places, 5).reshape(n, places, 4),
    }
    np.savez(tmp_path / "given.npz", **given)
    command = [sys.executable, "-c", ASKED, SCRIPT, tmp_path / "given.npz", tmp_path / "found.npz"]
    subprocess.run(command, check=True, cwd=paths.ROOT, timeout=300)
    found = np.load(tmp_path / "found.npz")
    t = {name: tf.constant(value) for name, value in given.items()}
    answered = network.Answered(*map(t.get, network.Answered._fields))
    given = [t[name] for name in ("truth", "landmarks", "absent")]
    total, parts = losses.total_loss(t["map"], answered, *given, True)
    shares = tf.nn.softmax(t["told_scores"])
    apart = tf.math.log(shares) - tf.nn.log_softmax(t["scores"])
    _, giou = iou_and_giou(t["boxes"], t["told_boxes"])
    taught = tf.reduce_mean(tf.reduce_sum(shares * (apart + 1 - giou), axis=-1))
    np.testing.assert_allclose(found["losses"], [total, *parts, taught], rtol=1e-4)
    seen = trainer.seen_at(32, t["pixels"], t["windows"], t["light"])
    np.testing.assert_allclose(found["seen"], seen, atol=0.02)


@pytest.fixture(scope="module")
def root():
    made = [f"build/smoke/{name}.ipynb" for name in ("02_vocabulary", "03_features")]
    subprocess.run(["make", "PROFILE=smoke", *made], cwd=paths.ROOT, check=True)
    return paths.data_root("smoke")


def run(folder, root, *arguments):
    command = [sys.executable, SCRIPT, folder, "--profile", "smoke", "--data-root", root]
    subprocess.run([*command, *SMALL, *arguments], check=True, timeout=900)


def test_what_jax_trained_answers_in_tensorflow_as_it_did_and_teaches(root, tmp_path):
    run(tmp_path / "first", root, "epochs=2")
    taught = "epochs=1", "seed=1", "--teacher", tmp_path / "first"
    run(tmp_path / "second", root, *taught)
    settings = json.loads((tmp_path / "second" / "settings.json").read_text())
    assert settings["taught_by"][0].startswith("2 epochs, seed 0, ")
    cache = paths.cache("smoke")
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    store = squeeze_pictures(
        entities.image_folder(root), encode.open_chosen(cache).row, 64, cache / "squeezed"
    )
    val = batches.make_mentions(phrases, "val", store, vocabulary, 12)
    with (tmp_path / "first" / "vocabulary.txt").open("a") as known:
        known.write("another\n")
    with pytest.raises(subprocess.CalledProcessError):
        run(tmp_path / "third", root, *taught)
    assert not (tmp_path / "third").exists()
    vocabulary.save(tmp_path / "first" / "vocabulary.txt")
    for name in ("first", "second"):
        history = pd.read_csv(tmp_path / name / "history.csv")
        best = history.loc[history.val_mean_iou.idxmax()]
        model = network.load_grid(tmp_path / name)
        found = ablation.score_grid(Ensemble((model,)), val)
        assert found["mean_iou"]["value"] == pytest.approx(best.val_mean_iou, abs=2e-3)
        assert found["accuracy_0.5"]["value"] == pytest.approx(best["val_accuracy_0.5"], abs=0.02)
