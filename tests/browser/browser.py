"""A headless browser on the query widget, for its tests, its screenshots and `make bench`."""

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from scene_utils.widget import page as widget_page
from tests.browser import server

INSTALL = (
    "Install Chromium (Debian: `apt-get update && apt-get install -y chromium`) or set CHROMIUM to "
    "a browser of its family, and Playwright (`make env`, or `pip install playwright`)"
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# As root it cannot have its sandbox, which untrusted pages would need; it must not call home.
FLAGS = [
    *["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
    *["--disable-background-networking", "--disable-component-update", "--disable-sync"],
]
PHOTOS_PAGE = Path(__file__).with_name("photos_page.py")
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOADED = ".sq-app .sq-box"
PATIENCE = 400_000  # ms; a page starts a kernel and loads TensorFlow, on a busy machine
ANSWERED = 90_000  # ms; likewise generous


def executable() -> str:
    """The browser's path. Raises RuntimeError that says how to install one."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        raise RuntimeError(f"expected a browser, found none of {', '.join(NAMES)}. {INSTALL}")
    return found


@contextlib.contextmanager
def launched() -> Iterator:
    """A Playwright browser. Raises RuntimeError that says what to install where it is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise RuntimeError(f"expected the package playwright, found none. {INSTALL}") from None
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def widget_open(folder: Path, source: Path = widget_page.SCRIPT, **how) -> Iterator:
    """A page with the query widget of a notebook in `folder`, with the first answer on it.

    `how` goes to `browser.new_context`.
    """
    notebook = widget_page.write_page(source, folder / "widget.ipynb")
    with server.served(notebook) as url, launched() as browser:
        page = browser.new_context(**how).new_page()
        load(page, url)
        yield page


def load(page, url: str) -> None:
    """Open the widget's address and wait for its first answer."""
    page.goto(url, timeout=PATIENCE)
    page.wait_for_selector(LOADED, timeout=PATIENCE)
    page.set_default_timeout(ANSWERED)


def ask(page, phrase: str) -> None:
    """Type a phrase other than the last, press Enter, and wait until the picture shows a change."""
    field = page.locator(".sq-line input")
    if field.input_value() == phrase:
        raise ValueError(f"expected another phrase than {phrase!r}, which is answered already")
    page.evaluate(WATCH)
    field.fill(phrase)
    field.press("Enter")
    page.wait_for_function("window.sqTook !== null", timeout=ANSWERED)


def listen(page, complaints: list[str]) -> None:
    """Note errors in the console, failed requests and uncaught exceptions of a page."""
    page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
    page.on("response", lambda r: complaints.append(f"{r.status} {r.url}") if r.status > 399 else 0)


def mode(page, name: str) -> None:
    page.get_by_role("radio", name=name).check(force=True)


def choose(page, name: str) -> None:
    page.locator(".sq-thumb:enabled", has_text=name).click()


def status(page, text: str) -> str:
    """Wait until the message beside the field has a text, and return it whole."""
    message = page.get_by_role("status").filter(has_text=text)
    message.wait_for()
    return message.inner_text()


def wait_label(page, text: str) -> None:
    page.locator(".sq-sheet .sq-label", has_text=text).first.wait_for()


def upload(page, name: str, data: bytes) -> None:
    page.locator(".sq-find input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/jpeg", "buffer": data}
    )


def image_bytes(image, kind: str = "JPEG", **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


# Milliseconds from the key to the frame that shows the answer, as the browser sees both.
WATCH = """() => {
  window.sqTook = null;
  let start = null;
  const keyed = (event) => { if (event.key === "Enter") start = event.timeStamp; };
  document.addEventListener("keydown", keyed, { capture: true, once: true });
  const over = document.querySelector(".sq-over");
  const seen = new MutationObserver(() => {
    if (start === null) return;
    seen.disconnect();
    requestAnimationFrame(() => setTimeout(() => { window.sqTook = performance.now() - start; }));
  });
  seen.observe(over, { childList: true, subtree: true });
}"""
