"""The query widget without a browser: what is asked, answered, drawn, refused and kept."""

import io
import json

import jupytext
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import scene_utils
from scene_utils import box_ops, paths
from scene_utils.grid import sentences
from scene_utils.images import ImageError
from scene_utils.models import SHIPPED
from scene_utils.plots import GUESS
from scene_utils.widget import page, suggest
from scene_utils.widget.app import QueryWidget
from scene_utils.widget.catalogue import catalogue, own_photo, search
from scene_utils.widget.draw import Mark, ink, overlay_html, png_bytes
from scene_utils.widget.models import Answer, Models, open_view
from scene_utils.widget.play import Drawing, score_text
from scene_utils.widget.suggest import notices
from scene_utils.words import Vocabulary

VOCABULARY = Vocabulary.of(["<pad>", "<unk>", "a", "the", "man", "woman", "red", "hat", "women"])
PHOTO_TRUTH = pd.read_csv(paths.PHOTOS / "phrases.csv")


@pytest.fixture(scope="module")
def widget():
    """The widget over the photos, with a profile in which nothing was trained."""
    return QueryWidget(catalogue("nothing_here"), Models("nothing_here"), seed=0)


@pytest.fixture(scope="module")
def loaded():
    return scene_utils.load_model()


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
        ("红色的帽子", "reads English"),
        ("wooman", "Did you mean woman"),
    ],
)
def test_what_holds_nothing_to_read_is_answered_with_a_message(phrase, message):
    with pytest.raises(ValueError, match=message):
        suggest.check_phrase(phrase, VOCABULARY)


def test_spaces_do_not_matter_and_known_words_are_enough():
    assert suggest.check_phrase("  the   man \n", VOCABULARY) == "the man"
    assert suggest.check_phrase("a zzz man", VOCABULARY) == "a zzz man"


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


def test_photos_have_phrases_truth_and_a_text_for_screen_readers():
    photos = catalogue("nothing_here")
    assert {photo.name for photo in photos} == set(PHOTO_TRUTH.photo)
    for photo in photos:
        assert photo.name in photo.alt
        assert photo.phrases[0] in photo.alt
        for phrase in photo.phrases:
            box_ops.check(photo.true_box(phrase.upper()))
    assert photos[0].true_box("a giraffe") is None


@pytest.mark.parametrize("name", ["7", "schöne Straße 7"])
def test_a_phrase_that_means_two_things_has_no_truth(tmp_path, monkeypatch, name):
    folder = tmp_path / f"Grüße {name}"
    monkeypatch.setattr(paths, "cache", lambda profile: folder)
    (folder / "scenes" / "flickr30k-images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "scenes" / "flickr30k-images" / f"{name}.jpg")
    rows = [("A dog", 1, 0, "A dog runs"), ("a dog", 2, 1, "a dog and a cat"), ("a cat", 3, 1, "")]
    table = pd.DataFrame(rows, columns=["phrase", "phrase_id", "sentence_id", "sentence"])
    table.loc[2, "sentence"] = "a dog and a cat"
    table = table.assign(image_id=name, split="test", n_boxes=1)
    table[box_ops.COLUMNS] = np.float32([1, 2, 30, 20])
    table.to_parquet(folder / "phrases.parquet")
    scene = next(p for p in catalogue("made_up") if p.name == name)
    assert (open_view(scene).width, open_view(scene).height) == (40, 30)
    assert scene.true_box("a dog") is None
    np.testing.assert_array_equal(scene.true_box("a cat"), [1, 2, 30, 20])
    assert scene.sentences[1] == ("a dog and a cat", ("a dog", "a cat"))


def test_search_needs_every_word_in_name_or_phrases():
    photos = catalogue("nothing_here")
    assert [p.name for p in search(photos, "RED saucer")] == ["coffee"]
    assert [p.name for p in search(photos, "chel")] == ["chelsea"]
    assert search(photos, "red helmet") == []
    assert search(photos, "") == photos


def test_gallery_pages_search_and_chance(fresh):
    gallery = fresh.gallery
    gallery.query.value = "suit"
    assert [button.description for button in gallery.buttons if not button.disabled] == [
        "astronaut"
    ]
    gallery.query.value = "zebra"
    assert gallery.count.value == "no picture found"
    gallery.query.value = ""
    before = fresh.view.picture
    fresh.surprise()
    assert fresh.view.picture is not before
    assert fresh.parts.field.value in fresh.view.picture.phrases
    assert fresh.answers[0].phrase == fresh.parts.field.value


# Answers


def test_the_answer_is_that_of_ground(fresh, loaded):
    for name, phrase in [("astronaut", "the helmet"), ("coffee", "a cup"), ("rocket", "the sky")]:
        fresh.choose(picture_named(fresh, name))
        fresh.parts.field.value = phrase
        asked = loaded.ground(paths.PHOTOS / f"{name}.jpg", phrase, top_k=10)
        np.testing.assert_allclose(fresh.answers[0].boxes, asked.boxes, atol=1e-3)
        np.testing.assert_allclose(fresh.answers[0].scores, asked.scores, atol=1e-6)
        assert "trained on Flickr30k Entities" in fresh.parts.status.text


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


def test_unknown_words_are_told_with_a_click_that_mends_them(fresh):
    fresh.parts.field.value = "an orange suitt"
    assert fresh.parts.status.kind == "warning"
    assert "does not know 'suitt'. Did you mean suit" in fresh.parts.status.text
    assert "sq-unknown" in fresh.parts.result.value
    fresh.parts.meant[0].click()
    assert fresh.parts.field.value == "an orange suit"
    assert fresh.parts.status.kind == "info"


def test_words_past_what_the_model_reads_are_told(fresh):
    fresh.parts.field.value = "a woman " * 15
    assert "does not read the last words" in fresh.parts.status.text


def test_an_absent_thing_is_told():
    answer = Answer(
        "a giraffe", model="grid", boxes=np.zeros((1, 4)), words=(("a", 1.0),), present=0.12
    )
    told, _ = notices([answer], VOCABULARY)
    assert told == ["'a giraffe' is probably not in the picture (chance that it is: 12 %)."]
    there = Answer("a man", model="grid", boxes=np.zeros((1, 4)), present=0.8)
    assert notices([there], VOCABULARY)[0] == []


def test_a_foreign_sentence_gets_one_remark_and_no_guesses():
    answer = Answer(
        "der mann hut the",
        model="grid",
        boxes=np.zeros((1, 4)),
        words=tuple((word, 0.25) for word in ("der", "mann", "hut", "the")),
        unknown=("der", "mann", "hut"),
    )
    told, meant = notices([answer], VOCABULARY)
    assert told == ["The model reads English; it does not know der, mann, hut."]
    assert meant == []


def test_a_faulty_phrase_takes_the_old_box_away(fresh):
    fresh.ask("a woman")
    fresh.parts.field.value = "x" * 2000
    assert fresh.parts.status.kind == "error"
    assert "sq-box" not in fresh.parts.overlay.value
    assert fresh.parts.png.disabled
    fresh.parts.field.value = "a woman"
    assert "sq-box" in fresh.parts.overlay.value


def test_all_phrases_of_a_sentence_each_in_its_colour(fresh, loaded):
    fresh.parts.mode.value = "Sentence"
    assert len(fresh.answers) == len(fresh.view.picture.phrases)  # its own sentence comes by itself
    fresh.parts.field.value = "[a woman] beside [an American flag]"
    assert [answer.phrase for answer in fresh.answers] == ["a woman", "an American flag"]
    asked = loaded.ground(
        paths.PHOTOS / "astronaut.jpg",
        ["a woman", "an American flag"],
        top_k=10,
        sentence="a woman beside an American flag",
    )
    for mark, found in zip(fresh.shown.marks, asked, strict=True):
        # Half-precision sums differ a little with the number of phrases asked at once.
        np.testing.assert_allclose(mark.box, found.boxes[0], atol=2)
    assert len({mark.colour for mark in fresh.shown.marks}) == 2


def test_history_brings_back_picture_phrase_and_mode(fresh):
    fresh.ask("the helmet")
    fresh.choose(picture_named(fresh, "coffee"))
    fresh.parts.mode.value = "Sentence"
    place = next(
        n
        for n, (p, text, _) in enumerate(fresh.history)
        if (p.name, text) == ("astronaut", "the helmet")
    )
    assert fresh.parts.past[place].description == "astronaut: the helmet"
    fresh.parts.past[place].click()
    assert fresh.view.picture.name == "astronaut"
    assert fresh.parts.mode.value == "Phrase"
    assert fresh.answers[0].phrase == "the helmet"
    assert fresh.history[0][1] == "the helmet"
    assert len(fresh.history) == len({(p.name, t, s) for p, t, s in fresh.history})


def test_compare_has_a_panel_for_each_model(fresh):
    fresh.parts.mode.value = "Compare"
    assert fresh.parts.panels.value.count("<figure>") == 3
    assert fresh.parts.status.kind == "info"
    assert "Closest to the truth: grid" in fresh.parts.status.text
    assert [mark.label for mark in fresh.shown.marks] == ["grid", "source", "constant"]
    source = fresh.models.get("source", "photo").model
    blind = np.float32(source.settings["blind_box"]) * 512
    np.testing.assert_allclose(fresh.shown.marks[-1].box, blind, atol=0.1)


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


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello, this is a text", "got a file of another kind"),
        (b"", "got an empty file"),
        (image_bytes((600, 400))[:900], "cannot be decoded"),
    ],
    ids=["text", "empty", "truncated"],
)
def test_a_bad_upload_is_a_message_and_changes_nothing(fresh, data, message):
    fresh.ask("a woman")
    before = (fresh.view, fresh.answers, fresh.parts.overlay.value)
    fresh.take("holiday.jpg", data, None, len(data))
    assert fresh.parts.status.kind == "error"
    assert "holiday.jpg" in fresh.parts.status.text
    assert message in fresh.parts.status.text
    assert before == (fresh.view, fresh.answers, fresh.parts.overlay.value)


def test_a_large_file_that_the_browser_could_not_read(fresh):
    fresh.take("scan.tif", b"", None, 48_000_000)
    assert "scan.tif" in fresh.parts.status.text
    assert "48 MB" in fresh.parts.status.text


def test_an_own_photo_is_answered_and_offered_again(fresh):
    photo = (paths.PHOTOS / "chelsea.jpg").read_bytes()
    fresh.ask("a cat")
    fresh.take("mine.jpg", photo, None, len(photo))
    assert fresh.gallery.pictures[0].name == "mine.jpg"
    assert fresh.view.picture.kind == "your photo"
    assert fresh.answers[0].phrase == "a cat"  # what stood in the field
    assert fresh.parts.truth.disabled
    truth = np.float32([2, 0, 425, 300])
    assert box_ops.iou(fresh.answers[0].boxes[0], truth) > 0.7


def test_a_picture_made_smaller_by_the_browser_keeps_its_own_pixels(fresh):
    small = (paths.PHOTOS / "chelsea.jpg").read_bytes()
    fresh.take("whole.jpg", small, (4510, 3000), 9_000_000)
    fresh.ask("a cat")
    assert (fresh.view.width, fresh.view.height) == (4510, 3000)
    assert box_ops.iou(fresh.answers[0].boxes[0], np.float32([20, 0, 4250, 3000])) > 0.7


def test_more_than_100_megapixels_are_refused():
    with pytest.raises(ImageError, match="at most 100 megapixels, got 20000 x 10000"):
        open_view(own_photo("big", image_bytes((200, 100)), (20_000, 10_000)))


def test_a_50_megapixel_picture_is_answered(fresh):
    data = image_bytes((10_000, 5_000))
    fresh.take("huge.jpg", data, None, len(data))
    assert fresh.view.width == 10_000
    assert max(fresh.view.shown.size) == 1600
    assert fresh.parts.status.kind != "error"


# What is drawn and kept


def test_boxes_lie_over_the_picture_in_percent_of_it():
    view = open_view(own_photo("p", image_bytes((200, 100))))
    html = overlay_html(view, [Mark(np.float32([20, 10, 120, 60]), "<b>")], said='say "it"')
    assert "left:10.000%;top:10.000%;width:50.000%;height:50.000%" in html
    assert "&lt;b&gt;" in html
    assert 'aria-label="say &quot;it&quot;"' in html


def test_the_saved_picture_has_the_box_where_it_belongs(fresh):
    fresh.ask("the helmet")
    image = Image.open(io.BytesIO(png_bytes(fresh.view, [Mark(fresh.answers[0].boxes[0])])))
    assert image.size == (512, 512)
    colour = tuple(int(GUESS[place : place + 2], 16) for place in (1, 3, 5))
    rows, columns = np.nonzero((np.asarray(image) == colour).all(axis=2))
    box = np.clip(fresh.answers[0].boxes[0], 0, 511)
    np.testing.assert_allclose(
        [columns.min(), rows.min(), columns.max(), rows.max()], box, atol=1.5
    )


@pytest.mark.parametrize("mode", ["Phrase", "Sentence", "Compare"])
def test_a_phrase_of_300_characters_is_answered_and_shown_shortened(fresh, mode):
    fresh.parts.mode.value = mode
    phrase = "the helmet " + "x" * 289
    fresh.ask(phrase)
    assert fresh.answers[0].phrase == phrase
    assert fresh.parts.status.kind == "warning" or mode == "Compare"
    assert "x" * 40 not in fresh.parts.status.text
    assert all(len(mark.label) <= 40 for mark in fresh.shown.marks) or mode == "Sentence"
    saved = png_bytes(fresh.view, fresh.shown.marks)
    assert Image.open(io.BytesIO(saved)).size == (512, 512)
    assert f">{'x' * 40}" not in fresh.parts.result.value
    assert all(len(button.description) <= 60 for button in fresh.parts.past)


def test_a_label_ends_at_the_edge_of_the_picture():
    view = open_view(own_photo("p", image_bytes((200, 100))))
    html = overlay_html(view, [Mark(np.float32([100, 10, 120, 60]), "a long name")])
    assert "--room:500%" in html  # the half of the picture at its right is five times the box


def test_labels_can_be_read_on_every_colour():
    assert ink("#0072B2") == "#ffffff"
    assert ink("#E69F00") == "#000000"


def test_files_to_keep_come_with_name_and_content(fresh, monkeypatch):
    saved = []
    monkeypatch.setattr(fresh.bridge, "save", lambda *what: saved.append(what))
    fresh.ask("the helmet")
    fresh.parts.json.click()
    fresh.parts.png.click()
    (name, kind, data), (picture, image_kind, image) = saved
    assert (name, kind) == ("astronaut_the_helmet.json", "application/json")
    assert (picture, image_kind) == ("astronaut_the_helmet.png", "image/png")
    assert Image.open(io.BytesIO(image)).size == (512, 512)
    found = json.loads(data)
    assert (found["picture"], found["width"], found["height"]) == ("astronaut", 512, 512)
    answer = found["answers"][0]
    assert answer["phrase"] == "the helmet"
    np.testing.assert_allclose(answer["boxes"], fresh.answers[0].boxes, atol=1e-3)
    truth = fresh.view.picture.true_box("the helmet")
    assert answer["iou"] == pytest.approx(float(box_ops.iou(fresh.answers[0].boxes[0], truth)))


# Play


def test_a_round_of_play_scores_both_against_the_truth(fresh):
    fresh.parts.mode.value = "Play"
    phrase = fresh.play.asked
    truth = fresh.view.picture.true_box(phrase)
    assert f"<b>{phrase}</b>" in fresh.parts.task.value
    assert fresh.parts.check.disabled
    left, top, right, bottom = truth
    sides = {"x": left, "y": top, "width": right - left, "height": bottom - top, "label": "you"}
    fresh.play.drawing.canvas.bboxes = [
        {k: v if k == "label" else float(v) for k, v in sides.items()}
    ]
    assert not fresh.parts.check.disabled
    fresh.parts.check.click()
    yours, its = fresh.play.rounds[-1]
    assert yours == pytest.approx(1, abs=0.01)
    model = fresh._grid().ask(fresh.view, [phrase])[0].boxes[0]
    assert its == pytest.approx(float(box_ops.iou(model, truth)))
    assert "You 1 : 0 model" in fresh.parts.running.value
    assert fresh.parts.overlay.value.count("sq-box") == 3
    fresh.parts.again.click()
    assert fresh.play.asked != phrase
    assert fresh.play.drawing.box is None


def test_no_truth_no_round(fresh):
    photo = image_bytes((60, 40))
    fresh.take("plain.png", photo, None, len(photo))
    fresh.parts.mode.value = "Play"
    assert "No truth is known" in fresh.parts.task.value
    assert fresh.parts.check.disabled


def test_a_box_by_keys_alone():
    drawing, calls = Drawing(), []
    drawing.changed = lambda: calls.append(drawing.box)
    view = open_view(own_photo("p", image_bytes((3200, 1800))))  # shown at half its size
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
    drawing.start(open_view(own_photo("p", image_bytes((400, 300)))))
    one = {"x": 1.0, "y": 2.0, "width": 30.0, "height": 40.0, "label": "you"}
    drawing.canvas.bboxes = [one]
    drawing.canvas.bboxes = [one, one | {"x": 100.0}]
    assert drawing.box.tolist() == [100, 2, 130, 42]
    assert len(drawing.canvas.bboxes) == 1


def test_the_running_score():
    rounds = [(0.9, 0.5), (0.2, 0.6), (0.8, 0.1)]
    assert score_text(rounds) == "You 2 : 1 model (3 rounds, mean IoU 0.63 to 0.40)"


# The page


def test_a_page_is_the_notebook_up_to_the_widget(tmp_path):
    target = page.write_page(page.SCRIPT, tmp_path / "page.ipynb", profile="smoke")
    book = jupytext.read(target)
    assert "query_widget(" in book.cells[-1].source
    assert not any("picture_grid" in cell.source for cell in book.cells)
    parameters = next(c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    assert parameters.source.endswith("profile = 'smoke'")
    other = paths.ROOT / "notebooks" / "01_explore.py"
    with pytest.raises(ValueError, match="expected a notebook with a cell tagged 'page'"):
        page.write_page(other, tmp_path / "no.ipynb")


def test_the_page_listens_on_this_machine_alone_and_asks_for_a_token():
    words, environment = page.command(paths.ROOT / "book.ipynb")
    assert "--Voila.ip=127.0.0.1" in words
    assert "--Voila.auto_token=True" in words
    assert str(paths.ROOT / "scene_utils" / "widget" / "template") in environment["JUPYTER_PATH"]
