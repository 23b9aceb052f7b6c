"""The grid model's parts compute what they say: its network, its batches and its losses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from scene_utils import box_ops
from scene_utils.features import backbones
from scene_utils.grid import batches, layers, losses, network, ranking, train
from scene_utils.words import PAD, UNKNOWN, Vocabulary
from tests.makers import random_boxes

SIZE = 128


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet50"])
def test_folding_batch_norms_changes_no_map(name):
    backbone = backbones.load_backbone(name, untrained=True, size=64)
    rng = np.random.default_rng(0)
    for layer in backbone.model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    pixels = rng.uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    plain = backbones.feature_maps(backbone)(pixels)
    folded = network.folded_maps(backbone, "float32")(pixels)
    for one, other in zip(plain, folded, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_the_backbone_is_trained_behind_its_first_map_or_not_at_all():
    backbone = backbones.load_backbone("efficientnet_lite0", untrained=True, size=64)
    design = {"length": 4, "channels": 8, "blocks": 1, "policy": "float32"}
    model = network.build_grid(backbone, np.zeros((3, 8), np.float32), **design)
    (fast, slow), (same, none) = (
        train.fast_and_slow(model, batches.GridSettings(backbone_rate=rate)) for rate in (1e-4, 0)
    )
    assert none == []
    assert [v.path for v in same] == [v.path for v in fast]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype(np.float32)
    maps = model.visual.layers[1](pixels)
    np.testing.assert_array_equal(network.neck(model.visual)(maps), model.visual(pixels))
    stages = {v.path.split("_")[0].split("/")[-1] for v in slow}
    assert stages == {"stage4", "stage5", "stage6", "stage7", "head"}


def test_phrase_convolution_is_product_then_convolution():
    rng = np.random.default_rng(0)
    grid, phrases = rng.normal(size=(2, 3, 3, 5)), rng.normal(size=(2, 4, 6))
    layer = layers.PhraseConvolution(7)
    out = np.asarray(layer([grid.astype(np.float32), phrases.astype(np.float32)]))
    fixed, scaled, gate, gate_bias, shift, shift_bias = (np.asarray(w) for w in layer.weights)
    for picture in range(2):
        for phrase in range(4):
            q = phrases[picture, phrase]
            product = grid[picture] * np.tanh(q @ gate + gate_bias)
            expected = product @ scaled + grid[picture] @ fixed + q @ shift + shift_bias
            np.testing.assert_allclose(out[picture * 4 + phrase], expected, atol=1e-5)


def test_every_cell_is_told_how_it_lies_from_the_place_that_is_found():
    rng = np.random.default_rng(2)
    layer, cells = layers.FromThere(4), 5
    x = rng.normal(size=(2, cells, cells, 3)).astype(np.float32)
    nothing = np.zeros((2, cells, cells), np.float32)
    layer([x, nothing])
    look, there, here, way = given = [rng.normal(size=w.shape) for w in layer.get_weights()]
    given[0] = look * 4000  # so sharp that one cell holds it all
    layer.set_weights(given)
    out, share, looked = (np.asarray(part) for part in layer([x, nothing]))
    np.testing.assert_allclose(share.sum(axis=(1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(looked), share.reshape(2, -1), atol=1e-5)
    centres = (np.arange(cells) + 0.5) / cells
    for number in range(2):
        row, column = np.unravel_index(np.argmax(x[number] @ look), (cells, cells))
        assert share[number, row, column] > 0.99
        for y, z in np.ndindex(cells, cells):
            away = np.array([centres[z] - centres[column], centres[y] - centres[row]])
            # All of the attention is on one cell, so its spread is the least there is.
            parts = np.array([*away, *abs(away), *np.tanh(away / 1e-3), 1e-3])
            told = 4 * parts @ way + x[number, row, column] @ there + x[number, y, z] @ here
            np.testing.assert_allclose(out[number, y, z], told, atol=0.01)


def test_where_words_fit_there_is_looked():
    layer, x = layers.FromThere(4), np.zeros((1, 5, 5, 3), np.float32)
    fits = np.full((1, 5, 5), -9, np.float32)
    fits[0, 3, 1] = 9
    _, share, _ = layer([x, fits])
    assert share[0, 3, 1] > 0.99


def test_left_of_a_place_is_left_of_it_alone():
    layer, share = layers.Beside(), np.zeros((1, 5, 5), np.float32)
    share[0, 2, 2] = 1
    layer([share, np.ones((1, 2), np.float32)])
    # Far to the left, and not much up or down.
    told = np.float32([-25, 0, 0, -10, 0, 0, 0, -1])
    layer.set_weights([np.zeros((2, 8), np.float32), told])
    likely = np.exp(layer([share, np.ones((1, 2), np.float32)])[0]) > 0.5
    assert likely[2, :2].all()
    assert not likely[:, 2:].any()


def test_words_used_alike_are_told_apart_and_rare_ones_share_what_unknown_ones_have(monkeypatch):
    monkeypatch.setattr(network, "FREQUENT", 4)
    same = np.tile(np.random.default_rng(0).normal(size=(1, 8)), (7, 1)).astype(np.float32)
    model = network.build_text(same, 3, depth=8)
    vectors = np.asarray(model(np.int32([[word, 0, 0] for word in (1, 2, 3, 5, 6)]))[0])
    assert np.abs(vectors[1] - vectors[2]).max() > 0.05
    assert np.abs(vectors[0] - vectors[1]).max() > 0.05
    np.testing.assert_allclose(vectors[3], vectors[4], atol=1e-5)
    np.testing.assert_allclose(vectors[3], vectors[0], atol=1e-5)


def test_a_phrase_is_read_twice_and_each_reading_weighs_its_own_words(twenty):
    tokens = twenty.mentions.tokens[:50]
    model = network.build_text(twenty.embeddings, 12, depth=8)
    vectors, weights, keys, gates = map(np.asarray, model(tokens))
    assert vectors.shape == (50, 16)
    assert keys.shape == (50, 12, 9)
    assert not np.allclose(vectors[:, :8], vectors[:, 8:], atol=0.1)
    held = tokens > 0
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    assert not weights[~held].any()
    assert not gates[~held].any()
    assert ((gates[held] > 0) & (gates[held] < 1)).all()
    # Another attention of the second reading leaves the first as it was.
    attention = model.get_layer("attention")
    kernel, bias = attention.get_weights()
    attention.set_weights([kernel + np.float32([0, 3]), bias])
    moved, same, *_ = model(tokens)
    np.testing.assert_array_equal(same, weights)
    np.testing.assert_array_equal(moved[:, :8], vectors[:, :8])
    assert not np.allclose(moved[:, 8:], vectors[:, 8:], atol=0.01)


def test_ranked_boxes_take_the_best_expected_iou_and_then_something_else():
    # Three boxes that nearly agree outweigh the single most probable one.
    place = np.full((1, 36, 4), [0.9, 0.9, 0.95, 0.95], np.float32)
    place[0, 0] = [0, 0, 0.2, 0.2]
    place[0, 1:4] = [[0.5, 0.5, 0.8, 0.8], [0.5, 0.5, 0.8, 0.81], [0.5, 0.5, 0.81, 0.8]]
    share = np.full((1, 36), 1e-6, np.float32)
    share[0, :4] = [0.34, 0.22, 0.22, 0.22]
    found = network.candidates(tf.constant(np.log(share)), tf.constant(place))
    found = [part.numpy() for part in found]
    np.testing.assert_allclose(found[1].sum(), 1, atol=1e-5)
    every, _ = ranking.ranked_boxes(*found, 6)
    found, expected_iou = ranking.ranked_boxes(*found, 2)
    np.testing.assert_allclose(found[0, 0], place[0, 1])
    np.testing.assert_allclose(found[0, 1], place[0, 0])
    assert len(np.unique(every[0, :4], axis=0)) == 4
    assert 0.6 < float(expected_iou[0, 0]) < 0.67
    assert float(expected_iou[0, 1]) == pytest.approx(0.34, abs=1e-3)


# Batches.


def test_boxes_follow_the_pixels_through_crop_and_mirror():
    rng = np.random.default_rng(3)
    marked = np.zeros((12, SIZE, SIZE, 3), np.uint8)
    sides = np.round((random_boxes(12, 4) * 0.5 + 0.25) * SIZE).astype(int)
    sides[:, 2:] = np.maximum(sides[:, 2:], sides[:, :2] + 6)
    for picture, (x0, y0, x1, y1) in zip(marked, sides, strict=True):
        picture[y0:y1, x0:x1] = 255
    truth, every = (sides / SIZE).astype(np.float32), np.arange(12)
    words = [["left", "right"][rng.integers(2)] for _ in range(12)]
    vocabulary = Vocabulary.of([PAD, UNKNOWN, "left", "right"])
    tokens = vocabulary.encode(words, 4)
    landmarks = np.full((12, 2, batches.LANDMARKS, 4), np.nan, np.float32)
    landmarks[:, :, 1] = truth[:, None]
    mentions = batches.Mentions(marked, every, every, tokens, truth, tokens, landmarks)
    settings = batches.GridSettings(size=SIZE, pictures_per_step=12, phrases_per_picture=1)
    mirrored, turned = batches.opposite_tokens(vocabulary), 0
    for epoch in range(6):
        batch = next(batches.epoch_batches(mentions, settings, mirrored, epoch))
        _, pixels, windows, _, seen_tokens, seen_boxes, seen_landmarks, _ = batch
        np.testing.assert_array_equal(seen_landmarks[:, :, 1], seen_boxes)
        assert np.isnan(seen_landmarks[:, :, [0, 2, 3]]).all()
        shown = pixels.astype(np.float32), windows, every, (SIZE, SIZE)
        views = tf.image.crop_and_resize(*shown).numpy()
        for view, box, window, token, source in zip(
            views, seen_boxes[:, 0], windows, seen_tokens[:, 0, 0], pixels, strict=True
        ):
            rows, columns = np.nonzero(view[..., 0] > 127)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box * SIZE, found, atol=2.5)
            number = int(np.flatnonzero([(source == m).all() for m in marked])[0])
            is_mirrored = window[1] > window[3]
            assert (vocabulary.words[token] != words[number]) == is_mirrored
            turned += is_mirrored
    assert 20 < turned < 52


def test_the_second_reading_is_to_look_at_the_anchor():
    phrases = ["the red cup above the big star", "a big red star", "A star", "two men", "a cup's"]
    longer = [*phrases[:3], "two men in jeans", phrases[4]]
    rows, own = np.array([0, 0, 0, 0, 1]), random_boxes(5, 0)
    found = batches.landmark_boxes(rows, phrases, longer, own, 12)
    np.testing.assert_array_equal(found[0, :, 0], own[[1, 1]])  # all that follows its last "the"
    np.testing.assert_array_equal(found[1:, 0, 0], own[1:])
    assert np.isnan(found[:, :, 1:]).all()
    assert np.isnan(found[3, 1]).all()  # nobody says where the jeans are
    # What is cut off is not looked for.
    cut = batches.landmark_boxes(rows, phrases, longer, own, 5)
    assert np.isnan(cut[0]).all()
    # Of a small star nobody speaks, so any star may do.
    small = [phrases[0].replace("big", "small"), *phrases[1:]]
    found = batches.landmark_boxes(rows, small, small, own, 12)
    np.testing.assert_array_equal(found[0, 0, :2], own[1:3])
    # Of two big stars it may be either, but not what is meant itself; of many, nobody knows.
    phrases[2] = longer[2] = "the big star"
    found = batches.landmark_boxes(rows, phrases, longer, own, 12)
    np.testing.assert_array_equal(found[0, 0, :2], own[1:3])
    own[0] = own[2]
    found = batches.landmark_boxes(rows, phrases, longer, own, 12)
    np.testing.assert_array_equal(found[0, 0, 0], own[1])
    assert np.isnan(found[0, 0, 1:]).all()
    many = ["a cup above the star", *["a star"] * (batches.LANDMARKS + 1)]
    found = batches.landmark_boxes(np.zeros(6), many, many, random_boxes(6, 3), 12)
    assert np.isnan(found[0]).all()


def test_a_part_of_phrases_is_read_on_and_an_anchor_out_of_view_not_looked_for():
    count, every = 40, np.arange(40)
    own = np.tile(np.float32([0.45, 0.45, 0.55, 0.55]), (count, 1))
    landmarks = np.full((count, 2, batches.LANDMARKS, 4), np.nan, np.float32)
    landmarks[:, :, :2] = random_boxes(count * 4, 8).reshape(count, 2, 2, 4)
    pictures, tokens = np.zeros((count, 8, 8, 3), np.uint8), every[:, None]
    given = pictures, every, every, tokens + 2, own, tokens + 50, landmarks
    mentions = batches.Mentions(*given)
    settings = batches.GridSettings(
        size=SIZE, pictures_per_step=count, phrases_per_picture=1, lengthened=0.5
    )
    unseen, longer = 0, []
    for epoch in range(4):
        batch = next(batches.epoch_batches(mentions, settings, np.arange(100), epoch))
        for picture, (y0, x0, y1, x1), found, token in zip(
            batch.pictures, batch.windows, batch.landmarks[:, 0], batch.tokens[:, 0, 0], strict=True
        ):
            longer.append(token >= 50)
            assert token in (picture + 2, picture + 50), "a phrase of the picture, or it read on"
            asked = landmarks[picture, int(longer[-1]), :2]
            view = np.array([x0, y0, x0, y0]), np.array([x1 - x0, y1 - y0] * 2)
            seen = np.clip((asked - view[0]) / view[1], 0, 1)
            seen = np.concatenate([seen.reshape(-1, 2, 2).min(1), seen.reshape(-1, 2, 2).max(1)], 1)
            share = box_ops.area(seen) * np.abs((x1 - x0) * (y1 - y0)) / box_ops.area(asked)
            inside, outside = share > 0.601, share < 0.599
            np.testing.assert_allclose(found[:2][inside], seen[inside], atol=1e-5)
            assert np.isnan(found[:2][outside]).all()
            assert np.isnan(found[2:]).all()
            unseen += outside.sum()
    assert 40 < unseen < 240
    assert 0.4 < np.mean(longer) < 0.6


def test_a_batch_says_which_pictures_have_no_phrase_with_the_last_word(twenty):
    mentions, mirrored = twenty.mentions, np.arange(len(twenty.vocabulary.words))
    settings = batches.GridSettings(size=SIZE, pictures_per_step=12, augmented=False)
    batch = next(batches.epoch_batches(mentions, settings, mirrored, 0))
    pair = np.stack([mentions.tokens, mentions.longer])
    used = [set(pair[:, mentions.rows == picture].ravel()) for picture in batch.pictures]
    for own, (phrases, absent) in enumerate(zip(batch.tokens, batch.absent, strict=True)):
        for phrase, missing in zip(phrases, absent, strict=True):
            last = phrase[phrase > 0][-1]
            assert missing.tolist() == [last not in words for words in used]
            assert not missing[own]
    assert batch.absent.any()


# Losses.


def test_loss_falls_to_nothing_for_the_right_box_in_the_right_cell_only():
    cells, truth = 4, tf.constant([[0.26, 0.26, 0.49, 0.49], [0.51, 0.52, 0.53, 0.54]])
    right = tf.tile(truth[:, None], (1, cells**2, 1))
    sure = 50.0 * tf.one_hot([5, 10], cells**2)
    score, box = losses.grid_loss(sure, right, truth, cells)
    assert float(box) == pytest.approx(0, abs=1e-5)
    assert float(score) == pytest.approx(0, abs=1e-5)
    astray, _ = losses.grid_loss(50.0 * tf.one_hot([6, 10], cells**2), right, truth, cells)
    assert float(astray) > 10
    _, wide = losses.grid_loss(sure, tf.tile([[[0.0, 0, 1, 1]]], (2, 16, 1)), truth, cells)
    assert float(wide) > 0.9


def test_contrast_is_lost_where_a_phrase_fits_other_cells_and_pictures_that_lack_its_thing():
    # Two pictures of 2 x 2 cells; each has a phrase whose first word fits what has its channel, and
    # whose second does not count by the first gate.
    keys = np.float32([[[40, 0, -20], [1, 2, 3]], [[0, 40, -20], [3, 2, 1]]])
    gates = np.float32([[[1, 0.5], [0, 1]]] * 2)
    nothing, truth = tf.zeros(()), np.float32([[0, 0, 0.5, 0.5]] * 2)
    answered = network.Answered(*[nothing] * 5, keys, gates, nothing, nothing)
    right = np.zeros((2, 2, 2, 2), np.float32)
    right[[0, 1], 0, 0, [0, 1]] = 1  # each in its first cell alone
    astray, elsewhere = right.copy(), right.copy()
    astray[0, 1, 1, 0] = 1
    elsewhere[1, ..., 0] = 1

    def lost(grid, absent):
        return float(losses.contrast_loss(tf.constant(grid), answered, truth, absent, 2))

    nowhere, lacking = np.zeros((2, 2), bool), np.array([[False, True], [False, False]])
    assert [lost(right, nowhere), lost(right, lacking)] == pytest.approx([0, 0], abs=1e-3)
    assert lost(astray, nowhere) == pytest.approx(np.log(1 + 1 / 4) / 2, abs=1e-3)
    assert lost(elsewhere, nowhere) == pytest.approx(0, abs=1e-3), "nobody says that it lacks it"
    assert lost(elsewhere, lacking) == pytest.approx(np.log(1 + 4 / 4) / 2, abs=1e-3)


def test_looks_are_lost_that_fall_outside_the_boxes_and_places_that_tell_nothing():
    # 2 x 2 cells; the first phrase is to look into the second cell, the last into two others.
    nowhere = [np.nan] * 4
    upper_left, upper_right, lower_left = [0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1]
    landmarks = tf.constant([[upper_right, nowhere], [nowhere, nowhere], [upper_left, lower_left]])
    truth = tf.constant([upper_left, upper_left, [0.0, 0, 1, 0.5]])
    looked, lies = np.full((2, 3, 4), 0.1, np.float32)
    looked[:, 1] = 0.7
    lies[0] = 0.8, 0.2, 0.1, 0.1
    lies[2] = 0.8, 0.4, 0.3, 0.1

    def lost(looked, lies, landmarks):
        answered = network.Answered(*[tf.zeros(())] * 7, tf.math.log(looked), tf.math.log(lies))
        return losses.landmark_loss(answered, truth, landmarks, 2)

    # The mean of its cells over the mean of all.
    first, last = -np.log(0.7) - np.log(0.8 / 0.3), -np.log(0.2) - np.log(0.6 / 0.4)
    for scale in (1, 0.01):
        found = float(lost(looked, scale * lies, landmarks))
        assert found == pytest.approx((first + last) / 2, rel=1e-5)
    given = tf.Variable(looked), tf.Variable(lies)
    with tf.GradientTape(persistent=True) as tape:
        some, nothing = lost(*given, landmarks), lost(*given, tf.fill((3, 2, 4), np.nan))
    assert float(nothing) == 0
    assert not np.any([np.asarray(part) for part in tape.gradient(nothing, given)])
    for part in map(np.asarray, tape.gradient(some, given)):
        assert np.isfinite(part).all()
        assert part[[0, 2]].any(axis=1).all()
        assert not part[1].any()
