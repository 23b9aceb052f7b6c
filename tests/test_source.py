"""Training: it learns, it repeats to the bit, it resumes; and the losses are the published ones."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops, models, paths
from scene_utils.source import model, train
from scene_utils.words import PAD, UNKNOWN, Vocabulary
from tests.makers import random_boxes

WORDS = ("left", "right", "thing")
VOCABULARY = Vocabulary.of([PAD, UNKNOWN, *WORDS])
EMBEDDINGS = np.random.default_rng(5).normal(size=(5, 8)).astype(np.float32)
MADE_WITH = {"backbone": "none", "untrained": False, "label": "none", "vectors": "random"}
SMALL = train.Settings(
    epochs=4, batch_size=32, widths=(48, 24), dropout=0.2, learning_rate=5e-3, loss="giou"
)


def examples(count: int, seed: int) -> train.Examples:
    """The word tells the side, the picture tells the height: both are needed to be right."""
    rng = np.random.default_rng(seed)
    pictures = rng.random((count // 4, 6)).astype(np.float16)
    rows = np.repeat(np.arange(count // 4), 4).astype(np.int32)
    side = rng.integers(0, 2, count)
    top = pictures[rows, 0].astype(np.float32) * 0.5
    x = side * 0.5
    corners = np.stack([x, top, x + 0.45, top + 0.4], axis=1).astype(np.float32)
    phrases = [f"{WORDS[s]} thing" for s in side]
    tokens = VOCABULARY.encode(phrases)
    return train.Examples(pictures, rows, tokens, corners)


TRAIN, VAL = examples(1024, 0), examples(256, 1)


def run(folder, settings=SMALL, train_set=TRAIN):
    return train.train(settings, train_set, VAL, EMBEDDINGS, VOCABULARY, MADE_WITH, folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def assert_same(folder, other):
    """Two trainings have the same history and the same bits of weights."""
    histories = (
        pd.read_csv(one / "history.csv").drop(columns="seconds") for one in (folder, other)
    )
    pd.testing.assert_frame_equal(*histories)
    networks = (train.load_regressor(one).get_weights() for one in (folder, other))
    for array, expected in zip(*networks, strict=True):
        np.testing.assert_array_equal(array, expected)


def test_each_input_is_worth_something_and_both_are_worth_most(tmp_path):
    best = {}
    for name in ("text-only", "image-only", "source"):
        settings = replace(SMALL, model=name, epochs=12)
        best[name] = run(tmp_path / name, settings)["val_mean_iou"].max()
    settings = json.loads((tmp_path / "source" / "settings.json").read_text())
    blind = box_ops.iou(np.float32(settings["blind_box"]), VAL.boxes).mean()
    assert blind < best["image-only"] < best["source"]
    assert blind < best["text-only"] < best["source"]
    assert best["source"] > 0.75


def test_controls_ignore_what_they_may_not_see(tmp_path):
    for name, unseen in (("text-only", "feature"), ("image-only", "tokens")):
        run(tmp_path / name, replace(SMALL, model=name, epochs=1))
        answer = models.load_model(tmp_path / name)
        before = answer.regress(VAL.features, VAL.rows, VAL.tokens)
        features, tokens = VAL.features, VAL.tokens
        changed = (features[::-1], tokens) if unseen == "feature" else (features, tokens[::-1])
        after = answer.regress(changed[0], VAL.rows, changed[1])
        np.testing.assert_array_equal(before, after)


def test_same_seed_same_bits_other_seed_other_bits(undisturbed, tmp_path):
    again = run(tmp_path / "again")
    assert_same(tmp_path / "again", undisturbed)
    other = run(tmp_path / "other", replace(SMALL, seed=1))
    assert not np.allclose(other["loss"], again["loss"])


def test_a_killed_training_resumes_to_the_same_bits(undisturbed, tmp_path):
    program = "import sys; from pathlib import Path; from tests import test_source\n"
    program += "test_source.run(Path(sys.argv[1]))"
    folder = tmp_path / "killed"
    command = [sys.executable, "-c", program, str(folder)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=paths.ROOT) as running:
        until = time.monotonic() + 90
        while not (folder / "state.keras").is_file() and time.monotonic() < until:
            time.sleep(0.005)
        running.kill()
    assert (folder / "state.keras").is_file()
    assert not (folder / "settings.json").is_file()
    with pytest.raises(FileNotFoundError, match="finished training"):
        models.load_model(folder)
    history = run(folder)
    assert len(history) == SMALL.epochs
    assert_same(folder, undisturbed)
    names = [{path.name for path in made.iterdir()} for made in (folder, undisturbed)]
    assert names[0] == names[1]


def test_a_finished_training_is_not_repeated_but_new_data_or_settings_are(undisturbed, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    stamp = (folder / "model.keras").stat().st_mtime_ns
    run(folder)
    assert (folder / "model.keras").stat().st_mtime_ns == stamp
    moved = replace(TRAIN, boxes=np.clip(TRAIN.boxes + 0.01, 0, 1))
    first = json.loads((folder / "settings.json").read_text())["fingerprint"]
    run(folder, replace(SMALL, epochs=1), moved)
    assert json.loads((folder / "settings.json").read_text())["fingerprint"] != first
    assert len(pd.read_csv(folder / "history.csv")) == 1


def test_the_kept_model_is_the_best_epochs(undisturbed):
    history = pd.read_csv(undisturbed / "history.csv")
    found = models.load_model(undisturbed).regress(VAL.features, VAL.rows, VAL.tokens)
    iou = box_ops.iou(found, VAL.boxes)
    assert iou.mean() == pytest.approx(history["val_mean_iou"].max(), abs=1e-5)


def test_mean_vector_is_the_mean_of_known_tokens(undisturbed):
    layer = train.load_regressor(undisturbed).get_layer("mean_vector")
    tokens = VOCABULARY.encode(["left thing", "thing", ""])
    expected = [EMBEDDINGS[[2, 4]].mean(0), EMBEDDINGS[4], EMBEDDINGS[1]]
    np.testing.assert_allclose(layer(tokens), expected, rtol=1e-6)


def test_losses_are_iou_as_the_evaluator_has_it_and_giou_as_published():
    true, guess = random_boxes(200, 0), random_boxes(200, 1)
    expected = 1 - box_ops.iou(true, guess)
    np.testing.assert_allclose(model.iou_loss(true, guess), expected, atol=1e-5)
    # Rezatofighi et al. 2019, algorithm 1, worked by hand: unit squares with a gap of 1 or 4 have
    # IoU 0, union 2 and hull 3 or 6, so GIoU = 0 - (hull - 2) / hull, which pulls them together;
    # equal boxes have GIoU 1; two half overlapping ones have IoU 1/3, their hull is their union.
    true = np.float32([[0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 2, 1]])
    guess = np.float32([[2, 0, 3, 1], [5, 0, 6, 1], [0, 0, 1, 1], [1, 0, 3, 1]])
    expected = [1 + 1 / 3, 1 + 2 / 3, 0, 2 / 3]
    np.testing.assert_allclose(model.giou_loss(true, guess), expected, atol=1e-6)


@pytest.mark.parametrize("change", [{"model": "transformer"}, {"loss": "diou"}])
def test_unknown_names_are_refused_with_the_known_ones(change):
    with pytest.raises(ValueError, match=r"expected one of \(.*got"):
        train.Settings(**change)


# Devices are set up once a process, before TensorFlow first computes, hence one of its own.
TWO_DEVICES = """
import contextlib, json, sys
from pathlib import Path
from tests import test_source
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
# Without dropout: replicas draw their own masks.
settings = test_source.train.Settings(epochs=4, batch_size=64, widths=(32,), dropout=0.0)
found = []
for name, scope in (("one", contextlib.nullcontext()), ("two", strategy.scope())):
    with scope:
        history = test_source.run(Path(sys.argv[1]) / name, settings)
    found.append(history[["loss", "val_mean_iou"]].values.tolist())
print(json.dumps(found))
"""


@pytest.mark.slow
def test_two_devices_train_as_one(tmp_path):
    command = [sys.executable, "-c", TWO_DEVICES, str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=paths.ROOT)
    assert answer.returncode == 0, answer.stderr[-3000:]
    one, two = np.array(json.loads(answer.stdout.splitlines()[-1]))
    assert one[-1, 0] < one[0, 0], "the loss should fall"
    np.testing.assert_allclose(two, one, rtol=1e-4)
