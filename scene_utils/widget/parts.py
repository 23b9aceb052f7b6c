"""The query widget's parts and their places; what they do is in `widget`."""

from collections.abc import Sequence
from pathlib import Path

import ipywidgets

from scene_utils.widget.bridge import Bridge, Status
from scene_utils.widget.gallery import Gallery
from scene_utils.widget.play import Drawing
from scene_utils.widget.suggest import shorten

PHRASE, SENTENCE, COMPARE, PLAY = MODES = ("Phrase", "Sentence", "Compare", "Play")
CHIPS, MEANT, HISTORY = 8, 4, 8


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
    for place, button in enumerate(buttons):
        text = texts[place] if place < len(texts) else ""
        button.layout.display = "" if text else "none"
        button.description = shorten(text, longest)
        button.tooltip = text


class Parts:
    """All controls as attributes; `root` holds them in their places."""

    def __init__(self, gallery: Gallery, bridge: Bridge, drawing: Drawing):
        self.mode = ipywidgets.RadioButtons(options=MODES, orientation="horizontal")
        self.stage, self.canvas = self._stage(), drawing.canvas
        left = _down("left", self.stage, self.panels, self.canvas, self.caption, self._view())
        right = _down("right", self._playing(drawing), self._finding(), *self._below())
        self.body = _across("body", left, right)
        style = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")
        self.root = _down(
            "app",
            ipywidgets.HTML(f"<style>{style}</style>", layout={"display": "none"}),
            _across("head", _html("title", "<h2>Ask a picture</h2>"), self.mode),
            _across("find", gallery.query, gallery.surprise, bridge, gallery.count),
            gallery.widget,
            self.body,
        )

    def _stage(self) -> ipywidgets.Box:
        self.picture, self.overlay = _html("under"), _html("over")
        self.panels, self.caption = _html("panels"), _html("caption")
        self.sheet = ipywidgets.Box([self.picture, self.overlay]).add_class("sq-sheet")
        return ipywidgets.Box([self.sheet]).add_class("sq-stage")

    def _view(self) -> ipywidgets.HBox:
        slider = ipywidgets.IntSlider
        self.count = slider(1, 1, 10, description="Boxes", tooltip="best boxes")
        self.heat = slider(0, 0, 100, 5, description="Heat map (%)", tooltip="opacity")
        self.zoom = slider(100, 100, 400, 25, description="Zoom (%)", tooltip="size")
        self.truth = ipywidgets.Checkbox(description="Ground truth", indent=False)
        self.view = _across("view", self.count, self.heat, self.zoom, self.truth)
        return self.view

    def _finding(self) -> ipywidgets.VBox:
        self.field = ipywidgets.Combobox(
            description="Phrase", placeholder="the man in the red hat", continuous_update=False
        )
        self.find = _button("Find", button_style="primary")
        self.status = Status().add_class("sq-status")
        self.meant = [_button() for _ in range(MEANT)]
        self.result = _html("result")
        self.png, self.json = _button("Save PNG"), _button("Save JSON")
        self.finding = _down(
            "card",
            _across("line", self.field, self.find),
            self.status,
            _across("chips", *self.meant),
            self.result,
            _across("chips", self.png, self.json),
        )
        return self.finding

    def _below(self) -> tuple[ipywidgets.VBox, ipywidgets.VBox]:
        self.hint = _html("hint")
        self.chips = [_button() for _ in range(CHIPS)]
        self.past = [_button() for _ in range(HISTORY)]
        self.ideas = _down("ideas", self.hint, _across("chips", *self.chips))
        asked = _across("chips", *self.past)
        self.before = _down("card", _html("hint", "Asked before"), asked)
        return self.ideas, self.before

    def _playing(self, drawing: Drawing) -> ipywidgets.VBox:
        self.task, self.running = _html("task"), _html("running")
        self.check = _button("Check", button_style="primary")
        self.again, self.other = _button("Next phrase"), _button("Next picture")
        self.playing = _down(
            "card",
            self.task,
            _across("chips", self.check, self.again, self.other),
            drawing.keys,
            self.running,
        )
        return self.playing

    def arrange(self, mode: str) -> None:
        """Show what a mode needs and hide the rest."""
        play, compare = mode == PLAY, mode == COMPARE
        for part, there in (
            (self.playing, play),
            (self.finding, not play),
            (self.ideas, not play),
            (self.before, not play),
            (self.panels, compare),
            (self.stage, not compare and not play),
            (self.canvas, False),  # shown when a round starts
            (self.view, not play),
            (self.zoom, not compare),
            (self.count, mode == PHRASE),
            (self.heat, mode == PHRASE),
        ):
            part.layout.display = "" if there else "none"
        (self.body.add_class if compare else self.body.remove_class)("sq-wide")
        self.field.description = "Sentence" if mode == SENTENCE else "Phrase"

    def say(self, text: str, kind: str = "info") -> None:
        """Put a message beside the field; `kind` is info, warning or error."""
        self.status.kind, self.status.text = kind, text
