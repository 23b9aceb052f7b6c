"""The query widget's parts and their places; what they do is in `app`.

Two are made for the browser, by anywidget, since ipywidgets has none: `Bridge` and `Status`.
"""

from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path

import anywidget
import ipywidgets
import traitlets

from scene_utils.widget.gallery import Gallery
from scene_utils.widget.play import Drawing
from scene_utils.widget.suggest import shorten

PHRASE, SENTENCE, COMPARE, PLAY = MODES = ("Phrase", "Sentence", "Compare", "Play")
CHIPS, MEANT, HISTORY = 8, 4, 8
HERE = Path(__file__).parent


class Bridge(anywidget.AnyWidget):
    """A button to open a photo, paste and drop of one, and downloads to the browser.

    `taken(name, data, size, count)` is called with a file's name, its bytes, width and height in
    pixels where the browser made it smaller (else None), and the number of bytes of the file. Bytes
    are empty where the file is large and the browser cannot read it as a picture.
    """

    _esm = HERE / "bridge.js"
    alt = traitlets.Unicode("").tag(sync=True)

    def __init__(self, taken: Callable[[str, bytes, list[int] | None, int], None]):
        super().__init__()
        self.on_msg(
            lambda _, file, buffers: taken(
                file["name"], bytes(buffers[0]), file["size"], file["bytes"]
            )
        )

    def save(self, name: str, mime: str, data: bytes) -> None:
        self.send({"save": {"name": name, "mime": mime}}, [data])


class Status(anywidget.AnyWidget):
    """A message for eyes and screen readers; `kind` is info, warning or error."""

    _esm = HERE / "status.js"
    text = traitlets.Unicode("").tag(sync=True)
    kind = traitlets.Unicode("info").tag(sync=True)


def _html(name: str, text: str = "") -> ipywidgets.HTML:
    return ipywidgets.HTML(text).add_class(f"sq-{name}")


def _button(text: str = "", **how) -> ipywidgets.Button:
    return ipywidgets.Button(description=text, **how)


def _across(name: str, *children: ipywidgets.Widget) -> ipywidgets.HBox:
    return ipywidgets.HBox(children).add_class(f"sq-{name}")


def _down(name: str, *children: ipywidgets.Widget) -> ipywidgets.VBox:
    return ipywidgets.VBox(children).add_class(f"sq-{name}")


def label(buttons: Sequence[ipywidgets.Button], texts: Sequence[str], longest: int = 60) -> None:
    """Give buttons their texts and hide those left over; the whole text is the tooltip."""
    for button, text in zip(buttons, chain(texts, repeat("")), strict=False):
        button.layout.display = "" if text else "none"
        button.description = shorten(text, longest)
        button.tooltip = text


class Parts:
    """All controls as attributes; `root` holds them in their places."""

    def __init__(self, gallery: Gallery, bridge: Bridge, drawing: Drawing):
        self.mode = ipywidgets.RadioButtons(options=MODES, orientation="horizontal")
        self.canvas = drawing.canvas
        self.body = _across("body", self._left(), self._right(drawing.keys))
        style = (HERE / "style.css").read_text(encoding="utf-8")
        self.root = _down(
            "app",
            ipywidgets.HTML(f"<style>{style}</style>", layout={"display": "none"}),
            _across("head", _html("title", "<h2>Ask a picture</h2>"), self.mode),
            _across("find", gallery.query, gallery.surprise, bridge, gallery.count),
            gallery.widget,
            self.body,
        )

    def _left(self) -> ipywidgets.VBox:
        """The picture and how it is shown."""
        self.picture, self.overlay = _html("under"), _html("over")
        self.panels, self.caption = _html("panels"), _html("caption")
        self.sheet = ipywidgets.Box([self.picture, self.overlay]).add_class("sq-sheet")
        self.stage = ipywidgets.Box([self.sheet]).add_class("sq-stage")
        slider = ipywidgets.IntSlider
        self.count = slider(1, 1, 10, description="Boxes", tooltip="best boxes")
        self.heat = slider(0, 0, 100, 5, description="Heat map (%)", tooltip="opacity")
        self.zoom = slider(100, 100, 400, 25, description="Zoom (%)", tooltip="size")
        self.truth = ipywidgets.Checkbox(description="Ground truth", indent=False)
        self.things = ipywidgets.Checkbox(description="Each thing", indent=False)
        self.view = _across("view", self.count, self.heat, self.zoom, self.things, self.truth)
        return _down("left", self.stage, self.panels, self.canvas, self.caption, self.view)

    def _right(self, keys: ipywidgets.VBox) -> ipywidgets.VBox:
        """What is asked and answered; what is asked of the user, with `keys` to draw a box."""
        self.task, self.running = _html("task"), _html("running")
        self.check = _button("Check", button_style="primary")
        self.again, self.other = _button("Next phrase"), _button("Next picture")
        buttons = _across("chips", self.check, self.again, self.other)
        self.playing = _down("card", self.task, buttons, keys, self.running)
        self.field = ipywidgets.Combobox(
            description="Phrase", placeholder="the man in the red hat", continuous_update=False
        )
        self.find = _button("Find", button_style="primary")
        self.status, self.result = Status().add_class("sq-status"), _html("result")
        self.png, self.json = _button("Save PNG"), _button("Save JSON")
        self.meant, self.chips, self.past = (
            [_button() for _ in range(count)] for count in (MEANT, CHIPS, HISTORY)
        )
        self.finding = _down(
            "card",
            _across("line", self.field, self.find),
            self.status,
            _across("chips", *self.meant),
            self.result,
            _across("chips", self.png, self.json),
        )
        self.hint = _html("hint")
        self.ideas = _down("ideas", self.hint, _across("chips", *self.chips))
        self.before = _down("card", _html("hint", "Asked before"), _across("chips", *self.past))
        return _down("right", self.playing, self.finding, self.ideas, self.before)

    def arrange(self, mode: str) -> None:
        """Show what a mode needs and hide the rest."""
        play, compare = mode == PLAY, mode == COMPARE
        for there, *parts in (
            (play, self.playing),
            (not play, self.finding, self.ideas, self.before, self.view),
            (compare, self.panels),
            (not compare, self.zoom),
            (not compare and not play, self.stage),
            (mode == PHRASE, self.count, self.heat, self.things),
            (False, self.canvas),  # shown when a round starts
        ):
            for part in parts:
                part.layout.display = "" if there else "none"
        (self.body.add_class if compare else self.body.remove_class)("sq-wide")
        self.field.description = "Sentence" if mode == SENTENCE else "Phrase"

    def say(self, text: str, kind: str = "info") -> None:
        self.status.kind, self.status.text = kind, text
