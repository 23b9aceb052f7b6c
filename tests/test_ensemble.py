"""Several grid models answering together: how their answers are put together, and their folders."""

import json

import numpy as np
import pytest
import tensorflow as tf

from scene_utils import images, paths
from scene_utils.grid import folders, network, ranking
from scene_utils.grid.ensemble import Ensemble
from scene_utils.models import SHIPPED


@pytest.fixture(scope="module")
def members():
    return network.load_members(SHIPPED["grid"], policy="float32")


@pytest.fixture(scope="module")
def asked(shipped):
    """Pictures, the picture of each phrase, and the phrases' tokens."""
    photos = ["astronaut", "chelsea", "coffee"]
    seen = [images.read_squeezed(paths.PHOTOS / f"{name}.jpg", shipped.size)[0] for name in photos]
    phrases = ["a woman", "the helmet", "a cat", "green eyes", "a cup"]
    tokens = shipped.vocabulary.encode(phrases, shipped.settings["length"])
    return np.stack(seen), np.array([0, 0, 1, 1, 2]), tokens


def test_a_model_beside_itself_answers_as_it_does_alone(members, asked):
    seen, rows, tokens = asked
    each = Ensemble(members[:1]), Ensemble(members[:1] * 2)
    answers = (one.answer(seen[rows], tokens[:, None]) for one in each)
    alone, doubled = ([part.numpy() for part in found] for found in answers)
    assert doubled[0].shape[1] == 2 * alone[0].shape[1]
    answer, same = ranking.ranked_boxes(*alone, 1), ranking.ranked_boxes(*doubled, 1)
    np.testing.assert_array_equal(same[0], answer[0])
    np.testing.assert_allclose(same[1], answer[1], atol=1e-4)


def test_each_member_has_an_equal_part_of_the_probability(members, asked):
    assert len(members) == 2
    seen, _, tokens = asked
    pixels = tf.constant(seen[:1], tf.float32)

    def told(*chosen):
        answering = Ensemble(chosen)
        return answering.ask(answering.see(pixels), tf.constant(tokens[None, :2]))

    both, *apart = told(*members), *(told(member) for member in members)
    for part in ("heat", "weights", "landmark"):
        mean = np.mean([getattr(one, part) for one in apart], axis=0)
        np.testing.assert_allclose(getattr(both, part), mean, atol=1e-5)
    np.testing.assert_allclose(np.sum(both.shares, axis=1), 1, atol=1e-5)
    for phrase in range(2):
        offered = {tuple(box) for box in both.boxes[phrase].numpy()}
        assert {tuple(one.boxes[phrase].numpy()[0]) for one in apart} <= offered
    assert np.isnan(both.logits).all()


def test_what_is_exported_answers_as_what_was_trained(members, shipped, asked):
    """All six parts of an answer by OpenVINO are those of Keras in float32."""
    seen, _, tokens = asked
    answering = Ensemble(
        members, *(network.load_beside(SHIPPED["grid"], members, file) for file in network.BESIDE)
    )
    maps = answering.see(tf.constant(seen[:1], tf.float32))
    expected = answering.ask(maps, tf.constant(tokens[None, :3]))
    exported = shipped.networks["see"](seen[:1].astype(np.float32))
    for one, other in zip(exported, maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    for found, told in zip(shipped.networks["ask"](*exported, tokens[:3]), expected, strict=True):
        np.testing.assert_allclose(found, told, atol=1e-3)


def test_a_member_that_is_not_finished_or_of_another_kind_is_named(tmp_path):
    def write_settings(folder, **settings):
        folder.mkdir(exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings))
        for part in folders.PARTS:
            (folder / f"{part}.weights.h5").touch()

    with pytest.raises(FileNotFoundError, match=r"found no settings\.json"):
        folders.member_folders(tmp_path)
    first = {"members": 2, "size": 320, "seed": 0, "epochs": 36, "fingerprint": "a"}
    write_settings(tmp_path, **first, views=4400)
    with pytest.raises(FileNotFoundError, match=r"member2: expected a finished grid model"):
        folders.member_folders(tmp_path)
    other = first | {"seed": 1, "epochs": 16, "taught_by": [], "fingerprint": "b"}
    write_settings(tmp_path / "member2", **other)
    assert folders.member_folders(tmp_path) == [tmp_path, tmp_path / "member2"]
    write_settings(tmp_path / "member2", **other | {"size": 224})
    with pytest.raises(ValueError, match="expected size 320 as of the first member, got 224"):
        folders.member_folders(tmp_path)
