"""metrics.json and the tables made from it: figures with what they depend on beside them.

metrics.json, schema 2. A figure is `{"value", "low", "high"}`: shares and IoU in [0, 1], what is
compared in [-1, 1], low and high its 95 % interval by bootstrap over images.

    schema       2
    data         profile, name, split, images, mentions (boxed), train_images
    made_with    backbone, vectors, seed, of the models; resamples, of the bootstrap
    versions     of Python and the packages that figures depend on
    code         commit, its date, and whether scene_utils or notebooks differ from it
    models       by name, `evaluate.evaluate`'s result: images, mentions, answered,
                 predictions_not_asked_for, bootstrap; `merged` and `any`, each with a figure for
                 mean_iou, accuracy_0.3, accuracy_0.5, accuracy_0.7, pointing; and `recall`, by
                 protocol and category (`all` first): mentions, and figures at IoU .5 for 1, 5, 10
                 and upper_bound
    references   the same for what needs no model, fitted on the same train images
    oracles      names of those references that read the truth
    differences  rows of `evaluate.differences`, merged box: better, worse, metric, real, a figure
    groups       rows of `breakdown.by_group`: model, what, bin, mentions, a figure (accuracy .5)
    mistakes     by model: % of the mentions for each of `breakdown.MISTAKES`, and of other boxes
    misses       on the sample, by model, rows of `scene_misses.shares`
    unread       on the sample, `scene_misses.unread`
    calibration  by model, where scores differ: error, and bins with score, mentions, a figure
    presence     by model and kind of pairs, `breakdown.presence`: mentions, area, kept, flagged, and
                 the ROC curve
    probes       by model, rows of `perturbations.falls`: change, mentions, asked, changed, real, same, and
                 the fall as a figure

Sections from `references` on may be missing: an analysis that was not made is not there.
"""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from scene_utils import paths, runtime
from scene_utils.analysis import breakdown, perturbations
from scene_utils.analysis import metrics as evaluate
from scene_utils.paths import ROOT, write_text
from scene_utils.study import ablation_table

SCHEMA = 2


def commit() -> dict:
    """The commit that the code stands on, its date, and whether files differ from it."""

    def git(*words: str) -> str:
        answer = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        )
        return answer.stdout.strip()

    return {
        "commit": git("log", "-1", "--format=%h") or "none",
        "date": git("log", "-1", "--format=%cs") or "none",
        "modified": bool(git("status", "--porcelain", "--", "scene_utils", "notebooks")),
    }


def write_metrics(
    path: Path, data: dict, made_with: dict, models: dict[str, dict], **sections
) -> dict:
    """Write metrics.json as above and return it; `sections` are those from `references` on.

    Times and places are not in it, so that it repeats to the last bit.
    """
    metrics = {
        "schema": SCHEMA,
        "data": data,
        "made_with": made_with,
        "versions": runtime.versions(),
        "code": commit(),
        "models": models,
        **sections,
    }
    write_text(path, json.dumps(metrics, indent=1) + "\n")
    return metrics


def read_metrics(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected figures of notebook 05, found no such file")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics.get("schema") != SCHEMA:
        raise ValueError(f"{path}: expected schema {SCHEMA}, got {metrics.get('schema')!r}")
    return metrics


def caption(metrics: dict) -> str:
    """One line that says what the figures rest on."""
    data, made = metrics["data"], metrics["made_with"]
    return (
        f"{data['name']}, split {data['split']}: {data['images']:,} images, "
        f"{data['mentions']:,} boxed mentions; trained on {data['train_images']:,} images; "
        f"{made['backbone']}, {made['vectors']}, seed {made['seed']}; "
        f"{metrics['code']['date']}"
    )


def markdown(metrics: dict, protocol: str = "merged") -> str:
    """The table of all references and models as Markdown, with its caption."""
    oracles = metrics.get("oracles", [])
    results = {
        f"{name} (oracle)" if name in oracles else name: result
        for name, result in (metrics.get("references", {}) | metrics["models"]).items()
    }
    table = evaluate.table(results, protocol)
    table.columns = [name if name == "mean iou" else f"{name} (%)" for name in table]
    return _with_caption(table, f"{protocol} box", metrics)


def _with_caption(table: pd.DataFrame, note: str, metrics: dict) -> str:
    return f"{_rows(table)}\n\n({note}; {caption(metrics)})"


def _rows(table: pd.DataFrame) -> str:
    name = table.index.name or ""
    rows = [[name, *table.columns], ["---"] * (len(table.columns) + 1)]
    rows += [[label, *cells] for label, cells in zip(table.index, table.to_numpy(str), strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines[1] = "|" + "---|" * len(rows[1])
    return "\n".join(lines)


def _recall(metrics: dict) -> str:
    tables = [
        evaluate.recall_table(metrics["models"], protocol).add_prefix(f"{protocol}: ")
        for protocol in ("any", "merged")
    ]
    return _with_caption(pd.concat(tables, axis=1), "at IoU .5, %", metrics)


def _categories(metrics: dict) -> str:
    return _with_caption(
        evaluate.category_table(metrics["models"]), "recall at 1, any box, IoU .5, %", metrics
    )


def difference_table(differences: pd.DataFrame, names: list[str], metric: str) -> pd.DataFrame:
    """Row minus column with its interval, accuracy in points; `~` where the interval holds 0."""
    scale, digits = (1, 3) if metric == "mean_iou" else (100, 1)
    cells = pd.DataFrame("", index=pd.Index(names, name="row minus column"), columns=names)
    for row in differences[differences.metric == metric].itertuples():
        for first, second, sign in ((row.better, row.worse, 1), (row.worse, row.better, -1)):
            ends = sorted(sign * scale * end for end in (row.low, row.high))
            text = f"{sign * scale * row.value:+.{digits}f}"
            text += f" [{ends[0]:.{digits}f}, {ends[1]:.{digits}f}]"
            cells.loc[first, second] = text if row.real else f"~ {text}"
    return cells


def _differences(metrics: dict) -> str:
    table = difference_table(
        pd.DataFrame(metrics["differences"]), list(metrics["models"]), "accuracy_0.5"
    )
    note = "accuracy at IoU .5, merged box, points; ~: the interval of the difference holds 0"
    return _with_caption(table, note, metrics)


def _probes(metrics: dict) -> str:
    table = perturbations.table(
        {name: pd.DataFrame(rows) for name, rows in metrics["probes"].items()}
    )
    note = "accuracy at IoU .5 after the change, %, and its fall in points; merged box"
    return _with_caption(table.fillna(""), note, metrics)


def _presence(metrics: dict) -> str:
    table = breakdown.presence_table(metrics["presence"]).set_index("model")
    return _with_caption(table, "a phrase about its own picture and about another", metrics)


def _mistakes(metrics: dict) -> str:
    table = pd.DataFrame.from_dict(metrics["mistakes"], orient="index").rename_axis("model")
    return _with_caption(table.map(lambda share: f"{share:.1f}"), "% of the mentions", metrics)


def _misses(metrics: dict) -> str:
    model = list(metrics["misses"])[-1]
    table = pd.DataFrame(metrics["misses"][model]).set_index("phrase")
    cells = table.map(lambda share: f"{share:.1f}")
    cells["mentions"] = table.mentions.map("{:,.0f}".format)
    return _with_caption(cells, f"{model}, % of the mentions", metrics)


def _ablation(metrics: dict) -> str:
    rows = metrics["ablation"]
    dates = sorted(row["date"] for row in rows)
    note = (
        f"{metrics['data']['name']}, split val: {rows[0]['val']['mentions']:,} boxed mentions; "
        f"{metrics['made_with']['vectors']}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
    )
    table = ablation_table.table(rows)
    table.columns = [
        f"{name} (%)" if name.startswith(("accuracy", "pointing")) else name for name in table
    ]
    return f"{_rows(table)}\n\n({note})"


# What `<!-- table:PROFILE/NAME -->` in a Markdown file may name.
TABLES: dict[str, Callable[[dict], str]] = {
    "models": markdown,
    "recall": _recall,
    "categories": _categories,
    "differences": _differences,
    "presence": _presence,
    "probes": _probes,
    "mistakes": _mistakes,
    "misses": _misses,
    "ablation": _ablation,
}
_MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def fill_tables(text: str) -> str:
    """`text` with each `<!-- table:PROFILE/NAME -->` to `<!-- /table -->` written from its metrics.

    Raises ValueError for a name that is not known and for a marker without its end.
    """
    if text.count("<!-- table:") != len(_MARKED.findall(text)) or text.count(
        "<!-- /table -->"
    ) != text.count("<!-- table:"):
        raise ValueError(
            "expected each <!-- table:PROFILE/NAME --> on a line of its own, and <!-- /table --> "
            f"after it; got {text.count('<!-- table:')} beginnings and "
            f"{text.count('<!-- /table -->')} ends"
        )

    def written(match: re.Match) -> str:
        profile, _, name = match[2].partition("/")
        if name not in TABLES:
            raise ValueError(f"expected a table of {sorted(TABLES)}, got {match[2]!r}")
        metrics = read_metrics(paths.figures(profile) / "metrics.json")
        metrics["ablation"] = ablation_table.read(paths.figures(profile) / "ablation.json")
        if not metrics.get(name, True):
            raise ValueError(f"{match[2]}: expected its figures to have {name}, got none")
        try:
            return f"{match[1]}{TABLES[name](metrics)}\n{match[3]}"
        except KeyError as error:
            raise ValueError(
                f"{match[2]}: expected {error} in its metrics.json, got none"
            ) from None

    return _MARKED.sub(written, text)
