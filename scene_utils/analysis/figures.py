"""The figures of notebooks 05 and 05b, from tables that hold their numbers.

A model looks the same in all figures. `note`, a figure's title, says what its numbers rest on.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from scene_utils import box_ops
from scene_utils.analysis.metrics import RECALLS
from scene_utils.analysis.mistakes import MISTAKES
from scene_utils.plots import COLOURS, GUESS, TRUTH, draw_boxes, new_figure

GREY = "#8a8a8a"
COLOUR_OF = {
    **{"best constant": "black", "best per category": COLOURS[5], "source-mse": GREY},
    **{"text-only": COLOURS[0], "image-only": COLOURS[4], "source": COLOURS[1], "grid": COLOURS[2]},
}
# Their order serves those that have no colour.
MARKERS = "osD^vP"
MISTAKE_COLOURS = [COLOURS[n] for n in (2, 0, 5, 1)] + ["#F0C36D", COLOURS[4], "#999999", "#444444"]


def _look(name: str) -> dict:
    colour = COLOUR_OF.get(name, COLOURS[3])
    return {"color": colour, "ls": "--" if colour == "black" else "-"}


def _bars(figures: Sequence[dict], scale: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Values `(n,)` and lengths of the error bars `(2, n)` of figures with low and high."""
    value, low, high = (np.array([f[k] for f in figures]) * scale for k in ("value", "low", "high"))
    return value, np.clip(np.stack([value - low, high - value]), 0, None)


def curve(axis: Axes, places, figures: Sequence[dict], name: str, number: int, **style) -> None:
    """Figures in % above `places`, with their intervals, as the line of the model `name`."""
    values, ends = _bars(figures)
    style = {"marker": MARKERS[number % len(MARKERS)], "ms": 5, "capsize": 2, "label": name} | style
    axis.errorbar(places, values, yerr=ends, **_look(name) | style)


def marks(axis: Axes, rows: dict[str, list[tuple[float, dict]]], spread: float, labels) -> None:
    """Figures in % beside the labelled rows, a mark a model; `rows` has (row, figure) of each."""
    for number, (name, found) in enumerate(rows.items()):
        values, ends = _bars([figure for _, figure in found])
        shift = np.linspace(-spread, spread, len(rows))[number]
        marker, colour = MARKERS[number % len(MARKERS)], _look(name)["color"]
        style = {"fmt": marker, "ms": 5, "capsize": 2, "color": colour, "label": name}
        axis.errorbar(values, [row + shift for row, _ in found], xerr=ends, **style)
    axis.set_yticks(range(len(labels)), labels)
    axis.grid(axis="y", visible=False)


def finish(figure: Figure, note: str, axis: Axes | None = None, columns: int = 6) -> Figure:
    """Give the figure its title, and where an axis is given, the legend of that below it."""
    if axis is not None:
        handles = axis.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=columns)
    figure.suptitle(note)
    return figure


def model_bars(
    models: dict[str, dict], references: dict[str, dict], oracles: Sequence[str], note: str
) -> Figure:
    """Mean IoU and accuracy at IoU .5, merged box, with 95 % intervals: references above, models
    below."""
    everything = references | models
    names = [f"{n} (oracle)" if n in oracles else n.replace(" (", "\n(") for n in everything]
    colours = [COLOURS[0] if name in models else GREY for name in everything]
    height = 0.28 * len(names) + 0.14 * sum("\n" in name for name in names)
    figure, axes = new_figure(7.5, 0.9 + height, ncols=2, sharey=True)
    columns = (("mean_iou", "mean IoU"), ("accuracy_0.5", "accuracy at IoU .5 (% of mentions)"))
    for axis, (metric, label), scale in zip(axes[0], columns, (1, 100), strict=True):
        values, ends = _bars([item["merged"][metric] for item in everything.values()], scale)
        edge = {"capsize": 2.5, "lw": 1}
        bars = axis.barh(names, values, 0.65, xerr=ends, color=colours, error_kw=edge)
        texts = [f"{v:.1f}" if scale == 100 else f"{v:.3f}".lstrip("0") for v in values]
        # The patch keeps it readable on the line of the constant box.
        patch = {"fc": "w", "ec": "none", "pad": 0.8}
        axis.bar_label(bars, texts, padding=4, fontsize=8.5, bbox=patch)
        line = references["best constant"]["merged"][metric]["value"] * scale
        axis.axvline(line, color=COLOURS[3], ls="--", lw=1.2)
        axis.set(xlabel=label, xlim=(0, (values + ends[1]).max() * 1.14))
        axis.grid(axis="y", visible=False)
    axes[0, 0].invert_yaxis()
    note += "\nblue: models, grey: references, dashed: best constant box, bars: 95 %"
    return finish(figure, note)


def category_points(models: dict[str, dict], note: str) -> Figure:
    """Recall at 1 in each category with 95 % intervals, any and merged box, one mark a model."""
    recall = {name: result["recall"] for name, result in models.items()}
    kinds = next(iter(recall.values()))["any"]
    labels = [f"{kind} ({found['mentions']:,})" for kind, found in kinds.items()]
    figure, axes = new_figure(7.5, 0.9 + 0.45 * len(kinds), ncols=2, sharex=True, sharey=True)
    for axis, protocol in zip(axes[0], ("any", "merged"), strict=True):
        rows = {
            name: [(row, found[protocol][kind]["1"]) for row, kind in enumerate(kinds)]
            for name, found in recall.items()
        }
        marks(axis, rows, 0.26, labels)
        axis.set_xlabel(f"recall at 1, {protocol} box (% of mentions)")
        axis.axhline(0.5, color="#bbbbbb", lw=0.8)
    axes[0, 0].invert_yaxis()
    return finish(figure, note, axes[0, 0])


def recall_curves(models: dict[str, dict], note: str) -> Figure:
    """Recall at 1, 5, 10 and the upper bound of the candidates, any and merged box."""
    figure, axes = new_figure(7.5, 3.4, ncols=2, sharey=True)
    places = range(len(RECALLS))
    for axis, protocol in zip(axes[0], ("any", "merged"), strict=True):
        for number, (name, result) in enumerate(models.items()):
            found = result["recall"][protocol]["all"]
            curve(axis, places, [found[k] for k in RECALLS], name, number)
        axis.set_xticks(places, [name.replace("_", "\n") for name in RECALLS])
        axis.set(xlabel="boxes that may answer", title=f"{protocol} box", ylim=(0, 100))
    axes[0, 0].set_ylabel("mentions with a box of IoU .5 (%)")
    return finish(figure, note, axes[0, 0])


def difference_matrix(differences: pd.DataFrame, names: Sequence[str], note: str) -> Figure:
    """Row minus column in points of accuracy at IoU .5; grey where the difference may be chance."""
    values = np.full((len(names), len(names)), np.nan)
    real = np.zeros(values.shape, bool)
    rows = differences[differences.metric == "accuracy_0.5"]
    i, j = (pd.Index(names).get_indexer(side) for side in (rows.better, rows.worse))
    values[i, j], values[j, i] = 100 * rows.value, -100 * rows.value
    real[i, j] = real[j, i] = rows.real
    figure, ((axis,),) = new_figure(7.5, 1.5 + 0.5 * len(names))
    largest = np.nanmax(np.abs(values), initial=1)
    shown = np.where(real, values, np.nan)
    image = axis.imshow(shown, "PuOr", vmin=-largest, vmax=largest, aspect="auto")
    image.cmap.set_bad("#eeeeee")
    for i, j in np.ndindex(values.shape):
        if i != j:
            dark = real[i, j] and abs(values[i, j]) > 0.6 * largest
            colour = "white" if dark else "black" if real[i, j] else "#666666"
            text = f"{values[i, j]:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0")
            axis.text(j, i, text, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(names)), names, rotation=25, ha="right")
    axis.set_yticks(range(len(names)), names)
    axis.grid(visible=False)
    axis.spines[:].set_visible(False)
    figure.colorbar(image, label="row minus column (points)")
    note += "\naccuracy at IoU .5; coloured: 95 % interval of the difference leaves out 0"
    return finish(figure, note)


def iou_distribution(ious: dict[str, np.ndarray], note: str) -> Figure:
    """Histogram of IoU, and the share of mentions whose IoU reaches each threshold."""
    figure, axes = new_figure(7.5, 3.6, ncols=2)
    grid = np.linspace(0, 1, 201)
    for name, values in ious.items():
        line = {"lw": 1.6} | _look(name)
        share, edges = np.histogram(values, np.linspace(0, 1, 21))
        axes[0, 0].stairs(100 * share / len(values), edges, **line)
        reached = 1 - np.searchsorted(np.sort(values), grid, side="left") / len(values)
        axes[0, 1].plot(grid, 100 * reached, label=name, **line)
    axes[0, 0].set(xlabel="IoU (bins of .05)", ylabel="mentions (%)", xlim=(0, 1))
    axes[0, 1].set(xlabel="IoU threshold", ylabel="mentions that reach it (%)")
    axes[0, 1].set(xlim=(0, 1), ylim=(0, 100))
    for axis in axes[0]:
        axis.axvline(0.5, color="grey", lw=1, ls=":")
    return finish(figure, note, axes[0, 1])


def what_decides(groups: pd.DataFrame, note: str) -> Figure:
    """Accuracy at IoU .5 in each bin of each column of `breakdown.describe`, one line a model."""
    bins_of = groups.groupby("what", sort=False).bin.nunique()
    columns = list(bins_of.index[bins_of > 1])
    rows = -(-len(columns) // 3)
    figure, axes = new_figure(7.5, 2.35 * rows, nrows=rows, ncols=3, sharey=True)
    for axis in axes.flat[len(columns) :]:
        axis.set_axis_off()
    for axis, what in zip(axes.flat, columns, strict=False):
        here = groups[groups.what == what]
        bins = list(dict.fromkeys(here.bin))
        for number, (name, of_model) in enumerate(here.groupby("model", sort=False)):
            places = [bins.index(label) for label in of_model.bin]
            curve(axis, places, of_model.to_dict("records"), name, number, ms=4, lw=1.2)
        axis.set_xticks(range(len(bins)), bins)
        turned = 35 if sum(map(len, bins)) > 24 else 0
        axis.tick_params(axis="x", labelsize=8, rotation=turned)
        axis.set(xlabel=what, xlim=(-0.4, max(len(bins) - 0.6, 0.6)))
    for axis in axes[:, 0]:
        axis.set_ylabel("IoU .5 (% of mentions)", fontsize=8.5)
    axes[0, 0].set_ylim(0)
    return finish(figure, note, axes[0, 0])


def mass_maps(truth: np.ndarray, guesses: dict[str, np.ndarray], note: str) -> Figure:
    """Share of boxes, `(n, 4)` as fractions of the picture, over each place: truth and models."""
    boxes_of = {"truth": truth} | guesses
    maps = {name: 100 * box_ops.coverage(boxes) for name, boxes in boxes_of.items()}
    apart = [maps[name] - maps["truth"] for name in guesses]
    most = max(share.max() for share in maps.values())
    widest = max([1.0, *(np.abs(share).max() for share in apart)])
    figure, axes = new_figure(7.5, 4.2, nrows=2, ncols=len(maps), sharex=True, sharey=True)
    place = {"extent": (0, 1, 1, 0), "aspect": 0.75}
    for axis, (name, share) in zip(axes[0], maps.items(), strict=True):
        first = axis.imshow(share, vmin=0, vmax=most, **place)
        axis.set_title(name)
    for axis, share in zip(axes[1, 1:], apart, strict=True):
        second = axis.imshow(share, cmap="PuOr", vmin=-widest, vmax=widest, **place)
        axis.set_xlabel("x (of the width)")
    axes[1, 0].set_axis_off()
    axes[1, 1].set_ylabel("minus the truth")
    for axis in axes.flat:
        axis.grid(visible=False)
        axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    axes[0, 0].set_ylabel("y (of the height)")
    figure.colorbar(first, ax=axes[0], label="boxes over it (%)")
    figure.colorbar(second, ax=axes[1], label="points")
    return finish(figure, note)


def presence_curves(found: dict[str, dict[str, dict]], note: str) -> Figure:
    """ROC curves of the flag "probably not in the picture", see `breakdown.presence`."""
    figure, ((axis,),) = new_figure(5.6, 4.4)
    axis.plot([0, 100], [0, 100], color="grey", lw=1, ls=":")
    for name, kinds in found.items():
        for (kind, curve), dashes in zip(kinds.items(), ("-", "--"), strict=False):
            alarms, hits = (100 * np.array(curve[key]) for key in ("false_alarms", "found"))
            label = f"{name}, {kind}: area {curve['area']['value']:.3f}"
            axis.plot(alarms, hits, label=label, **_look(name) | {"ls": dashes})
    axis.set(xlabel="phrases of the picture that are flagged (%)", xlim=(0, 100))
    axis.set(ylabel="phrases of another picture that are flagged (%)", ylim=(0, 100))
    axis.legend(loc="lower right")
    return finish(figure, note)


def mistake_bars(table: pd.DataFrame, note: str) -> Figure:
    """What became of each model's boxes: one stacked bar a model."""
    figure, ((axis,),) = new_figure(7.5, 1.5 + 0.33 * len(table))
    left = np.zeros(len(table))
    for kind, colour in zip(MISTAKES, MISTAKE_COLOURS, strict=True):
        values = table[kind].to_numpy()
        if values.max() == 0:
            continue
        bars = axis.barh(table.index, values, 0.7, left, color=colour, label=kind)
        dark = kind in ("right", "another object of its category", "no answer")
        texts = [f"{value:.0f}" if value >= 5 else "" for value in values]
        axis.bar_label(bars, texts, label_type="center", fontsize=8.5, color="w" if dark else "k")
        left += values
    axis.invert_yaxis()
    axis.set(xlabel="mentions (%)", xlim=(0, 100))
    axis.grid(axis="y", visible=False)
    return finish(figure, note, axis, columns=4)


def gallery(mentions: pd.DataFrame, pictures: Sequence[Image.Image], title: str) -> Figure:
    """Pictures with truth and guess, the box columns and those with `_guess` behind their names.

    A picture may be stored squeezed; it is shown as the original was, of `width` and `height`,
    whose pixels boxes are in. Each `group` (may be "") has rows of its own; `score` is shown where
    there is such a column.
    """
    sides = [f"{side}{end}" for end in ("", "_guess") for side in box_ops.COLUMNS]
    boxes = mentions[sides].to_numpy(np.float32).reshape(-1, 2, 4)
    shown = mentions.assign(picture=pictures, boxes=list(boxes))
    groups = shown.groupby("group", sort=False)
    lines = [(name, of[n : n + 3]) for name, of in groups for n in range(0, len(of), 3)]
    figure, axes = new_figure(7.5, 2.2 * len(lines) + 0.5, nrows=len(lines), ncols=3)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (group, rows) in zip(axes, lines, strict=True):
        for axis, row in zip(line, rows.to_dict("records"), strict=False):
            scale = 320 / max(row["width"], row["height"])
            image = row["picture"].resize([round(row[k] * scale) for k in ("width", "height")])
            looks = {"colours": (TRUTH, GUESS), "styles": ("-", "--")}
            draw_boxes(axis, np.asarray(image), row["boxes"] * np.float32(scale), **looks)
            text = row["phrase"]
            text = text if len(text) <= 34 else text[:33].rstrip() + "…"
            score = f", score {row['score']:.2f}" if "score" in row else ""
            axis.set_title(f"{text}\nIoU {row['iou']:.2f}{score}", fontsize=8.5)
        style = {"transform": line[0].transAxes, "rotation": 90, "ha": "right", "va": "center"}
        line[0].text(-0.04, 0.5, group, **style)
    looks = (("truth", TRUTH, "-"), ("prediction", GUESS, "--"))
    handles = [Patch(fill=False, ec=colour, lw=2, ls=ls, label=name) for name, colour, ls in looks]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    return finish(figure, title)
