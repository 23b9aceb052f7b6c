"""The figures of metrics.json as tables: a row a model, text in the cells."""

from collections.abc import Callable

import pandas as pd

from scene_utils.analysis.metrics import MAIN_METRICS, METRICS, RECALLS


def cell(figure: dict, metric: str = "") -> str:
    """A figure as `value [low, high]`, mean IoU in 1, all else in %.

    >>> cell({"value": 0.25, "low": 0.2, "high": 0.3})
    '25.0 [20.0, 30.0]'
    """
    if metric == "mean_iou":
        return "{value:.3f} [{low:.3f}, {high:.3f}]".format(**figure).replace("0.", ".")
    value, low, high = (100 * figure[name] for name in ("value", "low", "high"))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def by_model(found: dict, cells: Callable[..., dict]) -> pd.DataFrame:
    """A row a model: the cells, by column, of what was found of it."""
    rows = {model: cells(of) for model, of in found.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")


def scores(results: dict[str, dict], protocol: str = "merged") -> pd.DataFrame:
    """Of `metrics.evaluate`'s results: a column for each of `METRICS`."""
    names = {name: name.replace("_", " ") for name in METRICS}
    return by_model(results, lambda of: {names[n]: cell(of[protocol][n], n) for n in METRICS})


def recall(results: dict[str, dict], protocol: str = "any") -> pd.DataFrame:
    """Of `metrics.evaluate`'s results: recall at 1, 5, 10 and the upper bound over all mentions."""
    table = by_model(
        {model: of["recall"][protocol]["all"] for model, of in results.items()},
        lambda found: {name: cell(found[name]) for name in RECALLS},
    )
    return table.set_axis(["R@1", "R@5", "R@10", "upper bound"], axis=1)


def categories(results: dict[str, dict], protocol: str = "any") -> pd.DataFrame:
    """Of `metrics.evaluate`'s results: recall at 1, a column a category with its mentions."""
    return by_model(
        {model: of["recall"][protocol] for model, of in results.items()},
        lambda found: {
            f"{name} ({of['mentions']:,})": f"{100 * of['1']['value']:.1f}"
            for name, of in found.items()
        },
    )


def differences(found: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Of `metrics.differences`: row minus column, in points; `~` where the interval holds 0."""
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
    return by_model(cells, dict)


def presence(found: dict[str, dict[str, dict]]) -> pd.DataFrame:
    """Of `breakdown.presence`: a row a model and kind: area, and what `grounding.ABSENT` does."""
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
