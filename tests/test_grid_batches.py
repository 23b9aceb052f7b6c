"""What the grid model is trained on, and what it loses: batches of random views, and losses."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

from scene_utils import box_ops, box_tensors
from scene_utils.features import backbones
from scene_utils.grid import batches, losses, network, train
from scene_utils.words import PAD, UNKNOWN, Vocabulary
from tests.makers import random_boxes

SIZE = 128


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
            assert (vocabulary.words[token] != words[number]) == is_mirrored
            turned += is_mirrored
    assert 20 < turned < 52


def test_a_part_of_the_phrases_is_read_on_in_a_batch(twenty):
    mentions, mirrored = twenty.mentions, np.arange(1000)
    settings = batches.GridSettings(size=SIZE, pictures_per_step=20, augmented=False)
    pair = np.stack([mentions.tokens, mentions.longer])
    can = (pair[0] != pair[1]).any(axis=1)
    assert can.any()
    for share in (0.0, 0.3, 1.0):
        longer = []
        for epoch in range(8):
            settings = replace(settings, lengthened=share)
            batch = next(batches.epoch_batches(mentions, settings, mirrored, epoch))
            for picture, asked, truth in zip(
                batch.pictures, batch.tokens, batch.boxes, strict=True
            ):
                group = mentions.of_picture()[picture]
                for words, box in zip(asked, truth, strict=True):
                    same = (pair[:, group] == words).all(axis=2)
                    # The box is that of the phrase, whichever way it is read.
                    assert (np.abs(mentions.boxes[group[same.any(axis=0)]] - box) < 1e-6).any()
                    if not (same[0] & ~can[group]).any():
                        longer.append(bool(same[1].any()) and not same[0].any())
        assert abs(np.mean(longer) - share) < 0.08


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
    pictures, tokens = np.zeros((count, 8, 8, 3), np.uint8), every[:, None]
    given = pictures, every, every, tokens + 2, own, tokens + 50, landmarks
    mentions = batches.Mentions(*given)
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


def test_teachers_are_as_many_as_asked_for_finished_and_of_the_same_words(twenty, tmp_path):
    settings, sets = batches.GridSettings(teachers=1), (twenty.mentions, twenty.mentions)
    backbone = backbones.load_backbone("efficientnet_lite0", untrained=True, size=64)

    def described(*teachers):
        given = settings, sets, twenty.embeddings, twenty.vocabulary, {}, backbone
        return train.described_run(*given, teachers)

    with pytest.raises(ValueError, match="expected 1 folders, got 0"):
        described()
    with pytest.raises(FileNotFoundError, match="expected a finished grid model as a teacher"):
        described(tmp_path)
    kept = {"epochs": 36, "seed": 4, "fingerprint": "abcdef0123"}
    (tmp_path / "settings.json").write_text(json.dumps(kept))
    (tmp_path / "vocabulary.txt").write_text("<pad>\n<unk>\nb\n")
    with pytest.raises(ValueError, match="expected a teacher of the same vocabulary"):
        described(tmp_path)
    twenty.vocabulary.save(tmp_path / "vocabulary.txt")
    assert described(tmp_path)["taught_by"] == ["36 epochs, seed 4, abcdef01"]


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


def test_nothing_is_left_to_learn_from_a_teacher_that_answers_the_same():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(5, 16)).astype(np.float32)
    given = random_boxes(80, 1).reshape(5, 16, 4)
    answered = network.Answered(*[None] * 9)._replace(scores=scores, boxes=given)
    shares = tf.nn.softmax(scores)
    assert float(losses.distillation_loss(answered, shares, given)) == pytest.approx(0, abs=1e-5)
    others = tf.nn.softmax(rng.normal(size=(5, 16)).astype(np.float32))
    apart = np.mean(keras.losses.kl_divergence(others, shares))
    assert float(losses.distillation_loss(answered, others, given)) == pytest.approx(
        apart, rel=1e-4
    )
    moved = random_boxes(80, 2).reshape(5, 16, 4)
    _, giou = box_tensors.iou_and_giou(tf.constant(given), tf.constant(moved))
    expected = apart + np.mean(np.sum(others * (1 - giou), axis=1))
    assert float(losses.distillation_loss(answered, others, moved)) == pytest.approx(
        expected, rel=1e-4
    )
