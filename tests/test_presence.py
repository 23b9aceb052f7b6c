"""Probabilities: the curves fitted, the area under a ROC curve, and who is told apart."""

import numpy as np
import pandas as pd
import pytest

from scene_utils import stats
from scene_utils.analysis import breakdown, perturbations
from scene_utils.dataset import entities
from scene_utils.grid import ranking
from scene_utils.grounding import ABSENT
from scene_utils.study import tables


def test_the_logistic_curve_is_the_one_that_made_the_data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20_000)
    y = rng.random(20_000) < 1 / (1 + np.exp(-(1.7 * x - 0.6)))
    slope, offset = stats.fit_logistic(y, x)
    assert slope == pytest.approx(1.7, abs=0.06)
    assert offset == pytest.approx(-0.6, abs=0.06)
    # Every second sample twice is the same as weights of 2 and 1.
    weights = np.where(np.arange(len(x)) % 2, 1.0, 2.0)
    doubled = stats.fit_logistic(np.r_[y, y[::2]], np.r_[x, x[::2]])
    assert stats.fit_logistic(y, x, weights=weights) == pytest.approx(doubled, abs=1e-6)
    # Separable scores give a finite curve.
    slope, offset = stats.fit_logistic([0, 0, 1, 1], [-1, -2, 1, 2])
    assert 1 < slope < np.inf
    assert np.isfinite(offset)


def test_area_under_roc_counts_pairs():
    rng = np.random.default_rng(1)
    positive, negative = rng.integers(0, 6, 40), rng.integers(0, 5, 30)
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    assert stats.area_under_roc(positive, negative) == pytest.approx(wins.mean())
    assert stats.area_under_roc([2, 3], [0, 1]) == 1


def asked_of(present, other):
    """Each of n phrases about its own picture and about the next one."""
    n = len(present)
    images = [f"{i}" for i in range(n)]
    table = pd.DataFrame({key: np.arange(n) for key in entities.MENTION_KEY})
    table["image_id"], table["text"] = images, [f"a thing{i}" for i in range(n)]
    own = table.assign(change=perturbations.PAIRS[0], picture=images, present=present)
    moved = table.assign(change=perturbations.PAIRS[1], picture=np.roll(images, 1), present=other)
    phrases = table.assign(phrase=table.text, category=np.where(table.index % 2, "people", "other"))
    return pd.concat([own, moved], ignore_index=True), phrases


def test_presence_area_agrees_with_pairs_counted():
    rng = np.random.default_rng(2)
    present, other = rng.normal(0.3, 1, 60), rng.normal(0, 1, 60)
    table, phrases = asked_of(present, other)
    found = breakdown.presence(table, phrases, resamples=200)
    assert set(found) == {"any phrase", "absent things", "absent categories"}
    for kind in found.values():
        assert kind["mentions"] == [60, 60]
        expected = stats.area_under_roc(present, other)
        assert kind["area"]["value"] == pytest.approx(expected, abs=1e-6)
        assert kind["area"]["low"] < expected < kind["area"]["high"]
        assert kind["kept"] == pytest.approx((present >= ABSENT).mean())
        assert kind["flagged"] == pytest.approx((other < ABSENT).mean())
    rows = tables.presence({"grid": found})
    assert rows.phrases.tolist() == ["any phrase", "absent things", "absent categories"]
    assert (rows["own, other"] == "60, 60").all()
    assert (rows["own kept (%)"] == f"{100 * (present >= ABSENT).mean():.1f}").all()


def test_only_what_the_other_picture_lacks_is_absent_and_a_model_may_know_nothing_of_it():
    table, phrases = asked_of(np.linspace(0, 1, 8), np.linspace(0, 1, 8))
    # A picture of people alone beside one of nothing of the kind, and one beside its like.
    phrases["category"] = ["people", "other", "people", "people", *"abcd"]
    found = breakdown.presence(table, phrases, resamples=10)
    assert found["absent things"]["mentions"] == [8, 8]
    assert found["absent categories"]["mentions"] == [8, 7]
    # Where one picture alone lacks a category, many draws do not have it.
    phrases["category"] = ["people", *["other"] * 7]
    few = breakdown.presence(table, phrases, resamples=50)["absent categories"]
    assert few["mentions"] == [8, 2]
    assert 0 <= few["area"]["low"] <= few["area"]["high"] <= 1
    table, phrases = asked_of(np.linspace(0, 1, 8), np.linspace(0, 1, 8))
    table["text"] = phrases["phrase"] = "a man"
    assert set(breakdown.presence(table, phrases, resamples=10)) == {"any phrase"}
    assert breakdown.presence(table.assign(present=np.nan), phrases) == {}
    assert tables.presence({}).empty


def test_a_rarer_word_is_trusted_less_at_the_same_expected_iou():
    """The curve is fitted on answers that are right as often as a frequent word promises, and half
    of the time for a rare one, whatever it promises."""
    rng = np.random.default_rng(3)
    tokens = np.zeros((8000, 3), int)
    tokens[:, 0] = np.where(np.arange(8000) % 2, 20, 9000)
    expected_iou = rng.uniform(0.3, 0.95, (8000, 1))
    right = np.where(tokens[:, 0] == 20, expected_iou[:, 0], 0.5)
    hits = rng.random(8000) < right
    rare = ranking.rarity(tokens, 16_000)
    curve = stats.fit_logistic(hits, *ranking.hit_features(expected_iou[:, 0], rare))
    found = ranking.hit_probability(curve, expected_iou, rare)
    assert found.shape == (8000, 1)
    np.testing.assert_allclose(found[:, 0], right, atol=0.05)
    # What is not known at all counts as rarer than any word.
    assert ranking.rarity(np.array([[1, 0, 0]]), 16_000)[0] > rare.max()
