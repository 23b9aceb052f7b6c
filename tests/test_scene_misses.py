"""The sample's wrong answers are held against the objects under them."""

import re

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops
from scene_utils.analysis import metrics, sample_errors
from scene_utils.dataset import entities, sample, sample_phrases
from scene_utils.dataset.sample_layout import Thing
from scene_utils.dataset.sample_phrases import scene_phrase_kind
from tests.makers import SIDES, predicted


def thing(words):
    return Thing(*words.split(), (0, 0, 9, 9), (1, 1, 9, 9), (0, 0, 0), 0.0, False)


@pytest.mark.parametrize(
    ("phrase", "things", "missed"),
    [
        ("the red car", ["big plain blue car"], "colour"),
        ("A small striped cup", ["big striped red cup"], "size"),
        ("the red car", ["big plain red hat"], "kind"),
        ("the red car", ["big plain blue hat"], "several"),
        ("two red boxes", ["big plain red box"], "part of them"),
        ("the red fish", ["big plain red fish"], "part of them"),
        ("a car to the left of the blue hat", ["big plain red car"], "relation"),
        ("the red car below the hat", ["big plain white car"], "colour"),
    ],
)
def test_the_word_that_is_missed(phrase, things, missed):
    assert sample_errors.missed_word(phrase, [*map(thing, things)]) == missed


def test_phrases_that_differ_in_what_is_not_read_get_one_answer():
    def scene(one, other, mark="box"):
        said = ((one, 0, "box"), (other, 1, mark))
        mentions = tuple(
            sample_phrases.Mention(0, "1", "other", phrase, (target,), mark)
            for phrase, target, mark in said
        )
        return sample_phrases.Scene("1", 90, 90, "plain", (0,), (), mentions, ("",), ())

    asked = [
        scene("a car above the hat", "The car above the red cup"),
        scene("a car above the hat", "the car left of the hat"),
        scene("a car above the hat", "a big car above the cup"),
        scene("a car above the hat", "the car above the cup", "absent"),
        scene("the red car", "three cars"),
    ]
    found = sample_errors.unread(asked)
    assert found == {"mentions": 7, "without_landmark": 85.71, "without_relation": 85.71}
    with pytest.raises(ValueError, match="expected some with relation phrases"):
        sample_errors.unread(asked[-1:])


def test_the_truth_misses_nothing_and_each_other_object_something(tmp_path):
    root = tmp_path / "scenes"
    sample.generate(root, train=0, val=0, test=12)
    found = entities.read_entities(root, dict.fromkeys(entities.read_ids(root, "test"), "test"))
    boxed = found.phrases[found.phrases.n_boxes > 0].reset_index(drop=True)
    known = sample_errors.scenes_of(root, "test")
    assert set(known) == set(boxed.image_id)

    def missed(guess):
        table = predicted(boxed, guess)
        scored = metrics.score_mentions(table, found.phrases, found.boxes)
        return scored, sample_errors.misses(scored, table, known)

    scored, right = missed(boxed[SIDES])
    assert (right.missed == "right").all()
    easy = [name for name, scene in known.items() if scene.easy]
    parts = scored.image_id.isin(easy).map({True: "easy", False: "hard"})
    assert {*parts} == {"easy", "hard"}
    assert {*right.phrase[parts == "easy"]} == {"attribute"}
    corner = missed(np.tile(np.float32([0, 0, 2, 2]), (len(boxed), 1)))[1]
    assert (corner.missed == "no object").all()
    # An object of another kind than the phrase names, which a hard picture always holds.
    guess = []
    for image_id, phrase in zip(boxed.image_id, boxed.phrase.str.lower(), strict=True):
        named = re.split("|".join(sample_errors.RELATIONS), phrase)[0]
        things = known[image_id].things
        other = next((t for t in things if t.kind not in named), things[0])
        guess.append(box_ops.from_inclusive(other.box))
    off = missed(np.stack(guess))[1]
    assert off.missed[parts == "hard"].isin(["kind", "several"]).all()
    shares = sample_errors.shares(pd.concat([right, off]))
    assert list(shares.index) == sorted(set(boxed.phrase.map(scene_phrase_kind)))
    assert shares.mentions.sum() == 2 * len(boxed)
    np.testing.assert_allclose(shares.drop(columns="mentions").sum(axis=1), 100, atol=0.1)
