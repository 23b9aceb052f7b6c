"""The ablation's rows as a table; `tests.benchmarks.ablation` makes them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

# The step that rows beside the steps are compared with: all parts, on the small backbone.
ALL = "+ contrast with other pictures"
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
