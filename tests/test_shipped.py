"""The grid model that ships, as a user meets it: in Python and on the command line."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import scene_utils
from scene_utils import box_ops, grounding, images, paths
from scene_utils.grid import ranking
from tests.makers import command

THINGS = ["woman", "astronaut", "helmet", "suit", "flag", "rocket", "smile", "hand", "badge"]


def test_it_finds_what_people_would_ask_for_in_photos_it_never_saw(shipped):
    ious = {}
    for row in pd.read_csv(paths.PHOTOS / "phrases.csv").itertuples():
        answer = shipped.ground(paths.PHOTOS / f"{row.photo}.jpg", row.phrase, top_k=1)
        truth = np.float32([row.x_min, row.y_min, row.x_max, row.y_max])
        ious[row.photo, row.phrase] = float(box_ops.iou(answer.boxes[0], truth))
    assert ious["astronaut", "a woman"] > 0.5
    assert ious["camera", "a man"] > 0.5
    assert ious["chelsea", "a cat"] > 0.7
    # Different phrases of one picture get different boxes: it reads.
    suit = shipped.ground(paths.PHOTOS / "astronaut.jpg", ["the helmet", "a woman"], top_k=1)
    assert box_ops.iou(suit[0].boxes[0], suit[1].boxes[0]) < 0.7


def test_a_picture_in_memory_and_a_large_copy_give_the_same_place(shipped):
    path = paths.PHOTOS / "chelsea.jpg"
    image = Image.open(path)
    answers = [shipped.ground(way, "a cat", top_k=3).boxes for way in (path, image)]
    np.testing.assert_array_equal(*answers)
    large = image.resize((image.width * 3, image.height * 3), Image.Resampling.BICUBIC)
    small, big = (shipped.ground(way, "a cat", top_k=1).boxes[0] for way in (image, large))
    assert box_ops.iou(small * 3, big) > 0.9


def test_many_phrases_are_answered_as_each_is_alone(shipped):
    """Asked sixteen at a time, each different one once."""
    photo = images.open_image(paths.PHOTOS / "astronaut.jpg")
    seen = images.squeeze(photo, shipped.size)[None]
    phrases = [f"{article} {thing}" for article in ("a", "the") for thing in THINGS] + ["a flag"]
    boxes, present = shipped.look(phrases, seen, np.zeros(len(phrases), int))
    for phrase, box, there in list(zip(phrases, boxes, present, strict=True))[::4]:
        alone = shipped.ground(photo, phrase, top_k=1, closer=False)
        np.testing.assert_allclose(box_ops.to_pixels(box, *photo.size), alone.boxes[0], atol=0.1)
        assert there == pytest.approx(alone.present, abs=1e-3)


def test_ground_on_the_command_line(tmp_path):
    saved = tmp_path / "out.png"
    photo = paths.PHOTOS / "astronaut.jpg"
    answer = command("ground", photo, "a womman wearing", "--json", "--top-k", 2, "--save", saved)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["unknown"] == ["womman"]
    assert 1 <= len(found["boxes"]) <= 2  # the second may be a copy of the first
    assert found["unread"] == []
    assert 0 < found["present"] < 1
    assert set(found["words"]) == {"a", "womman", "wearing"}
    before, after = Image.open(photo), Image.open(saved)
    assert after.size == before.size
    rows, columns = np.nonzero((np.asarray(after) != np.asarray(before)).any(axis=2))
    corner = [found["boxes"][0][side] for side in ("x_min", "y_min")]
    np.testing.assert_allclose([columns.min(), rows.min()], corner, atol=3)


def test_phrases_of_a_sentence_are_asked_together(shipped):
    photo, phrases = paths.PHOTOS / "astronaut.jpg", ["a woman", "an American flag"]
    sentence = "a woman in front of an American flag"
    apart = shipped.ground(photo, phrases, top_k=3)
    together = shipped.ground(photo, phrases, top_k=3, sentence=sentence)
    for one, other in zip(apart, together, strict=True):
        assert one.boxes.shape == other.boxes.shape
        assert ((other.scores > 0) & (other.scores < 1)).all()
        np.testing.assert_array_equal(one.heat, other.heat)
    scores = [[one.scores[0] for one in answers] for answers in (apart, together)]
    assert not np.allclose(*scores, atol=1e-4)
    turned = shipped.ground(photo, phrases[::-1], top_k=3, sentence=sentence)
    np.testing.assert_allclose(turned[1].boxes, together[0].boxes, atol=1)
    with pytest.raises(ValueError, match="expected to find 'a dog' in it"):
        shipped.ground(photo, ["a dog"], sentence=sentence)


def test_a_sentence_on_the_command_line(tmp_path):
    saved = tmp_path / "out.png"
    text = "[a woman] in front of [an American flag]"
    answer = command("ground", paths.PHOTOS / "astronaut.jpg", text, "--top-k", 1, "--save", saved)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert [lines[0], lines[2]] == ["a woman", "an American flag"]
    assert [line[:2] for line in lines[1::2]] == ["1 "] * 2
    assert saved.is_file()


def test_what_is_no_picture_is_refused_in_one_line(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"not a picture")
    answer = command("ground", tmp_path / "photo.jpg", "a woman")
    assert answer.returncode == 1
    assert "photo.jpg: expected a whole picture" in answer.stderr
    assert "Traceback" not in answer.stderr


@pytest.mark.parametrize("name", ["grid", "source"])
def test_phrases_without_words_are_refused_and_none_gives_none(name):
    model, photo = scene_utils.load_model(name), paths.PHOTOS / "coffee.jpg"
    assert model.ground(photo, []) == []
    for phrases in ("", "   ", "?!", ["a cup", "?!"]):
        with pytest.raises(ValueError, match="expected words that name a thing"):
            model.ground(photo, phrases)
    answer = command("ground", photo, "?!", "--model", name)
    assert answer.returncode == 1
    assert "error: phrase 1 of 1: expected words that name a thing" in answer.stderr


@pytest.mark.parametrize("name", ["grid", "source"])
@pytest.mark.parametrize("top_k", [0, 31])
def test_both_models_refuse_the_same_numbers_of_boxes(name, top_k):
    with pytest.raises(ValueError, match=f"top_k: expected 1 to 30, got {top_k}"):
        scene_utils.load_model(name).ground(paths.PHOTOS / "coffee.jpg", "a cup", top_k)


def test_the_source_system_that_ships_answers_in_python_and_on_the_command_line():
    photo = paths.PHOTOS / "astronaut.jpg"
    source = scene_utils.load_model("source")
    assert grounding.label(source.settings, "source") == "source (EfficientNet-Lite0, GloVe 50)"
    one, other = source.ground(photo, ["a woman", "an American flag"], top_k=5)
    assert one.boxes.shape == other.boxes.shape == (1, 4)
    assert (one.boxes != other.boxes).any()
    assert (one.scores, one.present, one.heat) == (None, None, None)
    answer = command("ground", photo, "a woman", "--model", "source", "--json")
    assert answer.returncode == 0, answer.stderr
    box = json.loads(answer.stdout)["boxes"][0]
    np.testing.assert_allclose(list(box.values()), one.boxes[0], atol=0.06)
    wrong = command("ground", photo, "a woman", "--model", "nowhere")
    assert wrong.returncode == 1
    assert "expected grid or source, or a folder of a finished training" in wrong.stderr


def test_top_boxes_are_no_copies_and_words_behind_the_twelfth_are_named(shipped):
    phrase = "the woman who wears an orange suit and stands in front of a flag and smiles"
    answer = shipped.ground(paths.PHOTOS / "astronaut.jpg", phrase, top_k=10)
    apart = box_ops.iou(answer.boxes[:, None], answer.boxes[None])
    assert (apart[np.triu_indices(len(apart), 1)] <= 0.8).all()
    assert len(answer.boxes) == len(answer.scores) > 1
    assert answer.unread == ("a", "flag", "and", "smiles")
    with pytest.raises(ValueError, match="expected 1 to 30, got 31"):
        shipped.ground(paths.PHOTOS / "astronaut.jpg", phrase, top_k=31)
    assert shipped.ground(paths.PHOTOS / "astronaut.jpg", "a woman").unread == ()


def test_a_small_thing_in_a_photo_of_many_pixels_gets_a_second_look(shipped):
    photo = images.open_image(paths.PHOTOS / "rocket.jpg")
    drawn = pd.read_csv(paths.PHOTOS / "boxes.csv").set_index(["photo", "phrase"])
    truth = drawn.loc[("rocket", "a rocket"), box_ops.COLUMNS].to_numpy(np.float32)
    once, twice = (shipped.ground(photo, "a rocket", closer=closer) for closer in (False, True))
    first, second = (box_ops.iou(answer.boxes[0], truth) for answer in (once, twice))
    assert first < 0.5 < second
    assert (np.diff(twice.scores) <= 0).all()
    # It is the answer to the part of the photo round the first one.
    part = box_ops.to_pixels(ranking.around(once.boxes[0] / np.tile(photo.size, 2)), *photo.size)
    part = part.round()
    alone = shipped.ground(photo.crop(part.tolist()), "a rocket", closer=False)
    np.testing.assert_allclose(twice.boxes[0], alone.boxes[0] + np.tile(part[:2], 2), atol=0.01)
    assert twice.scores[0] == pytest.approx(alone.scores[0])
    # What is large, or in a small photo, is answered at once.
    for picture, phrase in ((photo, "the sky"), (photo.resize((500, 334)), "a rocket")):
        one, other = (shipped.ground(picture, phrase, closer=closer) for closer in (False, True))
        np.testing.assert_array_equal(one.boxes, other.boxes)


def test_words_that_training_never_had_are_read_and_named(shipped):
    answer = shipped.ground(paths.PHOTOS / "gamepad.jpg", ["an oboe", "an avocado", "a zxqv"])
    said = [(one.unknown, one.rare) for one in answer]
    assert said == [((), ("oboe",)), ((), ("avocado",)), (("zxqv",), ())]
    assert answer[0].heat.tolist() != answer[1].heat.tolist()


def test_each_thing_is_answered_once_with_its_own_score(shipped):
    photo = paths.PHOTOS / "horses.jpg"
    drawn = pd.read_csv(paths.PHOTOS / "boxes.csv").set_index(["photo", "phrase"])
    horses = np.float32(json.loads(drawn.loc[("horses", "the horses"), "instances"]))
    answer = shipped.ground(photo, "the horses", top_k=10, instances=True)
    apart = box_ops.iou(answer.boxes[:, None], answer.boxes[None])
    assert (apart[np.triu_indices(len(apart), 1)] <= 0.5 + 1e-4).all()
    found = box_ops.iou(answer.boxes[:, None], horses[None]) >= 0.5
    assert found.any(axis=0).sum() >= 2
    assert (np.diff(answer.scores) <= 0).all()
    assert ((answer.scores > 0) & (answer.scores < 1)).all()
    assert len(shipped.ground(photo, "the horses", top_k=1, instances=True).boxes) == 1
    # One thing is answered as without.
    one, other = (shipped.ground(photo, "the sky", top_k=1, instances=each) for each in (0, 1))
    np.testing.assert_array_equal(one.boxes, other.boxes)
    said = command("ground", photo, "the horses", "--instances", "--json", "--top-k", 10)
    assert said.returncode == 0, said.stderr
    assert len(json.loads(said.stdout)["boxes"]) == len(answer.boxes)


def test_a_model_that_tells_no_things_apart_says_so(shipped):
    without = dataclasses.replace(shipped, instances=None)
    with pytest.raises(ValueError, match=r"got one without instances\.json"):
        without.ground(paths.PHOTOS / "chelsea.jpg", "a cat", instances=True)
