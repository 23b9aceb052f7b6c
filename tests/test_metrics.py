"""Figures against a table worked by hand and a slow loop, and intervals against drawn samples."""

import numpy as np
import pandas as pd
import pytest

from scene_utils.analysis import metrics
from scene_utils.analysis.metrics import bootstrap, check_predictions, metric_values, score_mentions
from scene_utils.dataset.entities import MENTION_KEY as KEY
from scene_utils.study import tables
from tests.makers import SIDES, phrase_table

METRICS = ["mean_iou", "accuracy_0.3", "accuracy_0.5", "accuracy_0.7", "pointing"]


def truth_tables(mentions, boxes):
    """`mentions` are keys, `boxes` {(image_id, phrase_id): boxes}: the two tables of Entities."""
    rows = [(*key, "it", "other", boxes.get((key[0], key[2]), [])) for key in mentions]
    return phrase_table(rows)


def predicted(rows, name="predictions"):
    """Rows of (key, box) or (key, box, rank) to a checked table of predictions."""
    flat = [(*row[0], "it", row[2] if len(row) > 2 else 1, 0.5, *row[1]) for row in rows]
    columns = [*KEY, "phrase", "rank", "score", *SIDES]
    table = pd.DataFrame(flat, columns=columns)
    return check_predictions(table.astype(dict.fromkeys(["image_id", "phrase"], "str")), name)


# Two pictures. Phrase 2 has two boxes of 10 x 10 that lie 10 apart: merged, 30 x 10.
MENTIONS = [("a", 0, 1, 0), ("a", 0, 2, 3), ("a", 1, 2, 0), ("b", 0, 1, 0), ("b", 0, 9, 4)]
BOXES = {
    ("a", 1): [(0, 0, 10, 10)],
    ("a", 2): [(0, 0, 10, 10), (20, 0, 30, 10)],
    ("b", 1): [(0, 0, 20, 10)],
}
ANSWERED = [
    (MENTIONS[0], (0, 0, 10, 10)),  # exact
    (MENTIONS[1], (20, 0, 30, 10)),  # one of the two
    (MENTIONS[2], (0, 0, 30, 10)),  # around both, its centre in neither
    (MENTIONS[3], (10, 0, 30, 10)),  # shares 100 of 300; its centre on the excluded right side
]


@pytest.fixture
def worked():
    return *truth_tables(MENTIONS, BOXES), predicted(ANSWERED)


def test_worked_example_of_each_mention(worked):
    phrases, boxes, predictions = worked
    scored = score_mentions(predictions, phrases, boxes)
    assert list(scored[KEY].itertuples(index=False, name=None)) == MENTIONS[:4], "9 has no box"
    assert scored.answered.all()
    np.testing.assert_allclose(scored.iou_merged, [1, 1 / 3, 1, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(scored.iou_any, [1, 1, 1 / 3, 1 / 3], atol=1e-12)
    assert scored.point_merged.tolist() == [True, True, True, False]
    assert scored.point_any.tolist() == [True, True, False, False]


def test_worked_example_of_the_figures(worked):
    phrases, boxes, predictions = worked
    result = metrics.evaluate(predictions, phrases, boxes, resamples=50)
    counts = [result[name] for name in ("images", "mentions", "answered")]
    assert counts == [2, 4, 4]
    assert result["predictions_not_asked_for"] == 0
    figures = {p: [result[p][m]["value"] for m in METRICS] for p in ("merged", "any")}
    assert figures["merged"] == pytest.approx([2 / 3, 1, 0.5, 0.5, 0.75], abs=1e-6)
    assert figures["any"] == pytest.approx([2 / 3, 1, 0.5, 0.5, 0.5], abs=1e-6)


def test_a_threshold_is_reached_by_equality():
    key = ("a", 0, 1, 0)
    phrases, boxes = truth_tables([key], {("a", 1): [(0, 0, 10, 10)]})
    result = metrics.evaluate(predicted([(key, (0, 0, 10, 5))]), phrases, boxes, resamples=5)
    assert result["merged"]["mean_iou"]["value"] == 0.5
    assert result["merged"]["accuracy_0.5"]["value"] == 1
    assert result["merged"]["accuracy_0.7"]["value"] == 0


def test_a_mention_without_a_prediction_is_missed(worked):
    phrases, boxes, predictions = worked
    result = metrics.evaluate(predictions.iloc[1:], phrases, boxes, resamples=5)
    assert (result["mentions"], result["answered"]) == (4, 3)
    for protocol in ("merged", "any"):
        assert result[protocol]["mean_iou"]["value"] == pytest.approx((2 / 3 * 4 - 1) / 4, abs=1e-6)
    # Its true box holds the origin, which a prediction of zeros would hit.
    assert [result[p]["pointing"]["value"] for p in ("merged", "any")] == [0.5, 0.25]
    none = metrics.evaluate(predictions.iloc[:0], phrases, boxes, resamples=5)
    assert none["answered"] == 0
    assert {figure["high"] for p in ("merged", "any") for figure in none[p].values()} == {0}


def test_predictions_not_asked_for_are_counted_and_change_nothing(worked):
    phrases, boxes, predictions = worked
    box = (0, 0, 10, 10)
    extra = [
        (("zz", 0, 1, 0), box),  # another picture
        (("zz", 0, 1, 0), box, 2),  # its second rank is no further one
        (("a", 0, 1, 7), box),  # another place in the sentence
        (("a", 3, 1, 0), box),
        (("b", 0, 9, 4), box),  # asked for, but without a box in truth
    ]
    more = pd.concat([predictions, predicted(extra)], ignore_index=True)
    result = metrics.evaluate(more, phrases, boxes, resamples=20)
    assert result.pop("predictions_not_asked_for") == 3
    expected = metrics.evaluate(predictions, phrases, boxes, resamples=20)
    del expected["predictions_not_asked_for"]
    assert result == expected


def test_only_the_first_rank_counts(worked):
    phrases, boxes, predictions = worked
    later = predicted([(key, (100, 100, 101, 101), rank) for key, _ in ANSWERED for rank in (2, 3)])
    both = pd.concat([later, predictions], ignore_index=True)
    assert metrics.evaluate(both, phrases, boxes) == metrics.evaluate(predictions, phrases, boxes)
    assert metrics.evaluate(later, phrases, boxes)["answered"] == 0


def test_tables_that_leave_nothing_or_do_not_fit_together_are_refused(worked):
    phrases, boxes, predictions = worked
    with pytest.raises(ValueError, match="expected mentions with a box to score"):
        metrics.evaluate(predictions, phrases[phrases.n_boxes == 0], boxes)
    with pytest.raises(ValueError, match="expected a box in `boxes` for each phrase"):
        metrics.evaluate(predictions, phrases, boxes[boxes.image_id == "a"])


@pytest.fixture(scope="module")
def drawn():
    """A random set: mentions with 0 to 4 boxes, and predictions for most of them."""
    rng = np.random.default_rng(11)

    def box():
        low = rng.integers(0, 40, 2)
        return (*low, *(low + rng.integers(1, 40, 2)))

    mentions, boxes = [], {}
    for image in range(60):
        for phrase_id in range(1, rng.integers(2, 8)):
            boxes[f"i{image}", phrase_id] = [box() for _ in range(rng.integers(0, 5))]
            for sentence in range(rng.integers(1, 4)):
                mentions.append((f"i{image}", sentence, phrase_id, int(rng.integers(0, 9))))
    answers = []
    for mention in mentions:
        if rng.random() < 0.85:
            own = boxes[mention[0], mention[2]]
            near = own and rng.random() < 0.6
            answer = own[rng.integers(len(own))] if near else box()
            answers.append((mention, tuple(np.add(answer, [0, 0, 3, 2] if near else 0))))
    return mentions, boxes, answers


def loop_iou(a, b):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared)


def loop_holds(box, guess):
    x, y = (guess[0] + guess[2]) / 2, (guess[1] + guess[3]) / 2
    return box[0] <= x < box[2] and box[1] <= y < box[3]


def loop_figures(mentions, boxes, answers, protocol):
    answers = dict(answers)
    rows = []
    for mention in mentions:
        own = boxes[mention[0], mention[2]]
        if not own:
            continue
        if protocol == "merged":
            corners = list(zip(*own, strict=True))
            own = [(min(corners[0]), min(corners[1]), max(corners[2]), max(corners[3]))]
        guess = answers.get(mention)
        iou = max(loop_iou(box, guess) for box in own) if guess else 0
        hit = any(loop_holds(box, guess) for box in own) if guess else False
        rows.append((iou, iou >= 0.3, iou >= 0.5, iou >= 0.7, hit))
    return np.array(rows, float)


@pytest.mark.parametrize("protocol", ["merged", "any"])
def test_random_data_equals_a_slow_loop(drawn, protocol):
    mentions, boxes, answers = drawn
    phrases, truth = truth_tables(mentions, boxes)
    scored = score_mentions(predicted(answers), phrases, truth)
    expected = loop_figures(mentions, boxes, answers, protocol)
    assert len(expected) > 200
    assert (expected.mean(axis=0) > 0.05).all()
    assert (expected.mean(axis=0) < 0.95).all()
    np.testing.assert_allclose(metric_values(scored, protocol), expected, atol=1e-9)
    result = metrics.evaluate(predicted(answers), phrases, truth, resamples=5)
    for metric, value in zip(METRICS, expected.mean(axis=0), strict=True):
        assert result[protocol][metric]["value"] == pytest.approx(value, abs=1e-6)


def test_order_of_rows_does_not_matter(drawn):
    mentions, boxes, answers = drawn
    phrases, truth = truth_tables(mentions, boxes)
    predictions = predicted(answers)
    expected = metrics.evaluate(predictions, phrases, truth, resamples=20)
    rng = np.random.default_rng(2)
    shuffled = [table.sample(frac=1, random_state=rng) for table in (predictions, truth)]
    assert metrics.evaluate(shuffled[0], phrases, shuffled[1], 20) == expected
    # Other orders of mentions draw other pictures: the values stay, the intervals may not.
    other = metrics.evaluate(predictions, phrases.sample(frac=1, random_state=rng), truth, 20)
    for protocol in ("merged", "any"):
        for metric in METRICS:
            assert other[protocol][metric]["value"] == expected[protocol][metric]["value"]


# The bootstrap.


@pytest.fixture
def clustered():
    rng = np.random.default_rng(8)
    clusters = np.repeat([f"c{n}" for n in range(30)], rng.integers(1, 9, 30))
    levels = dict(zip(dict.fromkeys(clusters), rng.normal(0, 1, 30), strict=True))
    first = np.array([levels[cluster] for cluster in clusters]) + rng.normal(0, 0.3, len(clusters))
    return np.stack([first, first > 0.2], axis=1).astype(float), clusters


def test_bootstrap_equals_means_of_samples_written_out(clustered):
    values, clusters = clustered
    names = list(dict.fromkeys(clusters))
    draws = np.random.default_rng(7).multinomial(30, [1 / 30] * 30, size=200)
    means = []
    for times in draws:
        sample = [
            value
            for name, count in zip(names, times, strict=True)
            for value in np.tile(values[clusters == name], (count, 1))
        ]
        means.append(np.mean(sample, axis=0))
    low, high = bootstrap(values, clusters, resamples=200, seed=7)
    np.testing.assert_allclose(low, np.percentile(means, 2.5, axis=0), atol=1e-12)
    np.testing.assert_allclose(high, np.percentile(means, 97.5, axis=0), atol=1e-12)


def test_interval_covers_the_true_mean_as_often_as_it_says():
    rng = np.random.default_rng(4)
    clusters = np.repeat(np.arange(40), 5)
    covered = 0
    for trial in range(200):
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(0, 0.5, 200)
        low, high = bootstrap(values[:, None], clusters, resamples=300, seed=trial)
        covered += low[0] <= 0 <= high[0]
    assert 0.88 <= covered / 200 <= 0.985


# Prediction files.


def columns(**changes):
    rows = [["a", 0, 1, 0, "it", 1, 0.9, 0.0, 0.0, 9.0, 9.0]]
    rows += [["a", 0, 1, 0, "it", 2, 0.1, 1.0, 1.0, 4.0, 4.0]]
    table = pd.DataFrame(rows, columns=[*KEY, "phrase", "rank", "score", *SIDES])
    return table.assign(**changes)


def test_a_file_of_predictions_comes_back_as_written(tmp_path):
    path = tmp_path / "predictions.parquet"
    table = columns(image_id=[7, 7], sentence_id=np.int8([0, 4]), extra=["x", "y"])
    table[table.columns[::-1]].to_parquet(path)
    found = metrics.read_predictions(path)
    assert list(found) == [*KEY, "phrase", "rank", "score", *SIDES]
    assert found.image_id.tolist() == ["7", "7"]
    assert (found[["sentence_id", "rank"]].dtypes == np.int64).all()
    assert (found[SIDES].dtypes == np.float32).all()
    pd.testing.assert_frame_equal(
        found.drop(columns="image_id"),
        table[found.columns].drop(columns="image_id"),
        check_dtype=False,
    )


WRITERS = {
    "mine.csv": lambda table, path: table.to_csv(path, index=False),
    "MINE.CSV": lambda table, path: table.to_csv(path, index=False),
    "mine.json": lambda table, path: table.to_json(path, orient="records"),
    "columns.json": lambda table, path: table.to_json(path),
    "mine.jsonl": lambda table, path: table.to_json(path, orient="records", lines=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_csv_and_json_of_the_same_columns_are_read_as_parquet_is(name, tmp_path):
    # What a reader that guesses types would lose: ids with zeros before them, odd phrases.
    table = columns(image_id=["007", "007"], phrase=["nan", 'a "big", red\nthing'])
    table["score"] = [0.1 + 0.2, np.nan]
    table.to_parquet(tmp_path / "mine.parquet")
    WRITERS[name](table[table.columns[::-1]], tmp_path / name)
    expected = metrics.read_predictions(tmp_path / "mine.parquet")
    found = metrics.read_predictions(tmp_path / name)
    assert found.image_id.tolist() == ["007", "007"]
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


WRONG_FILES = {
    "other columns.csv": (b"id;x_min\n1;2\n", "got ['id;x_min']"),
    "other columns.json": (b'{"predictions": [1, 2]}', "got ['predictions']"),
    "no JSON.json": (b"image_id,x_min\n", "expected a JSON file of predictions with columns"),
    "a number.json": (b"7", "expected a JSON file of predictions with columns"),
    "no CSV.csv": (b"\xff\xfe\x00\x81", "expected a CSV file of predictions with columns"),
    "empty.csv": (b"", "expected a CSV file of predictions with columns"),
    "empty.parquet": (b"", "expected a parquet file of predictions with columns"),
    "damaged.parquet": (
        b"PAR1" + bytes(40) + b"PAR1",
        "expected a parquet file of predictions with columns",
    ),
    "text.txt": (b"image_id,x_min\n", "(CSV files end in .csv, JSON in .json)"),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_file_of_another_kind_is_told_what_was_expected_and_found(name, tmp_path):
    content, reason = WRONG_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="first_word_index") as caught:
        metrics.read_predictions(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: expected ")
    assert reason in str(caught.value)


BAD_TABLES = {
    "fraction": (columns(phrase_id=[1.5, 1]), "expected integers in phrase_id"),
    "word": (columns(first_word_index=["one", "two"]), "expected integers in first_word_index"),
    "nothing": (columns(sentence_id=[None, 0]), "expected integers in sentence_id"),
    "fraction of a rank": (columns(rank=[1, 2.5]), "expected integers in rank"),
    "rank from 0": (columns(rank=[0, 1]), "expected rank to count from 1, got 0"),
    "rank twice": (
        columns(rank=[3, 3]),
        "expected each rank once for a mention, got twice {'image_id': 'a', 'sentence_id': 0, "
        "'phrase_id': 1, 'first_word_index': 0, 'rank': 3}",
    ),
    **{
        f"no {column}": (columns().drop(columns=column), f"missing ['{column}'], got ")
        for column in columns()
    },
    "inverted": (columns(x_max=[9, 0.5]), "got [1.0, 1.0, 0.5, 4.0] in row 1 (1 such rows of 2)"),
    "no height": (columns(y_max=[0.0, 4.0]), "got [0.0, 0.0, 9.0, 0.0] in row 0"),
    "no number": (columns(y_min=[np.nan, 1]), "in row 0"),
    "infinite": (columns(x_max=[np.inf, 4]), "in row 0"),
    "word as score": (columns(score=["high", "1"]), "expected numbers in x_min, y_min"),
    "word as side": (columns(x_min=["left", "1"]), "expected numbers in x_min, y_min"),
}


@pytest.mark.parametrize("fault", BAD_TABLES)
def test_a_bad_table_of_predictions_is_refused(fault, tmp_path):
    table, reason = BAD_TABLES[fault]
    path = tmp_path / "mine.parquet"
    table.to_parquet(path)
    with pytest.raises(ValueError, match="expected ") as caught:
        metrics.read_predictions(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    assert reason in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found no file") as caught:
        metrics.read_predictions(tmp_path / "mine.parquet")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.parquet'}: ")


def test_checking_leaves_the_given_table_alone():
    table = columns(image_id=[7, 7])
    before = table.copy()
    check_predictions(table)
    pd.testing.assert_frame_equal(table, before)


def test_table_shows_shares_as_percent():
    figure = {"value": 0.25, "low": 0.2, "high": 0.3}
    perfect = {"value": 1, "low": 1, "high": 1}
    results = {
        "mean box": {"any": dict.fromkeys(METRICS, figure)},
        "perfect": {"any": dict.fromkeys(METRICS, perfect)},
    }
    table = tables.scores(results, "any")
    assert table.index.tolist() == ["mean box", "perfect"]
    assert list(table) == [metric.replace("_", " ") for metric in METRICS]
    assert table.loc["mean box"].tolist() == [".250 [.200, .300]"] + ["25.0 [20.0, 30.0]"] * 4
    assert table.loc["perfect"].tolist()[:2] == ["1.000 [1.000, 1.000]", "100.0 [100.0, 100.0]"]


def test_perfect_predictions_on_the_real_test_split(real_entities):
    phrases = real_entities.phrases[real_entities.phrases.split == "test"]
    boxed = phrases[phrases.n_boxes > 0]
    perfect = check_predictions(boxed.assign(rank=1, score=1.0))
    result = metrics.evaluate(perfect, phrases, real_entities.boxes)
    counts = [result[name] for name in ("images", "mentions", "answered")]
    # One picture of the thousand, 4797050581, shows a crowd and has no box at all.
    assert counts == [999, 14_481, 14_481]
    assert result["predictions_not_asked_for"] == 0
    perfect = {"value": 1, "low": 1, "high": 1}
    assert all(result["merged"][metric] == perfect for metric in METRICS)
    # The merged box is right under `any` where a phrase has one box.
    assert (boxed.n_boxes == 1).mean() < result["any"]["mean_iou"]["value"] < 1
