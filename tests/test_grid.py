"""The grid model: its parts compute what they say, and it learns to find what a phrase names."""

import json
from dataclasses import replace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from scene_utils import box_ops, box_tensors, images, paths
from scene_utils import words as text
from scene_utils.analysis import metrics
from scene_utils.dataset import entities
from scene_utils.dataset import sample as scenes
from scene_utils.features import backbones
from scene_utils.features import pixels as pictures
from scene_utils.grid import (
    batches,
    layers,
    localizer,
    losses,
    network,
    ranking,
    train,
    train_presence,
    train_sentences,
    trainer,
)

SIZE = 128


@pytest.fixture(scope="module")
def backbone():
    return backbones.load_backbone("efficientnet_lite0", size=SIZE)


def random_boxes(count, seed):
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def test_folding_batch_norm_changes_nothing(backbone):
    photo = images.read_squeezed(paths.PHOTOS / "coffee.jpg", SIZE)[0][None].astype(np.float32)
    plain = backbones.feature_maps(backbone)(photo)
    folded = network.folded_maps(backbone, "float32")(photo)
    for one, other in zip(plain, folded, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-3)


def test_resnet50_folds_the_same_way():
    backbone = backbones.load_backbone("resnet50", untrained=True, size=64)
    rng = np.random.default_rng(0)
    for layer in backbone.model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            scale = [rng.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()]
            layer.set_weights(scale)
    pixels = rng.uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    plain = backbones.feature_maps(backbone)(pixels)
    folded = network.folded_maps(backbone, "float32")(pixels)
    assert [part.shape[-1] for part in folded] == [512, 1024, 2048]
    for one, other in zip(plain, folded, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-3 * np.abs(one).max())


def test_what_is_trained_of_the_backbone(backbone):
    maps = network.folded_maps(backbone, "float32")
    trained = {variable.path.split("/")[0] for variable in maps.trainable_variables}
    assert any(name.startswith("stage7") for name in trained)
    assert not any(name.startswith(("stem", "stage1", "stage2", "stage3")) for name in trained)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(part) for part in maps(np.zeros((1, SIZE, SIZE, 3))))
    assert all(g is not None for g in tape.gradient(loss, maps.trainable_variables))


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
        for y in range(cells):
            for z in range(cells):
                away = np.array([centres[z] - centres[column], centres[y] - centres[row]])
                # All of the attention is on one cell, so its spread is the least there is.
                parts = [*away, *abs(away), *np.tanh(away / 1e-3), 1e-3]
                told = (
                    4 * np.array(parts) @ way
                    + x[number, row, column] @ there
                    + x[number, y, z] @ here
                )
                np.testing.assert_allclose(out[number, y, z], told, atol=0.01)


def test_where_words_fit_there_is_looked():
    layer, x = layers.FromThere(4), np.zeros((1, 5, 5, 3), np.float32)
    fits = np.full((1, 5, 5), -9, np.float32)
    fits[0, 3, 1] = 9
    _, share, _ = layer([x, fits])
    assert share[0, 3, 1] > 0.99


def test_a_cell_fits_the_words_that_count_all_together():
    rng = np.random.default_rng(0)
    b, p, length, depth, cells = 2, 3, 4, 5, 3
    grid = rng.normal(size=(b, cells, cells, depth)).astype(np.float32)
    keys = rng.normal(size=(b, p, length, depth + 1)).astype(np.float32)
    gates = rng.random((b, p, length, 2)).astype(np.float32)
    out = np.asarray(layers.WordsFit()([grid, keys, gates]))
    for picture in range(b):
        for phrase in range(p):
            expected = np.zeros((cells, cells, 2))
            for word in range(length):
                key = keys[picture, phrase, word]
                logit = grid[picture] @ key[:-1] / np.sqrt(depth) + key[-1]
                probability = 1 / (1 + np.exp(-logit))
                expected += np.log(probability)[..., None] * gates[picture, phrase, word]
            np.testing.assert_allclose(out[picture * p + phrase], expected, atol=1e-4)


def test_lying_beside_adds_up_all_places_it_may_be_told_from():
    rng = np.random.default_rng(0)
    n, cells, layer = 3, 4, layers.Beside()
    share = rng.dirichlet(np.ones(cells**2), n).reshape(n, cells, cells).astype(np.float32)
    phrases = rng.normal(size=(n, 6)).astype(np.float32)
    layer([share, phrases])
    kernel, bias = (rng.normal(size=w.shape).astype(np.float32) for w in layer.get_weights())
    layer.set_weights([kernel, bias])
    out = np.asarray(layer([share, phrases]))
    told = 4 * (phrases @ kernel + bias)
    for number in range(n):
        expected = np.zeros((cells, cells))
        for row, column in np.ndindex(cells, cells):
            for y, x in np.ndindex(cells, cells):
                down, right = (y - row) / cells, (x - column) / cells
                way = [right, down, abs(right), abs(down), np.tanh(20 * right), np.tanh(20 * down)]
                way.append(np.exp(-(right**2 + down**2) / 0.02))
                logit = np.dot(way, told[number, :-1]) + told[number, -1] + 1
                expected[y, x] += share[number, row, column] / (1 + np.exp(-logit))
        np.testing.assert_allclose(out[number], np.log(expected + 1e-3), atol=1e-3)


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


def test_a_phrase_is_read_twice_and_each_reading_weighs_its_own_words(sample):
    *_, embeddings, mentions = sample
    model = network.build_text(embeddings, 12, depth=8)
    vectors, weights, keys, gates = model(mentions.tokens[:50])
    assert vectors.shape == (50, 16)
    assert keys.shape == (50, 12, 9)
    assert not np.allclose(vectors[:, :8], vectors[:, 8:], atol=0.1)
    held = mentions.tokens[:50] > 0
    np.testing.assert_allclose(np.sum(weights, axis=1), 1, atol=1e-5)
    assert (np.asarray(weights)[~held] == 0).all()
    assert (np.asarray(gates)[~held] == 0).all()
    assert ((np.asarray(gates)[held] > 0) & (np.asarray(gates)[held] < 1)).all()
    # Another attention of the second reading leaves the first as it was.
    attention = model.get_layer("attention")
    kernel, bias = attention.get_weights()
    attention.set_weights([kernel + np.float32([0, 3]), bias])
    moved, same, *_ = model(mentions.tokens[:50])
    np.testing.assert_array_equal(same, weights)
    np.testing.assert_array_equal(moved[:, :8], vectors[:, :8])
    assert not np.allclose(moved[:, 8:], vectors[:, 8:], atol=0.01)


def test_pair_iou_agrees_with_the_evaluator_and_giou_with_answers_worked_by_hand():
    first, second = random_boxes(300, 0), random_boxes(300, 1)
    iou, giou = box_tensors.iou_and_giou(tf.constant(first), tf.constant(second))
    np.testing.assert_allclose(iou, box_ops.iou(first, second), atol=1e-5)
    assert (giou.numpy() <= iou.numpy() + 1e-6).all()
    # Unit squares with a unit gap: no overlap, union 2, hull 3.
    _, apart = box_tensors.iou_and_giou(
        tf.constant([[0.0, 0, 1, 1]]), tf.constant([[2.0, 0, 3, 1]])
    )
    assert float(apart[0]) == pytest.approx(-1 / 3)


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


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Twenty pictures of the sample as train, val and test at once."""
    root = tmp_path_factory.mktemp("grid") / "scenes"
    scenes.generate(root, train=20, val=0, test=0, progress=False)
    (root / "val.txt").write_text((root / "train.txt").read_text())
    ids = entities.read_ids(root, "train")
    phrases = entities.read_entities(root, dict.fromkeys(ids, "train"), progress=False).phrases
    store = pictures.squeeze_pictures(
        entities.image_folder(root), ids, SIZE, root.parent / "cache", progress=False
    )
    vocabulary, embeddings, _ = text.build_vocabulary(phrases.phrase, text.load_vectors())
    mentions = batches.make_mentions(phrases, "train", store, vocabulary, 12)
    return root, phrases, store, vocabulary, embeddings, mentions


def test_boxes_follow_the_pixels_through_crop_and_mirror(sample):
    *_, _vocabulary, _, _ = sample
    rng = np.random.default_rng(3)
    marked = np.zeros((12, SIZE, SIZE, 3), np.uint8)
    truth = np.clip(random_boxes(12, 4) * 0.5 + 0.25, 0, 1)
    truth = np.round(truth * SIZE) / SIZE
    for number, (x0, y0, x1, y1) in enumerate((truth * SIZE).astype(int)):
        marked[number, y0 : max(y1, y0 + 6), x0 : max(x1, x0 + 6)] = 255
        truth[number, 2:] = max(x1, x0 + 6) / SIZE, max(y1, y0 + 6) / SIZE
    words = [["left", "right"][rng.integers(2)] for _ in range(12)]
    words_vocabulary = text.Vocabulary.of([text.PAD, text.UNKNOWN, "left", "right"])
    tokens = words_vocabulary.encode(words, 4)
    every = np.arange(12)
    truth = truth.astype(np.float32)
    landmarks = np.full((12, 2, batches.LANDMARKS, 4), np.nan, np.float32)
    landmarks[:, :, 1] = truth[:, None]
    mentions = batches.Mentions(marked, every, every, tokens, truth, tokens, landmarks)
    settings = batches.GridSettings(size=SIZE, pictures_per_step=12, phrases_per_picture=1)
    mirrored = batches.opposite_tokens(words_vocabulary)
    turned = 0
    for epoch in range(6):
        batch = next(batches.epoch_batches(mentions, settings, mirrored, epoch))
        _, pixels, windows, _, seen_tokens, seen_boxes, seen_landmarks, _ = batch
        np.testing.assert_array_equal(seen_landmarks[:, :, 1], seen_boxes)
        assert np.isnan(seen_landmarks[:, :, [0, 2, 3]]).all()
        views = tf.image.crop_and_resize(
            pixels.astype(np.float32), windows, np.arange(12), (SIZE, SIZE)
        ).numpy()
        for view, box, window, token, source in zip(
            views, seen_boxes[:, 0], windows, seen_tokens[:, 0, 0], pixels, strict=True
        ):
            rows, columns = np.nonzero(view[..., 0] > 127)
            found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(box * SIZE, found, atol=2.5)
            number = int(np.flatnonzero([(source == m).all() for m in marked])[0])
            is_mirrored = window[1] > window[3]
            said = words_vocabulary.words[token]
            assert (said != words[number]) == is_mirrored
            turned += is_mirrored
    assert 20 < turned < 52


def test_a_part_of_the_phrases_is_read_on_in_a_batch(sample):
    *_, mentions = sample
    settings = batches.GridSettings(size=SIZE, pictures_per_step=20, augmented=False)
    mirrored = np.arange(1000)
    pair = np.stack([mentions.tokens, mentions.longer])
    can = (pair[0] != pair[1]).any(axis=1)
    assert can.any()
    for share in (0.0, 0.3, 1.0):
        longer = []
        for epoch in range(8):
            settings = replace(settings, lengthened=share)
            batch = next(batches.epoch_batches(mentions, settings, mirrored, epoch))
            chosen, tokens, boxes_ = batch.pictures, batch.tokens, batch.boxes
            for picture, asked, truth in zip(chosen, tokens, boxes_, strict=True):
                group = mentions.of_picture()[picture]
                for words, box in zip(asked, truth, strict=True):
                    same = (pair[:, group] == words).all(axis=2)
                    # The box is that of the phrase, whichever way it is read.
                    assert (np.abs(mentions.boxes[group[same.any(axis=0)]] - box) < 1e-6).any()
                    if not (same[0] & ~can[group]).any():
                        longer.append(bool(same[1].any()) and not same[0].any())
        assert abs(np.mean(longer) - share) < 0.08


def test_contrast_compares_a_phrase_with_pictures_that_lack_its_thing():
    # Two pictures of 2 x 2 cells, a phrase of one word each; the word fits cells by hand.
    rng = np.random.default_rng(5)
    grid = rng.normal(size=(2, 2, 2, 3)).astype(np.float32)
    keys = rng.normal(size=(2, 2, 4)).astype(np.float32)
    gates = np.float32([[[0.7, 0.1], [0, 0]], [[0.4, 0.9], [0.2, 0.3]]])
    nothing = tf.zeros(())
    answered = network.Answered(
        *[nothing] * 5, tf.constant(keys), tf.constant(gates), nothing, nothing
    )
    truth = np.float32([[0, 0, 0.5, 0.5], [0, 0, 1, 0.5]])  # the first cell; the upper two

    def expected(absent):
        losses = []
        for phrase in range(2):
            fits = np.zeros((2, 4))
            for word in range(2):
                logits = grid.reshape(2, 4, 3) @ keys[phrase, word, :3] / 3**0.5
                logits = logits + keys[phrase, word, 3]
                fits += gates[phrase, word, 0] * -np.log1p(np.exp(-logits))
            mine = np.arange(4) < (1, 2)[phrase]
            right = np.exp(fits[phrase][mine]).mean()
            wrong = np.exp(fits[phrase][~mine]).sum()
            if absent[phrase, 1 - phrase]:
                wrong += np.exp(fits[1 - phrase]).sum()
            losses.append(-np.log(right / (right + wrong / 4)))
        return np.mean(losses)

    for absent in ([[0, 1], [1, 0]], [[0, 0], [1, 0]], [[1, 0], [0, 1]]):
        absent = np.array(absent, bool)
        found = losses.contrast_loss(tf.constant(grid), answered, truth, absent, 2)
        assert float(found) == pytest.approx(expected(absent), rel=1e-5)


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


def test_an_anchor_out_of_view_is_not_looked_for():
    count, every = 40, np.arange(40)
    own = np.tile(np.float32([0.45, 0.45, 0.55, 0.55]), (count, 1))
    landmarks = np.full((count, 2, batches.LANDMARKS, 4), np.nan, np.float32)
    landmarks[:, :, :2] = random_boxes(count * 4, 8).reshape(count, 2, 2, 4)
    mentions = batches.Mentions(
        np.zeros((count, 8, 8, 3), np.uint8),
        every,
        every,
        every[:, None] + 2,
        own,
        every[:, None] + 50,
        landmarks,
    )
    settings = batches.GridSettings(
        size=SIZE, pictures_per_step=count, phrases_per_picture=1, lengthened=0.5
    )
    unseen = 0
    for epoch in range(4):
        batch = next(batches.epoch_batches(mentions, settings, np.arange(100), epoch))
        for picture, (y0, x0, y1, x1), found, token in zip(
            batch.pictures, batch.windows, batch.landmarks[:, 0], batch.tokens[:, 0, 0], strict=True
        ):
            asked = landmarks[picture, int(token >= 50), :2]
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
    assert float(lost(looked, lies, landmarks)) == pytest.approx((first + last) / 2, rel=1e-5)
    assert float(lost(looked, 0.01 * lies, landmarks)) == pytest.approx(
        (first + last) / 2, rel=1e-5
    )
    given = tf.Variable(looked), tf.Variable(lies)
    with tf.GradientTape(persistent=True) as tape:
        some, nothing = lost(*given, landmarks), lost(*given, tf.fill((3, 2, 4), np.nan))
    assert float(nothing) == 0
    assert not np.any([np.asarray(part) for part in tape.gradient(nothing, given)])
    for part in map(np.asarray, tape.gradient(some, given)):
        assert np.isfinite(part).all()
        assert part[[0, 2]].any(axis=1).all()
        assert not part[1].any()


def test_a_batch_says_which_pictures_have_no_phrase_with_the_last_word(sample):
    *_, vocabulary, _, mentions = sample
    settings = batches.GridSettings(size=SIZE, pictures_per_step=12, augmented=False)
    mirrored = np.arange(len(vocabulary.words))
    batch = next(batches.epoch_batches(mentions, settings, mirrored, 0))
    chosen, tokens, absent = batch.pictures, batch.tokens, batch.absent
    used = [
        set(np.stack([mentions.tokens, mentions.longer])[:, mentions.rows == picture].ravel())
        for picture in chosen
    ]
    for own, phrases in enumerate(tokens):
        for phrase, missing in zip(phrases, absent[own], strict=True):
            last = phrase[phrase > 0][-1]
            assert missing.tolist() == [last not in words for words in used]
            assert not missing[own]
    assert absent.any()


def test_nothing_is_left_to_learn_from_a_teacher_that_answers_the_same():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 16)).astype(np.float32)
    given = random_boxes(80, 1).reshape(5, 16, 4)
    answered = network.Answered(*[None] * 9)._replace(scores=scores, boxes=given)
    shares = tf.nn.softmax(scores)
    assert float(losses.distillation_loss(answered, shares, given)) == pytest.approx(0, abs=1e-5)
    others = tf.nn.softmax(rng.normal(size=(5, 16)).astype(np.float32))
    apart = np.mean(keras.losses.kl_divergence(others, shares))
    loss = float(losses.distillation_loss(answered, others, given))
    assert loss == pytest.approx(apart, rel=1e-4)
    moved = random_boxes(80, 2).reshape(5, 16, 4)
    _, giou = box_tensors.iou_and_giou(tf.constant(given), tf.constant(moved))
    expected = apart + np.mean(np.sum(others * (1 - giou), axis=1))
    assert float(losses.distillation_loss(answered, others, moved)) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.fixture(scope="module")
def trained(sample, tmp_path_factory):
    _root, _phrases, _store, vocabulary, embeddings, mentions = sample
    folder = tmp_path_factory.mktemp("trained")
    settings = batches.GridSettings(
        size=SIZE,
        epochs=80,
        pictures_per_step=10,
        phrases_per_picture=8,
        length=12,
        augmented=False,
        blocks=1,
    )
    made_with = {"untrained": False}
    history = train.train_grid(
        settings, mentions, mentions, embeddings, vocabulary, made_with, folder, progress=False
    )
    return folder, history, settings, made_with


@pytest.mark.slow
def test_it_can_learn_twenty_pictures_by_heart(trained):
    _, history, *_ = trained
    assert history["val_accuracy_0.5"].max() > 0.9


@pytest.mark.slow
def test_a_finished_run_is_returned_and_a_loaded_one_answers_as_it_did(trained, sample):
    folder, history, settings, made_with = trained
    root, phrases, store, vocabulary, embeddings, mentions = sample
    again = train.train_grid(
        settings, mentions, mentions, embeddings, vocabulary, made_with, folder, progress=False
    )
    pd.testing.assert_frame_equal(again, history)
    loaded = localizer.load_grid_localizer(folder)
    table = loaded.predict(phrases, store, ranks=3)
    found = entities.read_entities(root, progress=False)
    result = metrics.evaluate(metrics.check_predictions(table), phrases, found.boxes, 10)
    best = history["val_accuracy_0.5"][history["val_mean_iou"].idxmax()]
    assert result["merged"]["accuracy_0.5"]["value"] == pytest.approx(best, abs=0.01)
    assert table.groupby(entities.MENTION_KEY)["rank"].apply(list).map(tuple).nunique() == 1


@pytest.mark.slow
def test_presence_learns_whose_phrase_it_is_and_turns_scores_into_probabilities(trained, sample):
    folder, _, settings, _ = trained
    root, phrases, store, vocabulary, _, mentions = sample
    before = localizer.load_grid_localizer(folder)
    picture = entities.image_folder(root) / f"{phrases.image_id[0]}.jpg"
    raw = before.ground(picture, phrases.phrase[0])
    assert raw.present is None
    found = train_presence.train_presence(
        folder, settings, vocabulary, mentions, mentions, steps=150, progress=False
    )
    assert found["val_auc"] > 0.8
    again = train_presence.train_presence(
        folder, settings, vocabulary, mentions, mentions, steps=150
    )
    assert again == found
    loaded = localizer.load_grid_localizer(folder)
    answer = loaded.ground(picture, phrases.phrase[0])
    np.testing.assert_allclose(answer.boxes, raw.boxes, atol=0.01)
    assert 0 < answer.present < 1
    assert ((answer.scores > 0) & (answer.scores < 1)).all()
    table = loaded.predict(phrases[phrases.image_id == phrases.image_id[0]], store, ranks=1)
    own = table[table.phrase == phrases.phrase[0]].score.to_numpy()
    np.testing.assert_allclose(own, answer.scores[0], atol=0.02)


@pytest.mark.slow
def test_context_is_trained_beside_a_grid_model_and_read_again(trained, sample):
    folder, *_ = trained
    _root, phrases, store, vocabulary, embeddings, _ = sample
    ids = phrases.image_id.unique()
    halves = phrases.assign(split=np.where(phrases.image_id.isin(ids[::2]), "train", "val"))
    given = folder, halves, vocabulary, embeddings, store
    found = train_sentences.train_context(*given, steps=30, progress=False)
    assert train_sentences.train_context(*given, steps=30, progress=False) == found
    by_weight = {weight: tuple(figures) for weight, *figures in found["val_by_weight"]}
    assert found["weight"] == max(by_weight, key=by_weight.get)
    loaded = localizer.load_grid_localizer(folder)
    assert loaded.context.weight == found["weight"]
    unweighted = replace(loaded, context=replace(loaded.context, weight=0.0))
    alone, nothing_said = (
        model.predict(phrases, store, ranks=3, sentences=sentences)
        for model, sentences in ((loaded, False), (unweighted, True))
    )
    names = list(box_ops.COLUMNS)
    np.testing.assert_allclose(alone[names], nothing_said[names], atol=0.5)
    loud = replace(loaded, context=replace(loaded.context, weight=2.0))
    together = metrics.check_predictions(loud.predict(phrases, store, ranks=3, sentences=True))
    assert len(together) == len(alone)
    assert not np.allclose(together[names], alone[names], atol=0.5)


@pytest.mark.slow
def test_ground_answers_in_pixels_of_the_picture_with_words_and_heat(trained, sample):
    folder, *_ = trained
    root, phrases, *_ = sample
    loaded = localizer.load_grid_localizer(folder)
    row = phrases[(phrases.n_boxes == 1) & phrases.phrase.str.startswith("the")].iloc[0]
    picture = entities.image_folder(root) / f"{row.image_id}.jpg"
    answer, other = loaded.ground(picture, [row.phrase, "zzqx thing"], top_k=4)
    assert answer.boxes.shape == (4, 4)
    assert (answer.boxes[:, 2] <= row.width).all()
    assert (answer.boxes[:, 3] <= row.height).all()
    assert sum(weight for _, weight in answer.words) == pytest.approx(1, abs=1e-4)
    assert [word for word, _ in answer.words] == text.tokenize(row.phrase)
    assert answer.heat.sum() == pytest.approx(1, abs=1e-3)
    assert answer.landmark.shape == answer.heat.shape
    assert answer.landmark.sum() == pytest.approx(1, abs=1e-3)
    assert other.unknown == ("zzqx", "thing")
    alone = loaded.ground(picture, row.phrase, top_k=1)
    np.testing.assert_allclose(alone.boxes[0], answer.boxes[0], atol=1)


@pytest.mark.slow
def test_a_stopped_run_goes_on_from_its_last_saved_step(sample, tmp_path, monkeypatch):
    _root, _phrases, _store, vocabulary, embeddings, mentions = sample
    settings = batches.GridSettings(
        size=64, epochs=3, pictures_per_step=10, length=12, blocks=1, policy="float32"
    )
    small = replace(mentions, pictures=mentions.pictures[:, ::2, ::2])
    made_with = {"untrained": True}

    def run(folder):
        return train.train_grid(
            settings, small, small, embeddings, vocabulary, made_with, folder, progress=False
        ).drop(columns="seconds")

    whole = run(tmp_path / "whole")
    validate, calls = train._val_row, []

    def stop_in_the_third_epoch(*given):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(*given)

    monkeypatch.setattr(train, "_val_row", stop_in_the_third_epoch)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / "state.json").read_text())["step"] == 4
    monkeypatch.setattr(train, "_val_row", validate)
    with pytest.raises(FileNotFoundError, match="finished grid model"):
        localizer.load_grid_localizer(tmp_path / "stopped")
    resumed = run(tmp_path / "stopped")
    pd.testing.assert_frame_equal(resumed.iloc[:2], whole.iloc[:2])
    np.testing.assert_allclose(resumed.iloc[2], whole.iloc[2], rtol=0.1)


@pytest.mark.slow
def test_a_model_that_another_teaches_answers_more_like_it(trained, sample, backbone):
    folder, *_ = trained
    *_, vocabulary, embeddings, mentions = sample
    settings = batches.GridSettings(
        size=64, pictures_per_step=4, blocks=1, anchored=False, augmented=False
    )
    # The boxes are wrong ones, so that nobody but the teacher can tell its answers.
    wrong = replace(mentions, boxes=random_boxes(len(mentions.boxes), 4))
    mirrored = batches.opposite_tokens(vocabulary)
    batch = next(batches.epoch_batches(wrong, settings, mirrored, 0))
    keras.utils.set_random_seed(0)
    model = network.build_grid(backbone, embeddings, blocks=1)
    teacher = network.load_grid(folder)
    seen = trainer.seen_at(64, *map(tf.constant, batch[1:4]))
    told = teacher.ask(teacher.visual(seen), tf.constant(batch.tokens))

    def apart():
        answered = model.ask(model.visual(seen), tf.constant(batch.tokens))
        return float(losses.distillation_loss(answered, tf.nn.softmax(told.scores), told.boxes))

    training = trainer.Trainer(model, settings, 40, [teacher])
    before = apart()
    for _ in range(40):
        training.step(64, *map(tf.constant, batch[1:]))
    assert apart() < 0.8 * before


def test_teachers_are_as_many_as_asked_for_finished_and_of_the_same_words(sample, tmp_path):
    *_, vocabulary, embeddings, mentions = sample
    settings = batches.GridSettings(teachers=1)
    backbone = backbones.load_backbone("efficientnet_lite0", untrained=True, size=64)

    def described(*teachers):
        given = (mentions, mentions), embeddings, vocabulary, {}, backbone, teachers
        return train.described_run(settings, *given)

    with pytest.raises(ValueError, match="expected 1 folders, got 0"):
        described()
    with pytest.raises(FileNotFoundError, match="expected a finished grid model as a teacher"):
        described(tmp_path)
    kept = {"epochs": 36, "seed": 4, "fingerprint": "abcdef0123"}
    (tmp_path / "settings.json").write_text(json.dumps(kept))
    (tmp_path / "vocabulary.txt").write_text("<pad>\n<unk>\nb\n")
    with pytest.raises(ValueError, match="expected a teacher of the same vocabulary"):
        described(tmp_path)
    vocabulary.save(tmp_path / "vocabulary.txt")
    assert described(tmp_path)["taught_by"] == ["36 epochs, seed 4, abcdef01"]


@pytest.mark.slow
def test_members_are_trained_apart_and_loaded_together(sample, tmp_path):
    root, phrases, _store, vocabulary, embeddings, mentions = sample
    small = replace(mentions, pictures=mentions.pictures[:, ::2, ::2])
    settings = batches.GridSettings(
        size=64, epochs=1, pictures_per_step=10, blocks=1, policy="float32", members=2, seed=3
    )
    given = small, small, embeddings, vocabulary, {"untrained": True}
    folder = tmp_path / "grid"

    def run():
        return train.train_members(settings, *given, folder=folder, progress=False)

    histories = run()
    for again, before in zip(run(), histories, strict=True):
        pd.testing.assert_frame_equal(again, before)
    written = [folder / "settings.json", folder / "member2" / "settings.json"]
    seeds = [json.loads(path.read_text())["seed"] for path in written]
    assert seeds == [3, 4]
    weights = [(path.parent / "text.weights.h5").read_bytes() for path in written]
    assert weights[0] != weights[1]
    train_presence.train_presence(
        folder, settings, vocabulary, small, small, steps=5, progress=False
    )
    loaded = localizer.load_grid_localizer(folder)
    picture = entities.image_folder(root) / f"{phrases.image_id[0]}.jpg"
    answer = loaded.ground(picture, phrases.phrase[0])
    assert 0 < answer.present < 1
    assert answer.heat.sum() == pytest.approx(1, abs=1e-3)
