"""How figures are drawn and saved: one style, boxes on pictures, pictures side by side.

Units stand on the axes, colours are safe for colour-blind eyes.
"""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from scene_utils import box_ops
from scene_utils.paths import atomic

# The style file's, by number.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"]
TRUTH, GUESS = "#009E73", "#D55E00"
STYLE = Path(__file__).with_name("study.mplstyle")
# What would differ from run to run, or from machine to machine, in a file that is else the same.
DATE_FREE = {
    "png": {"Software": None, "Creation Time": None},
    "svg": {"Date": None, "Creator": None},
}
RESOLUTION = 150
# Decorates what draws: in the study's style alone, whatever the reader's own settings are.
styled = plt.style.context(STYLE, after_reset=True)


@styled
def new_figure(width: float = 7.5, height: float = 3.5, **kwargs) -> tuple[Figure, np.ndarray]:
    """`plt.subplots` in the study's style, sizes in inches; axes always as an array."""
    return plt.subplots(figsize=(width, height), squeeze=False, **kwargs)


@styled
def save(figure: Figure, path: Path) -> None:
    """Write `path` (.png), and without photos in it the same as .svg, atomically.

    One figure always gives one result. A file that shows the same stays untouched: its pixels or,
    of an SVG, its text are equal.
    """
    shows_photos = any(image.get_array().ndim == 3 for axis in figure.axes for image in axis.images)
    for kind in ("png",) if shows_photos else ("png", "svg"):
        target, made = path.with_suffix(f".{kind}"), io.BytesIO()
        figure.savefig(made, format=kind, metadata=DATE_FREE[kind], dpi=RESOLUTION)
        content, old = made.getvalue(), target.read_bytes() if target.is_file() else b""
        if _shown(old, kind) != _shown(content, kind):
            with atomic(target) as temporary:
                temporary.write_bytes(content)


def _shown(content: bytes, kind: str) -> bytes | tuple | None:
    """What a file shows: a PNG's pixels, an SVG's text; None of a damaged PNG."""
    if kind == "svg":
        return content
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return picture.size, picture.convert("RGBA").tobytes()
    except OSError:
        return None


def draw_boxes(
    axes: Axes,
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str] = (),
    colours: Sequence[str] = COLOURS,
    styles: Sequence[str] = ("-",),
) -> None:
    """Show a picture `(h, w, 3)` with boxes `(n, 4)` in its own pixels, each with its label."""
    axes.imshow(image)
    axes.set_axis_off()
    width = image.shape[1]
    for number, box in enumerate(box_ops.check(boxes) if len(boxes) else ()):
        colour, style = colours[number % len(colours)], styles[number % len(styles)]
        x, y, right, bottom = box.tolist()
        for edge in ({"ec": "white", "lw": 3.2}, {"ec": colour, "lw": 1.8, "ls": style}):
            axes.add_patch(Rectangle((x, y), right - x, bottom - y, fill=False, **edge))
        if number < len(labels) and labels[number]:
            side, place = ("left", x) if x < width / 2 else ("right", min(right, width))
            look = {"color": "white", "fontsize": 8, "va": "bottom", "ha": side}
            look["bbox"] = {"fc": colour, "ec": "none", "pad": 1.5}
            axes.text(place, max(y - 4, 10), labels[number], **look)


@styled
def picture_grid(
    items: Sequence[tuple[np.ndarray, Sequence, Sequence[str]]], title: str = "", columns: int = 3
) -> Figure:
    """Pictures `(h, w, 3)`, each with boxes `(n, 4)` in its own pixels and their phrases.

    A picture without boxes takes its first phrase as its title.
    """
    rows = -(-len(items) // columns)
    figure, axes = new_figure(9.6, 2.7 * rows * 3 / columns + 0.4, nrows=rows, ncols=columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, (image, boxes, phrases) in zip(axes.flat, items, strict=False):
        draw_boxes(axis, image, boxes, phrases)
        if len(boxes) == 0 and phrases:
            axis.set_title(phrases[0])
    figure.suptitle(title)
    return figure
