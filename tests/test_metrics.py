"""Figures against a table worked by hand, intervals against drawn samples, files of predictions."""

import numpy as np
import pandas as pd
import pytest

from scene_utils.analysis import metrics
from scene_utils.analysis.metrics import check_predictions, figures, score_mentions
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


def test_worked_example(worked):
    phrases, boxes, predictions = worked
    scored = score_mentions(predictions, phrases, boxes)
    assert list(scored[KEY].itertuples(index=False, name=None)) == MENTIONS[:4], "9 has no box"
    assert scored.answered.all()
    np.testing.assert_allclose(scored.iou_merged, [1, 1 / 3, 1, 1 / 3], atol=1e-12)
    np.testing.assert_allclose(scored.iou_any, [1, 1, 1 / 3, 1 / 3], atol=1e-12)
    assert scored.point_merged.tolist() == [True, True, True, False]
    assert scored.point_any.tolist() == [True, True, False, False]
    result = metrics.evaluate(predictions, phrases, boxes, resamples=50)
    counts = [result[name] for name in ("images", "mentions", "answered")]
    assert counts == [2, 4, 4]
    assert result["predictions_not_asked_for"] == 0
    figures = {p: [result[p][m]["value"] for m in METRICS] for p in ("merged", "any")}
    assert figures["merged"] == pytest.approx([2 / 3, 1, 0.5, 0.5, 0.75], abs=1e-6)
    assert figures["any"] == pytest.approx([2 / 3, 1, 0.5, 0.5, 0.5], abs=1e-6)
    # A threshold is reached by equality.
    half = predicted([(MENTIONS[0], (0, 0, 10, 5))])
    first = metrics.evaluate(half, phrases.iloc[:1], boxes, resamples=5)["merged"]
    assert [first[metric]["value"] for metric in METRICS[:4]] == [0.5, 1, 1, 0]


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


def test_order_of_rows_does_not_matter(worked):
    phrases, boxes, predictions = worked
    expected = metrics.evaluate(predictions, phrases, boxes, resamples=20)
    assert metrics.evaluate(predictions[::-1], phrases, boxes[::-1], resamples=20) == expected
    # Other orders of mentions draw other pictures: the values stay, the intervals may not.
    other = metrics.evaluate(predictions, phrases[::-1], boxes, resamples=20)
    for protocol in ("merged", "any"):
        for metric in METRICS:
            assert other[protocol][metric]["value"] == expected[protocol][metric]["value"]


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
    found = pd.DataFrame(figures(values, clusters, resamples=200, seed=7))
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    np.testing.assert_allclose([found.low, found.high], [low, high], rtol=0, atol=5.1e-7)


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
    "no CSV.csv": (b"\xff\xfe\x00\x81", "expected a CSV file of predictions with columns"),
    "empty.csv": (b"", "expected a CSV file of predictions with columns"),
    "empty.parquet": (b"", "expected a parquet file of predictions with columns"),
    "damaged.parquet": (b"PAR1" + bytes(40) + b"PAR1", "expected a parquet file of predictions"),
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
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/none.csv: .*found no file"):
        metrics.read_predictions(tmp_path / "none.csv")


BAD_TABLES = {
    "fraction": (columns(phrase_id=[1.5, 1]), "expected integers in phrase_id"),
    "word": (columns(first_word_index=["one", "two"]), "expected integers in first_word_index"),
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
    "infinite": (columns(x_max=[np.inf, 4]), "in row 0"),
    "word as score": (columns(score=["high", "1"]), "expected numbers in x_min, y_min"),
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


def test_table_shows_shares_as_percent():
    names = ("value", "low", "high")
    given = {"mean box": (0.25, 0.2, 0.3), "perfect": (1, 1, 1)}
    figures = {name: dict(zip(names, each, strict=True)) for name, each in given.items()}
    results = {name: {"any": dict.fromkeys(METRICS, one)} for name, one in figures.items()}
    table = tables.scores(results, "any")
    assert table.index.tolist() == ["mean box", "perfect"]
    assert list(table) == [metric.replace("_", " ") for metric in METRICS]
    assert table.loc["mean box"].tolist() == [".250 [.200, .300]"] + ["25.0 [20.0, 30.0]"] * 4
    assert table.loc["perfect"].tolist()[:2] == ["1.000 [1.000, 1.000]", "100.0 [100.0, 100.0]"]
