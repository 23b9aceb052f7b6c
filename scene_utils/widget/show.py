"""What answers look like: boxes to mark, a text beside them, and notices for the user."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scene_utils import box_ops
from scene_utils.plots import COLOURS, GUESS, TRUTH
from scene_utils.widget.draw import (
    Mark,
    boxes_html,
    legend_html,
    panels_html,
    score_html,
    verdict_html,
    words_html,
)
from scene_utils.widget.models import Answer, View
from scene_utils.widget.suggest import SHORT, did_you_mean, shorten
from scene_utils.words import Vocabulary

# A warning is to be rare where the phrase is right: at .5 it meets a fifth of those.
ABSENT = 0.25
MODEL_COLOURS = {"constant": COLOURS[5], "source": COLOURS[0], "grid": GUESS}


@dataclass(frozen=True)
class Shown:
    """Marks and a heat map to lay over the picture, and HTML beside it or in its place."""

    marks: list[Mark] = field(default_factory=list)
    heat: np.ndarray | None = None
    text: str = ""
    panels: str = ""

    def said(self) -> str:
        """The marks in words, for screen readers."""
        return "; ".join(
            f"{mark.label or 'truth'}: {', '.join(f'{side:.0f}' for side in mark.box)} px"
            for mark in self.marks
        )


def iou_of(view: View, answer: Answer) -> float | None:
    """IoU of the best box with the truth; None where no truth is known."""
    truth = view.picture.true_box(answer.phrase)
    return None if truth is None else float(box_ops.iou(answer.boxes[0], truth))


def _verdict(view: View, answer: Answer) -> str:
    iou = iou_of(view, answer)
    return "<span class=sq-hint>no truth is known</span>" if iou is None else verdict_html(iou)


def _truth(view: View, answer: Answer, **how) -> list[Mark]:
    box = view.picture.true_box(answer.phrase)
    return [] if box is None else [Mark(box, dashed=True, **how)]


def show_phrase(view: View, answer: Answer, count: int, truth: bool) -> Shown:
    """The best `count` boxes of one phrase, its words' weights, and the truth where asked for."""
    score = float(answer.scores[0])
    marks = [Mark(answer.boxes[0], f"{shorten(answer.phrase, SHORT)} {score:.2f}")]
    for rank, box in enumerate(answer.boxes[1:count], start=2):
        marks.append(Mark(box, str(rank), thin=True))
    if truth:
        marks += _truth(view, answer, label="truth", colour=TRUTH, corner=3)
    verdict = _verdict(view, answer) if truth else ""
    text = f"<div class=sq-best>{score_html(score)} {verdict}</div>"
    return Shown(marks, answer.heat, text + words_html(answer) + boxes_html(answer, count))


def show_sentence(view: View, answers: Sequence[Answer], truth: bool) -> Shown:
    """The best box of each phrase in its colour; past the palette's six, dashed."""
    marks, rows = [], []
    for place, answer in enumerate(answers):
        colour, dashed = COLOURS[place % len(COLOURS)], place >= len(COLOURS)
        marks.append(Mark(answer.boxes[0], answer.phrase, colour, dashed, corner=place % 4))
        if truth:
            marks += _truth(view, answer, colour=colour, thin=True)
        verdict = _verdict(view, answer) if truth else ""
        rows.append((colour, answer.phrase, score_html(float(answer.scores[0])) + verdict))
    return Shown(marks, text=legend_html(rows))


def show_compared(view: View, answers: Sequence[Answer], truth: bool) -> Shown:
    """A copy of the picture for each model; the marks have all of them, to be saved."""
    marks, panels = [], []
    for place, answer in enumerate(answers):
        name = answer.model.split(",")[0]
        mark = Mark(answer.boxes[0], name, MODEL_COLOURS[name], corner=place)
        true = _truth(view, answer, colour=TRUTH) if truth else []
        panels.append((answer.model, [mark, *true], _verdict(view, answer)))
        marks.append(mark)
    marks += _truth(view, answers[0], colour=TRUTH, label="truth", corner=3) if truth else []
    return Shown(marks[::-1], panels=panels_html(view, panels))


def closest(view: View, answers: Sequence[Answer]) -> str:
    """Which model comes closest to the truth, in words."""
    ious = [iou_of(view, answer) for answer in answers]
    if None in ious:
        return f"{len(answers)} models answered; the truth is not known."
    best = int(np.argmax(ious))
    return f"Closest to the truth: {answers[best].model}, with IoU {ious[best]:.2f}."


def notices(
    answers: Sequence[Answer], vocabulary: Vocabulary
) -> tuple[list[str], list[tuple[str, str]]]:
    """What to tell the user of a grid model's answers, and pairs (unknown word, word meant).

    Told are phrases that are probably not in the picture, words that the model does not know, and
    words that it does not read.
    """
    told, meant = [], []
    for answer in answers:
        if answer.present is not None and answer.present < ABSENT:
            chance = f"chance that it is: {100 * answer.present:.0f} %"
            told.append(
                f"'{shorten(answer.phrase, 80)}' is probably not in the picture ({chance})."
            )
        if len(answer.unknown) > max(1, len(answer.words) // 2):
            words = ", ".join(shorten(word, SHORT) for word in answer.unknown)
            told.append(f"The model reads English; it does not know {words}.")
            continue
        for word in answer.unknown:
            near = did_you_mean(word, vocabulary)
            meant += [(word, other) for other in near]
            asks = f" Did you mean {' or '.join(near)}?" if near else ""
            told.append(f"The model does not know '{shorten(word, SHORT)}'.{asks}")
        if answer.unread:
            words = shorten(" ".join(answer.unread), 80)
            told.append(f"The model does not read the last words, '{words}'.")
    return list(dict.fromkeys(told)), list(dict.fromkeys(meant))
