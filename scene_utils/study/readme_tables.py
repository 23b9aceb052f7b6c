"""The tables of README.md and the pages, written from metrics.json, ablation.json and bench.json.

`<!-- table:PROFILE/NAME -->` to `<!-- /table -->` in one of `FILES` holds a table of `TABLES`, and
`<!-- table:bench/NAME -->` one of `BENCH`.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from scene_utils import paths
from scene_utils.analysis import metrics_file
from scene_utils.study import ablation_table, tables

FILES = (
    "README.md",
    "figures/flickr30k/README.md",
    "figures/sample/README.md",
    "figures/bench.md",
)


def files() -> list[Path]:
    """Those of `FILES` that are there."""
    return [path for path in map(paths.ROOT.joinpath, FILES) if path.is_file()]


def markdown(metrics: dict, protocol: str = "merged") -> str:
    """The table of all references and models as Markdown, with its caption."""
    oracles = metrics.get("oracles", [])
    results = {
        f"{name} (oracle)" if name in oracles else name: result
        for name, result in (metrics.get("references", {}) | metrics["models"]).items()
    }
    table = tables.scores(results, protocol)
    table.columns = [name if name == "mean iou" else f"{name} (%)" for name in table]
    return _with_caption(table, f"{protocol} box", metrics)


def _summary(metrics: dict) -> str:
    """What is looked at first: the best blind box and the models, and what each loses when it is
    asked with another phrase or shown another picture."""
    blind = {"best constant": metrics["references"]["best constant"]}
    table = tables.scores(blind | metrics["models"])[["mean iou", "accuracy 0.5"]]
    table.columns = ["mean IoU", "right (%)"]
    for change in ("another phrase", "another picture"):
        fallen = {
            model: f"{100 * row['value']:.1f}"
            for model, rows in metrics.get("perturbations", {}).items()
            for row in rows
            if row["change"] == change
        }
        table[f"lost: {change}"] = pd.Series(fallen, dtype=object).reindex(table.index).fillna("")
    note = "right: IoU of .5 or more; lost: points of it (empty: not asked); in brackets 95 %"
    note += " intervals; merged box"
    return _with_caption(table, note, metrics)


def _with_caption(table: pd.DataFrame, note: str, metrics: dict) -> str:
    labelled = table.rename(index=metrics["labels"])
    return f"{_rows(labelled)}\n\n({note}; {metrics_file.caption(metrics)})"


def _rows(table: pd.DataFrame) -> str:
    rows = [[table.index.name or "", *table.columns], [""]]
    rows += [[label, *cells] for label, cells in zip(table.index, table.to_numpy(str), strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines[1] = "|" + "---|" * len(rows[0])
    return "\n".join(lines)


def _recall(metrics: dict) -> str:
    sides = [
        tables.recall(metrics["models"], protocol).add_prefix(f"{protocol}: ")
        for protocol in ("any", "merged")
    ]
    return _with_caption(pd.concat(sides, axis=1), "at IoU .5, %", metrics)


def _categories(metrics: dict) -> str:
    table = tables.categories(metrics["models"])
    return _with_caption(table, "recall at 1, any box, IoU .5, %", metrics)


def _differences(metrics: dict) -> str:
    rows = pd.DataFrame(metrics["differences"])
    names = [name for name in metrics["references"] if name in {*rows.better, *rows.worse}]
    table = tables.differences(rows, [*names, *metrics["models"]])
    note = "accuracy at IoU .5, merged box, points; ~: the interval of the difference holds 0"
    return _with_caption(table, note, metrics)


def _perturbations(metrics: dict) -> str:
    table = tables.perturbations(metrics["perturbations"])
    note = "accuracy at IoU .5 after the change, %, and its fall in points; merged box"
    return _with_caption(table, note, metrics)


def _presence(metrics: dict) -> str:
    table = tables.presence(metrics["presence"])
    return _with_caption(table, "a phrase about its own picture and about another", metrics)


def _mistakes(metrics: dict) -> str:
    table = pd.DataFrame.from_dict(metrics["mistakes"], orient="index").rename_axis("model")
    return _with_caption(table.map(lambda share: f"{share:.1f}"), "% of the mentions", metrics)


def _misses(metrics: dict) -> str:
    model = list(metrics["misses"])[-1]
    table = pd.DataFrame(metrics["misses"][model]).set_index("phrase")
    cells = table.map(lambda share: f"{share:.1f}")
    cells["mentions"] = table.mentions.map("{:,.0f}".format)
    return _with_caption(
        cells, f"{metrics['labels'].get(model, model)}, % of the mentions", metrics
    )


def _frequency(metrics: dict) -> str:
    note = (
        "accuracy at IoU .5, merged box, and the mean score, %, by how often the phrase's last "
        "word stands in train phrases (mentions)"
    )
    return _with_caption(tables.frequency(metrics["frequency"]), note, metrics)


def _parts(metrics: dict) -> str:
    note = "merged box, accuracy at IoU .5 in %, by part of the split (mentions)"
    return _with_caption(tables.parts(metrics["parts"]), note, metrics)


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


def _three_digits(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bench_rows(table: pd.DataFrame, what: str, section: dict) -> str:
    machine = section["machine"]
    table = table.map(_three_digits)
    made_on = f"{machine['processor']}, {machine['cores']} cores; {machine['date']}"
    return f"{_rows(table)}\n\n({what}; {made_on})"


def _bench_pass(section: dict) -> str:
    rates = {name: of["pictures_per_second"] for name, of in section["backbones"].items()}
    table = pd.DataFrame(rates).rename_axis("runtime")
    return _bench_rows(table, "pictures of 224 x 224 px a second", section)


def _bench_caching(section: dict) -> str:
    rows = pd.DataFrame(section["rows"]).set_index("backbone")
    table = rows[["precision", "pictures are"]]
    for name in ("pass", "reading", "caching"):
        table = table.assign(**{name: rows[f"{name}_per_second"]})
    shares = 100 * rows[["share", "ceiling"]].set_axis(["of the pass (%)", "at most (%)"], axis=1)
    table = pd.concat([table, shares], axis=1)
    return _bench_rows(table, "pass, reading and caching: pictures a second", section)


def _bench_training(section: dict) -> str:
    sizes = {f"{size} px": of["step_seconds"] for size, of in section["sizes"].items()}
    table = pd.DataFrame(sizes).rename_axis("runtime")
    return _bench_rows(table, "seconds a step of 16 pictures", section)


BENCH: dict[str, Callable[[dict], str]] = {
    "pass": _bench_pass,
    "caching": _bench_caching,
    "training": _bench_training,
}
TABLES: dict[str, Callable[[dict], str]] = {
    "summary": _summary,
    "models": markdown,
    "recall": _recall,
    "categories": _categories,
    "differences": _differences,
    "frequency": _frequency,
    "parts": _parts,
    "presence": _presence,
    "perturbations": _perturbations,
    "mistakes": _mistakes,
    "misses": _misses,
    "ablation": _ablation,
}
_MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def fill(text: str) -> str:
    """`text` with each `<!-- table:PROFILE/NAME -->` to `<!-- /table -->` written from its figures.

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
        known = BENCH if profile == "bench" else TABLES
        if name not in known:
            raise ValueError(f"expected a table of {sorted(known)}, got {match[2]!r}")
        if profile == "bench":
            text = (paths.ROOT / "figures" / "bench.json").read_text(encoding="utf-8")
            figures = json.loads(text).get(name)
        else:
            figures = metrics_file.read_metrics(paths.figures(profile) / "metrics.json")
            figures["ablation"] = ablation_table.read(paths.figures(profile) / "ablation.json")
        if not figures or not figures.get(name, True):
            raise ValueError(f"{match[2]}: expected its figures to have {name}, got none")
        try:
            return f"{match[1]}{known[name](figures)}\n{match[3]}"
        except KeyError as error:
            raise ValueError(f"{match[2]}: expected {error} in its figures, got none") from None

    return _MARKED.sub(written, text)
