"""metrics.json and the result table: figures with what they depend on beside them."""

import json
import subprocess
from pathlib import Path

from scene_utils import environment, evaluate
from scene_utils.paths import ROOT, write_text

SCHEMA = 1


def _commit() -> dict:
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


def write_metrics(path: Path, data: dict, made_with: dict, models: dict[str, dict]) -> dict:
    """Write metrics.json: `schema`, `code`, `data`, `made_with`, `versions`, `models`.

    `data` names profile, split and counts; `made_with` backbone, vectors and seed; `models` maps a
    name to `evaluate.evaluate`'s result. Times are not in it, so that it repeats to the last bit.
    """
    metrics = {
        "schema": SCHEMA,
        "data": data,
        "made_with": made_with,
        "versions": environment.versions(),
        "code": _commit(),
        "models": models,
    }
    write_text(path, json.dumps(metrics, indent=1) + "\n")
    return metrics


def read_metrics(path: Path) -> dict:
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
    """The table of all models as Markdown, with its caption."""
    table = evaluate.table(metrics["models"], protocol)
    header = "| model | " + " | ".join(_heading(column) for column in table) + " |"
    rule = "|---" * (len(table.columns) + 1) + "|"
    rows = [
        "| " + " | ".join([name, *row]) + " |"
        for name, row in zip(table.index, table.to_numpy(str), strict=True)
    ]
    return "\n".join([header, rule, *rows, "", f"({protocol} boxes; {caption(metrics)})"])


def _heading(column: str) -> str:
    return column if column == "mean iou" else f"{column} (%)"
