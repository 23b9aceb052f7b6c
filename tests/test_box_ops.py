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
    first, second = random_boxes(rng, 12), random_boxes(rng, 25)
    table = box_ops.iou(first[:, None], second[None])
    assert (table > 0).mean() == pytest.approx(0.5, abs=0.4), "there should be both kinds of pairs"
    np.testing.assert_array_equal(box_ops.area(first), [len(pixels(box)) for box in first])
    for (i, a), (j, b) in itertools.product(enumerate(first), enumerate(second)):
        both, either = pixels(a) & pixels(b), pixels(a) | pixels(b)
        assert table[i, j] == pytest.approx(len(both) / len(either), abs=1e-12)
        assert box_ops.iou(b, a) == table[i, j]


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
        ([0, 0, 2, 2], [5, 5, 9, 9]),  # apart on both axes: two negative sides, no positive area
        ([1, 1, 1, 1], [1, 1, 1, 1]),  # no area at all
    ],
)
def test_iou_is_zero_where_nothing_is_shared(first, second):
    assert box_ops.iou(np.float32(first), np.float32(second)) == 0


def test_iou_of_small_boxes_far_from_the_origin_keeps_its_digits():
    first = np.float32([[4000.25, 4000.25, 4001.25, 4001.25]])
    iou = box_ops.iou(first, first + np.float32([0.5, 0, 0.5, 0]))
    assert iou == pytest.approx(1 / 3, abs=1e-12)


def test_from_inclusive_keeps_the_counted_pixels():
    # Pixels 3..3 by 5..8, counted from 1 and with both ends: one column of four.
    box = box_ops.from_inclusive([[3, 5, 3, 8]])
    assert box.dtype == np.float32
    assert box.tolist() == [[2, 4, 3, 8]]
    assert box_ops.area(box).tolist() == [4]


def test_relative_and_back_is_the_same_box():
    pixel_boxes = np.float32([[0, 0, 500, 375], [10, 20, 110, 95]])
    width, height = np.array([500, 200]), np.array([375, 100])
    table = pd.DataFrame(pixel_boxes, columns=box_ops.COLUMNS)
    relative = box_ops.relative(table.assign(width=width, height=height))
    np.testing.assert_allclose(relative, [[0, 0, 1, 1], [0.05, 0.2, 0.55, 0.95]], atol=1e-6)
    np.testing.assert_allclose(box_ops.to_pixels(relative, width, height), pixel_boxes, atol=1e-3)
    beyond = box_ops.to_pixels(np.float32([[-0.5, -1, 1.5, 2]]), 40, 30)
    assert beyond.tolist() == [[0, 0, 40, 30]], "it stays in the picture"


@pytest.mark.parametrize("shape", [(3,), (2, 5), (4, 2), ()])
def test_check_names_a_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"^mine: expected .*x_min.*got shape ") as caught:
        box_ops.check(np.ones(shape), "mine")
    assert str(caught.value).endswith(str(shape))


@pytest.mark.parametrize(
    "bad",
    [
        [4, 2, 4, 6],  # no width
        [1, 6, 4, 2],  # no height
        [np.nan, 2, 4, 6],
        [1, 2, np.inf, 6],
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
    pairs = np.array([*itertools.combinations(ticks, 2)])
    every = np.array([*itertools.product(pairs, pairs)])  # (n, axis, end)
    grid = every.transpose(0, 2, 1).reshape(-1, 4)
    scores = box_ops.iou(grid[:, None], relative[None]).mean(axis=1)
    best = box_ops.best_constant(relative)
    assert box_ops.iou(best, relative).mean() >= scores.max()
    assert ((best >= 0) & (best <= 1)).all()
    only = box_ops.best_constant(np.tile(relative[:1], (5, 1)))
    np.testing.assert_allclose(only, relative[0], atol=0.002)


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
