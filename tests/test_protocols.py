"""MDETR's Flickr30k protocol by a second route: shapely's polygons, and a loop over mentions.

Written from the published definition (Kamath et al., ICCV 2021, Flickr30k): a phrase is found at k
if one of its k best boxes has an IoU of at least .5 with a true box (`any`), or with the smallest
box around all true ones (`merged`).
"""

import numpy as np
import pandas as pd
import pytest
import shapely

from scene_utils.analysis import metrics, references
from scene_utils.dataset import annotations
from scene_utils.dataset.entities import MENTION_KEY as KEY
from tests.makers import SIDES, phrase_table, predicted


def second_route(predictions, phrases, boxes):
    """Rows of each boxed mention, by protocol: the metrics of rank 1, found at 1, 5, 10, by any."""
    of_phrase = {
        key: shapely.box(*group[SIDES].to_numpy(float).T)
        for key, group in boxes.groupby(["image_id", "phrase_id"])
    }
    ranked = predictions.sort_values("rank")
    guesses = {
        key: shapely.box(*group[SIDES].to_numpy(float).T) for key, group in ranked.groupby(KEY)
    }
    rows = {"any": [], "merged": []}
    for mention in phrases[phrases.n_boxes > 0].itertuples():
        truths = of_phrase[mention.image_id, mention.phrase_id]
        around = shapely.box(*shapely.GeometryCollection(list(truths)).bounds)
        key = (mention.image_id, mention.sentence_id, mention.phrase_id, mention.first_word_index)
        given = guesses.get(key, np.array([], object))
        for protocol, true in (("any", truths), ("merged", np.array([around]))):
            pairs = np.broadcast_arrays(given[:, None], true[None])
            shared = shapely.area(shapely.intersection(*pairs))
            iou = (shared / shapely.area(shapely.union(*pairs))).max(axis=1, initial=0)
            found = [(iou[:k] >= 0.5 - 1e-12).any() for k in (1, 5, 10, None)]
            first = iou[0] if len(iou) else 0
            hits = shapely.contains(true, shapely.centroid(given[:1])) if len(given) else False
            levels = [first >= level - 1e-12 for level in (0.3, 0.5, 0.7)]
            rows[protocol].append([first, *levels, np.any(hits), *found])
    return {protocol: np.array(values, float) for protocol, values in rows.items()}


def assert_both_agree(predictions, phrases, boxes):
    expected = second_route(predictions, phrases, boxes)
    result = metrics.evaluate(predictions, phrases, boxes, resamples=10)
    categories = phrases[phrases.n_boxes > 0].category.to_numpy()
    for protocol, rows in expected.items():
        values = [result[protocol][metric]["value"] for metric in metrics.METRICS]
        np.testing.assert_allclose(values, rows[:, :5].mean(axis=0), atol=1e-6)
        recall = result["recall"][protocol]
        assert set(recall) == {"all", *categories}
        for name, found in recall.items():
            chosen = rows if name == "all" else rows[categories == name]
            assert found["mentions"] == len(chosen)
            values = [found[k]["value"] for k in ("1", "5", "10", "upper_bound")]
            np.testing.assert_allclose(values, chosen[:, 5:].mean(axis=0), atol=1e-6)
    return result


def candidates(phrases, count, rng, share=1.0):
    """Predictions around the truth, `count` a mention, none for the rest of the mentions."""
    boxed = phrases[phrases.n_boxes > 0]
    boxed = boxed[rng.random(len(boxed)) < share]
    table = boxed.loc[boxed.index.repeat(count), [*KEY, "phrase", *SIDES]].reset_index(drop=True)
    corners = table[SIDES].to_numpy(float)
    size = np.tile(corners[:, 2:] - corners[:, :2], 2)
    corners = corners + rng.normal(0, 0.35, corners.shape) * size
    low, high = np.sort(corners.reshape(-1, 2, 2), axis=1).transpose(1, 0, 2)
    table[SIDES] = np.concatenate([low, high + 1], axis=1)
    table["rank"] = np.tile(np.arange(1, count + 1), len(boxed))
    table["score"] = rng.random(len(table))
    return metrics.check_predictions(table)


def assert_steps(recall):
    values = [recall[k]["value"] for k in ("1", "5", "10", "upper_bound")]
    assert 0.05 < values[0] < values[1] < values[2] < values[3] < 0.95, "each step adds some"


def test_both_routes_agree_on_random_boxes():
    rng, rows = np.random.default_rng(11), []
    for image in range(60):
        for number in range(1, rng.integers(2, 8)):
            low = rng.integers(0, 40, (rng.integers(0, 5), 2))
            boxes = np.concatenate([low, low + rng.integers(5, 40, low.shape)], axis=1)
            for sentence in range(rng.integers(1, 4)):
                category = ("people", "other")[number % 2]
                rows.append((f"i{image}", sentence, number, 0, "it", category, boxes))
    phrases, boxes = phrase_table(rows)
    result = assert_both_agree(candidates(phrases, 12, rng, share=0.9), phrases, boxes)
    assert result["mentions"] > 200
    assert_steps(result["recall"]["any"]["all"])


def test_both_routes_agree_on_real_test_pictures(real_entities):
    phrases, boxes = real_entities.phrases, real_entities.boxes
    test = phrases[phrases.split == "test"]
    boxes = boxes[boxes.image_id.isin(test.image_id)]
    predictions = candidates(test, 12, np.random.default_rng(5), share=0.9)
    result = assert_both_agree(predictions, test, boxes)
    assert_steps(result["recall"]["any"]["all"])


def test_a_phrase_counts_in_its_first_category_alone():
    said = "[/EN#1/vehicles/scene A train] and [/EN#2/scene a hall] ."
    rows = [
        ("a", sentence, number, first, phrase, category, [(0, 0, 9, 9)])
        for sentence, number, first, category, phrase in annotations.parse_sentences(said)
    ]
    phrases, boxes = phrase_table(rows)
    answers = predicted(phrases, [(0, 0, 9, 9)] * 2)
    recall = metrics.evaluate(answers, phrases, boxes, resamples=5)["recall"]["any"]
    counts = {name: found["mentions"] for name, found in recall.items()}
    assert counts == {"all": 2, "vehicles": 1, "scene": 1}


def test_recall_looks_at_ranks_and_not_at_scores_or_order_of_rows():
    truth, far = (0, 0, 10, 10), (50, 50, 60, 60)
    phrases, boxes = phrase_table([("a", 0, 1, 0, "it", "other", [truth])])
    ranks = [7, 6, 1, 2, 3, 4, 5, 12]
    repeated = phrases.loc[[0] * len(ranks)]
    table = predicted(repeated, [truth if rank == 6 else far for rank in ranks], rank=ranks)
    predictions = table.assign(score=table["rank"] / 20)
    found = metrics.evaluate(predictions, phrases, boxes, resamples=5)["recall"]["merged"]["all"]
    values = {name: found[name]["value"] for name in ("1", "5", "10", "upper_bound")}
    assert values == {"1": 0, "5": 0, "10": 1, "upper_bound": 1}


# Model against model.


@pytest.fixture(scope="module")
def two_models():
    rng = np.random.default_rng(3)
    images = np.repeat([f"i{n}" for n in range(80)], 5)
    level = np.repeat(rng.uniform(0.2, 0.8, 80), 5)
    keys = pd.DataFrame({"image_id": images, "sentence_id": 0, "phrase_id": range(400)})
    keys["first_word_index"] = 0

    def scored(shift):
        iou = np.clip(level + shift + rng.normal(0, 0.02, 400), 0, 1)
        return keys.assign(iou_merged=iou, point_merged=iou > 0.5)

    return {"better": scored(0.02), "plain": scored(0), "twin": scored(0)}


def test_paired_differences_are_sharper_than_the_models_own_intervals(two_models):
    table = metrics.differences(two_models).query("metric == 'mean_iou'")
    rows = {(row.better, row.worse): row for row in table.itertuples()}
    row = rows["better", "plain"]
    assert row.real
    assert row.value == pytest.approx(
        (two_models["better"].iou_merged - two_models["plain"].iou_merged).mean(), abs=1e-6
    )
    plain = two_models["plain"]
    (alone,) = metrics.figures(plain[["iou_merged"]].to_numpy(), plain.image_id)
    assert row.high - row.low < 0.2 * (alone["high"] - alone["low"])
    twins = next(row for pair, row in rows.items() if set(pair) == {"plain", "twin"})
    assert not twins.real
    assert twins.low <= 0 <= twins.high
    assert twins.value >= 0, "the better one stands first"


def test_models_on_different_mentions_are_refused(two_models):
    other = {"better": two_models["better"], "plain": two_models["plain"].iloc[:-1]}
    with pytest.raises(ValueError, match="expected the same mentions for better and plain"):
        metrics.differences(other)


def test_a_group_has_the_interval_of_its_own_mentions_alone():
    rng = np.random.default_rng(6)
    clusters = np.repeat(np.arange(60), 4)
    values = rng.random((240, 2))
    member = clusters < 40
    own, everyone = (metrics.figures(values, clusters, group)[0] for group in (member, None))
    assert own["value"] == pytest.approx(values[member, 0].mean(), abs=1e-6)
    assert everyone == metrics.figures(values, clusters, np.full(len(values), True))[0]
    assert own["low"] < own["value"] < own["high"]
    assert own["high"] - own["low"] > everyone["high"] - everyone["low"]


# Blind references and ceilings.

WHOLE = {
    "mean box": (0.254, 7.8),
    "whole image": (0.299, 22.0),
    "centred .8": (0.312, 25.6),
    "largest box": (0.404, 33.5),
    "grid 14x14": (0.819, 94.5),
    "grid 28x28": (0.898, 99.0),
}


@pytest.mark.slow
def test_references_of_the_real_test_split_are_what_is_known(real_entities):
    phrases, boxes = real_entities.phrases, real_entities.boxes
    asked = phrases[phrases.split == "test"]
    found = {
        name: metrics.evaluate(table, asked, boxes, resamples=2)
        for name, table in references.predictions(phrases, "test").items()
    }
    for name, (mean_iou, accuracy) in WHOLE.items():
        figures = found[name]["merged"]
        assert figures["mean_iou"]["value"] == pytest.approx(mean_iou, abs=0.002), name
        assert 100 * figures["accuracy_0.5"]["value"] == pytest.approx(accuracy, abs=0.2), name
    assert found["best constant"]["merged"]["mean_iou"]["value"] >= 0.324
    assert found["best per category"]["merged"]["mean_iou"]["value"] >= 0.336
    for cells in references.GRIDS:
        near, best = (
            found[f"grid {cells}x{cells}{end}"]["merged"]["mean_iou"]["value"]
            for end in ("", ", best")
        )
        assert near < best < 1


def test_no_box_of_whole_cells_beats_the_best_on_a_grid():
    rng = np.random.default_rng(2)
    low = rng.random((40, 2)) * 0.9
    truth = np.concatenate([low, low + rng.random((40, 2)) * (1 - low) + 0.001], axis=1)
    truth = np.clip(truth, 0, 1).astype(np.float32)
    mentions = pd.DataFrame(truth, columns=SIDES).assign(
        image_id=[f"i{n}" for n in range(40)], category="other", width=1, height=1
    )
    found = references.reference_boxes(mentions, mentions)["grid 7x7, best"]
    borders = np.arange(8) / 7
    every = np.stack(np.meshgrid(*[borders] * 4, indexing="ij"), axis=-1).reshape(-1, 4)
    every = every[(every[:, 2] > every[:, 0]) & (every[:, 3] > every[:, 1])]

    def iou(boxes, true):
        pair = np.broadcast_arrays(shapely.box(*np.atleast_2d(boxes).T), shapely.box(*true))
        return shapely.area(shapely.intersection(*pair)) / shapely.area(shapely.union(*pair))

    for true, box in zip(truth.astype(float), found.astype(float), strict=True):
        assert iou(box, true)[0] == pytest.approx(iou(every, true).max(), abs=1e-6)
