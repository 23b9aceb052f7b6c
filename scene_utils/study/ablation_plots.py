"""The figures of an `ablation.json`: what each part brings, and what more pictures would."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scene_utils.plots import COLOURS, new_figure, save, styled
from scene_utils.study import ablation_table


@styled
def accuracy(rows: Sequence[dict], note: str) -> Figure:
    """Accuracy on val of each row of an `ablation.json`, on phrases as they are and lengthened."""
    names, seeds = zip(*ablation_table.by_name(rows).items(), strict=True)
    figure, axes = new_figure(7.5, 1.2 + 0.3 * len(names))
    axis = axes[0, 0]
    kinds = (
        ("accuracy 0.5", "phrases as they are", "o", COLOURS[0]),
        ("accuracy 0.5, lengthened", "with what their sentence says next", "D", COLOURS[1]),
    )
    for offset, (column, label, marker, colour) in enumerate(kinds):
        value, low, high = 100 * np.array([ablation_table.bracketed(r, column) for r in seeds]).T
        place = np.arange(len(names)) + 0.24 * offset - 0.12
        ends = np.abs([value - low, high - value])
        axis.errorbar(value, place, xerr=ends, fmt=marker, color=colour, ms=5, label=label)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.set_xlabel("IoU .5 reached on val (%)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    figure.suptitle(f"{note} (bars: 95 % interval of a single seed, or the range of several)")
    return figure


@styled
def data_scaling(pictures: Sequence[int], accuracy: Sequence[float], to: int, note: str) -> Figure:
    """Accuracy (in 1) against the number of train pictures, and a power law of its error."""
    figure, axes = new_figure(5.6, 3.8)
    axis = axes[0, 0]
    missed = 1 - np.asarray(accuracy)
    grid = np.geomspace(min(pictures), to, 60)
    line = [ablation_table.extrapolate(pictures, missed, count)[0] for count in grid]
    error, exponent = ablation_table.extrapolate(pictures, missed, to)
    law = f"misses fall as n to the power of -{exponent:.2f}"
    axis.plot(grid, 100 - 100 * np.array(line), ls="--", color="grey", label=law)
    axis.plot(pictures, 100 * np.asarray(accuracy), "o", color="#0072B2", label="measured")
    axis.plot([to], [100 - 100 * error], "o", mfc="white", color="grey", label="extrapolated")
    place = {"xytext": (-6, 8), "textcoords": "offset points", "ha": "right"}
    axis.annotate(f"{100 - 100 * error:.1f}", (to, 100 - 100 * error), **place)
    axis.set_xscale("log")
    axis.set_xticks([*pictures, to], [f"{count:,}" for count in (*pictures, to)])
    axis.minorticks_off()
    axis.set_xlabel("train pictures")
    axis.set_ylabel("IoU .5 reached on val (%)")
    axis.legend(loc="lower right")
    figure.suptitle(note)
    return figure


def save_all(rows: Sequence[dict], folder: Path, note: str) -> None:
    """Write ablation.png of an `ablation.json`, and data_scaling.png once it has three shares."""
    save(accuracy(rows, note), folder / "ablation.png")
    shares = ablation_table.shares(rows)
    if len(shares) > 2:
        note += ", seed 0, as many steps each"
        figure = data_scaling(*zip(*shares, strict=True), ablation_table.WHOLE_SET, note)
        save(figure, folder / "data_scaling.png")
