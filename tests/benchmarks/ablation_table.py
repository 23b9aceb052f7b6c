"""The ablation's rows as a table and as figures; `ablation` makes them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import plots

# The step that rows beside the steps are compared with: all parts, on the small backbone.
ALL = "+ contrast with other pictures"
WHOLE = 29_783  # train pictures of Flickr30k Entities
# Columns: the set of figures and the figure in it, its scale and its digits.
METRICS = {
    "mean iou": ("val", "mean_iou", 1, 3),
    "accuracy 0.5": ("val", "accuracy_0.5", 100, 1),
    "pointing": ("val", "pointing", 100, 1),
    "accuracy 0.5, lengthened": ("val_lengthened", "accuracy_0.5", 100, 1),
}


def read(path: Path) -> list[dict]:
    """Rows of an `ablation.json`, none where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def by_name(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The seeds of each row, in the order of the rows."""
    found: dict[str, list[dict]] = {}
    for row in rows:
        found.setdefault(row["row"], []).append(row)
    return found


def table(rows: Sequence[dict]) -> pd.DataFrame:
    """One row a row: pictures, seeds, `METRICS` on val, and the commits whose code trained it.

    In brackets the 95 % interval over images of a single seed, or the range of several.
    """
    found = {}
    for name, mine in by_name(rows).items():
        cells = {"pictures": f"{mine[0]['pictures']:,}", "seeds": str(len(mine))}
        for column, (_, _, scale, digits) in METRICS.items():
            value, low, high = (scale * number for number in bracketed(mine, column))
            numbers = f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            cells[column] = numbers if np.isfinite(value) else ""
        cells["commit"] = ", ".join(dict.fromkeys(row.get("commit", "") for row in mine))
        found[name] = cells
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("row")


def bracketed(rows: Sequence[dict], column: str) -> tuple[float, float, float]:
    """Mean over the seeds of one row and the ends of its bracket, NaN where it was not asked."""
    part, metric, *_ = METRICS[column]
    if part not in rows[0]:
        return (float("nan"),) * 3
    values = [row[part][metric]["value"] for row in rows]
    ends = [rows[0][part][metric][end] for end in ("low", "high")]
    low, high = ends if len(rows) == 1 else (min(values), max(values))
    return float(np.mean(values)), low, high


@plots.styled
def draw(rows: Sequence[dict], folder: Path) -> None:
    """ablation.png, each row's accuracy, and data_scaling.png: misses against train pictures, and
    the power law through them, by least squares on logarithms (Hestness et al. 2017, "Deep Learning
    Scaling is Predictable")."""
    names, seeds = zip(*by_name(rows).items(), strict=True)
    figure, axes = plots.new_figure(7.5, 1.2 + 0.3 * len(names))
    kinds = {"accuracy 0.5": "as they are", "accuracy 0.5, lengthened": "lengthened"}
    for shift, (column, label) in zip((-0.12, 0.12), kinds.items(), strict=True):
        value, low, high = 100 * np.array([bracketed(found, column) for found in seeds]).T
        style = {"fmt": "o" if shift < 0 else "D", "ms": 5, "label": f"phrases {label}"}
        ends = np.abs([value - low, high - value])
        axes[0, 0].errorbar(value, np.arange(len(names)) + shift, xerr=ends, **style)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel("IoU .5 reached on val (%)")
    axes[0, 0].legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    bars = "bars: 95 % interval of a single seed, or the range of several"
    figure.suptitle(f"{folder.name}, val ({bars})")
    plots.save(figure, folder / "ablation.png")
    shares = [r for r in rows if r["seed"] == 0 and r["row"].endswith(("of the pictures", ALL))]
    shares = sorted((r["pictures"], r["val"]["accuracy_0.5"]["value"]) for r in shares)
    if len(shares) < 3:
        return
    pictures, accuracy = map(np.array, zip(*shares, strict=True))
    figure, axes = plots.new_figure(5.6, 3.8)
    line = np.geomspace(pictures[0], WHOLE, 60)
    slope, offset = np.polyfit(np.log(pictures), np.log(1 - accuracy), 1)
    law = 100 * np.exp(offset + slope * np.log(line))
    axes[0, 0].loglog(line, law, "--", color="grey", label="power law")
    axes[0, 0].loglog(pictures, 100 * (1 - accuracy), "o", label="measured")
    axes[0, 0].loglog(WHOLE, law[-1], "o", mfc="white", label=f"extrapolated: {law[-1]:.1f} %")
    axes[0, 0].set_xticks([*pictures, WHOLE], [f"{count:,}" for count in (*pictures, WHOLE)])
    axes[0, 0].set_yticks([20, 30, 40], ["20", "30", "40"])
    axes[0, 0].minorticks_off()
    axes[0, 0].set(xlabel="train pictures", ylabel="IoU .5 missed on val (%)")
    axes[0, 0].legend()
    figure.suptitle(f"{folder.name}, val; the row '{ALL}' with fewer pictures")
    plots.save(figure, folder / "data_scaling.png")
