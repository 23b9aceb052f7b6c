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
from scene_utils.dataset import annotations, entities

KEY = entities.MENTION_KEY
SIDES = ["x_min", "y_min", "x_max", "y_max"]


def second_route(predictions, phrases, boxes):
    """Rows (IoU of rank 1, found at 1, 5, 10, by any) of each boxed mention, by protocol."""
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
            rows[protocol].append([iou[0] if len(iou) else 0, *found])
    return {protocol: np.array(values, float) for protocol, values in rows.items()}


def assert_both_agree(predictions, phrases, boxes):
    expected = second_route(predictions, phrases, boxes)
    result = metrics.evaluate(predictions, phrases, boxes, resamples=10)
    categories = phrases[phrases.n_boxes > 0].category.to_numpy()
    for protocol, rows in expected.items():
        assert result[protocol]["mean_iou"]["value"] == pytest.approx(rows[:, 0].mean(), abs=1e-6)
        assert result[protocol]["accuracy_0.5"]["value"] == pytest.approx(
            rows[:, 1].mean(), abs=1e-6
        )
        recall = result["recall"][protocol]
        assert set(recall) == {"all", *categories}
        for name, found in recall.items():
            chosen = rows if name == "all" else rows[categories == name]
            assert found["mentions"] == len(chosen)
            values = [found[k]["value"] for k in ("1", "5", "10", "upper_bound")]
            np.testing.assert_allclose(values, chosen[:, 1:].mean(axis=0), atol=1e-6)
    return result


def candidates(phrases, count, rng, share=1.0):
    """Predictions around the truth, `count` a mention, none for the rest of the mentions."""
    boxed = phrases[phrases.n_boxes > 0]
    boxed = boxed[rng.random(len(boxed)) < share]
    table = boxed.loc[boxed.index.repeat(count), [*KEY, "phrase", *SIDES]].reset_index(drop=True)
    corners = table[SIDES].to_numpy(float)
    size = np.tile(corners[:, 2:] - corners[:, :2], 2)
    corners = corners + rng.normal(0, 0.35, corners.shape) * size
    table[SIDES] = np.concatenate(
        [
            np.minimum(corners[:, :2], corners[:, 2:]),
            np.maximum(corners[:, :2], corners[:, 2:]) + 1,
        ],
        axis=1,
    )
    table["rank"] = np.tile(np.arange(1, count + 1), len(boxed))
    table["score"] = rng.random(len(table))
    return metrics.check_predictions(table)


def test_both_routes_agree_on_all_real_test_pictures_at_hand(real_data, real_entities):
    here = entities.image_ids(real_data)
    test = real_entities.phrases[
        (real_entities.phrases.split == "test") & real_entities.phrases.image_id.isin(here)
    ]
    boxes = real_entities.boxes[real_entities.boxes.image_id.isin(test.image_id)]
    predictions = candidates(test, 12, np.random.default_rng(5), share=0.9)
    result = assert_both_agree(predictions, test, boxes)
    assert result["mentions"] == 3868
    found = result["recall"]["any"]["all"]
    values = [found[k]["value"] for k in ("1", "5", "10", "upper_bound")]
    assert 0.1 < values[0] < values[1] < values[2] < values[3] < 0.91, "each step adds some"


def test_a_phrase_counts_in_its_first_category_alone():
    mentions = annotations.parse_sentences(
        "[/EN#1/vehicles/scene A train] and [/EN#2/scene a hall] ."
    )
    phrases = pd.DataFrame(mentions, columns=[*KEY[1:], "category", "phrase"])
    phrases = phrases.assign(image_id="a", n_boxes=1, x_min=0, y_min=0, x_max=9, y_max=9)
    boxes = phrases[["image_id", "phrase_id", *SIDES]]
    answers = metrics.check_predictions(phrases.assign(rank=1, score=1.0))
    recall = metrics.evaluate(answers, phrases, boxes, resamples=5)["recall"]["any"]
    assert {name: found["mentions"] for name, found in recall.items()} == {
        "all": 2,
        "vehicles": 1,
        "scene": 1,
    }


def test_recall_looks_at_ranks_and_not_at_scores_or_order_of_rows():
    key = {"image_id": "a", "sentence_id": 0, "phrase_id": 1, "first_word_index": 0}
    truth = dict(zip(SIDES, (0.0, 0.0, 10.0, 10.0), strict=True))
    phrases = pd.DataFrame([key | truth | {"phrase": "it", "category": "other", "n_boxes": 1}])
    far = dict(zip(SIDES, (50.0, 50.0, 60.0, 60.0), strict=True))
    rows = [
        key | (truth if rank == 6 else far) | {"phrase": "it", "rank": rank, "score": rank / 20}
        for rank in (7, 6, 1, 2, 3, 4, 5, 12)
    ]
    predictions = metrics.check_predictions(pd.DataFrame(rows))
    boxes = phrases[["image_id", "phrase_id", *SIDES]]
    found = metrics.evaluate(predictions, phrases, boxes, resamples=5)["recall"]["merged"]["all"]
    values = {name: found[name]["value"] for name in ("1", "5", "10", "upper_bound")}
    assert values == {"1": 0, "5": 0, "10": 1, "upper_bound": 1}


def test_ten_boxes_a_mention_of_the_whole_test_split_are_scored(real_entities):
    test = real_entities.phrases[real_entities.phrases.split == "test"]
    predictions = candidates(test, 10, np.random.default_rng(1))
    result = metrics.evaluate(predictions, test, real_entities.boxes, resamples=100)
    assert result["mentions"] == result["answered"] == 14_481
    recall = [result["recall"]["any"]["all"][rank]["value"] for rank in ("1", "5", "10")]
    assert recall == sorted(recall)
    assert recall[0] < recall[2]


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
    low, high = metrics.bootstrap(
        two_models["plain"][["iou_merged"]].to_numpy(), two_models["plain"].image_id
    )
    assert row.high - row.low < 0.2 * (high[0] - low[0])
    twins = next(row for pair, row in rows.items() if set(pair) == {"plain", "twin"})
    assert not twins.real
    assert twins.low <= 0 <= twins.high
    assert twins.value >= 0, "the better one stands first"


def test_the_order_of_models_does_not_change_a_difference(two_models):
    forward = metrics.differences(two_models)
    backward = metrics.differences(dict(reversed(two_models.items())))
    columns = ["better", "worse", "metric"]
    forward, backward = (table.set_index(columns).sort_index() for table in (forward, backward))
    ties = forward.value != 0
    pd.testing.assert_frame_equal(forward[ties], backward.loc[forward.index[ties]], atol=1e-6)


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
    low, high = metrics.bootstrap(values, clusters)
    assert (everyone["low"], everyone["high"]) == pytest.approx((low[0], high[0]), abs=1e-6)
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
AT_HAND = {
    "mean box": (0.272, 9.1),
    "whole image": (0.328, 25.1),
    "centred .8": (0.338, 29.3),
    "largest box": (0.425, 36.4),
    "best constant": (0.349, 29.9),
    "best per category": (0.363, 32.3),
}


@pytest.mark.slow
@pytest.mark.parametrize("at_hand", [False, True], ids=["whole split", "pictures at hand"])
def test_references_of_the_real_test_split_are_what_is_known(at_hand, real_data, real_entities):
    phrases, boxes = real_entities.phrases, real_entities.boxes
    if at_hand:
        phrases = phrases[phrases.image_id.isin(entities.image_ids(real_data))]
    asked = phrases[phrases.split == "test"]
    found = {
        name: metrics.evaluate(table, asked, boxes, resamples=2)
        for name, table in references.predictions(phrases, "test").items()
    }
    for name, (mean_iou, accuracy) in (AT_HAND if at_hand else WHOLE).items():
        figures = found[name]["merged"]
        assert figures["mean_iou"]["value"] == pytest.approx(mean_iou, abs=0.002), name
        assert 100 * figures["accuracy_0.5"]["value"] == pytest.approx(accuracy, abs=0.2), name
    if not at_hand:
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
