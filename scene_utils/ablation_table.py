"""The ablation's rows as a table, and what more pictures would bring; see `ablation`."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

# The step that rows beside the steps are compared with: all parts, on the small backbone.
ALL = "+ contrast with other pictures"
METRICS = {"mean_iou": (1, 3), "accuracy_0.5": (100, 1), "pointing": (100, 1)}


def read(path: Path) -> list[dict]:
    """Rows of an `ablation.json`, none where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def table(rows: Sequence[dict]) -> pd.DataFrame:
    """One row a row: pictures, seeds, and on val mean IoU, accuracy and pointing (in %).

    In brackets the 95 % interval over images of a single seed, or the range of several.
    """
    found = {}
    for name in dict.fromkeys(row["row"] for row in rows):
        mine = [row for row in rows if row["row"] == name]
        cells = {"pictures": f"{mine[0]['pictures']:,}", "seeds": str(len(mine))}
        for metric, (scale, digits) in METRICS.items():
            values = [scale * row["val"][metric]["value"] for row in mine]
            ends = [scale * mine[0]["val"][metric][end] for end in ("low", "high")]
            low, high = ends if len(mine) == 1 else (min(values), max(values))
            cells[metric.replace("_", " ")] = (
                f"{np.mean(values):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
            )
        found[name] = cells
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("row")


def extrapolate(pictures: Sequence[int], errors: Sequence[float], to: int) -> tuple[float, float]:
    """Error at `to` pictures and the exponent a of the power law c * n^-a through the points, by
    least squares on logarithms (Hestness et al. 2017, "Deep Learning Scaling is Predictable")."""
    slope, offset = np.polyfit(np.log(pictures), np.log(errors), 1)
    return float(np.exp(offset + slope * np.log(to))), float(-slope)
