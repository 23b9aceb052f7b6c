"""metrics.json: all figures of a profile with what they depend on beside them.

metrics.json, schema 3. A figure is `{"value", "low", "high"}`: shares and IoU in [0, 1], what is
compared in [-1, 1], low and high its 95 % interval by bootstrap over images.

    schema         3
    data           profile, name, split, images, mentions (boxed), train_images
    made_with      backbone, vectors, seed, of the models; resamples, of the bootstrap
    labels         by name of a model, the name with the inputs that made it
    versions       of Python and the packages that figures depend on
    code           commit, its date, and whether scene_utils or notebooks differ from it
    models         by name, `metrics.evaluate`'s result: images, mentions, answered,
                   predictions_not_asked_for, bootstrap; `merged` and `any`, each with a figure for
                   mean_iou, accuracy_0.3, accuracy_0.5, accuracy_0.7, pointing; and `recall`, by
                   protocol and category (`all` first): mentions, and figures at IoU .5 for 1, 5,
                   10 and upper_bound
    references     the same for what needs no model, fitted on the same train images
    oracles        names of those references that read the truth
    differences    rows of `metrics.differences`, merged box: better, worse, metric, real, a figure
    groups         rows of `breakdown.by_group`: model, what, bin, mentions, a figure (accuracy .5)
    frequency      rows of `breakdown.by_frequency`: model, bin, mentions, a figure, score
    parts          `breakdown.by_part`, where the split has parts: mentions, models, differences
    mistakes       by model: % of the mentions for each of `mistakes.MISTAKES`, and of other boxes
    misses         on the sample, by model, rows of `sample_errors.shares`
    unread         on the sample, `sample_errors.unread`
    calibration    by model, where scores differ: error, and bins with score, mentions, a figure
    presence       by model and kind of pairs, `breakdown.presence`: mentions, area, kept, flagged,
                   and the ROC curve
    perturbations  by model, rows of `perturbations.falls`: change, mentions, asked, changed, real,
                   same, and the fall as a figure

Sections from `references` on may be missing: an analysis that was not made is not there.
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
    path: Path,
    data: dict,
    made_with: dict,
    labels: dict[str, str],
    models: dict[str, dict],
    **sections,
) -> dict:
    """Write metrics.json as above and return it; `sections` are those from `references` on.

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
    """metrics.json as above.

    Raises FileNotFoundError where there is none, ValueError where it is of another schema.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: expected figures of notebook 05, found no such file")
    metrics = json.loads(path.read_text(encoding="utf-8"))
    if metrics.get("schema") != SCHEMA:
        raise ValueError(
            f"{path}: expected schema {SCHEMA}, got {metrics.get('schema')!r}: run notebook 05"
        )
    return metrics


def note(data: dict, labels: dict[str, str]) -> str:
    """A figure's title: what it rests on, in short, and whether a backbone's weights are random."""
    untrained = any("untrained" in label for label in labels.values())
    text = f"{data['name']}, {data['split']}, {data['mentions']:,} mentions"
    return text + (", untrained" if untrained else "")


def caption(metrics: dict) -> str:
    """One line that says what the figures rest on."""
    data, made = metrics["data"], metrics["made_with"]
    return (
        f"{data['name']}, split {data['split']}: {data['images']:,} images, "
        f"{data['mentions']:,} boxed mentions; trained on {data['train_images']:,} images; "
        f"{made['backbone']}, {made['vectors']}, seed {made['seed']}; "
        f"{metrics['code']['date']}"
    )
