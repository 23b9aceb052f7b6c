"""The scripts that make what ships: their losses, choices and files."""

import importlib

import h5py
import numpy as np
import pytest

from scene_utils import paths
from scene_utils.dataset import entities
from scene_utils.features.pixels import squeeze_pictures


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
