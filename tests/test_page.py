"""The query widget's page where pages fail: two tabs, huge photos, long phrases, reload and back,
narrow windows, screen readers, odd names.

Needs Chromium and Playwright, as `test_browser` does, but nothing trained: it shows the photos
alone. The page lies in a folder whose name has a space and an umlaut.
"""

import json
import re
import shutil
import subprocess
import time
import unicodedata
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scene_utils import box_ops, images, paths
from scene_utils.widget import page as widget_page
from tests.browser import browser as headless
from tests.browser import server
from tests.browser.browser import NARROW, WIDE, ask, choose, listen, mode, status, wait_label

pytestmark = pytest.mark.slow
MODES = ("Phrase", "Sentence", "Compare", "Play")
AXE = "axe-core@4.14.1"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Schöne Seiten")
    book = widget_page.write_page(headless.PHOTOS_PAGE, folder / "eine Übersicht.ipynb")
    with server.served(book) as url:
        yield url


def boxes(page) -> np.ndarray:
    """The boxes in the table beside the picture, `(n, 4)` in pixels."""
    cells = page.locator(".sq-boxes td:last-child").all_inner_texts()
    return np.float32([[float(side) for side in cell.split(",")] for cell in cells])


def shown(page) -> str:
    page.locator(".sq-stage .sq-box").first.wait_for()
    return page.locator(".sq-caption").inner_text()


def test_two_tabs_each_answer_for_their_own_photo(page, address, complaints):
    other = page.context.new_page()
    listen(other, complaints)
    headless.load(other, address)
    tabs = {page: ("chelsea", "451 x 300"), other: ("rocket", "640 x 427")}
    for tab, (name, _) in tabs.items():
        headless.upload(tab, "mine.jpg", (paths.PHOTOS / f"{name}.jpg").read_bytes())
    for tab, (_, size) in tabs.items():
        tab.locator(".sq-caption", has_text=f"your photo, {size}").wait_for()
    phrases = {page: "the nose of the cat", other: "the night sky"}
    for tab, phrase in phrases.items():  # both are asked before either has answered
        tab.locator(".sq-line input").fill(phrase)
        tab.locator(".sq-line input").press("Enter")
    for tab, phrase in phrases.items():
        wait_label(tab, phrase)
        assert phrases[page if tab is other else other] not in tab.locator(".sq-app").inner_text()
        width, height = map(int, re.findall(r"\d+", shown(tab)))
        assert (boxes(tab) <= [width, height, width, height]).all()
    other.close(run_before_unload=True)


@pytest.mark.parametrize("noise", [0, 12], ids=["one message", "made smaller by the browser"])
def test_a_photo_of_24_megapixels(page, tmp_path, noise):
    """The coffee photo, ten times as wide; with noise its file is past one message's size."""
    photo = images.open_image(paths.PHOTOS / "coffee.jpg")
    large = np.asarray(photo.resize((6000, 4000), Image.Resampling.BICUBIC)).astype(np.int16)
    if noise:
        large += np.random.default_rng(0).integers(-noise, noise + 1, large.shape, np.int16)
    path = tmp_path / "large.jpg"
    Image.fromarray(large.clip(0, 255).astype(np.uint8)).save(path, quality=97 if noise else 80)
    assert (path.stat().st_size > 6e6) == bool(noise)
    choose(page, "coffee")
    wait_label(page, "a cup")
    # Not the cup: whether its second look is taken is a matter of a hundredth of its score.
    ask(page, "a red saucer")
    wait_label(page, "a red saucer")
    small = boxes(page)[0]
    page.locator(".sq-find input[type=file]").set_input_files(path)
    page.locator(".sq-caption", has_text="your photo, 6000 x 4000").wait_for()
    wait_label(page, "a red saucer")
    assert box_ops.iou(boxes(page)[0], 10 * small) > 0.9
    picture = page.locator(".sq-stage .sq-picture")
    width, height, sent = picture.evaluate("e => [e.naturalWidth, e.naturalHeight, e.src.length]")
    assert (width, round(height / width, 2)) == (1600, 0.67)
    assert sent < 2e6
    assert picture.bounding_box()["width"] <= 1280


def overflowing(page) -> list[str]:
    """What sticks out at the right of the window, or of the picture, but for what scrolls."""
    return page.evaluate(
        """() => [...document.querySelectorAll(".sq-app *")]
          .filter((e) => !e.closest(".sq-strip") && e.getBoundingClientRect().right > 1 +
            (e.closest(".sq-sheet")?.getBoundingClientRect().right ?? innerWidth))
          .map((e) => `${e.tagName} ${e.className}`)"""
    )


LONG = "a red cup with a saucer and a silver spoon on a brown wooden table beside a window " * 4
LONG = {"words": LONG[:300].strip(), "one word": "the cup " + 292 * "x"}


@pytest.mark.parametrize("phrase", LONG.values(), ids=LONG)
def test_a_phrase_of_300_characters(page, phrase):
    choose(page, "coffee")
    wait_label(page, "a cup")
    ask(page, phrase)
    status(page, "does not read the last words" if " table " in phrase else "does not know")
    for size in (WIDE, NARROW):
        page.set_viewport_size(size)
        for name in MODES[:3]:
            mode(page, name)
            page.locator(".sq-body .sq-box:visible").first.wait_for()
            assert overflowing(page) == []
    mode(page, "Phrase")
    asked = page.get_by_role("button", name=f"coffee: {phrase[:20]}").first
    assert len(asked.inner_text()) <= 60
    with page.expect_download() as kept:
        page.get_by_role("button", name="Save PNG").click()
    assert len(kept.value.suggested_filename) <= 90
    assert Image.open(kept.value.path()).size == (600, 400)


def kernel_of(page) -> str:
    return json.loads(page.locator("#jupyter-config-data").inner_text())["kernelId"]


def runs(address: str, kernel: str, seconds: float = 0) -> bool:
    """Whether the server has a kernel, and has it still after at most so many seconds."""
    base, token = address.split("?")
    until = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{base}api/kernels/{kernel}?{token}", timeout=20).close()
        except urllib.error.HTTPError as error:
            return error.code != 404
        if time.monotonic() > until:
            return True
        time.sleep(0.2)


def test_reload_and_back_bring_a_new_page_that_answers(browser, address):
    page, complaints = browser.new_context(viewport=WIDE).new_page(), []
    listen(page, complaints)
    headless.load(page, address)
    steps = {
        "reload": page.reload,
        "back": lambda: (page.goto("about:blank"), page.go_back()),
        # As the browser says where it kept the whole page, whose kernel has ended.
        "back to a page kept": lambda: page.evaluate(
            "dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))"
        ),
    }
    page.set_default_navigation_timeout(headless.PATIENCE)
    for name, step in steps.items():
        choose(page, "chelsea")
        wait_label(page, "a cat")
        kernel = kernel_of(page)
        assert runs(address, kernel)
        page.evaluate("window.before = true")
        step()
        page.wait_for_function("!window.before", timeout=headless.PATIENCE)
        page.wait_for_selector(headless.LOADED, timeout=headless.PATIENCE)
        # The new page does not wait for the end of the kernel before it.
        ended = not runs(address, kernel, seconds=20)
        assert ended, f"{name}: the kernel of the page before still runs"
        wait_label(page, "an orange suit")
        assert "chelsea" not in page.locator(".sq-body").inner_text()
        ask(page, "the helmet")
        wait_label(page, "the helmet")
    page.context.close()
    # Of the last request of a page nobody hears the answer.
    assert [told for told in complaints if "api/shutdown" not in told] == []


def test_a_narrow_window_has_everything_within_reach(page):
    page.set_viewport_size(NARROW)
    answered = (".sq-boxes", ".sq-legend", ".sq-panels figure", ".sq-draw svg")
    for name, part in zip(MODES, answered, strict=True):
        mode(page, name)
        page.locator(part).first.wait_for()
        page.wait_for_timeout(1000)  # buttons of what was asked before come last
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert overflowing(page) == []
        controls = page.locator(".sq-app :is(button, input, .noUi-handle):visible:enabled")
        for control in controls.all():
            if control.get_attribute("type") in ("radio", "file"):
                continue
            control.scroll_into_view_if_needed()
            box = control.bounding_box()
            assert box["x"] >= 0, control.inner_text()
            assert box["x"] + box["width"] <= 390, control.inner_text()
            control.click(trial=True)
    # The four numbers of a box stand in one line, as do the cells of a table.
    fields = page.locator(".sq-fields .widget-text").all()
    assert len({round(field.bounding_box()["y"]) for field in fields}) == 1
    mode(page, "Phrase")
    page.locator(".sq-boxes td").first.wait_for()
    assert page.locator(".sq-boxes td").first.bounding_box()["height"] < 30


@pytest.fixture(scope="module")
def axe():
    """The script of axe-core, the accessibility checker; npm fetches it into `build/axe`."""
    folder = paths.ROOT / "build" / "axe"
    script = folder / "package" / "axe.min.js"
    if not script.is_file():
        if not shutil.which("npm"):
            pytest.skip("axe-core checks accessibility, and npm, which fetches it, is not there")
        folder.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", AXE, "--silent"], cwd=folder, capture_output=True, text=True
        )
        if packed.returncode:
            pytest.skip(f"npm could not fetch {AXE}: {packed.stderr.strip()[-300:]}")
        shutil.unpack_archive(folder / packed.stdout.split()[-1], folder, filter="data")
    return script.read_text(encoding="utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page, axe, scheme):
    page.emulate_media(color_scheme=scheme)
    page.evaluate(axe)
    found = []

    def check(where: str) -> None:
        page.wait_for_timeout(300)  # colours fade
        result = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
        for rule in result["violations"]:
            nodes = "; ".join(node["html"][:200] for node in rule["nodes"][:3])
            found.append(f"{where}: {rule['impact']} {rule['id']}: {nodes}")

    ask(page, "an orange suitt")
    status(page, "Did you mean")
    check("a word not known")
    ask(page, "?!")
    status(page, "has no words")
    check("an error")
    page.get_by_label("Ground truth").check()
    for name in MODES:
        mode(page, name)
        if name != "Play":
            choose(page, "coffee")
            page.locator(".sq-body .sq-box:visible").first.wait_for()
        check(name)
    page.get_by_role("button", name="Box in the middle").click()
    page.get_by_role("button", name="Check").click()
    page.locator(".sq-task .sq-verdict").nth(1).wait_for()
    check("a round of play")
    mode(page, "Phrase")
    page.get_by_label("Ground truth").uncheck()
    page.emulate_media(color_scheme="light")
    assert found == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_a_photo_whose_name_has_a_space_and_an_umlaut(page, tmp_path, form):
    path = tmp_path / "Grüße aus Köln" / f"{unicodedata.normalize(form, 'schöne Straße')} 1.jpg"
    path.parent.mkdir()
    shutil.copy(paths.PHOTOS / "chelsea.jpg", path)
    page.locator(".sq-find input[type=file]").set_input_files(path)
    page.locator(".sq-caption", has_text="your photo, 451 x 300").wait_for()
    chosen = page.locator(".sq-thumb.sq-chosen")
    assert unicodedata.normalize("NFC", chosen.inner_text()) == "schöne Straße 1.jpg"
    ask(page, f"the cat {'again' * (form == 'NFD')}".strip())
    wait_label(page, "the cat")
    with page.expect_download() as kept:
        page.get_by_role("button", name="Save JSON").click()
    assert kept.value.suggested_filename.startswith("schöne_Straße_1_the_cat")


def contrast(ink, ground):
    """Contrast of two CSS colours, `rgb` or `rgba`, on one another, as WCAG 2 defines it."""
    ink, ground = ([float(part) for part in re.findall(r"[\d.]+", c)] for c in (ink, ground))
    opacity = ink[3] if len(ink) == 4 else 1
    ink = opacity * np.array(ink[:3]) + (1 - opacity) * np.array(ground)

    def light(colour):
        parts = np.asarray(colour) / 255
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((light(ink), light(ground)))
    return (high + 0.05) / (low + 0.05)


def test_light_and_dark(page):
    grounds = {}
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        title = page.locator(".sq-title h2")
        ink = title.evaluate("e => getComputedStyle(e).color")
        grounds[scheme] = page.locator("body").evaluate("e => getComputedStyle(e).backgroundColor")
        assert contrast(ink, grounds[scheme]) > 7
    page.emulate_media(color_scheme="light")
    assert grounds["light"] == "rgb(255, 255, 255)"
    assert contrast("rgb(255, 255, 255)", grounds["dark"]) > 10


def test_nobody_without_the_token_or_from_outside_gets_in(address):
    bare = address.split("?")[0]
    with urllib.request.urlopen(bare, timeout=20) as answer:
        assert "/login" in answer.url
        assert b"sq-app" not in answer.read()
    port = int(re.search(r":(\d+)", bare)[1])
    # In Linux's table of listening sockets, 0100007F is 127.0.0.1.
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    at = {
        row[1].split(":")[0] for row in listening if row[3] == "0A" and int(row[1][-4:], 16) == port
    }
    assert at == {"0100007F"}
