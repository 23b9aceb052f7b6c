"""Which of several alike, and parts of things: what phrases say of where to look."""

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops, paths
from scene_utils.analysis import alike, breakdown
from scene_utils.grid import places
from tests.benchmarks import pages


@pytest.mark.parametrize(
    ("phrase", "sides"),
    [
        ("the man on the left", ("left",)),
        ("a woman standing on the far right", ("right",)),
        ("the man in the middle of the picture", ("middle",)),
        ("the lamp in the Upper Left corner", ("upper", "left")),
        ("the leftmost glass", ("left",)),
        ("the boss on the right", ("right",)),
        # A place beside another thing, or of more than one thing.
        ("a man in the middle of the street", ()),
        ("the cup to the left of the plate", ()),
        ("the horses on the right", ()),
        ("the three people standing in the middle", ()),
        ("his left hand", ()),
        ("the right answer", ()),
        ("", ()),
    ],
)
def test_the_side_that_a_phrase_says(phrase, sides):
    assert places.sides(phrase) == sides


def test_of_things_alike_the_one_at_the_side_is_meant_if_it_is_likely_one():
    things = np.float32([[0, 0.4, 0.1, 0.6], [0.3, 0.4, 0.5, 0.6], [0.8, 0.4, 1, 0.6]])
    likely = np.array([0.01, 0.8, 0.6])
    assert places.weighed(things, likely, ("right",)).argsort().tolist() == [0, 1, 2]
    shares = places.weighed(things, likely, ("left",))
    assert shares.argmax() == 1  # not what is hardly one at all
    assert shares.sum() == pytest.approx(1)
    mirrored = things[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [1, 0, 1, 0]
    np.testing.assert_allclose(places.weighed(mirrored, likely, ("right",)), shares, rtol=1e-5)


def made_phrases():
    """Two men and a dog, then three dogs of one plural, one of which stands on another."""
    rows = [("1", 1, "a man", 1), ("1", 2, "an old man", 1), ("1", 3, "a dog", 1)]
    rows += [("1", 1, "the man", 1), ("2", 4, "three dogs", 3), ("3", 5, "two cats", 2)]
    phrases = pd.DataFrame(rows, columns=["image_id", "phrase_id", "phrase", "n_boxes"])
    phrases = phrases.assign(width=100, height=50)
    boxes = [("1", 1, 0, 0, 20, 50), ("1", 2, 60, 10, 90, 50), ("1", 3, 30, 0, 40, 50)]
    boxes += [("2", 4, 0, 0, 20, 10), ("2", 4, 30, 0, 50, 10), ("2", 4, 70, 2, 90, 50)]
    boxes += [("3", 5, 0, 0, 50, 50), ("3", 5, 2, 0, 52, 50)]
    return phrases, pd.DataFrame(boxes, columns=["image_id", "phrase_id", *box_ops.COLUMNS])


def test_questions_are_made_where_one_thing_alone_lies_at_a_side():
    asked = alike.questions(*made_phrases())
    of = {(row.image_id, row.phrase): row for row in asked.itertuples()}
    # The old man's middle is .1 lower, the dogs' are told apart from left to right and downwards.
    assert set(of) == {
        *(("1", f"the man {where}") for where in ("on the left", "on the right")),
        *(("1", f"the man at the {where}") for where in ("top", "bottom")),
        *(("2", f"the dog {where}") for where in ("on the left", "on the right", "in the middle")),
        ("2", "the dog at the bottom"),
    }
    assert asked.alike.tolist() == [2] * 4 + [3] * 4
    left = of["1", "the man on the left"]
    np.testing.assert_allclose(left[4:], [0, 0, 0.2, 1])
    np.testing.assert_allclose(of["2", "the dog in the middle"][4:], [0.3, 0, 0.5, 0.2])
    assert all(places.sides(phrase) for phrase in asked.phrase)

    half = asked.assign(**{name: asked[name.removesuffix("_guess")] for name in alike.GUESS})
    half.loc[half.image_id == "2", alike.GUESS] = 0.0
    found = breakdown.of_alike(half, resamples=20)
    assert found["accuracy"]["value"] == 0.5
    assert found["chance"] == pytest.approx((4 / 2 + 4 / 3) / 8, abs=1e-6)
    table = pages.alike({"it": found}).iloc[:, 0]
    assert table["it"].startswith("50.0 [")
    assert table["one of the things"] == "41.7"
    assert alike.questions(*(table.iloc[:0] for table in made_phrases())).empty


@pytest.mark.parametrize(
    ("photo", "phrase"),
    [
        ("rocket", "the tower at the left edge"),
        ("horses", "the horse on the right"),
        ("lemurs", "the head of the lemur in front"),
    ],
)
def test_the_shipped_model_finds_what_a_place_or_a_whole_tells(photo, phrase, shipped):
    drawn = pd.read_csv(paths.PHOTOS / "boxes.csv").set_index(["photo", "phrase"])
    truth = drawn.loc[(photo, phrase), box_ops.COLUMNS].to_numpy(np.float32)
    answer = shipped.ground(paths.PHOTOS / f"{photo}.jpg", phrase)
    assert box_ops.iou(answer.boxes[0], truth) >= 0.5
    assert (np.diff(answer.scores) <= 0).all()
    single = shipped.ground(paths.PHOTOS / f"{photo}.jpg", phrase, instances=True)
    if places.sides(phrase):
        np.testing.assert_array_equal(single.boxes, answer.boxes[:1])


def test_a_part_is_looked_for_where_a_phrase_says_of_what():
    assert places.part_of("the handle of the cup") == ("the handle", "the cup")
    assert places.part_of("a woman's hair") == ("the hair", "a woman")
    for phrase in ("a group of people", "a cup of coffee", "the cups", "of the cup", ""):
        assert places.part_of(phrase) is None, phrase
