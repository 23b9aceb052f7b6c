"""How figures are drawn and saved: one style, boxes on pictures, what models reach.

Units stand on the axes, colours are safe for colour-blind eyes. A model looks the same everywhere.
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
TRUTH, GUESS, GREY = "#009E73", "#D55E00", "#8a8a8a"
COLOUR_OF = {
    **{"best constant": "black", "best per category": COLOURS[5], "source-mse": GREY},
    **{"text-only": COLOURS[0], "image-only": COLOURS[4], "source": COLOURS[1], "grid": COLOURS[2]},
}
MARKERS = "osD^vP"  # by number; they serve those that have no colour
STYLE = Path(__file__).with_name("study.mplstyle")
# What would differ from run to run, or from machine to machine, in a file that is else the same.
DATE_FREE = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
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


def look(name: str) -> dict:
    """Colour and line of a model."""
    colour = COLOUR_OF.get(name, COLOURS[3])
    return {"color": colour, "ls": "--" if colour == "black" else "-"}


def bars(figures: Sequence[dict], scale: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Values `(n,)` and lengths of the error bars `(2, n)` of figures with low and high."""
    value, low, high = (np.array([f[k] for f in figures]) * scale for k in ("value", "low", "high"))
    return value, np.clip(np.stack([value - low, high - value]), 0, None)


def curve(axis: Axes, places, figures: Sequence[dict], name: str, number: int, **style) -> None:
    """Figures in % above `places`, with their intervals, as the line of the model `name`."""
    values, ends = bars(figures)
    style = {"marker": MARKERS[number % len(MARKERS)], "ms": 5, "capsize": 2, "label": name} | style
    axis.errorbar(places, values, yerr=ends, **look(name) | style)


def marks(axis: Axes, rows: dict[str, list[tuple[float, dict]]], spread: float, labels) -> None:
    """Figures in % beside the labelled rows, a mark a model; `rows` has (row, figure) of each."""
    for number, (name, found) in enumerate(rows.items()):
        values, ends = bars([figure for _, figure in found])
        shift = np.linspace(-spread, spread, len(rows))[number]
        marker, colour = MARKERS[number % len(MARKERS)], look(name)["color"]
        style = {"fmt": marker, "ms": 5, "capsize": 2, "color": colour, "label": name}
        axis.errorbar(values, [row + shift for row, _ in found], xerr=ends, **style)
    axis.set_yticks(range(len(labels)), labels)
    axis.grid(axis="y", visible=False)


def finish(figure: Figure, note: str, axis: Axes | None = None, columns: int = 6) -> None:
    """Give the figure its title, what its numbers rest on, and below it the legend of an axis."""
    if axis is not None:
        figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
    figure.suptitle(note)
