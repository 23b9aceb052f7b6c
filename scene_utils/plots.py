"""How figures are drawn and saved: one style, boxes on pictures, pictures side by side.

Units stand on the axes, colours are safe for colour-blind eyes.
"""

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
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


def styled(draw: Callable) -> Callable:
    """Draw in the study's style alone, whatever the reader's own settings are."""

    @functools.wraps(draw)
    def inside(*args, **kwargs):
        with plt.style.context(STYLE, after_reset=True):
            return draw(*args, **kwargs)

    return inside


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
        if target.is_file() and _shown(target.read_bytes(), kind) == _shown(made.getvalue(), kind):
            continue
        with atomic(target) as temporary:
            temporary.write_bytes(made.getvalue())


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
    for number, box in enumerate(box_ops.check(boxes) if len(boxes) else ()):
        colour = colours[number % len(colours)]
        style = styles[number % len(styles)]
        x, y, right, bottom = (float(side) for side in box)
        for edge in ({"ec": "white", "lw": 3.2}, {"ec": colour, "lw": 1.8, "ls": style}):
            axes.add_patch(Rectangle((x, y), right - x, bottom - y, fill=False, **edge))
        if number < len(labels) and labels[number]:
            axes.text(
                x if x < image.shape[1] / 2 else min(right, image.shape[1]),
                max(y - 4, 10),
                labels[number],
                color="white",
                fontsize=8,
                va="bottom",
                ha="left" if x < image.shape[1] / 2 else "right",
                bbox={"fc": colour, "ec": "none", "pad": 1.5},
            )


@styled
def learning_curves(histories: dict[str, pd.DataFrame], note: str) -> Figure:
    """Validation mean IoU against epoch, one line a run."""
    figure, axes = new_figure(7.5, 3.6)
    axis = axes[0, 0]
    for number, (name, history) in enumerate(histories.items()):
        if len(history) > 1:
            # The palette has six colours; what follows them is told apart by its dashes.
            style = ("-", "-.")[number // len(COLOURS) % 2]
            axis.plot(history["epoch"], history["val_mean_iou"], label=name, lw=1.8, ls=style)
        else:
            style = (":", "--")[number % 2]
            axis.axhline(history["val_mean_iou"].iloc[0], color="grey", ls=style, label=name)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("mean IoU on val")
    axis.legend(ncols=2)
    axis.set_title(note)
    return figure


@styled
def box_sizes(areas: dict[str, np.ndarray], note: str) -> Figure:
    """Histogram of box area as a share of the picture, one line a group."""
    figure, axes = new_figure(7.5, 3.2)
    axis = axes[0, 0]
    edges = np.linspace(0, 100, 41)
    for name, values in areas.items():
        axis.hist(100 * values, edges, histtype="step", density=True, lw=1.8, label=name)
    axis.set_xlabel("box area (% of the picture)")
    axis.set_ylabel("density (per %)")
    axis.set_xlim(0, 100)
    axis.legend()
    axis.set_title(note)
    return figure


def _tiles(count: int, columns: int, title: str, above: float) -> tuple[Figure, np.ndarray]:
    """A figure with room for `count` pictures, and `above` inches for its title."""
    rows = -(-count // columns)
    figure, axes = new_figure(9.6, 2.7 * rows * 3 / columns + above, nrows=rows, ncols=columns)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(title)
    return figure, axes.flat


@styled
def picture_grid(
    items: Sequence[tuple[np.ndarray, Sequence, Sequence[str]]], title: str = "", columns: int = 3
) -> Figure:
    """Pictures `(h, w, 3)`, each with boxes `(n, 4)` in its own pixels and their phrases.

    A picture without boxes takes its first phrase as its title.
    """
    figure, axes = _tiles(len(items), columns, title, 0.4)
    for axis, (image, boxes, phrases) in zip(axes, items, strict=False):
        draw_boxes(axis, image, boxes, phrases)
        if len(boxes) == 0 and phrases:
            axis.set_title(phrases[0])
    return figure


@styled
def readings(
    items: Sequence[tuple[np.ndarray, str, np.ndarray, np.ndarray]], note: str, columns: int = 3
) -> Figure:
    """Pictures `(h, w, 3)`, each under its phrase, with the answer's box `(4,)` in its own pixels
    and in blue where it was looked `(cells, cells)` for what the phrase tells the thing by."""
    title = f"box: the answer; blue: where the anchor is looked for ({note})"
    figure, axes = _tiles(len(items), columns, title, 0.5)
    blue = LinearSegmentedColormap.from_list("looked", [f"{COLOURS[0]}00", f"{COLOURS[0]}d0"])
    for axis, (image, phrase, box, looked) in zip(axes, items, strict=False):
        grey = image.mean(axis=-1, keepdims=True)
        draw_boxes(axis, (0.6 * image + 0.4 * grey).astype(np.uint8), box[None], colours=[GUESS])
        axis.imshow(
            looked, blue, extent=(0, image.shape[1], image.shape[0], 0), interpolation="bilinear"
        )
        axis.set_title(phrase)
    return figure


@styled
def coverage_map(relative: np.ndarray, note: str, cells: int = 50) -> Figure:
    """Share of boxes, `(n, 4)` as fractions of the picture, that cover each place."""
    share = 100 * box_ops.coverage(relative, cells)
    figure, axes = new_figure(5.0, 4.0)
    axis = axes[0, 0]
    shown = axis.imshow(share, cmap="cividis", vmin=0, extent=(0, 1, 1, 0))
    axis.set_xlabel("x (fraction of the width)")
    axis.set_ylabel("y (fraction of the height)")
    axis.grid(visible=False)
    figure.colorbar(shown, label="boxes that cover it (%)")
    axis.set_title(note)
    return figure


@styled
def token_coverage(counts: np.ndarray, note: str) -> Figure:
    """Share of running words that the n most frequent words make up; counts `(words,)` falling."""
    figure, axes = new_figure(7.5, 3.2)
    axis = axes[0, 0]
    axis.plot(np.arange(1, len(counts) + 1), 100 * np.cumsum(counts) / counts.sum(), lw=1.8)
    axis.set_xscale("log")
    axis.set_xlabel("most frequent words kept (number, log scale)")
    axis.set_ylabel("running words (%)")
    axis.set_ylim(0, 100)
    axis.set_title(note)
    return figure
