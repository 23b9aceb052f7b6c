"""metrics.json: all figures of a profile with what they depend on beside them.

`figures/README.md` says what stands in it. An analysis that was not made is not there.
"""

import json
import subprocess
from pathlib import Path

from scene_utils import runtime
from scene_utils.paths import ROOT, write_text

SCHEMA = 3


def commit() -> dict:
    """The commit that the code stands on, its date, and whether files differ from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, cwd=ROOT).stdout

    made, day = git("log", "-1", "--format=%h %cs").split() or ("none", "none")
    differs = bool(git("status", "--porcelain", "--", "scene_utils", "notebooks"))
    return {"commit": made, "date": day, "modified": differs}


def write_metrics(
    path: Path, data: dict, made_with: dict, labels: dict, models: dict, **sections
) -> dict:
    """Write metrics.json and return it; `sections` are those from `references` on.

    A file that differs in `code` and `versions` alone is left and returned as it is: it says when
    these figures were first had. Times and places are not in it.
    """
    given = {"schema": SCHEMA, "data": data, "made_with": made_with, "labels": labels}
    given |= {"versions": runtime.versions(), "code": commit(), "models": models, **sections}
    text = json.dumps(given, indent=1) + "\n"
    if path.is_file():
        known = json.loads(path.read_text(encoding="utf-8"))
        when = {name: given[name] for name in ("versions", "code")}
        if known | when == json.loads(text):
            return read_metrics(path)
    write_text(path, text)
    return given


def read_metrics(path: Path) -> dict:
    """metrics.json of a profile. FileNotFoundError: there is none; ValueError: another schema."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected figures of notebook 05, found no such file")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics.get("schema") != SCHEMA:
        got = repr(metrics.get("schema"))
        raise ValueError(f"{path}: expected schema {SCHEMA}, got {got}: run notebook 05")
    return metrics


def note(data: dict, labels: dict[str, str]) -> str:
    """A figure's title: what it rests on, in short, and whether a backbone's weights are random."""
    untrained = any("untrained" in label for label in labels.values())
    text = f"{data['name']}, {data['split']}, {data['mentions']:,} mentions"
    return text + (", untrained" if untrained else "")
