"""The parts of the grid model's network compute what they say."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from scene_utils.features import backbones
from scene_utils.grid import layers, network, ranking


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


def test_what_is_trained_of_the_backbone():
    backbone = backbones.load_backbone("efficientnet_lite0", untrained=True, size=64)
    maps = network.folded_maps(backbone, "float32")
    trained = {variable.path.split("/")[0] for variable in maps.trainable_variables}
    assert any(name.startswith("stage7") for name in trained)
    assert not any(name.startswith(("stem", "stage1", "stage2", "stage3")) for name in trained)
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_sum(part) for part in maps(np.zeros((1, 64, 64, 3))))
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
