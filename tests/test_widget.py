"""The query widget without a browser: what is asked, answered, drawn, refused and kept."""

import io
import json

import jupytext
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scene_utils import box_ops, paths
from scene_utils.grid import sentences
from scene_utils.images import ImageError
from scene_utils.models import SHIPPED
from scene_utils.widget import page, suggest
from scene_utils.widget.app import QueryWidget
from scene_utils.widget.catalogue import OWN, Picture, catalogue
from scene_utils.widget.draw import Mark, overlay_html
from scene_utils.widget.gallery import Gallery
from scene_utils.widget.models import Answer, Models, open_view
from scene_utils.widget.play import Drawing
from scene_utils.widget.suggest import notices
from scene_utils.words import Vocabulary

VOCABULARY = Vocabulary.of(["<pad>", "<unk>", "a", "the", "man", "woman", "red", "hat", "women"])
PHOTO_TRUTH = pd.read_csv(paths.PHOTOS / "phrases.csv")


@pytest.fixture(scope="module")
def widget():
    """The widget over the photos, with a profile in which nothing was trained."""
    return QueryWidget(catalogue("nothing_here"), Models("nothing_here"), seed=0)


@pytest.fixture
def fresh(widget):
    """The widget as at its start: photo `astronaut`, mode Phrase, no truth shown."""
    widget.parts.mode.value = "Phrase"
    widget.parts.truth.value = False
    widget.parts.count.value = 1
    widget.gallery.query.value = ""
    widget.choose(picture_named(widget, "astronaut"))
    return widget


def picture_named(widget, name):
    return next(picture for picture in widget.gallery.pictures if picture.name == name)


def image_bytes(size, kind="JPEG", colour="red"):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


# Text


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("   ", "Type a phrase"),
        ("x" * 2000, "At most 500 characters, please: this has 2,000"),
        ("\N{GRINNING FACE}\N{ROCKET}", "has no words"),
        ("?!", "has no words"),
        ("der rote Hut", "reads English and knows none of these words: der, rote, hut"),
        ("wooman", "Did you mean woman"),
    ],
)
def test_what_holds_nothing_to_read_is_answered_with_a_message(phrase, message):
    with pytest.raises(ValueError, match=message):
        suggest.check_phrase(phrase, VOCABULARY)
    assert suggest.check_phrase("  a   zzz man \n", VOCABULARY) == "a zzz man", "known are enough"


def test_near_words_are_suggested_and_put_in_place():
    for word, near in (("womann", ("woman",)), ("qqqqqq", ()), ("xx", ())):
        assert suggest.did_you_mean(word, VOCABULARY.words) == near
    phrase = suggest.replace_word("the Womann, womannly", "womann", "woman")
    assert phrase == "the woman, womannly"


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("[a man] on [the  beach]", ["a man", "the beach"]),
        ("a red cup, a spoon; a saucer", ["a red cup", "a spoon", "a saucer"]),
        ("a cup,, a cup", ["a cup"]),
        ("a tall [thin man, a dog", ["a tall [thin man", "a dog"]),
        ("[a man, old], [a dog]'s ball", ["a man, old", "a dog"]),
        (" , ", []),
    ],
)
def test_sentences_are_parted_by_brackets_or_commas(text, phrases):
    assert suggest.split_sentence(text) == phrases
    # Each is found again in the sentence without the parting.
    assert len(sentences.phrases_of(suggest.whole_sentence(text), phrases)) == len(phrases)


def test_too_much_at_once_is_refused():
    with pytest.raises(ValueError, match="At most 500 characters"):
        suggest.split_sentence("a cup, " * 80)
    with pytest.raises(ValueError, match="At most 12 phrases at once, please: got 20"):
        suggest.split_sentence(", ".join(f"cup {n}" for n in range(20)))


# Pictures


def test_photos_have_phrases_truth_and_a_text_for_screen_readers_and_can_be_searched():
    photos = catalogue("nothing_here")
    assert {photo.name for photo in photos} == set(PHOTO_TRUTH.photo)
    for photo in photos:
        assert photo.name in photo.alt
        assert photo.phrases[0] in photo.alt
        view = open_view(photo)
        for phrase in photo.phrases:
            box = box_ops.check(photo.true_box(phrase.upper()))
            assert (box <= [view.width, view.height] * 2).all()
    assert photos[0].true_box("a giraffe") is None
    # A search needs every word in a picture's name or phrases.
    strip = Gallery(photos, chosen=None)
    for query, names in (("RED saucer", {"coffee"}), ("red helmet", set())):
        strip.query.value = query
        assert {photo.name for photo in strip.found()} == names


def test_a_phrase_that_means_two_things_has_no_truth(tmp_path, monkeypatch):
    name, folder = "schöne Straße 7", tmp_path / "Grüße"
    monkeypatch.setattr(paths, "cache", lambda profile: folder)
    (folder / "scenes" / "flickr30k-images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "scenes" / "flickr30k-images" / f"{name}.jpg")
    both = "a dog and a cat"
    rows = [("A dog", 1, 0, "A dog runs"), ("a dog", 2, 1, both), ("a cat", 3, 1, both)]
    table = pd.DataFrame(rows, columns=["phrase", "phrase_id", "sentence_id", "sentence"])
    table = table.assign(image_id=name, split="test", n_boxes=1)
    table[box_ops.COLUMNS] = np.float32([1, 2, 30, 20])
    table.to_parquet(folder / "phrases.parquet")
    scene = next(p for p in catalogue("made_up") if p.name == name)
    assert (open_view(scene).width, open_view(scene).height) == (40, 30)
    assert scene.true_box("a dog") is None
    np.testing.assert_array_equal(scene.true_box("a cat"), [1, 2, 30, 20])
    assert scene.sentences[1] == ("a dog and a cat", ("a dog", "a cat"))


def test_chance_chooses_another_picture_and_asks_one_of_its_phrases(fresh):
    before = fresh.view.picture
    fresh.surprise()
    assert fresh.view.picture is not before
    assert fresh.answers[0].phrase == fresh.parts.field.value
    assert fresh.parts.field.value in fresh.view.picture.phrases


# Answers


def test_more_boxes_truth_and_heat_are_drawn_without_asking_again(fresh):
    fresh.ask("a woman")
    answers, over = fresh.answers, fresh.parts.overlay
    assert over.value.count("sq-box") == 1
    fresh.parts.count.value = 4
    assert over.value.count("sq-box") == 4
    fresh.parts.truth.value = True
    assert over.value.count("sq-box") == 5
    assert "hit, IoU" in fresh.parts.result.value
    assert "sq-heat" not in over.value
    fresh.parts.heat.value = 40
    assert "opacity:0.40" in over.value
    assert fresh.answers is answers
    fresh.parts.heat.value = 0


@pytest.mark.parametrize(
    ("phrase", "unknown", "present", "told"),
    [
        ("a man", (), 0.8, []),
        ("a hat", (), 0.12, []),
        ("a hat", (), 0.04, ["'a hat' is probably not in the picture (chance that it is: 4 %)."]),
        ("der hut", ("der", "hut"), None, ["The model reads English; it does not know der, hut."]),
    ],
)
def test_absent_things_and_foreign_sentences_are_told(phrase, unknown, present, told):
    words = tuple((word, 0.25) for word in phrase.split())
    given = {"words": words, "unknown": unknown, "present": present}
    answer = Answer(phrase, model="grid", boxes=np.zeros((1, 4)), **given)
    assert notices([answer], VOCABULARY) == (told, [])


def test_a_faulty_phrase_takes_the_old_box_away(fresh):
    fresh.ask("a woman")
    fresh.parts.field.value = "x" * 2000
    assert fresh.parts.status.kind == "error"
    assert "sq-box" not in fresh.parts.overlay.value
    assert fresh.parts.png.disabled
    fresh.parts.field.value = "a woman"
    assert "sq-box" in fresh.parts.overlay.value


def test_all_phrases_of_a_sentence_each_in_its_colour(fresh, shipped):
    fresh.parts.mode.value = "Sentence"
    assert len(fresh.answers) == len(fresh.view.picture.phrases)  # its own sentence comes by itself
    fresh.parts.field.value = "[a woman] beside [an American flag]"
    assert [answer.phrase for answer in fresh.answers] == ["a woman", "an American flag"]
    photo, said = paths.PHOTOS / "astronaut.jpg", "a woman beside an American flag"
    asked = shipped.ground(photo, ["a woman", "an American flag"], top_k=10, sentence=said)
    for mark, found in zip(fresh.shown.marks, asked, strict=True):
        # Half-precision sums differ a little with the number of phrases asked at once.
        np.testing.assert_allclose(mark.box, found.boxes[0], atol=2)
    assert len({mark.colour for mark in fresh.shown.marks}) == 2


def test_each_thing_in_its_colour_with_its_score(fresh, shipped):
    fresh.choose(picture_named(fresh, "chelsea"))
    fresh.parts.things.value = True
    try:
        fresh.ask("green eyes")
        (answer,) = fresh.answers
        photo = paths.PHOTOS / "chelsea.jpg"
        expected = shipped.ground(photo, "green eyes", top_k=10, instances=True)
        np.testing.assert_allclose(answer.boxes, expected.boxes, atol=0.1)
        marks = [mark for mark in fresh.shown.marks if mark.label != "truth"]
        assert len(marks) == len(answer.boxes)
        assert len({mark.colour for mark in marks}) == min(len(marks), 6)
        assert fresh.parts.result.value.count("sq-score") == len(marks)
        fresh.parts.mode.value = "Sentence"
        assert fresh.parts.things.layout.display == "none"
    finally:
        fresh.parts.mode.value = "Phrase"
        fresh.parts.things.value = False


def test_what_fails_while_drawing_is_told(fresh, monkeypatch):
    monkeypatch.setattr("scene_utils.widget.draw.show_phrase", lambda *_: 1 / 0)
    fresh.ask("the helmet")
    assert fresh.parts.status.kind == "error"
    assert "ZeroDivisionError" in fresh.parts.status.text


def test_compare_says_what_is_not_trained(fresh, monkeypatch, tmp_path):
    monkeypatch.setitem(SHIPPED, "source", tmp_path)  # as if it did not ship
    fresh.parts.mode.value = "Compare"
    assert fresh.parts.panels.value.count("<figure>") == 1
    assert "Not trained on this machine: constant, source" in fresh.parts.status.text
    assert "make reproduce PROFILE=nothing_here" in fresh.parts.status.text


# The user's own pictures


def test_more_than_100_megapixels_are_refused():
    with pytest.raises(ImageError, match="at most 100 megapixels, got 20000 x 10000"):
        open_view(Picture("big", OWN, image_bytes((200, 100)), size=(20_000, 10_000)))


# What is drawn and kept


def test_boxes_lie_over_the_picture_in_percent_of_it():
    view = open_view(Picture("p", OWN, image_bytes((200, 100))))
    html = overlay_html(view, [Mark(np.float32([20, 10, 120, 60]), "<b>")], said='say "it"')
    assert "left:10.000%;top:10.000%;width:50.000%;height:50.000%" in html
    assert "&lt;b&gt;" in html
    assert 'aria-label="say &#34;it&#34;"' in html


def test_what_is_kept_has_answers_in_pixels_and_their_iou(fresh, monkeypatch):
    saved = []
    monkeypatch.setattr(fresh.bridge, "save", lambda *what: saved.append(what))
    fresh.ask("the helmet")
    fresh.parts.json.click()
    found = json.loads(saved[0][2])
    assert (found["picture"], found["width"], found["height"]) == ("astronaut", 512, 512)
    answer, truth = found["answers"][0], fresh.view.picture.true_box("the helmet")
    assert answer["phrase"] == "the helmet"
    np.testing.assert_allclose(answer["boxes"], fresh.answers[0].boxes, atol=1e-3)
    assert answer["iou"] == pytest.approx(float(box_ops.iou(fresh.answers[0].boxes[0], truth)))


# Play


def test_no_truth_no_round(fresh):
    photo = image_bytes((60, 40))
    fresh.take("plain.png", photo, None, len(photo))
    fresh.parts.mode.value = "Play"
    assert "No truth is known" in fresh.parts.task.value
    assert fresh.parts.check.disabled


def test_a_box_by_keys_alone():
    drawing, calls = Drawing(), []
    drawing.changed = lambda: calls.append(drawing.box)
    view = open_view(Picture("p", OWN, image_bytes((3200, 1800))))  # shown at half its size
    drawing.start(view)
    assert drawing.box is None
    drawing.middle.click()
    assert drawing.box.tolist() == [1066, 600, 2132, 1200]
    drawing.fields[0].value = 100
    assert drawing.box.tolist() == [100, 600, 1166, 1200]
    assert drawing.canvas.bboxes[0]["x"] == 50
    assert calls[-1].tolist() == [100, 600, 1166, 1200]


def test_a_second_box_takes_the_place_of_the_first():
    drawing = Drawing()
    drawing.start(open_view(Picture("p", OWN, image_bytes((400, 300)))))
    one = {"x": 1.0, "y": 2.0, "width": 30.0, "height": 40.0, "label": "you"}
    drawing.canvas.bboxes = [one]
    drawing.canvas.bboxes = [one, one | {"x": 100.0}]
    assert drawing.box.tolist() == [100, 2, 130, 42]
    assert len(drawing.canvas.bboxes) == 1


# The page


def test_a_page_is_the_notebook_up_to_the_widget(tmp_path):
    target = page.write_page(page.SCRIPT, tmp_path / "page.ipynb", profile="smoke")
    book = jupytext.read(target)
    assert any("query_widget(" in cell.source for cell in book.cells)
    assert not any("picture_grid" in cell.source for cell in book.cells)
    parameters = next(c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    assert parameters.source.endswith("profile = 'smoke'")
