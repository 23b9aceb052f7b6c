"""What decides, which mistakes, calibration and perturbations, on small cases worked by hand."""

import numpy as np
import pandas as pd
import pytest

from scene_utils.analysis import breakdown, perturbations
from scene_utils.analysis.metrics import score_mentions
from scene_utils.analysis.perturbations import CHANGES
from scene_utils.dataset.entities import MENTION_KEY as KEY
from scene_utils.study import tables
from tests.benchmarks import pages
from tests.makers import SIDES, phrase_table, predicted

LEFT, RIGHT, TOP, ALL = (0, 40, 20, 60), (70, 40, 90, 60), (40, 0, 60, 10), (0, 0, 100, 100)
ROWS = [
    ("a", 0, 1, 0, "a man", "people", [LEFT]),
    ("a", 0, 2, 0, "another man in a zxqv hat", "people", [RIGHT]),
    ("a", 0, 3, 0, "the red hat", "clothing", [TOP]),
    ("a", 1, 1, 0, "him", "people", [LEFT]),
    ("a", 1, 4, 0, "two big dogs", "animals", [LEFT, RIGHT]),
    ("a", 1, 5, 0, "the sky", "scene", []),
    ("b", 0, 1, 0, "a beach", "scene", [ALL]),
]


@pytest.fixture
def worked():
    return phrase_table(ROWS)


def test_what_may_decide_is_read_off_phrase_and_boxes(worked):
    found = breakdown.describe(worked[0], known={"a", "man", "another", "in", "hat"})
    expected = {
        "box area (% of the picture)": ["2-5", "2-5", "2-5", "2-5", "10-20", "70-100"],
        "words in the phrase": ["2", "6+", "3", "1", "3", "2"],
        "objects of its category": ["2", "2", "1", "2", "1", "1"],
        "boxes of the phrase": ["1", "1", "1", "1", "2", "1"],
        "words unknown to GloVe": ["0", "1+", "1+", "1+", "1+", "1+"],
        "attribute word": ["none", "none", "colour, pattern", "none", "other", "none"],
        "relation word": ["no", "yes", "no", "no", "no", "no"],
        "place across": ["left", "right", "middle", "left", "middle", "middle"],
        "place down": ["middle", "middle", "top", "middle", "middle", "middle"],
    }
    assert {name: found[name].tolist() for name in found} == expected


def test_accuracy_by_group_is_that_of_its_mentions_and_small_groups_are_left_out(worked):
    phrases, boxes = worked
    boxed = phrases[phrases.n_boxes > 0]
    scored = score_mentions(predicted(boxed, [LEFT] * 4 + [ALL] * 2), phrases, boxes)
    described = breakdown.describe(phrases, known=())
    table = breakdown.by_group({"it": scored}, described, least=2, resamples=20)
    rows = {(row.what, row.bin): (row.mentions, row.value) for row in table.itertuples()}
    assert rows["objects of its category", "2"] == (3, pytest.approx(2 / 3, abs=1e-6))
    assert rows["place across", "left"] == (2, 1)
    assert rows["place across", "middle"] == (3, pytest.approx(1 / 3, abs=1e-6))
    assert ("place across", "right") not in rows


def test_accuracy_by_frequency_goes_by_the_last_word_in_train():
    phrases, boxes = phrase_table(
        [("a", 0, n, 0, f"the {word}", "other", [LEFT]) for n, word in enumerate("xyz")]
        + [("b", 0, 0, 0, "red y", "other", [RIGHT]), ("b", 0, 1, 0, "?!", "other", [LEFT])]
        + [("b", 0, 2, 0, "the w", "other", [])]
    )
    train = pd.DataFrame({"phrase": ["a Y"] * 5 + ["z in red"] * 21 + ["x"] * 501})
    answers = predicted(phrases[phrases.n_boxes > 0], [LEFT] * 5)
    answers["score"] = [0.1, 0.2, 0.3, 0.6, 0.5]
    scored = {"it": score_mentions(answers, phrases, boxes)}
    rows = breakdown.by_frequency(scored, phrases, train, resamples=20)
    found = {row["bin"]: (row["mentions"], row["value"], row["score"]) for row in rows}
    assert found == {
        "never": (1, 1, 0.5),
        "1-5": (2, 0.5, pytest.approx(0.4)),
        "21-100": (1, 1, pytest.approx(0.3)),
        ">500": (1, 1, pytest.approx(0.1)),
    }
    text = tables.frequency(rows).loc["it", "1-5 (2)"]
    assert text.startswith("50.0 [")
    assert text.endswith(", score 40")
    equal = {"it": scored["it"].assign(score=1.0)}
    rows = breakdown.by_frequency(equal, phrases, train, resamples=20)
    assert {row["score"] for row in rows} == {None}, "equal scores say nothing"


def test_each_part_has_its_own_figures_and_differences():
    phrases, boxes = phrase_table(
        [(f"i{n}", 0, 1, 0, "it", "other", [LEFT if n % 2 else RIGHT]) for n in range(20)]
    )
    both = {
        name: score_mentions(predicted(phrases, [box] * 20), phrases, boxes)
        for name, box in (("left", LEFT), ("right", RIGHT))
    }
    names = ["hard" if n % 2 else "easy" for n in range(20)]
    found = breakdown.by_part(both, names, resamples=20)
    assert list(found) == ["easy", "hard"]
    assert found["easy"]["mentions"] == found["hard"]["mentions"] == 10
    assert found["easy"]["models"]["right"]["accuracy_0.5"]["value"] == 1
    assert found["hard"]["models"]["right"]["mean_iou"]["value"] == 0
    table = tables.parts(found)
    assert table.loc["left", "hard (10): mean iou"] == "1.000 [1.000, 1.000]"
    assert table.loc["left", "easy (10): accuracy 0.5"] == "0.0 [0.0, 0.0]"


def test_each_mistake_is_told_from_the_others(worked):
    phrases, boxes = worked
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    cases = {
        "right": (0, LEFT),
        "another object of its category": (0, RIGHT),
        "another object": (0, TOP),
        "too large": (0, ALL),
        "too small": (0, (5, 45, 10, 50)),
        "beside it": (0, (18, 58, 38, 78)),
        "nowhere near": (0, (20, 80, 30, 90)),
    }
    for expected, (row, box) in cases.items():
        predictions = predicted(boxed.iloc[[row]], [box])
        scored = score_mentions(predictions, phrases, boxes)
        found = breakdown.mistakes(scored, predictions, phrases)
        assert found.mistake[row] == expected
        assert set(found.mistake.drop(row)) == {"no answer"}
    shares = breakdown.mistake_shares(found)
    assert shares["no answer"] == pytest.approx(100 - shares["nowhere near"]) == 83.3333


def test_another_phrases_box_counts_where_it_would_have_been_right(worked):
    phrases, boxes = worked
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    # The two men are confused; each of the others gets a box that is nobody's.
    nobody = (30, 80, 35, 85)
    predictions = predicted(boxed, [RIGHT, LEFT, nobody, RIGHT, nobody, nobody])
    found = breakdown.mistakes(score_mentions(predictions, phrases, boxes), predictions, phrases)
    assert found.another_right.tolist() == [True, True, False, True, False, False]
    # Of man 1, the others are 2, 3 and 4; of man 2 they are 1 twice, 3 and 4.
    np.testing.assert_allclose(found.others_right, [1 / 3, 2 / 4, 0, 1 / 3, 0, np.nan])
    shares = breakdown.mistake_shares(found)
    assert shares["another object of its category"] == 50
    assert shares["missed, another's box right"] == 50


def scored_with(score, hits):
    given = {"score": score, "answered": True, "iou_merged": np.where(hits, 0.9, 0.1)}
    return pd.DataFrame({"image_id": [f"i{n % 50}" for n in range(len(score))]} | given)


def test_single_things_are_counted_once_each(worked):
    """Two dogs: of three boxes two lie on the same dog; the mention of one thing does not count."""
    phrases, boxes = worked
    dogs, man = phrases[phrases.phrase == "two big dogs"], phrases[phrases.phrase == "a man"]
    answers = [(dogs, LEFT, 1), (dogs, (1, 40, 20, 60), 2), (dogs, TOP, 3), (man, RIGHT, 1)]
    answers = pd.concat([predicted(rows, [box], rank) for rows, box, rank in answers])
    found = breakdown.things(answers, pd.concat([dogs, man]), boxes, resamples=20)
    assert (found["mentions"], found["several"]) == (2, 1)
    assert found["any"]["value"] == 0.5
    assert found["precision"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    assert found["recall"]["value"] == 0.5
    assert pages.things({"it": found}).loc["it", "recall (1 of several things)"][:4] == "50.0"
    none = breakdown.things(answers, man, boxes, resamples=20)
    assert (none["several"], none["precision"], none["recall"]) == (0, {}, {})


def test_photos_are_scored_by_split_and_kind():
    drawn = pd.DataFrame(
        [
            ("p", "look", "a cup", "plain", *LEFT),
            ("p", "look", "a lid", "part", *TOP),
            ("p", "look", "a dog", "absent", *[np.nan] * 4),
            ("q", "score", "an x", "part", *LEFT),
        ],
        columns=["photo", "split", "phrase", "kind", *SIDES],
    )
    answers = drawn[["photo", "phrase"]].assign(present=[0.9, 0.04, 0.05, 0.1])
    answers[SIDES] = [LEFT, RIGHT, ALL, LEFT]
    found = breakdown.photos(answers, drawn, resamples=20)
    look = found["look"]
    assert (look["photos"], look["phrases"], look["kept"], look["flagged"]) == (1, 2, 0.5, 1.0)
    assert look["mean_iou"]["value"] == look["accuracy_0.5"]["value"] == 0.5
    assert look["kinds"] == {"part": [1, 0.0], "plain": [1, 1.0]}
    assert found["score"]["accuracy_0.5"]["value"] == 1
    unsaid = breakdown.photos(answers.assign(present=None), drawn, resamples=20)
    rows = pages.photos({"grid": found, "source": unsaid})
    assert rows.photos.tolist() == ["1 to look", "1 to score"] * 2
    assert rows["kept (%)"].tolist() == ["50", "100", "", ""]


def test_calibration_finds_honest_scores_honest_and_others_not():
    rng = np.random.default_rng(0)
    chance = rng.random(4000)
    hits = rng.random(4000) < chance
    honest = breakdown.calibration(scored_with(chance, hits), resamples=100)
    assert honest["error"] < 0.03
    honest = pd.DataFrame(honest["bins"])
    assert honest.mentions.tolist() == [400] * 10
    assert (np.diff(honest.value) > 0).all()
    inside = (honest.low - 0.02 < honest.score) & (honest.score < honest.high + 0.02)
    assert inside.all()
    boastful = breakdown.calibration(scored_with(np.sqrt(chance), hits), resamples=20)
    assert boastful["error"] == pytest.approx(np.mean(np.sqrt(chance) - chance), abs=0.02)
    assert breakdown.calibration(scored_with(np.ones(30), np.arange(30) < 7)) is None


# Does it read, does it look?


@pytest.fixture
def many():
    rows = []
    for image in range(30):
        x, y = image % 5 * 12, image % 7 * 8
        rows += [
            (f"i{image}", 0, 1, 0, "the left one", "people", [(x, y, x + 20, y + 20)]),
            (f"i{image}", 0, 2, 0, "the right one", "people", [(x + 30, y, x + 50, y + 20)]),
            (f"i{image}", 1, 3, 0, "it", "other", []),
        ]
    return phrase_table(rows)[0]


def of_truth(phrases, reads=True, looks=True):
    """A model that knows all boxes of its picture, by phrase: as far as it reads and looks."""
    boxed = phrases[phrases.n_boxes > 0]
    corners = boxed[SIDES].to_numpy() / 100
    words = [sorted(phrase.split()) for phrase in boxed.phrase]
    keys = [(image, *said) for image, said in zip(boxed.image_id, words, strict=True)]
    known = dict(zip(keys, corners, strict=True))
    first = boxed.image_id.iloc[0]

    def box(text, picture):
        picture = picture if looks else first
        default = known.get((picture, "left", "one", "the"), np.array([0, 0.9, 0.1, 1]))
        return known.get((picture, *sorted(text.split())), default) if reads else default

    return lambda texts, pictures: np.array([*map(box, texts, pictures)])


def falls(phrases, **kwargs):
    asked = perturbations.questions(phrases)
    found = asked[[*KEY, "change"]].copy()
    found[SIDES] = of_truth(phrases, **kwargs)(asked.text, asked.picture)
    return breakdown.falls(found, phrases, resamples=100).set_index("change")


def test_questions_change_what_they_say_and_nothing_else(many):
    asked = perturbations.questions(many)
    plain = asked[asked.change == perturbations.ASKED].set_index(KEY)
    assert len(plain) == 60
    for change, table in asked.groupby("change"):
        before = plain.loc[pd.MultiIndex.from_frame(table[KEY])]
        assert len(table) == 60, change
        for column, changes in (("text", CHANGES[:2]), ("picture", CHANGES[2:])):
            same = before[column].to_numpy() == table[column].to_numpy()
            assert (not same.any()) if change in changes else same.all(), (change, column)
    other = asked[asked.change == "another picture"]
    assert other.groupby("image_id").picture.nunique().eq(1).all()
    assert set(other.picture) == set(many.image_id), "each stands in for one other"
    shuffled = asked[asked.change == "shuffled words"]
    before = plain.loc[pd.MultiIndex.from_frame(shuffled[KEY])].text
    sorted_words = [[sorted(said.split()) for said in texts] for texts in (shuffled.text, before)]
    assert sorted_words[0] == sorted_words[1]
    pd.testing.assert_frame_equal(asked, perturbations.questions(many))
    # A picture with one object has no other phrase to swap, and the only shuffle is taken.
    rows = [("a", 0, 1, 0, "a dog", "animals", [LEFT]), ("a", 1, 1, 0, "it", "animals", [LEFT])]
    rows += [("b", 0, 1, 0, "a cat", "animals", [LEFT]), ("b", 0, 2, 0, "a tree", "other", [])]
    texts = perturbations.questions(phrase_table(rows)[0]).groupby("change").text.agg(list)
    assert texts["another phrase"] == ["a tree"]
    assert texts["shuffled words"] == ["dog a", "cat a"]


def test_a_model_loses_by_a_change_as_far_as_it_reads_and_looks(many):
    found = falls(many)
    assert found.asked.eq(1).all()
    # A third of the swaps is to "it", which falls back on the left one: right for half of those.
    assert found.value["another phrase"] > 0.5
    assert found.value["blank picture"] == 1
    assert found.value["another picture"] > 0.5
    assert found.real[["another phrase", "another picture", "blank picture"]].all()
    assert found.value["shuffled words"] == 0
    assert found.same["shuffled words"] == 1
    assert not found.real["shuffled words"]
    # One that does not read or does not look loses nothing by it.
    deaf, blind = falls(many, reads=False), falls(many, looks=False)
    assert deaf.value["another phrase"] == 0
    assert deaf.value["blank picture"] > 0.2
    assert blind.value[["another picture", "blank picture"]].eq(0).all()
    rows = {"perturbations": {"deaf": deaf.reset_index().to_dict("records")}}
    text = pages.MAKERS["perturbations"](rows).loc["deaf"].iloc[0]
    assert text == "50.0, fall 0.0 [0.0, 0.0]"
