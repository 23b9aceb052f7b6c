"""How long the query widget takes from Enter to the picture, in a real browser."""

import tempfile
from pathlib import Path

import numpy as np

from tests.browser import browser

PHRASES = ("an orange suit", "a woman", "an American flag", "the helmet", "a space shuttle")


def enter_to_picture(page, rounds: int = 40) -> list[float]:
    """Milliseconds from Enter to the frame with the answer, `rounds` times, picture seen before.

    `page` shows the widget with a picture that was asked already. Phrases take turns, so that no
    answer is like the one before it.
    """
    took = []
    for number in range(1, rounds + 4):
        browser.ask(page, PHRASES[number % len(PHRASES)])
        took.append(page.evaluate("window.sqTook"))
    return took[3:]  # the first few also warm the browser up


def measure(rounds: int = 40) -> dict:
    """Median and 95th percentile of `enter_to_picture`, for `make bench`.

    Raises RuntimeError that says what to install where a browser is missing.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        browser.widget_open(Path(folder)) as page,
    ):
        took = enter_to_picture(page, rounds)
    return {
        "enter_to_picture_ms": {
            "median": round(float(np.median(took)), 1),
            "p95": round(float(np.percentile(took, 95)), 1),
            "n": len(took),
        }
    }
