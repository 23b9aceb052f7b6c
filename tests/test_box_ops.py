"""Boxes: areas against counted pixels, conversions, and what is refused."""

import itertools

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops


def random_boxes(rng, n, top=20):
    low = rng.integers(0, top - 1, (n, 2))
    high = rng.integers(low + 1, top + 1)
    return np.concatenate([low, high], axis=1).astype(np.float32)


def pixels(box):
    x_min, y_min, x_max, y_max = map(int, box)
    return set(itertools.product(range(x_min, x_max), range(y_min, y_max)))


@pytest.fixture
def rng():
    return np.random.default_rng(5)


def test_area_and_iou_equal_counted_pixels(rng):
    first, second = random_boxes(rng, 300), random_boxes(rng, 300)
    overlapping = 0
    for a, b, area, iou in zip(
        first, second, box_ops.area(first), box_ops.iou(first, second), strict=True
    ):
        both, either = pixels(a) & pixels(b), pixels(a) | pixels(b)
        overlapping += bool(both)
        assert area == len(pixels(a))
        assert iou == pytest.approx(len(both) / len(either), abs=1e-12)
    assert 50 < overlapping < 290, "the draw should hold both kinds of pairs"


def test_iou_of_all_against_all_is_that_of_each_pair(rng):
    first, second = random_boxes(rng, 4), random_boxes(rng, 6)
    table = box_ops.iou(first[:, None], second[None])
    assert table.shape == (4, 6)
    for i, j in itertools.product(range(4), range(6)):
        assert table[i, j] == box_ops.iou(first[i], second[j])


def test_iou_is_symmetric_and_one_on_itself(rng):
    first, second = random_boxes(rng, 200), random_boxes(rng, 200)
    np.testing.assert_array_equal(box_ops.iou(first, second), box_ops.iou(second, first))
    np.testing.assert_array_equal(box_ops.iou(first, first), 1)


def test_iou_ignores_shift_scale_per_axis_and_mirroring(rng):
    first, second = random_boxes(rng, 200), random_boxes(rng, 200)
    expected = box_ops.iou(first, second)
    scale = np.float32([3, 0.5, 3, 0.5])
    np.testing.assert_allclose(box_ops.iou(first + 7, second + 7), expected, atol=1e-9)
    np.testing.assert_allclose(box_ops.iou(first * scale, second * scale), expected, atol=1e-9)
    mirrored = [box[:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [20, 0, 20, 0] for box in (first, second)]
    np.testing.assert_allclose(box_ops.iou(*mirrored), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0, 0, 2, 2], [2, 0, 4, 2]),  # they share a side
        ([0, 0, 2, 2], [2, 2, 4, 4]),  # a corner
        ([0, 0, 2, 2], [5, 5, 9, 9]),  # apart on both axes: two negative sides, no positive area
        ([0, 0, 2, 2], [0, 5, 2, 9]),
        ([1, 1, 1, 1], [1, 1, 1, 1]),  # no area at all
    ],
)
def test_iou_is_zero_where_nothing_is_shared(first, second):
    assert box_ops.iou(np.float32(first), np.float32(second)) == 0


def test_iou_of_small_boxes_far_from_the_origin_keeps_its_digits():
    first = np.float32([[4000.25, 4000.25, 4001.25, 4001.25]])
    assert box_ops.iou(first, first + np.float32([0.5, 0, 0.5, 0])) == pytest.approx(
        1 / 3, abs=1e-12
    )


def test_merge_is_the_smallest_box_around_each_run(rng):
    parts = [random_boxes(rng, n) for n in (1, 3, 1, 5, 2)]
    starts = np.cumsum([0, 1, 3, 1, 5])
    merged = box_ops.merge(np.concatenate(parts), starts)
    assert merged.shape == (5, 4)
    for part, box in zip(parts, merged, strict=True):
        covered = set().union(*map(pixels, part))
        assert box.tolist() == [
            min(x for x, _ in covered),
            min(y for _, y in covered),
            max(x for x, _ in covered) + 1,
            max(y for _, y in covered) + 1,
        ]


def test_merge_of_no_runs_is_empty():
    assert box_ops.merge(np.zeros((0, 4), np.float32), np.zeros(0, int)).shape == (0, 4)


def test_from_inclusive_keeps_the_counted_pixels():
    # Pixels 3..3 by 5..8, counted from 1 and with both ends: one column of four.
    box = box_ops.from_inclusive([[3, 5, 3, 8]])
    assert box.dtype == np.float32
    assert box.tolist() == [[2, 4, 3, 8]]
    assert box_ops.area(box).tolist() == [4]


def test_relative_and_back_is_the_same_box():
    pixel_boxes = np.float32([[0, 0, 500, 375], [10, 20, 110, 95]])
    width, height = np.array([500, 200]), np.array([375, 100])
    relative = box_ops.to_relative(pixel_boxes, width, height)
    np.testing.assert_allclose(relative, [[0, 0, 1, 1], [0.05, 0.2, 0.55, 0.95]], atol=1e-6)
    np.testing.assert_allclose(box_ops.to_pixels(relative, width, height), pixel_boxes, atol=1e-3)
    one = box_ops.to_relative(pixel_boxes[:1], 1000, 750)
    np.testing.assert_allclose(one, [[0, 0, 0.5, 0.5]], atol=1e-6)


def test_to_pixels_stays_in_the_image():
    assert box_ops.to_pixels(np.float32([[-0.5, -1, 1.5, 2]]), 40, 30).tolist() == [[0, 0, 40, 30]]


def test_check_gives_back_what_is_a_box():
    checked = box_ops.check([[[1, 2, 4, 6]]])
    assert checked.dtype == np.float32
    assert checked.tolist() == [[[1, 2, 4, 6]]]
    assert box_ops.check(np.zeros((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 2), ()])
def test_check_names_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"^mine: expected .*x_min.*got shape ") as caught:
        box_ops.check(np.ones(shape), "mine")
    assert str(caught.value).endswith(str(shape))


@pytest.mark.parametrize(
    "bad",
    [
        [4, 2, 4, 6],  # no width
        [1, 6, 4, 6],  # no height
        [4, 2, 1, 6],
        [1, 6, 4, 2],
        [np.nan, 2, 4, 6],
        [1, 2, np.inf, 6],
        [-np.inf, 2, 4, 6],
    ],
)
def test_check_shows_the_first_offender(bad):
    good = [1, 2, 4, 6]
    with pytest.raises(ValueError, match=r"^mine: expected finite") as caught:
        box_ops.check([good, good, bad, good, bad], "mine")
    assert f"got {np.float32(bad).tolist()} in row 2 (2 such rows of 5)" in str(caught.value)


def test_best_constant_beats_a_grid_of_boxes(rng):
    low = rng.uniform(0, 0.6, (300, 2))
    relative = np.concatenate([low, low + rng.uniform(0.05, 0.4, (300, 2))], axis=1)
    ticks = np.linspace(0, 1, 11)
    grid = np.array(
        [
            (x_min, y_min, x_max, y_max)
            for x_min, x_max in itertools.combinations(ticks, 2)
            for y_min, y_max in itertools.combinations(ticks, 2)
        ]
    )
    scores = box_ops.iou(grid[:, None], relative[None]).mean(axis=1)
    assert scores.max() > box_ops.iou(np.float32([0.1, 0.1, 0.9, 0.9]), relative).mean() + 0.02
    best = box_ops.best_constant(relative)
    assert box_ops.iou(best, relative).mean() >= scores.max()
    assert (best >= 0).all()
    assert (best <= 1).all()


def test_best_constant_finds_the_only_box():
    only = np.float32([0.25, 0.4, 0.75, 0.9])
    np.testing.assert_allclose(box_ops.best_constant(np.tile(only, (5, 1))), only, atol=0.002)


def test_coverage_adds_up_to_the_boxes_area():
    share = box_ops.coverage(np.float32([[0, 0, 0.5, 0.5], [0, 0, 1, 0.2]]), cells=10)
    assert share.shape == (10, 10)
    assert share[0, 0] == 1
    assert share[0, 9] == share[4, 0] == 0.5, "rows run down, columns across"
    assert share.mean() == pytest.approx((0.25 + 0.2) / 2)


def test_a_centre_on_the_excluded_side_is_outside():
    truth = np.float32([[0, 0, 4, 4]] * 3)
    guess = np.float32([[0, 0, 2, 8], [3, 3, 5, 4], [-1, -1, 1, 1]])
    assert box_ops.holds_centre(truth, guess).tolist() == [False, False, True]


def test_relative_takes_each_rows_own_picture():
    table = pd.DataFrame([[10, 20, 110, 95]] * 2, columns=box_ops.COLUMNS)
    found = box_ops.relative(table.assign(width=[200, 400], height=[100, 200]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [0.05, 0.2, 0.55, 0.95])
    np.testing.assert_allclose(found[1], found[0] / 2)
