"""Play: the user draws a box for a phrase first, then sees the truth and the model's box.

The drawing is jupyter_bbox_widget's: of the ecosystem's widgets it is the one made for boxes, with
handles and keys, and it needs nothing from the network; ipyevents and ipycanvas would leave box,
handles and keys to this project. Its box is also in four number fields, for arrow keys.
"""

import random
from collections.abc import Callable, Sequence
from html import escape

import ipywidgets
import numpy as np
from jupyter_bbox_widget import BBoxWidget

from scene_utils import box_ops
from scene_utils.plots import GUESS, TRUTH
from scene_utils.widget.draw import HTML, YOU, Mark, overlay_html
from scene_utils.widget.models import View

SIDES = {"x": "left", "y": "top", "width": "width", "height": "height"}  # and as they are labelled
HINT = (
    "Drag on the picture, or type; arrow keys change a number. In the picture, W A S D move the "
    "box, Q E R F change its size, Enter checks, Esc leaves."
)


def score_text(rounds: Sequence[tuple[float, float]]) -> str:
    """The score of rounds, each the IoU of the user's and of the model's box.

    >>> score_text([(0.9, 0.5), (0.2, 0.6), (0.8, 0.1)])
    'You 2 : 1 model (3 rounds, mean IoU 0.63 to 0.40)'
    """
    if not rounds:
        return "No round played yet."
    won, lost = sum(yours > its for yours, its in rounds), sum(yours < its for yours, its in rounds)
    yours, its = np.mean(rounds, axis=0)
    count = f"{len(rounds)} round{'s' * (len(rounds) > 1)}"
    return f"You {won} : {lost} model ({count}, mean IoU {yours:.2f} to {its:.2f})"


class Drawing:
    """A box over a picture, by mouse or keys; `changed()` is called after each change."""

    def __init__(self):
        self.changed: Callable[[], None] = lambda: None
        self.canvas = BBoxWidget(classes=["you"], colors=[YOU], hide_buttons=True)
        self.canvas.add_class("sq-draw")
        self.middle = ipywidgets.Button(description="Box in the middle")
        number = ipywidgets.BoundedIntText  # from 0 on
        self.fields = [number(description=label, max=10_000) for label in SIDES.values()]
        self._own = False
        self.canvas.observe(self._drawn, "bboxes")
        self.middle.on_click(lambda _: self._take([side // 3 for side in self.view.size] * 2))
        for field in self.fields:
            field.observe(lambda _: self._typed(), "value")
        hint = ipywidgets.HTML(HINT).add_class("sq-hint")
        fields = ipywidgets.HBox(self.fields).add_class("sq-fields")
        self.keys = ipywidgets.VBox([fields, self.middle, hint]).add_class("sq-keys")

    def start(self, view: View) -> None:
        """Show a picture without a box."""
        self.view = view
        self.canvas.image_bytes = view.data
        self.scale = np.tile(np.divide(view.size, view.shown.size), 2)
        self._take([0] * 4)

    @property
    def box(self) -> np.ndarray | None:
        """The box `(4,)` in pixels of the picture, or None."""
        left, top, width, height = (field.value for field in self.fields)
        right, bottom = np.minimum([left + width, top + height], self.view.size)
        return np.float32([left, top, right, bottom]) if right > left and bottom > top else None

    def _take(self, sides: list[int], draw: bool = True) -> None:
        """Put left, top, width, height in pixels into the fields, and on the canvas too."""
        self._own = True
        try:
            for field, side in zip(self.fields, sides, strict=True):
                field.value = side
            if draw:
                box = dict(zip(SIDES, (sides / self.scale).tolist(), strict=True))
                there = sides[2] > 0 and sides[3] > 0
                self.canvas.bboxes = [box | {"label": "you"}] if there else []
                self.canvas.selected_index = 0 if there else -1
        finally:
            self._own = False
        self.changed()

    def _drawn(self, change: dict) -> None:
        if self._own:
            return
        sides = [0] * 4
        for box in change["new"][-1:]:  # a new box takes the place of the one before
            shown = [box[name] for name in SIDES] * self.scale
            sides = np.maximum(0, np.round(shown)).astype(int).tolist()
        self._take(sides, draw=len(change["new"]) > 1)

    def _typed(self) -> None:
        if not self._own:
            self._take([field.value for field in self.fields])


class Play:
    """Rounds of the game in `parts`; `asked` is the phrase of the present round."""

    def __init__(self, parts, drawing: Drawing, choices: random.Random):
        self.parts, self.drawing, self.choices = parts, drawing, choices
        self.rounds, self.asked = [], ""
        drawing.changed = self._changed

    def start(self, view: View) -> None:
        """A new round: a phrase of the picture whose truth is known, and no box yet."""
        true_box = view.picture.true_box
        phrases = [phrase for phrase in view.picture.phrases if true_box(phrase) is not None]
        self.parts.running.value = score_text(self.rounds)
        self.parts.again.disabled = not phrases
        self.parts.overlay.value = ""
        self._draw(bool(phrases))
        if not phrases:
            self.parts.task.value = "No truth is known for this picture: choose another one."
            self.parts.check.disabled = True
            return
        others = [phrase for phrase in phrases if phrase != self.asked]
        self.asked = self.choices.choice(others or phrases)
        self.parts.task.value = f"Draw a box around <b>{escape(self.asked)}</b>"
        self.drawing.start(view)

    def check(self, models: np.ndarray) -> None:
        """Show the truth and the model's box `(4,)`, and count the round."""
        view, yours = self.drawing.view, self.drawing.box
        truth = view.picture.true_box(self.asked)
        mine, its = (float(box_ops.iou(box, truth)) for box in (yours, models))
        marks = [
            Mark(yours, "you", YOU),
            Mark(models, "model", GUESS, corner=1),
            Mark(truth, "truth", TRUTH, dashed=True, corner=3),
        ]
        rows = [(YOU, "you", HTML.verdict(mine)), (GUESS, "the model", HTML.verdict(its))]
        legend = HTML.legend([*rows, (TRUTH, "truth", "")])
        self.rounds.append((mine, its))
        self.parts.task.value = f"<b>{escape(self.asked)}</b>{legend}"
        self.parts.running.value = said = score_text(self.rounds)
        self.parts.overlay.value = overlay_html(view, marks, said=said)
        self.parts.check.disabled = True
        self._draw(False)

    def _draw(self, drawing: bool) -> None:
        for part in (self.drawing.canvas, self.drawing.keys):
            part.layout.display = "" if drawing else "none"
        self.parts.stage.layout.display = "none" if drawing else ""

    def _changed(self) -> None:
        self.parts.check.disabled = self.drawing.box is None
