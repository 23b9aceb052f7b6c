"""The sample's wrong answers are held against the objects under them."""

import numpy as np
import pandas as pd
import pytest

from scene_utils import entities, evaluate, scene_misses, scenes
from scene_utils.scene_layout import scene_phrase_kind


@pytest.mark.parametrize(
    ("phrase", "words", "missed"),
    [
        ("the red car", ("big", "plain", "blue", "car"), "colour"),
        ("A small striped cup", ("big", "striped", "red", "cup"), "size"),
        ("the dotted fish", ("big", "plain", "red", "fish"), "texture"),
        ("the red car", ("big", "plain", "red", "hat"), "kind"),
        ("the red car", ("big", "plain", "blue", "hat"), "several"),
        ("two red boxes", ("big", "plain", "red", "box"), "part of them"),
        ("the red fish", ("big", "plain", "red", "fish"), "part of them"),
        ("a car to the left of the blue hat", ("big", "plain", "red", "car"), "relation"),
        ("a car above the blue hat", ("big", "plain", "blue", "hat"), "kind"),
        ("the red car below the hat", ("big", "plain", "white", "car"), "colour"),
    ],
)
def test_the_word_that_is_missed(phrase, words, missed):
    thing = scene_misses.Thing(*words, (0, 0, 9, 9), (1, 1, 9, 9), (0, 0, 0), 0.0, False)
    assert scene_misses.missed_word(phrase, thing) == missed


def test_the_truth_misses_nothing_and_each_other_object_something(tmp_path):
    root = tmp_path / "scenes"
    scenes.generate(root, train=0, val=0, test=12, progress=False)
    found = entities.read_entities(root, dict.fromkeys(entities.read_ids(root, "test"), "test"))
    boxed = found.phrases[found.phrases.n_boxes > 0].reset_index(drop=True)
    known = scene_misses.scenes_of(root, "test")
    assert set(known) == set(boxed.image_id)

    def missed(guess):
        table = boxed[[*entities.MENTION_KEY, "phrase"]].assign(rank=1, score=1.0)
        table[["x_min", "y_min", "x_max", "y_max"]] = guess
        table = evaluate.check_predictions(table)
        scored = evaluate.score_mentions(table, found.phrases, found.boxes)
        return scene_misses.misses(scored, table, found.phrases, known)

    truth = boxed[["x_min", "y_min", "x_max", "y_max"]].to_numpy(np.float32)
    assert (missed(truth).missed == "right").all()
    corner = missed(np.tile(np.float32([0, 0, 2, 2]), (len(boxed), 1)))
    assert (corner.missed == "no object").all()
    # The box of an object that no phrase of the picture's name fits.
    guess = []
    for row in boxed.itertuples():
        things = known[row.image_id].things
        kind = next(
            w
            for w in row.phrase.lower().split()[::-1]
            if w in scene_misses.KINDS or w in scene_misses.PLURALS.values()
        )
        other = [t for t in things if t.kind not in kind]
        guess.append(np.float32(other[0].box) - np.float32([1, 1, 0, 0]))
    off = missed(np.stack(guess))
    plain = off[off.phrase == "attribute"]
    assert plain.missed.isin(["kind", "several"]).all()
    shares = scene_misses.shares(pd.concat([missed(truth), off]))
    assert list(shares.index) == sorted(set(boxed.phrase.map(scene_phrase_kind)))
    assert shares.mentions.sum() == 2 * len(boxed)
    np.testing.assert_allclose(shares.drop(columns="mentions").sum(axis=1), 100, atol=0.1)
