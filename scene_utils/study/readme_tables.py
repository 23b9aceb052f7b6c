"""The tables of README.md and the pages, written from metrics.json, ablation.json and bench.json.

`<!-- table:PROFILE/NAME -->` to `<!-- /table -->` in one of `FILES` holds a table of `TABLES`, and
`<!-- table:bench/NAME -->` one of `BENCH`.
"""

import json
import re
from pathlib import Path

import pandas as pd

from scene_utils import paths
from scene_utils.analysis import metrics_file
from scene_utils.study import ablation_table, tables

FILES = ("README.md", "figures/flickr30k/README.md", "figures/sample/README.md", "figures/bench.md")


def files() -> list[Path]:
    return [path for path in map(paths.ROOT.joinpath, FILES) if path.is_file()]


def _rows(table: pd.DataFrame, note: str) -> str:
    head = [table.index.name or "", *table.columns]
    rows = [head, *zip(table.index, *table.to_numpy(str).T, strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join([*lines, "", f"({note})"])


def _captioned(table: pd.DataFrame, note: str, metrics: dict) -> str:
    labelled = table.rename(index=metrics["labels"])
    return _rows(labelled, f"{note}; {metrics_file.caption(metrics)}")


def markdown(metrics: dict, protocol: str = "merged") -> str:
    """The table of all references and models as Markdown, with its caption."""
    table = tables.scores(metrics.get("references", {}) | metrics["models"], protocol)
    table = table.rename(index={name: f"{name} (oracle)" for name in metrics.get("oracles", [])})
    table.columns = [name if name == "mean iou" else f"{name} (%)" for name in table]
    return _captioned(table, f"{protocol} box", metrics)


def _summary(metrics: dict) -> pd.DataFrame:
    """What is looked at first: the best blind box and the models, and what each loses when it is
    asked with another phrase or shown another picture."""
    blind = {"best constant": metrics["references"]["best constant"]}
    table = tables.scores(blind | metrics["models"])[["mean iou", "accuracy 0.5"]]
    table.columns = ["mean IoU", "right (%)"]
    for change in ("another phrase", "another picture"):
        table[f"lost: {change}"] = ""
        for model, rows in metrics.get("perturbations", {}).items():
            for row in rows:
                if row["change"] == change:
                    table.loc[model, f"lost: {change}"] = f"{100 * row['value']:.1f}"
    return table


def _recall(metrics: dict) -> pd.DataFrame:
    found, sides = metrics["models"], ("any", "merged")
    return pd.concat([tables.recall(found, side).add_prefix(f"{side}: ") for side in sides], axis=1)


def _differences(metrics: dict) -> pd.DataFrame:
    rows = pd.DataFrame(metrics["differences"])
    names = [name for name in metrics["references"] if name in {*rows.better, *rows.worse}]
    return tables.differences(rows, [*names, *metrics["models"]])


def _mistakes(metrics: dict) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(metrics["mistakes"], orient="index").rename_axis("model")
    return table.map("{:.1f}".format)


def _misses(metrics: dict) -> str:
    model = list(metrics["misses"])[-1]
    table = pd.DataFrame(metrics["misses"][model]).set_index("phrase")
    cells = table.map("{:.1f}".format).assign(mentions=table.mentions.map("{:,.0f}".format))
    note = f"{metrics['labels'].get(model, model)}, % of the mentions"
    return _captioned(cells, note, metrics)


def _ablation(metrics: dict) -> str:
    rows = metrics["ablation"]
    dates = sorted(row["date"] for row in rows)
    table = ablation_table.table(rows)
    table.columns = [f"{n} (%)" if n.startswith(("accuracy", "pointing")) else n for n in table]
    return _rows(
        table,
        f"{metrics['data']['name']}, split val: {rows[0]['val']['mentions']:,} boxed mentions; "
        f"{metrics['made_with']['vectors']}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}",
    )


def _caching(section: dict) -> pd.DataFrame:
    rows = pd.DataFrame(section["rows"]).set_index("backbone")
    speeds = ["pass", "reading", "caching"]
    rows = rows.rename(columns={f"{name}_per_second": name for name in speeds})
    shares = 100 * rows[["share", "ceiling"]].set_axis(["of the pass (%)", "at most (%)"], axis=1)
    return pd.concat([rows[["precision", "pictures are", *speeds]], shares], axis=1)


def _pass(section: dict) -> pd.DataFrame:
    rates = {name: of["pictures_per_second"] for name, of in section["backbones"].items()}
    return pd.DataFrame(rates).rename_axis("runtime")


def _training(section: dict) -> pd.DataFrame:
    sizes = {f"{size} px": of["step_seconds"] for size, of in section["sizes"].items()}
    return pd.DataFrame(sizes).rename_axis("runtime")


def _bench(name: str, figures: dict) -> str:
    def digits(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

    make, note = BENCH[name]
    made_on = "{processor}, {cores} cores; {date}".format(**figures[name]["machine"])
    return _rows(make(figures[name]).map(digits), f"{note}; {made_on}")


BENCH = {
    "pass": (_pass, "pictures of 224 x 224 px a second"),
    "caching": (_caching, "pass, reading and caching: pictures a second"),
    "training": (_training, "seconds a step of 16 pictures"),
}
NOTES = {
    "summary": "right: IoU of .5 or more; lost: points of it (empty: not asked); in brackets 95 % "
    "intervals; merged box",
    "recall": "at IoU .5, %",
    "categories": "recall at 1, any box, IoU .5, %",
    "differences": "accuracy at IoU .5, merged box, points; ~: the interval of the difference "
    "holds 0",
    "frequency": "accuracy at IoU .5, merged box, and the mean score, %, by how often the phrase's "
    "last word stands in train phrases (mentions)",
    "parts": "merged box, accuracy at IoU .5 in %, by part of the split (mentions)",
    "presence": "a phrase about its own picture and about another",
    "perturbations": "accuracy at IoU .5 after the change, %, and its fall in points; merged box",
    "mistakes": "% of the mentions",
}
MAKERS = {
    **{"summary": _summary, "recall": _recall, "differences": _differences, "mistakes": _mistakes},
    "categories": lambda metrics: tables.categories(metrics["models"]),
}
WHOLE = {"models": markdown, "misses": _misses, "ablation": _ablation}
TABLES = (*WHOLE, *NOTES)


def table(name: str, metrics: dict) -> str:
    if name in WHOLE:
        return WHOLE[name](metrics)
    made = MAKERS[name](metrics) if name in MAKERS else getattr(tables, name)(metrics[name])
    return _captioned(made, NOTES[name], metrics)


_MARKED = re.compile(r"(<!-- table:(\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def fill(text: str) -> str:
    """`text` with each `<!-- table:PROFILE/NAME -->` to `<!-- /table -->` written from its figures.

    Raises ValueError for a name that is not known and for a marker without its end.
    """
    begun, ended = text.count("<!-- table:"), text.count("<!-- /table -->")
    if not begun == ended == len(_MARKED.findall(text)):
        raise ValueError(
            "expected each <!-- table:PROFILE/NAME --> on a line of its own, and <!-- /table --> "
            f"after it; got {begun} beginnings and {ended} ends"
        )

    def written(match: re.Match) -> str:
        profile, _, name = match[2].partition("/")
        known = BENCH if profile == "bench" else TABLES
        if name not in known:
            raise ValueError(f"expected a table of {sorted(known)}, got {match[2]!r}")
        if profile == "bench":
            figures = json.loads((paths.ROOT / "figures" / "bench.json").read_bytes())
        else:
            figures = metrics_file.read_metrics(paths.figures(profile) / "metrics.json")
            figures["ablation"] = ablation_table.read(paths.figures(profile) / "ablation.json")
        if not figures.get(name, True):
            raise ValueError(f"{match[2]}: expected its figures to have {name}, got none")
        try:
            made = _bench(name, figures) if profile == "bench" else table(name, figures)
            return f"{match[1]}{made}\n{match[3]}"
        except KeyError as error:
            raise ValueError(f"{match[2]}: expected {error} in its figures, got none") from None

    return _MARKED.sub(written, text)
