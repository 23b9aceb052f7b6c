"""Every figure of the study: one style, units on the axes, colours safe for colour-blind eyes."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from scene_utils import boxes as box_type
from scene_utils.paths import atomic

# Okabe & Ito's palette (jfly.uni-koeln.de/color, 2008), without its yellow and black.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"]
TRUTH, GUESS = "#009E73", "#D55E00"
STYLE = {
    "figure.dpi": 120,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.prop_cycle": plt.cycler(color=COLOURS),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
DATE_FREE = {"Software": None, "Creation Time": None}


def new_figure(width: float = 7.0, height: float = 3.5, **kwargs) -> tuple[Figure, np.ndarray]:
    """`plt.subplots` in the study's style, sizes in inches; axes always as an array."""
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(width, height), squeeze=False, **kwargs)
    return figure, axes


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, without dates, so that the same figure gives the same bytes."""
    with plt.rc_context(STYLE), atomic(path) as temporary:
        figure.savefig(temporary, format="png", metadata=DATE_FREE)
    return path


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
    for number, box in enumerate(box_type.check(boxes) if len(boxes) else ()):
        colour = colours[number % len(colours)]
        style = styles[number % len(styles)]
        x, y, right, bottom = (float(side) for side in box)
        for line, width in (("white", 4.0), (colour, 2.0)):
            axes.add_patch(
                Rectangle((x, y), right - x, bottom - y, fill=False, ec=line, lw=width, ls=style)
            )
        if number < len(labels) and labels[number]:
            axes.text(
                x if x < image.shape[1] / 2 else min(right, image.shape[1]),
                max(y - 4, 10),
                labels[number],
                color="white",
                fontsize=7,
                va="bottom",
                ha="left" if x < image.shape[1] / 2 else "right",
                bbox={"fc": colour, "ec": "none", "pad": 1.5},
            )


def metric_bars(results: dict[str, dict], note: str, protocol: str = "merged") -> Figure:
    """Mean IoU and accuracy at IoU .5 of each model with 95 % intervals; `note` says what data."""
    figure, axes = new_figure(7.5, 0.5 + 0.42 * len(results), ncols=2, sharey=True)
    names = list(results)
    for axis, metric, label in (
        (axes[0, 0], "mean_iou", "mean IoU"),
        (axes[0, 1], "accuracy_0.5", "accuracy at IoU .5 (%)"),
    ):
        scale = 1 if metric == "mean_iou" else 100
        figures = [results[name][protocol][metric] for name in names]
        values = np.array([item["value"] for item in figures]) * scale
        ends = np.array([[item["low"], item["high"]] for item in figures]).T * scale
        axis.barh(names, values, color=COLOURS[0], height=0.6)
        axis.errorbar(
            values, names, xerr=np.abs(ends - values), fmt="none", ecolor="black", capsize=3
        )
        if "constant" in names:
            axis.axvline(values[names.index("constant")], color=COLOURS[3], ls="--", lw=1.2)
        axis.set_xlabel(label)
        axis.set_xlim(0)
        axis.grid(axis="y", visible=False)
    axes[0, 0].invert_yaxis()
    figure.suptitle(f"{note}; bars 95 %, dashed: constant box", fontsize=10)
    return figure


def learning_curves(histories: dict[str, pd.DataFrame], note: str) -> Figure:
    """Validation mean IoU against epoch, one line a run."""
    figure, axes = new_figure(7.0, 3.6)
    axis = axes[0, 0]
    for name, history in histories.items():
        if len(history) > 1:
            axis.plot(history["epoch"], history["val_mean_iou"], label=name, lw=1.8)
        else:
            axis.axhline(history["val_mean_iou"].iloc[0], color="grey", ls="--", lw=1, label=name)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("epoch")
    axis.set_ylabel("mean IoU on val")
    axis.legend(fontsize=9, ncols=2)
    axis.set_title(note, fontsize=10)
    return figure


def iou_distribution(ious: dict[str, np.ndarray], note: str) -> Figure:
    """Share of mentions whose IoU reaches each threshold, one curve a model."""
    figure, axes = new_figure(7.0, 3.8)
    axis = axes[0, 0]
    grid = np.linspace(0, 1, 201)
    for number, (name, values) in enumerate(ious.items()):
        share = 100 * (1 - np.searchsorted(np.sort(values), grid, side="left") / len(values))
        axis.plot(grid, share, label=name, lw=1.8, ls=("-", "--", "-.")[number // len(COLOURS) % 3])
    axis.axvline(0.5, color="grey", lw=1, ls=":")
    axis.set_xlabel("IoU threshold")
    axis.set_ylabel("mentions that reach it (%)")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 100)
    axis.legend(fontsize=9)
    axis.set_title(note, fontsize=10)
    return figure


def box_sizes(areas: dict[str, np.ndarray], note: str) -> Figure:
    """Histogram of box area as a share of the picture, one line a group."""
    figure, axes = new_figure(7.0, 3.2)
    axis = axes[0, 0]
    edges = np.linspace(0, 100, 41)
    for name, values in areas.items():
        axis.hist(100 * values, edges, histtype="step", density=True, lw=1.8, label=name)
    axis.set_xlabel("box area (% of the picture)")
    axis.set_ylabel("density (per %)")
    axis.set_xlim(0, 100)
    axis.legend(fontsize=9)
    axis.set_title(note, fontsize=10)
    return figure


def gallery(items: Sequence[dict], columns: int = 3, title: str = "") -> Figure:
    """Pictures with truth and prediction: dicts of image, phrase, truth, guess and iou."""
    rows = -(-len(items) // columns)
    figure, axes = new_figure(3.2 * columns, 2.75 * rows, nrows=rows, ncols=columns)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, item in zip(axes.flat, items, strict=False):
        both = np.stack([item["truth"], item["guess"]])
        draw_boxes(axis, item["image"], both, colours=(TRUTH, GUESS), styles=("-", "--"))
        axis.set_title(f"{item['phrase']}\nIoU {item['iou']:.2f}", fontsize=9)
    legend = [
        Rectangle((0, 0), 1, 1, fill=False, ec=TRUTH, lw=2, label="truth"),
        Rectangle((0, 0), 1, 1, fill=False, ec=GUESS, lw=2, ls="--", label="prediction"),
    ]
    figure.legend(handles=legend, loc="outside lower center", ncols=2, fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


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
            axis.set_title(phrases[0], fontsize=9)
    figure.suptitle(title, fontsize=11)
    return figure


def coverage_map(relative: np.ndarray, note: str, cells: int = 50) -> Figure:
    """Share of boxes, `(n, 4)` as fractions of the picture, that cover each place."""
    centres = (np.arange(cells) + 0.5) / cells
    across = (relative[:, 0, None] <= centres) & (centres < relative[:, 2, None])
    down = (relative[:, 1, None] <= centres) & (centres < relative[:, 3, None])
    share = 100 * (down.T.astype(np.float32) @ across.astype(np.float32)) / len(relative)
    figure, axes = new_figure(5.0, 4.0)
    axis = axes[0, 0]
    shown = axis.imshow(share, cmap="cividis", vmin=0, extent=(0, 1, 1, 0))
    axis.set_xlabel("x (fraction of the width)")
    axis.set_ylabel("y (fraction of the height)")
    axis.grid(visible=False)
    figure.colorbar(shown, label="boxes that cover it (%)")
    axis.set_title(note, fontsize=10)
    return figure


def token_coverage(counts: np.ndarray, note: str) -> Figure:
    """Share of running words that the n most frequent words make up; counts `(words,)` falling."""
    figure, axes = new_figure(7.0, 3.2)
    axis = axes[0, 0]
    axis.plot(np.arange(1, len(counts) + 1), 100 * np.cumsum(counts) / counts.sum(), lw=1.8)
    axis.set_xscale("log")
    axis.set_xlabel("most frequent words kept (number, log scale)")
    axis.set_ylabel("running words (%)")
    axis.set_ylim(0, 100)
    axis.set_title(note, fontsize=10)
    return figure
