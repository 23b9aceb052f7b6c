"""What the query widget shows: pictures, boxes over them and answers as HTML, and files to save.

The HTML stands in `template/answer.html.j2`. Boxes are laid over the picture in percent of it, so
that they stay over their object in a window of any width; the picture itself is sent once.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from PIL import Image, ImageDraw, ImageFont

from scene_utils import box_ops
from scene_utils.plots import COLOURS, GUESS, TRUTH
from scene_utils.widget.models import Answer, View, encode
from scene_utils.widget.suggest import SHORT, shorten

YOU = "#0072B2"
PANEL = 480
MODEL_COLOURS = {"constant": COLOURS[5], "source": COLOURS[0], "grid": GUESS}


@dataclass(frozen=True)
class Mark:
    """A box `(4,)` in pixels of the picture to draw: its label, colour and line.

    `corner` has the label: 0 top left, 1 top right, 2 bottom left, 3 bottom right.
    """

    box: np.ndarray
    label: str = ""
    colour: str = GUESS
    dashed: bool = False
    thin: bool = False
    corner: int = 0


def ink(colour: str) -> str:
    """Black or white, whichever reads better on a colour such as #D55E00."""
    light = np.dot(np.power(to_rgb(colour), 2.2), (0.2126, 0.7152, 0.0722))
    return "#000000" if light > 0.179 else "#ffffff"


templates = FileSystemLoader(Path(__file__).parent / "template")
environment = Environment(loader=templates, autoescape=True)
environment.filters |= {"shorten": shorten, "ink": ink}
HTML = environment.get_template("answer.html.j2").module


def data_url(data: bytes, kind: str = "jpeg") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def heat_image(heat: np.ndarray) -> Image.Image:
    """A heat map `(cells, cells)` as RGBA, a pixel a cell: the brighter and denser, the hotter."""
    level = np.sqrt(np.asarray(heat, np.float64) / max(float(np.max(heat)), 1e-12))
    pixels = np.uint8(255 * colormaps["cividis"](level))
    pixels[..., 3] = np.uint8(255 * np.clip(0.15 + 0.85 * level, 0, 1))
    return Image.fromarray(pixels)


def overlay_html(
    view: View, marks: Sequence[Mark], heat: np.ndarray | None = None, opacity=0.0, said=""
) -> str:
    """Boxes and a heat map to lie over the picture; `said` is their text for screen readers, where
    it is empty each label and its pixels."""
    if not marks:
        return ""
    glows = heat is not None and opacity > 0
    url = data_url(encode(heat_image(heat), "PNG"), "png") if glows else ""
    return HTML.overlay(view, marks, said, url, opacity)


def png_bytes(
    view: View, marks: Sequence[Mark], heat: np.ndarray | None = None, opacity: float = 0
) -> bytes:
    """The picture with its heat map and labelled boxes, as PNG to keep."""
    image = view.shown.convert("RGB")
    if heat is not None and opacity > 0:
        glow = heat_image(heat).resize(image.size, Image.Resampling.BILINEAR)
        glow.putalpha(glow.getchannel("A").point(lambda value: int(value * opacity)))
        image.paste(glow, (0, 0), glow)
    draw = ImageDraw.Draw(image)
    unit = max(1, round(max(image.size) / 320))
    font = ImageFont.load_default(size=max(10, 7 * unit))
    scale = np.tile(np.divide(image.size, view.size), 2)
    for mark in reversed(marks):
        box = (mark.box * scale).tolist()
        if not mark.thin:
            draw.rectangle(box, outline="white", width=2 * unit)
        draw.rectangle(box, outline=mark.colour, width=unit)
        if label := shorten(mark.label, 40):
            left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
            size = (right - left + 4 * unit, bottom - top + 4 * unit)
            x = min(box[0], max(0, image.width - size[0]))
            y = box[1] - size[1] if box[1] >= size[1] else box[1]
            draw.rectangle((x, y, x + size[0], y + size[1]), fill=mark.colour)
            draw.text((x + 2 * unit - left, y + 2 * unit - top), label, ink(mark.colour), font)
    return encode(image, "PNG")


def json_bytes(view: View, answers: Sequence[Answer]) -> bytes:
    """The answers as JSON to keep, with their IoU where the truth is known."""
    told = ("phrase", "model", "boxes", "scores", "present", "unknown", "rare", "unread")
    found = [{name: getattr(answer, name) for name in told} for answer in answers]
    for answer, entry in zip(answers, found, strict=True):
        entry["words"] = [[word, round(weight, 4)] for word, weight in answer.words]
        entry["iou"] = iou_of(view, answer)
    about = {"picture": view.picture.name, "width": view.width, "height": view.height}
    about["box"] = "x_min, y_min, x_max, y_max in pixels, 0-based, maxima exclusive"
    about["answers"] = found
    text = json.dumps(about, indent=1, default=lambda array: array.astype(float).round(4).tolist())
    return (text + "\n").encode()


@dataclass(frozen=True)
class Shown:
    """Marks and a heat map to lay over the picture, and HTML beside it or in its place."""

    marks: list[Mark] = field(default_factory=list)
    heat: np.ndarray | None = None
    text: str = ""
    panels: str = ""


def iou_of(view: View, answer: Answer) -> float | None:
    """IoU of the best box with the truth; None where no truth is known."""
    truth = view.picture.true_box(answer.phrase)
    return None if truth is None else float(box_ops.iou(answer.boxes[0], truth))


def _truth(view: View, answer: Answer, wanted: bool, **how) -> list[Mark]:
    box = view.picture.true_box(answer.phrase) if wanted else None
    return [] if box is None else [Mark(box, dashed=True, **how)]


def show_phrase(view: View, answer: Answer, count: int, truth: bool) -> Shown:
    """The best `count` boxes of one phrase, its words' weights, and the truth where asked for."""
    marks = [Mark(answer.boxes[0], f"{shorten(answer.phrase, SHORT)} {answer.scores[0]:.2f}")]
    for rank, box in enumerate(answer.boxes[1:count], start=2):
        marks.append(Mark(box, str(rank), thin=True))
    marks += _truth(view, answer, truth, label="truth", colour=TRUTH, corner=3)
    verdict = HTML.verdict(iou_of(view, answer)) if truth else ""
    return Shown(marks, answer.heat, HTML.phrase(answer, count, verdict))


def show_things(view: View, answer: Answer, truth: bool) -> Shown:
    """Each thing that a phrase names in its colour, with its own score, and the merged truth."""
    marks, rows = [], []
    for place, (box, score) in enumerate(zip(answer.boxes, answer.scores, strict=True)):
        colour, dashed = COLOURS[place % len(COLOURS)], place >= len(COLOURS)
        marks.append(Mark(box, f"{place + 1}", colour, dashed))
        rows.append((colour, f"{place + 1}", HTML.score(score)))
    marks += _truth(view, answer, truth, label="truth", colour=TRUTH, corner=3)
    return Shown(marks, answer.heat, HTML.legend(rows))


def show_sentence(view: View, answers: Sequence[Answer], truth: bool) -> Shown:
    """The best box of each phrase in its colour; past the palette's six, dashed."""
    marks, rows = [], []
    for place, answer in enumerate(answers):
        colour, dashed = COLOURS[place % len(COLOURS)], place >= len(COLOURS)
        marks.append(Mark(answer.boxes[0], answer.phrase, colour, dashed, corner=place % 4))
        marks += _truth(view, answer, truth, colour=colour, thin=True)
        verdict = HTML.verdict(iou_of(view, answer)) if truth else ""
        rows.append((colour, answer.phrase, HTML.score(answer.scores[0]) + verdict))
    return Shown(marks, text=HTML.legend(rows))


def show_compared(view: View, answers: Sequence[Answer], truth: bool) -> Shown:
    """A copy of the picture for each model; the marks have all of them, to be saved."""
    small = view.shown.copy()
    small.thumbnail((PANEL, PANEL))
    marks, panels = [], []
    for place, answer in enumerate(answers):
        name, _, about = answer.model.partition(", ")
        mark = Mark(answer.boxes[0], name, MODEL_COLOURS[name], corner=place)
        true = _truth(view, answer, truth, colour=TRUTH)
        over = overlay_html(view, [mark, *true], said=f"box of {answer.model}")
        panels.append((name, about, over, iou_of(view, answer)))
        marks.append(mark)
    marks += _truth(view, answers[0], truth, label="truth", colour=TRUTH, corner=3)
    url = data_url(encode(small, quality=88))
    return Shown(marks[::-1], panels=HTML.compared(url, view.picture.alt, panels))


def closest(view: View, answers: Sequence[Answer]) -> str:
    """Which model comes closest to the truth, in words."""
    ious = [iou_of(view, answer) for answer in answers]
    if None in ious:
        return f"{len(answers)} models answered; the truth is not known."
    best = int(np.argmax(ious))
    return f"Closest to the truth: {answers[best].model}, with IoU {ious[best]:.2f}."
