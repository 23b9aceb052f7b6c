"""The tables of README.md and the pages, written from what `make` measured, or shown.

`<!-- table:PROFILE/NAME -->` to `<!-- /table -->` in one of `FILES` holds a table of `TABLES`, from
the profile's metrics.json and ablation.json; `<!-- table:bench/NAME -->` one of `BENCH`, from
bench.json.
"""

import argparse
import json
import math
import re
import sys
from pathlib import Path

import pandas as pd

from scene_utils import paths
from scene_utils.analysis import metrics_file, references
from scene_utils.grounding import ABSENT
from scene_utils.study import tables
from tests.benchmarks import ablation_table

BENCH_PAGE = paths.ROOT / "figures/bench.md"
FILES = (
    *("README.md", "figures/flickr30k/README.md", "figures/sample/README.md"),
    "figures/bench.md",
)


def markdown(table: pd.DataFrame, note: str) -> str:
    """A table of texts as Markdown, with a note below it."""
    head = [table.index.name or "", *table.columns]
    rows = [head, *zip(table.index, *table.to_numpy(str).T, strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(head))
    return "\n".join([*lines, "", f"({note})"])


def caption(metrics: dict) -> str:
    """One line that says what the figures rest on."""
    data, made = metrics["data"], metrics["made_with"]
    return (
        f"{data['name']}, split {data['split']}: {data['images']:,} images, "
        f"{data['mentions']:,} boxed mentions; trained on {data['train_images']:,} images; "
        f"source: {made['backbone']}, {made['vectors']}, seed {made['seed']}; "
        f"{metrics['code']['date']}"
    )


def _captioned(table: pd.DataFrame, note: str, metrics: dict) -> str:
    labelled = table.rename(index=metrics["labels"])
    return markdown(labelled, f"{note}; {caption(metrics)}")


def models(metrics: dict) -> str:
    """The table of all references and models as Markdown, merged box, with its caption."""
    table = tables.scores(metrics.get("references", {}) | metrics["models"])
    table = table.rename(index={name: f"{name} (oracle)" for name in metrics.get("oracles", [])})
    table.columns = [name if name == "mean iou" else f"{name} (%)" for name in table]
    return _captioned(table, "merged box", metrics)


def _summary(metrics: dict) -> pd.DataFrame:
    """What is looked at first: the best blind box and the models, and what each loses when it is
    asked with another phrase or shown another picture."""
    blind = {"best constant": metrics["references"]["best constant"]}
    table = tables.scores(blind | metrics["models"])[["mean iou", "accuracy 0.5"]]
    table.columns = ["mean IoU", "right (%)"]
    for change in ("another phrase", "another picture"):
        lost = {
            model: f"{100 * row['value']:.1f}"
            for model, rows in metrics.get("perturbations", {}).items()
            for row in rows
            if row["change"] == change
        }
        table[f"lost: {change}"] = pd.Series(lost, dtype="str").reindex(table.index, fill_value="")
    return table


def _perturbations(metrics: dict) -> pd.DataFrame:
    """A column a change: accuracy after it and its fall in points."""
    rows = {
        model: {
            f"{row['change']} ({row['mentions']:,})": f"{100 * row['changed']:.1f}, fall "
            + tables.cell(row)
            for row in of
        }
        for model, of in metrics["perturbations"].items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model").fillna("")


def _recall(metrics: dict) -> pd.DataFrame:
    found, sides = metrics["models"], ("any", "merged")
    return pd.concat([tables.recall(found, side).add_prefix(f"{side}: ") for side in sides], axis=1)


def _differences(metrics: dict) -> pd.DataFrame:
    names = [*references.BEST, *metrics["models"]]
    return tables.differences(pd.DataFrame(metrics["differences"]), names)


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
    return markdown(
        table,
        f"{metrics['data']['name']}, split val: {rows[0]['val']['mentions']:,} boxed mentions; "
        f"{metrics['made_with']['vectors']}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}",
    )


NOTES = {
    "summary": "right: IoU of .5 or more; lost: points of it, asked with another phrase or shown "
    "another picture (empty: not asked); in brackets 95 % intervals; merged box",
    "recall": "at IoU .5, %",
    "categories": "recall at 1, any box, IoU .5, %",
    "differences": "accuracy at IoU .5, merged box, points; ~: the interval of the difference "
    "holds 0",
    "frequency": "accuracy at IoU .5, merged box, and the mean score, %, by how often the phrase's "
    "last word stands in train phrases (mentions)",
    "parts": "merged box, accuracy at IoU .5 in %, by part of the split (mentions)",
    "things": "%, at IoU .5; precision and recall of boxes as means over the mentions",
    "alike": "accuracy at IoU .5; the last row chooses one of the true things at random",
    "photos": "merged box drawn by eye; right: IoU of .5 or more, in all and by kind (of how "
    f"many); kept: phrases with `present` of {ABSENT} or more; flagged: absent things below",
    "presence": "a phrase about its own picture and about another; kept: `present` of "
    f"{ABSENT} or more; flagged: below",
    "perturbations": "accuracy at IoU .5 after the change, %, and its fall in points, on the "
    "mentions for which it can be made (how many); merged box",
    "mistakes": "% of the mentions; last columns: of the missed, those that another phrase's box "
    "would have answered, and how often the box of a random other phrase would",
}


def things(found: dict[str, dict]) -> pd.DataFrame:
    """Of `breakdown.things`: recall at 1, any box, and precision and recall of several things."""

    def cells(of: dict) -> dict:
        several = f"{of['several']:,} of several things"
        row = {f"any: R@1 ({of['mentions']:,})": tables.cell(of["any"])}
        return row | {
            f"{name} ({several})": tables.cell(of[name]) for name in ("precision", "recall")
        }

    return tables.by_model(found, cells)


def alike(found: dict[str, dict]) -> pd.DataFrame:
    """Of `breakdown.of_alike`: accuracy at IoU .5, and that of one of the things at random."""

    def cells(of: dict) -> dict:
        asked = f"{of['questions']:,} questions, {of['pictures']:,} pictures"
        return {f"right (%) of {asked}": tables.cell(of["accuracy"])}

    table = tables.by_model(found, cells)
    if found:
        table.loc["one of the things"] = f"{100 * next(iter(found.values()))['chance']:.1f}"
    return table


def photos(found: dict[str, dict]) -> pd.DataFrame:
    """Of `breakdown.photos` by model: a row a model and split, accuracy at IoU .5 also by kind."""
    rows = []
    for model, splits in found.items():
        for split, of in splits.items():
            row = {"model": model, "photos": f"{of['photos']} to {split}"}
            row |= {
                "phrases": f"{of['phrases']}",
                "mean IoU": tables.cell(of["mean_iou"], "mean_iou"),
            }
            row["right (%)"] = tables.cell(of["accuracy_0.5"])
            row |= {k: f"{100 * share:.0f} % of {n}" for k, (n, share) in of["kinds"].items()}
            for name in ("kept", "flagged"):
                row[f"{name} (%)"] = "" if of[name] is None else f"{100 * of[name]:.0f}"
            rows.append(row)
    return pd.DataFrame(rows).set_index("model") if rows else pd.DataFrame()


def _shown(found: dict, without: str) -> dict:
    """Of what was found by model, the rows that a page shows."""
    return {model: found[model] for model in ("source", "grid", f"grid without {without}")}


MAKERS = {
    "photos": lambda metrics: photos(_shown(metrics["photos"], "a second look")),
    "alike": lambda metrics: alike(_shown(metrics["alike"], "places")),
    **{"summary": _summary, "recall": _recall, "differences": _differences, "mistakes": _mistakes},
    "perturbations": _perturbations,
    "things": lambda metrics: things(metrics["things"]),
    "categories": lambda metrics: tables.categories(metrics["models"]),
}
WHOLE = {"models": models, "misses": _misses, "ablation": _ablation}
TABLES = (*WHOLE, *NOTES)


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


def _start(section: dict) -> pd.DataFrame:
    """A row a process, and the widget's page: seconds, and MiB at most or while it stands."""
    rows = {name: dict(of) for name, of in section["processes"].items()}
    page = section["page"]
    opened, closed = page["one_page"]["mebibytes"], page["all_closed"]["mebibytes"]
    rows["widget, page to first box"] = {"seconds": page["opened_seconds"], "mebibytes": opened}
    rows["widget, reload to first box"] = {"seconds": page["reloaded_seconds"]}
    rows["widget, all pages closed"] = {"mebibytes": closed}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("cold")
    return table.set_axis(["seconds", "MiB", "times TensorFlow's import"], axis=1)


def _study(section: dict) -> pd.DataFrame:
    """A row a target of make, in a fresh clone."""
    targets = section["targets"].items()
    rows = {f"make {name}" + " (failed)" * ("failed" in of): of for name, of in targets}
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("in a fresh clone")
    return table[["seconds", "mebibytes"]].set_axis(["seconds", "MiB at most"], axis=1)


def _query(section: dict) -> pd.DataFrame:
    kinds = {"fresh": "not seen before", "seen": "seen before", "twice": "looked at twice"}
    rows = {
        text: {"median": section[f"{name}_ms"], "nine of ten": section[f"{name}_ms_9_of_10"]}
        for name, text in kinds.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("photo")


BENCH = {
    "start": (_start, "medians of whole processes; the widget's server with its kernels"),
    "study": (_study, "whole processes with all that they start; one after the other"),
    "query": (_query, "milliseconds from photo and phrase to boxes, the grid model that ships"),
    "pass": (_pass, "pictures of 224 x 224 px a second"),
    "caching": (_caching, "pass, reading and caching: pictures a second"),
    "training": (_training, "seconds a step of 16 pictures"),
}


def _digits(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bench(name: str) -> str:
    if name not in BENCH:
        raise ValueError(f"expected a table of {sorted(BENCH)}, got 'bench/{name}'")
    section = json.loads((paths.ROOT / "figures/bench.json").read_bytes())[name]
    make, note = BENCH[name]
    made_on = "{processor}, {cores} cores; {date}".format(**section["machine"])
    return markdown(make(section).map(_digits), f"{note}; {made_on}")


def table(profile: str, name: str) -> str:
    """One of `TABLES` from a profile's figures, or of `BENCH` from the speeds. ValueError for a
    name that is not among them, and where the figures lack what it shows."""
    if profile == "bench":
        return _bench(name)
    if name not in TABLES:
        raise ValueError(f"expected a table of {sorted(TABLES)}, got '{profile}/{name}'")
    metrics = metrics_file.read_metrics(paths.figures(profile) / "metrics.json")
    metrics["ablation"] = ablation_table.read(paths.figures(profile) / "ablation.json")
    if not metrics.get(name, True):
        raise ValueError(f"{profile}/{name}: expected its figures to have {name}, got none")
    try:
        if name in WHOLE:
            return WHOLE[name](metrics)
        made = MAKERS[name](metrics) if name in MAKERS else getattr(tables, name)(metrics[name])
        return _captioned(made, NOTES[name], metrics)
    except KeyError as error:
        raise ValueError(f"{profile}/{name}: expected {error} in its figures, got none") from None


_MARKED = re.compile(r"(<!-- table:([^\s/]+)/(\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def fill(text: str) -> str:
    """`text` with each `<!-- table:PROFILE/NAME -->` to `<!-- /table -->` written by `table`.

    Raises ValueError for what `table` refuses and for a marker without its end.
    """
    begun, ended = text.count("<!-- table:"), text.count("<!-- /table -->")
    if not begun == ended == len(_MARKED.findall(text)):
        raise ValueError(
            "expected each <!-- table:PROFILE/NAME --> on a line of its own, and <!-- /table --> "
            f"after it; got {begun} beginnings and {ended} ends"
        )
    return _MARKED.sub(lambda mark: f"{mark[1]}{table(mark[2], mark[3])}\n{mark[4]}", text)


def update(path: Path, check: bool = False) -> bool:
    """`fill` a file, or with `check` leave it; whether its tables were as they should be."""
    text = path.read_text(encoding="utf-8")
    filled = fill(text)
    if filled == text:
        print(f"{path}: tables are as they should be")
    elif not check:
        paths.write_text(path, filled)
        print(f"{path}: tables written")
    return filled == text


def show(profile: str) -> None:
    """Print a profile's table of models, and how long its notebooks took."""
    print(models(metrics_file.read_metrics(paths.figures(profile) / "metrics.json")))
    took = []
    for path in sorted(paths.build(profile).glob("[0-9]*.ipynb")):
        if path.suffixes == [".ipynb"]:  # else it failed
            about = json.loads(path.read_text(encoding="utf-8"))["metadata"]
            took.append(f"{path.stem} {about['papermill']['duration']:.0f}")
    if took:
        print("\nseconds: " + ", ".join(took))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pages", description=__doc__)
    parser.add_argument("file", nargs="*", type=Path, help="default: README and pages of results")
    parser.add_argument("--check", action="store_true", help="change nothing, fail if it differs")
    parser.add_argument("--show", metavar="PROFILE", help="print its table of models instead")
    given = parser.parse_args()
    if given.show:
        show(given.show)
        return
    known = filter(Path.is_file, map(paths.ROOT.joinpath, FILES))
    differ = [path for path in given.file or known if not update(path, given.check)]
    if given.check and differ:
        made_of = dict.fromkeys(differ, "metrics.json") | {BENCH_PAGE: "bench.json"}
        told = (f"{path}: tables differ from {made_of[path]}. Run `make readme`" for path in differ)
        sys.exit("\n".join(told) + " and commit it")


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
