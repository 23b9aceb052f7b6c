"""The grid model learns to find what a phrase names, and goes on, comes back and answers."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from scene_utils import box_ops, runtime
from scene_utils.analysis import metrics
from scene_utils.dataset import entities
from scene_utils.grid import batches, localizer, train, train_presence, train_sentences
from scene_utils.words import tokenize

pytestmark = pytest.mark.slow
SETTINGS = batches.GridSettings(
    **{"size": 128, "epochs": 16, "pictures_per_step": 10, "length": 12, "blocks": 1},
    **{"backbone_rate": 0, "augmented": False, "progressive": False, "presence_steps": 150},
)
SMALL = batches.GridSettings(size=64, epochs=1, pictures_per_step=10, length=4, blocks=1)


def data(known):
    """What a training takes between settings and folder; that of 64 px from random weights."""
    made_with = {"untrained": known.mentions.pictures.shape[1] == SMALL.size}
    return known.mentions, known.mentions, known.embeddings, known.vocabulary, made_with


def run(settings, known, folder, times=1):
    """Train on the mentions, taken `times` times an epoch."""
    train_set, *others = data(known)
    per, names = len(train_set.picture_rows), vars(train_set).keys() - {"pictures", "rows"}
    repeated = {name: np.concatenate([getattr(train_set, name)] * times) for name in names}
    rows = np.concatenate([train_set.rows + per * turn for turn in range(times)])
    return train.train_grid(settings, replace(train_set, rows=rows, **repeated), *others, folder)


@pytest.fixture(scope="module")
def small(twenty):
    pixels = twenty.mentions.pictures[:, ::2, ::2]
    # Fewer words make a smaller graph, which takes most of a short training's time.
    read = {name: getattr(twenty.mentions, name)[:, :4] for name in ("tokens", "longer")}
    mentions = replace(twenty.mentions, pictures=pixels, **read)
    return SimpleNamespace(**vars(twenty) | {"mentions": mentions})


@pytest.fixture(scope="module")
def trained(twenty, tmp_path_factory):
    """The folder of a model that has learned the twenty pictures, and its history."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, run(SETTINGS, twenty, folder, times=5)


def test_it_learns_by_heart_is_not_trained_again_and_answers_loaded_as_it_did(trained, twenty):
    folder, history = trained
    assert history["val_accuracy_0.5"].max() > 0.9
    stamp = (folder / "settings.json").stat().st_mtime_ns
    pd.testing.assert_frame_equal(run(SETTINGS, twenty, folder, times=5), history)
    assert (folder / "settings.json").stat().st_mtime_ns == stamp
    loaded = localizer.load_grid_localizer(folder)
    table = loaded.predict(twenty.phrases, twenty.store, ranks=3)
    found = entities.read_entities(twenty.root)
    result = metrics.evaluate(metrics.check_predictions(table), twenty.phrases, found.boxes, 10)
    best = history["val_accuracy_0.5"][history["val_mean_iou"].idxmax()]
    assert result["merged"]["accuracy_0.5"]["value"] == pytest.approx(best, abs=0.01)
    assert table.groupby(entities.MENTION_KEY)["rank"].apply(list).map(tuple).nunique() == 1


def test_presence_learns_whose_phrase_it_is_and_turns_scores_into_probabilities(trained, twenty):
    folder, phrases = trained[0], twenty.phrases
    picture = entities.image_folder(twenty.root) / f"{phrases.image_id[0]}.jpg"
    raw = localizer.load_grid_localizer(folder).ground(picture, phrases.phrase[0])
    assert raw.present is None
    given = folder, SETTINGS, twenty.vocabulary, twenty.mentions, twenty.mentions
    found = train_presence.train_presence(*given)
    assert found["val_auc"] > 0.8
    assert train_presence.train_presence(*given) == found
    loaded = localizer.load_grid_localizer(folder)
    answer = loaded.ground(picture, phrases.phrase[0])
    np.testing.assert_allclose(answer.boxes, raw.boxes, atol=0.01)
    assert 0 < answer.present < 1
    assert ((answer.scores > 0) & (answer.scores < 1)).all()
    first = phrases[phrases.image_id == phrases.image_id[0]]
    table = loaded.predict(first, twenty.store, ranks=1)
    own = table[table.phrase == phrases.phrase[0]].score.to_numpy()
    np.testing.assert_allclose(own, answer.scores[0], atol=0.02)


def test_context_is_trained_beside_a_grid_model_and_read_again(trained, twenty):
    folder, phrases, store = trained[0], twenty.phrases, twenty.store
    ids = phrases.image_id.unique()[:10]  # every other picture has no two things alike
    halves = phrases.assign(split=np.where(phrases.image_id.isin(ids), "train", "val"))
    given = folder, halves, twenty.vocabulary, twenty.embeddings, store
    found = train_sentences.train_context(*given, steps=30)
    assert train_sentences.train_context(*given, steps=30) == found
    by_weight = {weight: tuple(figures) for weight, *figures in found["val_by_weight"]}
    assert found["weight"] == max(by_weight, key=by_weight.get)
    loaded = localizer.load_grid_localizer(folder)
    assert loaded.context["weight"] == found["weight"]
    unweighted = replace(loaded, context=loaded.context | {"weight": 0.0})
    alone, nothing_said = (
        model.predict(phrases, store, ranks=3, sentences=sentences)
        for model, sentences in ((loaded, False), (unweighted, True))
    )
    once = loaded.predict(phrases, store, ranks=3, asked=loaded.asked(phrases, store))
    pd.testing.assert_frame_equal(once, alone)
    names = list(box_ops.COLUMNS)
    np.testing.assert_allclose(alone[names], nothing_said[names], atol=0.5)
    loud = replace(loaded, context=loaded.context | {"weight": 2.0})
    together = metrics.check_predictions(loud.predict(phrases, store, ranks=3, sentences=True))
    assert len(together) == len(alone)
    assert not np.allclose(together[names], alone[names], atol=0.5)


def test_ground_answers_in_pixels_of_the_picture_with_words_and_heat(trained, twenty):
    loaded, phrases = localizer.load_grid_localizer(trained[0]), twenty.phrases
    row = phrases[(phrases.n_boxes == 1) & phrases.phrase.str.startswith("the")].iloc[0]
    picture = entities.image_folder(twenty.root) / f"{row.image_id}.jpg"
    answer, other = loaded.ground(picture, [row.phrase, "zzqx thing"], top_k=4)
    assert answer.boxes.shape == (4, 4)
    assert (answer.boxes[:, 2:] <= [row.width, row.height]).all()
    assert [word for word, _ in answer.words] == tokenize(row.phrase)
    shares = sum(weight for _, weight in answer.words), answer.heat.sum(), answer.landmark.sum()
    assert shares == pytest.approx((1, 1, 1), abs=1e-3)
    assert answer.landmark.shape == answer.heat.shape
    assert other.unknown == ("zzqx", "thing")
    alone = loaded.ground(picture, row.phrase, top_k=1)
    np.testing.assert_allclose(alone.boxes[0], answer.boxes[0], atol=1)


def test_a_stopped_run_goes_on_from_its_last_saved_step(small, tmp_path, monkeypatch):
    settings = replace(SMALL, epochs=3)
    whole = run(settings, small, tmp_path / "whole")
    validate, calls = train.val_row, []

    def stop_in_the_third_epoch(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(*given)

    monkeypatch.setattr(train, "val_row", stop_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(settings, small, tmp_path / "stopped")
    assert (tmp_path / "stopped" / "state" / "ckpt-4.index").is_file()
    monkeypatch.setattr(train, "val_row", validate)
    with pytest.raises(FileNotFoundError, match="finished grid model"):
        localizer.load_grid_localizer(tmp_path / "stopped")
    resumed = run(settings, small, tmp_path / "stopped")
    whole, resumed = (history.drop(columns="seconds") for history in (whole, resumed))
    pd.testing.assert_frame_equal(resumed.iloc[:2], whole.iloc[:2])
    np.testing.assert_allclose(resumed.iloc[2], whole.iloc[2], rtol=0.1)


def test_members_are_trained_apart_and_loaded_together(small, twenty, tmp_path):
    settings = replace(SMALL, members=2, seed=3, backbone_rate=0, presence_steps=5)
    folder = tmp_path / "grid"
    given = settings, *data(small)
    runs = [train.train_members(*given, folder=folder) for _ in range(2)]
    for before, again in zip(*runs, strict=True):
        pd.testing.assert_frame_equal(again, before)
    written = [folder / "settings.json", folder / "member2" / "settings.json"]
    seeds = [json.loads(path.read_text())["seed"] for path in written]
    assert seeds == [3, 4]
    weights = [(path.parent / "text.weights.h5").read_bytes() for path in written]
    assert weights[0] != weights[1]
    sets = small.mentions, small.mentions
    train_presence.train_presence(folder, settings, small.vocabulary, *sets)
    loaded = localizer.load_grid_localizer(folder)
    picture = entities.image_folder(twenty.root) / f"{twenty.phrases.image_id[0]}.jpg"
    answer = loaded.ground(picture, twenty.phrases.phrase[0])
    assert 0 < answer.present < 1
    assert answer.heat.sum() == pytest.approx(1, abs=1e-3)


def test_a_large_graph_adds_in_one_order():
    @tf.function
    def total(x):
        slow = x
        for _ in range(20):
            slow = tf.sin(slow)
        return tf.add_n([slow, 1e4 * tf.abs(x), tf.exp(x), tf.square(x)])

    runtime.make_deterministic(0)
    x = tf.random.stateless_normal((2**24,), (0, 1))  # 64 MiB
    first = total(x)
    assert all(bool(tf.reduce_all(total(x) == first)) for _ in range(5))
