"""How figures are shown as tables: a row a model, text in the cells.

They are made from what metrics.json holds, so that a notebook, a command and a page of results
show the same. A figure is `value [low, high]`, mean IoU in 1, all else in %.
"""

import pandas as pd

from scene_utils.analysis.metrics import MAIN_METRICS, METRICS, RANKS


def cell(figure: dict, metric: str = "") -> str:
    """A figure as `value [low, high]`, mean IoU in 1, all else in %.

    >>> cell({"value": 0.25, "low": 0.2, "high": 0.3})
    '25.0 [20.0, 30.0]'
    """
    value, low, high = figure["value"], figure["low"], figure["high"]
    if metric == "mean_iou":
        return f"{value:.3f} [{low:.3f}, {high:.3f}]".replace("0.", ".")
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _rows(found: dict[str, dict]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(found, orient="index").rename_axis("model")


def scores(results: dict[str, dict], protocol: str = "merged") -> pd.DataFrame:
    """Of `metrics.evaluate`'s results: a column for each of `METRICS`."""
    return _rows(
        {
            model: {name.replace("_", " "): cell(of[protocol][name], name) for name in METRICS}
            for model, of in results.items()
        }
    )


def recall(results: dict[str, dict], protocol: str = "any") -> pd.DataFrame:
    """Of `metrics.evaluate`'s results: recall at 1, 5, 10 and the upper bound over all mentions."""
    columns = {f"R@{rank}": str(rank) for rank in RANKS} | {"upper bound": "upper_bound"}
    found = {model: of["recall"][protocol]["all"] for model, of in results.items()}
    return _rows(
        {
            model: {column: cell(of[key]) for column, key in columns.items()}
            for model, of in found.items()
        }
    )


def categories(results: dict[str, dict], protocol: str = "any") -> pd.DataFrame:
    """Of `metrics.evaluate`'s results: recall at 1, a column a category with its mentions."""
    return _rows(
        {
            model: {
                f"{name} ({found['mentions']:,})": f"{100 * found['1']['value']:.1f}"
                for name, found in of["recall"][protocol].items()
            }
            for model, of in results.items()
        }
    )


def differences(found: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Of `metrics.differences`: row minus column with its interval, accuracy in points.

    `~` stands where the interval holds 0.
    """
    cells = pd.DataFrame("", index=pd.Index(names, name="row minus column"), columns=names)
    for row in found[found.metric == "accuracy_0.5"].itertuples():
        for first, second, scale in ((row.better, row.worse, 100), (row.worse, row.better, -100)):
            low, high = sorted((scale * row.low, scale * row.high))
            text = f"{scale * row.value:+.1f} [{low:.1f}, {high:.1f}]"
            cells.loc[first, second] = text if row.real else f"~ {text}"
    return cells


def parts(found: dict[str, dict]) -> pd.DataFrame:
    """Of `breakdown.by_part`: mean IoU and accuracy at IoU .5, two columns a part."""
    columns = {
        f"{part} ({of['mentions']:,}): {metric.replace('_', ' ')}": {
            model: cell(figures[metric], metric) for model, figures in of["models"].items()
        }
        for part, of in found.items()
        for metric in MAIN_METRICS
    }
    return pd.DataFrame(columns).rename_axis("model")


def frequency(rows: list[dict]) -> pd.DataFrame:
    """Of `breakdown.by_frequency`: accuracy at IoU .5 and the mean score in %, a column a bin."""
    cells: dict[str, dict] = {}
    for row in rows:
        text = cell(row) + ("" if row["score"] is None else f", score {100 * row['score']:.0f}")
        cells.setdefault(row["model"], {})[f"{row['bin']} ({row['mentions']:,})"] = text
    return _rows(cells)


def perturbations(found: dict[str, list[dict]]) -> pd.DataFrame:
    """Of `perturbations.falls`: a column a change, accuracy after it and its fall in points."""
    return _rows(
        {
            model: {row["change"]: f"{100 * row['changed']:.1f}, fall {cell(row)}" for row in rows}
            for model, rows in found.items()
        }
    ).fillna("")


def presence(found: dict[str, dict[str, dict]]) -> pd.DataFrame:
    """Of `breakdown.presence`: a row a model and kind, the ROC curve's area and what .5 does."""
    rows = [
        {
            "model": model,
            "phrases": kind,
            "own, other": "{:,}, {:,}".format(*of["mentions"]),
            "area": "{value:.3f} [{low:.3f}, {high:.3f}]".format(**of["area"]),
            "own kept (%)": f"{100 * of['kept']:.1f}",
            "other flagged (%)": f"{100 * of['flagged']:.1f}",
        }
        for model, kinds in found.items()
        for kind, of in kinds.items()
    ]
    return pd.DataFrame(rows).set_index("model") if rows else pd.DataFrame()
