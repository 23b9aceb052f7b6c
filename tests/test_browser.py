"""The query widget as a user meets it: a real browser on Voila, and on JupyterLab.

Needs Chromium and Playwright; where they are missing, the failure says how to install them. One
page serves most tests, each of which starts from the photo `astronaut` in mode Phrase.
"""

import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageColor

from scene_utils import box_ops, models, paths
from scene_utils.plots import GUESS
from scene_utils.widget import page as widget_page
from scene_utils.widget.catalogue import catalogue
from tests.browser import browser as widget_browser
from tests.browser import server
from tests.browser.browser import NARROW, ask, choose, listen, mode, status, upload, wait_label

pytestmark = pytest.mark.slow
SCENES = "smoke"


@pytest.fixture(scope="module")
def trained():
    """The models of the profile `smoke`; where they are not there, make trains them in a minute."""
    book = f"build/{SCENES}/04b_grid.ipynb"
    subprocess.run(["make", book, f"PROFILE={SCENES}"], cwd=paths.ROOT, check=True)
    return paths.cache(SCENES) / "models"


@pytest.fixture(scope="module")
def address(trained, tmp_path_factory):
    book = tmp_path_factory.mktemp("page") / "widget.ipynb"
    widget_page.write_page(widget_page.SCRIPT, book, profile=SCENES)
    with server.served(book) as url:
        yield url


def pixels_of_box(page) -> np.ndarray:
    """The answer's box as it is painted, `(4,)` in fractions of the picture, from a screenshot."""
    sheet = page.locator(".sq-stage .sq-sheet")
    shot = sheet.screenshot(animations="disabled", style=".sq-label { visibility: hidden }")
    image = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB")).astype(int)
    painted = np.abs(image - ImageColor.getrgb(GUESS)).max(axis=2) <= 6
    # A border is a line: rows and columns in which a run of its colour is long.
    rows = np.flatnonzero(painted.sum(axis=1) > 0.8 * painted.sum(axis=1).max())
    columns = np.flatnonzero(painted.sum(axis=0) > 0.8 * painted.sum(axis=0).max())
    height, width = painted.shape
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return np.array(found) / [width, height, width, height]


def assert_box(page, image, box, within=0.008):
    width, height = Image.open(image).size
    expected = np.asarray(box) / [width, height, width, height]
    np.testing.assert_allclose(pixels_of_box(page), expected, atol=within)


def test_it_opens_with_an_answer_and_no_error(page):
    assert page.title() != ""
    assert page.get_by_role("img", name=re.compile("^astronaut: a picture with")).count() >= 1
    assert "trained on Flickr30k Entities" in status(page, "Answered by grid")
    for image in page.locator("img").all():
        assert image.get_attribute("alt") is not None


def test_a_phrase_about_a_photo_gives_the_box_of_ground(page, shipped):
    asks = (("coffee", "a cup", "the cup"), ("camera", "a man", "a man with a camera"))
    for name, first, phrase in asks:
        choose(page, name)
        wait_label(page, first)  # it comes by itself, and takes the place of what is typed before
        ask(page, phrase)
        wait_label(page, phrase)
        photo = paths.PHOTOS / f"{name}.jpg"
        assert_box(page, photo, shipped.ground(photo, phrase, top_k=10).boxes[0])


def test_a_scene_is_answered_by_its_own_model(page, trained):
    scene = next(p for p in catalogue(SCENES) if p.kind == "sample scene" and p.truth)
    page.get_by_label("Search").fill(scene.name)
    page.get_by_text("1-1 of 1").wait_for()
    choose(page, scene.name)
    phrase = scene.phrases[0]
    wait_label(page, phrase)
    assert "trained on the smoke scenes" in status(page, "Answered by grid")
    own = models.load_model(trained / "grid").ground(scene.image, phrase, top_k=10)
    assert_box(page, scene.image, own.boxes[0])
    page.get_by_label("Ground truth").check()
    verdict = page.locator(".sq-best .sq-verdict").inner_text()
    iou = float(box_ops.iou(own.boxes[0], scene.true_box(phrase)))
    assert f"{'hit' if iou >= 0.5 else 'miss'}, IoU" in verdict
    assert abs(float(verdict.split()[-1]) - iou) < 0.02
    page.get_by_label("Ground truth").uncheck()


def test_suggestions_and_history_can_be_clicked(page):
    page.get_by_role("button", name="the helmet", exact=True).click()
    wait_label(page, "the helmet")
    choose(page, "chelsea")
    wait_label(page, "a cat")
    page.get_by_role("button", name="astronaut: the helmet").click()
    wait_label(page, "the helmet")
    assert page.locator(".sq-line input").input_value() == "the helmet"


def test_a_misspelt_word_is_mended_by_a_click(page):
    ask(page, "the woman in the orange suitt")
    assert "Did you mean suit" in status(page, "does not know 'suitt'")
    page.get_by_role("button", name="the woman in the orange suit", exact=True).click()
    status(page, "Answered by grid")


@pytest.mark.parametrize(
    ("phrase", "message"),
    [
        ("x" * 2000, "At most 500 characters"),
        ("\N{ROCKET}\N{GRINNING FACE}", "has no words"),
        ("die große Katze", "reads English"),
        ("一只猫", "reads English"),
    ],
    ids=["long", "emoji", "german", "chinese"],
)
def test_what_cannot_be_read_is_a_message_beside_the_field(page, phrase, message):
    ask(page, phrase)
    assert status(page, message)
    ask(page, "the helmet")
    wait_label(page, "the helmet")


def test_bad_files_are_messages_and_the_kernel_lives_on(page):
    photo = (paths.PHOTOS / "coffee.jpg").read_bytes()
    upload(page, "notes.txt", b"this is a text\n" * 20)
    assert "another kind" in status(page, "notes.txt")
    upload(page, "nothing.jpg", b"")
    assert "empty file" in status(page, "nothing.jpg")
    upload(page, "half.jpg", photo[: len(photo) // 2])
    assert "cannot be decoded" in status(page, "half.jpg")
    upload(page, "noise.tif", os.urandom(8_000_000))
    assert "8 MB" in status(page, "noise.tif")
    ask(page, "the helmet")
    wait_label(page, "the helmet")


def test_own_photos_small_and_huge(page, shipped):
    photo = paths.PHOTOS / "chelsea.jpg"
    upload(page, "mine.jpg", photo.read_bytes())
    page.locator(".sq-caption", has_text="your photo, 451 x 300").wait_for()
    page.locator(".sq-stage .sq-box").wait_for()
    ask(page, "the cat")
    wait_label(page, "the cat")
    assert_box(page, photo, shipped.ground(photo, "the cat", top_k=10).boxes[0])
    fifty = Image.new("RGB", (10_000, 5_000), "teal")
    upload(page, "fifty.jpg", widget_browser.image_bytes(fifty, quality=30))
    page.locator(".sq-caption", has_text="10000 x 5000").wait_for()
    page.locator(".sq-stage .sq-box").wait_for()


def test_a_photo_can_be_pasted(page):
    data = base64.b64encode((paths.PHOTOS / "rocket.jpg").read_bytes()).decode()
    page.evaluate(
        """async (data) => {
          const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
          const clipboardData = new DataTransfer();
          clipboardData.items.add(new File([bytes], "clip.jpg", { type: "image/jpeg" }));
          document.body.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        data,
    )
    page.locator(".sq-caption", has_text="your photo, 640 x 427").wait_for()
    page.locator(".sq-thumb.sq-chosen", has_text="clip.jpg").wait_for()


def test_a_sentence_has_all_its_phrases_in_colours(page):
    mode(page, "Sentence")
    page.locator(".sq-legend li").nth(4).wait_for()  # the photo's own phrases come by themselves
    ask(page, "[a woman] before [an American flag] and [a space shuttle]")
    page.wait_for_function("document.querySelectorAll('.sq-legend li').length === 3")
    labels = page.locator(".sq-sheet .sq-label").all_inner_texts()
    assert set(labels) == {"a woman", "an American flag", "a space shuttle"}
    border, shown = "e => getComputedStyle(e).borderTopColor", page.locator(".sq-sheet .sq-box")
    assert len({box.evaluate(border) for box in shown.all()}) == 3


def test_compare_shows_three_models_with_their_iou(page, trained, shipped):
    choose(page, "coffee")
    wait_label(page, "a cup")
    mode(page, "Compare")
    figures = page.locator(".sq-panels figure")
    figures.nth(2).wait_for()
    assert "Closest to the truth: grid" in status(page, "Closest to the truth")
    photo = next(p for p in catalogue(SCENES) if p.name == "coffee")
    truth = photo.true_box("a cup")
    source = models.load_model("source")
    expected = [
        np.float32(source.settings["blind_box"]) * np.float32([600, 400, 600, 400]),
        source.ground(photo.image, "a cup").boxes[0],
        shipped.ground(photo.image, "a cup", top_k=10).boxes[0],
    ]
    for figure, box in zip(figures.all()[-len(expected) :], expected, strict=True):
        iou = float(re.search(r"IoU ([\d.]+)", figure.inner_text())[1])
        assert abs(iou - float(box_ops.iou(box, truth))) < 0.02
    assert [text.split()[0] for text in figures.all_inner_texts()] == ["constant", "source", "grid"]


def test_zoom_keeps_the_box_over_its_object(page):
    before = pixels_of_box(page)
    sheet = page.locator(".sq-stage .sq-sheet")
    width = sheet.bounding_box()["width"]
    zoom = page.get_by_role("slider", name="Zoom (%)")
    for _ in range(4):
        zoom.press("ArrowRight")
    page.wait_for_function(
        "width => document.querySelector('.sq-stage .sq-sheet').offsetWidth > 1.9 * width",
        arg=width,
    )
    box, whole = page.locator(".sq-stage .sq-box").bounding_box(), sheet.bounding_box()
    left = (box["x"] - whole["x"]) / whole["width"]
    bottom = (box["y"] + box["height"] - whole["y"]) / whole["height"]
    np.testing.assert_allclose([left, bottom], before[[0, 3]], atol=0.008)
    for _ in range(4):
        zoom.press("ArrowLeft")


def play(page):
    """Start a round about the coffee cup's photo; the phrase and its truth."""
    choose(page, "coffee")
    wait_label(page, "a cup")
    mode(page, "Play")
    page.locator(".sq-draw svg").wait_for()
    phrase = page.locator(".sq-task b").inner_text()
    photo = next(p for p in catalogue(SCENES) if p.name == "coffee")
    return phrase, photo.true_box(phrase)


def test_play_with_the_mouse(page):
    phrase, truth = play(page)
    assert page.locator(".sq-draw img").get_attribute("alt").startswith("coffee")
    assert page.get_by_role("button", name="Check").is_disabled()
    canvas = page.locator(".sq-draw svg").bounding_box()
    scale = canvas["width"] / 600
    left, top, right, bottom = (float(side) * scale for side in truth)
    page.mouse.move(canvas["x"] + left, canvas["y"] + top)
    page.mouse.down()
    page.mouse.move(canvas["x"] + right, canvas["y"] + bottom, steps=8)
    page.mouse.up()
    page.get_by_role("button", name="Check").click()
    page.locator(".sq-task .sq-verdict").nth(1).wait_for()
    mine = page.locator(".sq-task li").first.inner_text()
    assert float(mine.split()[-1]) > 0.95
    assert "hit" in mine
    assert set(page.locator(".sq-sheet .sq-label").all_inner_texts()) == {"you", "model", "truth"}
    assert re.match(r"You 1 : 0 model \(1 round", page.locator(".sq-running").inner_text())
    page.get_by_role("button", name="Next phrase").click()
    page.locator(".sq-task", has_text="Draw a box around").wait_for()
    assert page.locator(".sq-task b").inner_text() != phrase


def test_play_with_the_keys(page):
    play(page)
    page.get_by_role("button", name="Box in the middle").press("Enter")
    left = page.get_by_label("left", exact=True)
    page.wait_for_function("field => field.value === '200'", arg=left.element_handle())
    for _ in range(5):
        left.press("ArrowUp")
    page.locator(".sq-draw rect.movable").wait_for()
    width = page.locator(".sq-draw svg").bounding_box()["width"]
    page.wait_for_function(
        "x => Math.abs(document.querySelector('.sq-draw rect.movable').getAttribute('x') - x) < 2",
        arg=205 * width / 600,
    )
    page.get_by_role("button", name="Check").press("Enter")
    page.locator(".sq-task .sq-verdict").nth(1).wait_for()
    assert "round" in page.locator(".sq-running").inner_text()


def test_picture_and_answer_can_be_saved(page, shipped):
    ask(page, "the helmet")
    status(page, "Answered by grid")
    with page.expect_download() as kept:
        page.get_by_role("button", name="Save JSON").click()
    assert kept.value.suggested_filename == "astronaut_the_helmet.json"
    answer = json.loads(kept.value.path().read_text())["answers"][0]
    asked = shipped.ground(paths.PHOTOS / "astronaut.jpg", "the helmet", top_k=10)
    np.testing.assert_allclose(answer["boxes"][0], asked.boxes[0], atol=2)
    with page.expect_download() as kept:
        page.get_by_role("button", name="Save PNG").click()
    image = Image.open(kept.value.path())
    assert image.size == (512, 512)
    x, y = (asked.boxes[0][:2] + asked.boxes[0][2:]) / 2
    edge = np.asarray(image)[int(y) - 3 : int(y) + 3, int(asked.boxes[0][0]) : int(x)]
    assert (np.abs(edge.astype(int) - [0xD5, 0x5E, 0]).max(axis=2) < 3).any()


FOCUS = """() => {
  const at = document.activeElement;
  const held = at.matches("input[type=radio]") ? at.closest("label") : at;
  const style = getComputedStyle(held);
  return { text: (at.innerText || at.value || at.getAttribute("aria-label") || at.id || "").trim(),
           seen: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
           inside: !!at.closest(".sq-app") };
}"""


def test_keys_alone_are_enough(page):
    # From the modes at the top through every control, in the order of the page.
    page.get_by_role("radio", name="Phrase").focus()
    page.keyboard.press("ArrowRight")
    page.locator(".sq-line label", has_text="Sentence").wait_for()
    page.keyboard.press("ArrowLeft")
    page.locator(".sq-line label", has_text="Phrase").wait_for()
    reached = []
    for _ in range(45):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUS)
        if not at["inside"]:
            break
        assert at["seen"], f"no visible focus on {at['text']!r}"
        reached.append(at["text"])
    wanted = {"Surprise me", "Open a photo", "coffee", "Boxes", "Heat map (%)", "Find"}
    assert wanted | {"Save PNG", "Save JSON", "the helmet"} <= set(reached)
    page.locator(".sq-thumb", has_text="coffee").focus()
    page.keyboard.press("Enter")
    wait_label(page, "a cup")
    page.locator(".sq-line input").focus()
    page.keyboard.press("Control+A")
    page.keyboard.type("the spoon")
    page.keyboard.press("Enter")
    wait_label(page, "the spoon")


def test_a_narrow_window_stacks_and_keeps_the_box_over_its_object(page, shipped):
    page.set_viewport_size(NARROW)
    photo = paths.PHOTOS / "astronaut.jpg"
    answer = shipped.ground(photo, "an orange suit", top_k=10)
    assert_box(page, photo, answer.boxes[0], within=0.015)
    stage, field = page.locator(".sq-stage").bounding_box(), page.locator(".sq-line").bounding_box()
    assert field["y"] > stage["y"] + stage["height"]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@contextlib.contextmanager
def lab(folder):
    port = server.free_port()
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--port={port}", "--allow-root"]
    words += ["--ip=127.0.0.1", "--IdentityProvider.token=test", f"--notebook-dir={folder}"]
    environment = os.environ | {"JUPYTER_PREFER_ENV_PATH": "1"}
    url = f"http://127.0.0.1:{port}/lab"
    with server.running(words, environment, url):
        yield url


def test_notebook_6_in_jupyterlab(browser, trained, tmp_path):
    widget_page.write_page(widget_page.SCRIPT, tmp_path / "06.ipynb", profile=SCENES)
    complaints = []
    with lab(tmp_path) as url:
        page = browser.new_context(viewport={"width": 1400, "height": 900}).new_page()
        page.set_default_timeout(widget_browser.PATIENCE)
        listen(page, complaints)
        page.goto(f"{url}/tree/06.ipynb?token=test")
        page.locator(".jp-Notebook h1", has_text="6 Query widget").wait_for()
        # What is run before the kernel is there may be lost.
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')
        page.locator(".jp-Notebook").press("Control+Home")
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        page.wait_for_selector(widget_browser.LOADED)
        ask(page, "the helmet")
        wait_label(page, "the helmet")
        # Keys typed into the widget are the widget's, not commands of the notebook.
        cells = page.locator(".jp-Cell").count()
        mode(page, "Play")
        page.locator(".sq-draw .wrapper").click()
        for key in ("d", "d", "s", "x", "b"):
            page.keyboard.press(key)
        assert page.locator(".jp-Cell").count() == cells
        page.context.close()
    assert complaints == []
