"""What each part of the models adds, row by row: trained on train, scored on val.

`figures/<profile>/ablation.json` keeps each row with its settings, seed, times, commit and date, so
that the hours can be spread over days; a stopped one goes on from its last saved step. Rows beside
`ROWS` were trained by the commit that they name: on a GPU, or with a part of the grid model left
out, for which today's code has no switch.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from itertools import product
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import numpy as np
import pandas as pd

from scene_utils import box_ops, paths, words
from scene_utils.analysis import metrics, metrics_file
from scene_utils.features import encode
from scene_utils.grid.batches import GridSettings, Mentions, best_boxes, open_sets
from scene_utils.grid.ensemble import Ensemble
from scene_utils.grid.folders import member_folders
from scene_utils.grid.network import load_grid
from scene_utils.grid.train import train_members
from scene_utils.paths import PRETRAINED, write_text
from scene_utils.source import train
from scene_utils.study import settings as profiles
from tests.benchmarks import ablation_table

SOURCE = {"source, squared error": "mse", "source, 1 - GIoU": "giou"}
LARGE = GridSettings(backbone="efficientnet_lite2", landmarks_shown=False, policy="mixed_bfloat16")
GRID = {
    ablation_table.ALL: replace(LARGE, backbone="efficientnet_lite0", size=224, epochs=4, blocks=1),
    "320 px, 12 epochs, three blocks": LARGE,
    "+ a second model": replace(LARGE, members=2),
    "24 epochs": replace(LARGE, epochs=24),
    "36 epochs": replace(LARGE, epochs=36),
}
# Scored from the shipped weights, as they are rounded.
SHIPPED = PRETRAINED / "grid"
SHIPS = "+ views and places (ship)"
ROWS = (*SOURCE, *GRID, SHIPS)


def run(
    cache: Path,
    root: Path,
    out: Path,
    rows: Sequence[str] = ROWS,
    seeds: Sequence[int] = (0,),
    epochs: int = 20,
    **changes,
) -> list[dict]:
    """Train and score what `out` does not have yet; give all its rows. ValueError: no such row.

    `cache` holds what notebooks 01 to 03 left. `epochs` are of the source rows, `changes` of the
    grid rows; rows made otherwise are made anew. The row `SHIPS` has the seed of what ships, and
    is passed over where that was trained on other words.
    """
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        raise ValueError(f"rows: expected some of {', '.join(ROWS)}, got {', '.join(unknown)}")
    done = ablation_table.read(out)
    order = [*dict.fromkeys([*(row["row"] for row in done), *ROWS])]
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
    vectors = json.loads((cache / "vectors.json").read_text(encoding="utf-8"))
    given = (phrases, vocabulary, embeddings, vectors, encode.open_chosen(cache))
    ships = json.loads((SHIPPED / "settings.json").read_text(encoding="utf-8"))
    read = words.Vocabulary.load(SHIPPED / "vocabulary.txt")  # behind those of train others
    if read.words[: len(vocabulary.words)] != vocabulary.words:
        rows = [name for name in rows if name != SHIPS]
    for name, seed in product(rows, seeds):
        if name in SOURCE:
            settings = train.Settings(model="source", loss=SOURCE[name], epochs=epochs, seed=seed)
        elif name in GRID:
            settings = replace(GRID[name], seed=seed, **changes)
        else:
            seed = ships["seed"]
            settings = GridSettings(
                **{f.name: ships[f.name] for f in fields(GridSettings) if f.name in ships}
            )
        same = [row for row in done if (row["row"], row["seed"]) == (name, seed)]
        # A row that was trained before there was a setting has its default.
        before, wanted = (json.loads(json.dumps(asdict(of))) for of in (type(settings)(), settings))
        if same and (before | same[0]["settings"]).items() >= wanted.items():
            continue
        folder = cache / "ablation" / f"{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-{seed}"
        began = time.time()
        if name in SOURCE:
            made = _source(settings, *given, folder)
        else:
            where = SHIPPED if name == SHIPS else folder
            known = (phrases, read) if name == SHIPS else given[:2]
            made = _grid(settings, root, cache, *known, *given[2:], where)
        made |= {"settings": wanted, "row": name, "seed": seed}
        made |= {"this_run_seconds": round(time.time() - began)} | metrics_file.commit()
        done = [row for row in done if row not in same] + [made]
        done.sort(key=lambda row: (order.index(row["row"]), row["seed"]))
        write_text(out, json.dumps(done, indent=1) + "\n")
    return done


def _source(settings, phrases, vocabulary, embeddings, vectors, store, folder) -> dict:
    sets = [train.make_examples(phrases, split, store, vocabulary) for split in ("train", "val")]
    made_with = encode.origin(store) | vectors
    train.train(settings, *sets, embeddings, vocabulary, made_with, folder)
    found = train.predict(train.load_regressor(folder), sets[1])
    return {"pictures": len(sets[0].features), "val": _figures(found, sets[1].boxes, sets[1].rows)}


def _grid(settings, root, cache, phrases, vocabulary, embeddings, vectors, store, folder) -> dict:
    _, (train_set, val_set) = open_sets(
        phrases, store.row, root, cache, vocabulary, settings.size, settings.length
    )
    if folder != SHIPPED:
        made_with = vectors | {"untrained": False}
        given = (settings, train_set, val_set, embeddings, vocabulary, made_with)
        train_members(*given, folder=folder)
    members = member_folders(folder)
    ensemble = Ensemble(tuple(map(load_grid, members)))
    seconds = [pd.read_csv(member / "history.csv")["seconds"].tolist() for member in members]
    return {
        "pictures": len(train_set.picture_rows),
        "epoch_seconds": seconds,
        "val": score_grid(ensemble, val_set),
        "val_lengthened": score_grid(ensemble, val_set, lengthened=True),
    }


def score_grid(ensemble: Ensemble, val: Mentions, lengthened: bool = False) -> dict:
    """Figures of grid models on val; with `lengthened` of those mentions alone that
    `words.described` lengthens, so asked: the box to find stays that of the mention."""
    kept = (val.tokens != val.longer).any(axis=1) if lengthened else np.full(len(val.rows), True)
    tokens = (val.longer if lengthened else val.tokens)[kept]
    found = best_boxes(ensemble.answer, replace(val, rows=val.rows[kept], tokens=tokens))
    return _figures(found, val.boxes[kept], val.rows[kept])


def _figures(found: np.ndarray, truth: np.ndarray, pictures: np.ndarray) -> dict:
    iou = box_ops.iou(found, truth)
    points = box_ops.holds_centre(truth, found)
    columns = np.stack([iou, iou >= 0.5, points], axis=1).astype(np.float64)
    names, figures = ("mean_iou", "accuracy_0.5", "pointing"), metrics.figures(columns, pictures)
    return dict(zip(names, figures, strict=True)) | {"mentions": len(iou)}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.ablation", description=__doc__
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--changes", default="", help="settings that differ, as name=value")
    parser.add_argument("--rows", default="", help="names with ; between them; default: all")
    parser.add_argument("--seeds", default="0", help="with , between them")
    given = parser.parse_args()
    chosen = profiles.load(given.profile, changes=given.changes)
    done = run(
        paths.cache(given.profile),
        chosen.root,
        paths.figures(given.profile) / "ablation.json",
        [name for name in given.rows.split(";") if name] or list(ROWS),
        [int(seed) for seed in given.seeds.split(",")],
        epochs=chosen.train.epochs,
        pictures_per_step=chosen.grid.pictures_per_step,
        progressive=chosen.grid.progressive,
    )
    print(ablation_table.table(done).to_string())
    ablation_table.draw(done, paths.figures(given.profile))


if __name__ == "__main__":
    try:
        main()
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
