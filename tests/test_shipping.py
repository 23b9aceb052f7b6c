"""The scripts that make what ships: their losses, choices and files."""

import importlib
from dataclasses import replace

import h5py
import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops, paths, words
from scene_utils.dataset import entities
from scene_utils.features.pixels import squeeze_pictures
from scene_utils.grid import batches
from scene_utils.grid.network import load_grid


@pytest.fixture
def script(monkeypatch):
    """A script of `data/pretrained` as a module."""
    monkeypatch.syspath_prepend(str(paths.PRETRAINED))
    return importlib.import_module


def test_a_thing_is_learned_in_its_middle_by_the_box_it_has(script):
    loss = script("train_instances").things_loss
    things = np.full((1, 3, 4), np.nan, np.float32)
    things[0, 0] = 0, 0, 0.5, 0.5
    things[0, 1] = 0.5, 0.5, 1, 1
    truth = np.tile(things[0, 0], (1, 64, 1))
    truth.reshape(8, 8, 4)[4:, 4:] = things[0, 1]
    # Of 8 x 8 cells the four in the middle of each half of the diagonal.
    middle = np.zeros((8, 8), bool)
    middle[1:3, 1:3] = middle[5:7, 5:7] = True
    sure = np.where(middle, 12.0, -12.0).reshape(1, 64).astype(np.float32)
    score, box = (float(part) for part in loss(sure, truth, things, 8))
    assert score == pytest.approx(0, abs=1e-3)
    assert box == pytest.approx(0, abs=1e-5)
    assert float(loss(-sure, truth, things, 8)[0]) > 5
    assert float(loss(sure, truth * np.float32(0.9), things, 8)[1]) > 0.1
    # What a cell outside the middles answers is no matter.
    elsewhere = truth.copy()
    elsewhere[0, ~middle.ravel()] = 0, 0, 1, 1
    assert float(loss(sure, elsewhere, things, 8)[1]) == pytest.approx(0, abs=1e-5)


def test_as_many_single_things_are_chosen_as_there_are_several_in_a_picture(script, twenty):
    module, mentions = script("train_instances"), twenty.mentions
    things = np.full((len(mentions.rows), module.THINGS, 4), np.nan, np.float32)
    things[:, 0] = mentions.boxes
    several = np.zeros(len(things), bool)
    several[[0, 1, 30]] = True
    things[several, 1] = mentions.boxes[several]
    kept = module.choose(mentions, things, np.random.default_rng(0))
    assert set(np.flatnonzero(several)) < set(kept)
    assert (np.diff(mentions.rows[kept]) >= 0).all()
    for row in np.unique(mentions.rows):
        of_picture = kept[mentions.rows[kept] == row]
        assert several[of_picture].sum() == (several & (mentions.rows == row)).sum()
        assert (~several[of_picture]).sum() == several[of_picture].sum()
    views = list(module.views(mentions, things, twenty.vocabulary))
    assert sum(len(view.tokens) for view in views[: len(views) // 2]) == len(kept)
    for view in views:
        boxes = view.things[np.isfinite(view.things[..., 0])]
        assert ((boxes >= 0) & (boxes <= 1)).all()
        assert (boxes[:, :2] <= boxes[:, 2:]).all()


def test_questions_of_place_are_learned_from_as_single_things(script, twenty):
    module, mentions = script("train_instances"), twenty.mentions
    things = np.full((len(mentions.rows), module.THINGS, 4), np.nan, np.float32)
    things[:, 0] = mentions.boxes
    image_id, row = next(iter(twenty.store.row.items()))
    asked = [
        (image_id, f"the circle on the {side}", 0.1, 0.2, 0.3, 0.4) for side in ("left", "top")
    ]
    asked = pd.DataFrame(asked, columns=["image_id", "phrase", *box_ops.COLUMNS])
    joined, things = module.with_questions(mentions, things, asked, twenty.store, twenty.vocabulary)
    assert (mentions.picture_rows[joined.rows[-2:]] == row).all()
    np.testing.assert_array_equal(things[-2:, 0], joined.boxes[-2:])
    assert np.isnan(things[-2:, 1:]).all()
    # No phrase names several things, so no other is chosen.
    chosen = module.choose(joined, things, np.random.default_rng(0), 2)
    assert set(chosen) == {len(things) - 2, len(things) - 1}
    assert len(module.choose(joined, things, np.random.default_rng(0))) == 0


@pytest.mark.slow
def test_what_the_first_member_sees_is_kept_and_read_again(script, twenty, tmp_path):
    module, mentions = script("train_instances"), twenty.mentions
    things = np.full((len(mentions.rows), module.THINGS, 4), np.nan, np.float32)
    things[:, :2] = mentions.boxes[:, None]
    whole, *_, moved = module.views(mentions, things, twenty.vocabulary)
    pictures = entities.image_folder(twenty.root)
    store = squeeze_pictures(pictures, twenty.store.row, 320, tmp_path / "squeezed")
    module.keep(tmp_path, [whole, moved], store.pictures)
    names = ("map", "seen", "scores", "phrases", "things", "view")
    kept = {name: np.load(tmp_path / f"{name}.npy") for name in names}
    counts = [len(view.tokens) for view in (whole, moved)]
    np.testing.assert_array_equal(kept["view"], np.repeat([0, 1], counts))
    np.testing.assert_array_equal(kept["things"], np.concatenate([whole.things, moved.things]))
    assert kept["map"].shape == (2, 400, 256)
    for name in ("map", "seen", "scores", "phrases"):
        assert np.isfinite(kept[name]).all()
        assert kept[name].min() < kept[name].max()
    # It is not made again.
    made = (tmp_path / "seen.npy").stat().st_mtime_ns
    module.keep(tmp_path, [whole, moved], store.pictures)
    assert (tmp_path / "seen.npy").stat().st_mtime_ns == made


def test_a_table_of_words_grows_and_keeps_what_it_had(script, tmp_path):
    path, table = tmp_path / "text.weights.h5", np.random.default_rng(0).normal(size=(5, 3))
    with h5py.File(path, "w") as file:
        file["layers/words/vars/0"] = table.astype(np.float16)
        file["layers/dense/vars/0"] = np.ones((3, 5), np.float16)
    more = np.ones((2, 3), np.float16)
    script("add_words").lengthen(path, more, 5)
    with h5py.File(path) as file:
        grown = file["layers/words/vars/0"][()]
        assert file["layers/dense/vars/0"].shape == (3, 5)
    np.testing.assert_array_equal(grown, np.concatenate([table.astype(np.float16), more]))


def views_of(script, mentions, vocabulary, table):
    """`train_views.Views` of mentions."""
    module = script("train_views")
    settings = module.GridSettings(pictures_per_step=4, seed=3)
    return module.Views(mentions, settings, vocabulary, table)


def test_pasted_pictures_keep_what_only_one_of_them_shows_and_where(script, twenty):
    views = views_of(script, twenty.mentions, twenty.vocabulary, twenty.embeddings)
    shade = np.arange(len(views.groups), dtype=np.uint8)
    rows = np.argsort(twenty.mentions.picture_rows)
    flat = np.broadcast_to(shade[rows][:, None, None, None], twenty.mentions.pictures.shape)
    views.mentions = replace(twenty.mentions, pictures=flat)
    for seed in range(8):
        shown, pixels, mentions, boxes = views.four(np.random.default_rng(seed), seed)
        assert seed in shown
        assert set(np.unique(pixels)) == set(shown)
        x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2 * len(pixels)
        found = pixels[y.astype(int), x.astype(int), 0]
        np.testing.assert_array_equal(found, twenty.mentions.rows[mentions])
        for number in np.unique(found):
            own = views.last[mentions[found == number]]
            others = views.held[shown[shown != number]].any(axis=0)
            assert not others[own].any()


def test_a_question_of_place_stays_true_in_every_view(script, twenty):
    mentions, vocabulary = twenty.mentions, twenty.vocabulary
    words = [*vocabulary.words, "left", "right", "on", "leftmost", "rightmost", "zebra"]
    vocabulary = type(vocabulary).of(list(dict.fromkeys(words)))
    table = np.ones((len(vocabulary.words), 4), np.float32)
    views = views_of(script, mentions, vocabulary, table)
    sides = {"left": [0.1, 0.4, 0.3, 0.6], "right": [0.6, 0.4, 0.8, 0.6]}
    ids = {row: image_id for image_id, row in twenty.store.row.items()}
    asked = [
        (ids[row], f"the zebra on the {side}", *box)
        for row in mentions.picture_rows
        for side, box in sides.items()
    ]
    asked = pd.DataFrame(asked, columns=["image_id", "phrase", *box_ops.COLUMNS])
    views.ask(asked, twenty.store.row, vocabulary)
    told = 0
    for step in range(12):
        batch = views.batch(step)
        assert ((batch.boxes >= 0) & (batch.boxes <= 1)).all()
        again = views.batch(step)
        np.testing.assert_array_equal(again.tokens, batch.tokens)
        for window, phrases, boxes in zip(batch.windows, batch.tokens, batch.boxes, strict=True):
            top, left, bottom, right = window
            size, corner = np.array([right - left, bottom - top]), np.array([left, top])
            for tokens, box in zip(phrases, boxes, strict=True):
                said = {vocabulary.words[token] for token in tokens}
                if "zebra" not in said:
                    continue
                ends = box.reshape(2, 2) * size + corner
                seen = np.concatenate([ends.min(axis=0), ends.max(axis=0)])
                side = "left" if {"left", "leftmost"} & said else "right"
                if left > right:  # mirrored
                    side = {"left": "right", "right": "left"}[side]
                assert box_ops.iou(seen, np.array(sides[side])) >= 0.59
                told += 1
    assert told > 50


@pytest.mark.slow
def test_a_member_is_trained_on_and_words_that_training_lacks_stay(script, twenty, tmp_path):
    module, member = script("train_views"), paths.PRETRAINED / "grid"
    vocabulary = words.Vocabulary.load(member / "vocabulary.txt")
    folder = entities.image_folder(twenty.root)
    store = squeeze_pictures(folder, twenty.store.row, 320, tmp_path / "squeezed")
    mentions = batches.make_mentions(twenty.phrases, "train", store, vocabulary, 12)
    settings = module.GridSettings(backbone="efficientnet_lite2", pictures_per_step=2)
    settings = replace(settings, policy="mixed_bfloat16", landmarks_shown=False)
    made = load_grid(member, policy="mixed_bfloat16")
    table = made.text.get_layer("words").get_weights()[0]
    views = views_of(script, mentions, vocabulary, table)
    views.settings = settings
    module.SCORED, module.SAVED = 2, 1
    before = pd.read_csv(member / "history.csv")
    module.train(made, tmp_path, before, views, mentions, 2, 16_000)
    assert len(pd.read_csv(tmp_path / "history.csv")) == len(before) + 1
    trained = made.text.get_layer("words").get_weights()[0]
    np.testing.assert_array_equal(trained[16_000:], table[16_000:])
    assert (trained[:16_000] != table[:16_000]).any()
