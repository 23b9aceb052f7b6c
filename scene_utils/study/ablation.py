"""What each part of the grid model is worth, and what more pictures are: rows trained one by one.

Every row is trained on train and scored on val, nothing on test. A row that is done is kept in
`figures/<profile>/ablation.json` with its settings, seed, times, commit and date, so that the
hours it takes can be spread over days; a stopped one goes on from its last saved step. All rows but
those of `LARGE` are smaller (224 px, 4 epochs, one residual block) so that they can be had on a
laptop. A row that asks for what ships is scored from the shipped weights, as they are rounded.
"""

import itertools
import json
import operator
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from scene_utils import box_ops, words
from scene_utils.analysis import metrics, metrics_file
from scene_utils.features import encode
from scene_utils.grid.ensemble import Asker, Ensemble, member_folder, member_folders
from scene_utils.grid.localizer import SHIPPED
from scene_utils.grid.network import load_grid
from scene_utils.grid.train import GridSettings, Mentions, open_sets, train_members
from scene_utils.paths import write_text
from scene_utils.source import train
from scene_utils.study import ablation_table

SMALL = {"backbone": "efficientnet_lite0", "size": 224, "epochs": 4, "blocks": 1}
SOURCE = {"source, squared error": "mse", "source, 1 - GIoU": "giou"}
# The grid model without what the steps add to it, one by one.
LEFT_OUT = {
    "lengthened": 0.0,
    **dict.fromkeys(("product", "augmented", "tuned"), False),
    **dict.fromkeys(("own_vectors", "composed", "contrasted", "anchored"), False),
}
ADDED = {
    "+ product with the phrase": {"product": True},
    "+ augmentation": {"augmented": True},
    "+ tuned backbone": {"tuned": True},
    "+ words' own vectors": {"own_vectors": True},
    "+ words and places add up": {"composed": True},
    "+ lengthened phrases": {"lengthened": GridSettings.lengthened},
    "+ contrast with other pictures": {"contrasted": True},
    "+ EfficientNet-Lite2": {"backbone": "efficientnet_lite2"},
}
CHAIN = dict(
    zip(
        ("grid, phrase added", *ADDED),
        itertools.accumulate(ADDED.values(), operator.or_, initial=SMALL | LEFT_OUT),
        strict=True,
    )
)
FINAL = GridSettings(backbone="efficientnet_lite2", anchored=False)
SHIPS = "36 epochs and the taught one (ship)"
LARGE = {
    "320 px, 12 epochs, three blocks": FINAL,
    "+ a second model": replace(FINAL, members=2),
    "24 epochs": replace(FINAL, epochs=24),
    "36 epochs": replace(FINAL, epochs=36),
    "16 epochs, taught by two models": replace(FINAL, epochs=16, teachers=2),
    SHIPS: replace(FINAL, epochs=36, members=2),
}
# Rows whose models, of the same seed, teach the one that is taught. Of what ships the seeds differ.
TEACHERS = ("36 epochs", "320 px, 12 epochs, three blocks")
STEPS = {name: GridSettings(**settings) for name, settings in CHAIN.items()} | LARGE
STEPS["anchors shown, 224 px"] = GridSettings(**CHAIN[ablation_table.ALL] | {"anchored": True})
# As many steps for each, hence more epochs of fewer pictures.
SHARES: dict[str, GridSettings] = {
    f"1/{part} of the pictures": GridSettings(
        **CHAIN[ablation_table.ALL] | {"epochs": SMALL["epochs"] * part}, share=1 / part
    )
    for part in (8, 4, 2)
}
ROWS = (*SOURCE, *STEPS, *SHARES)


def run(
    cache: Path,
    root: Path,
    out: Path,
    rows: Sequence[str],
    seeds: Sequence[int] = (0,),
    **changes,
) -> list[dict]:
    """Train and score what `out` does not have yet; give all its rows. ValueError: no such row.

    `cache` holds what notebooks 01 to 03 left. `changes` are settings of all the grid rows; of the
    rows asked for, those made with other settings are made anew, the others stay. The row `SHIPS`
    has the seed of what ships, and is passed over where that is another or reads other words.
    """
    unknown = [name for name in rows if name not in ROWS]
    if unknown:
        raise ValueError(f"rows: expected some of {', '.join(ROWS)}, got {', '.join(unknown)}")
    done = json.loads(out.read_text(encoding="utf-8")) if out.is_file() else []
    done = [row for row in done if row["row"] in ROWS]
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
    vectors = json.loads((cache / "vectors.json").read_text(encoding="utf-8"))
    store = encode.open_chosen(cache)
    own = json.loads((SHIPPED / "settings.json").read_text(encoding="utf-8"))["seed"]
    ships = shipped(GridSettings(**_wanted(SHIPS, own, changes)), vocabulary)
    for name in rows:
        for seed in ([own] if ships else []) if name == SHIPS else seeds:
            wanted = _wanted(name, seed, changes)
            same = [row for row in done if (row["row"], row["seed"]) == (name, seed)]
            if same and same[0]["settings"] == wanted:
                continue
            folder = _folder(cache, name, seed)
            given = (phrases, vocabulary, embeddings, vectors, store, folder)
            began = time.time()
            made = _source(wanted, *given) if name in SOURCE else _grid(wanted, root, cache, *given)
            made |= {"row": name, "seed": seed, "this_run_seconds": round(time.time() - began)}
            done = [row for row in done if row not in same] + [made | metrics_file.commit()]
            done.sort(key=lambda row: (ROWS.index(row["row"]), row["seed"]))
            write_text(out, json.dumps(done, indent=1) + "\n")
    return done


def _folder(cache: Path, name: str, seed: int) -> Path:
    """Where a row is trained: its name in letters and digits, and its seed."""
    return cache / "ablation" / f"{'-'.join(re.findall('[a-z0-9]+', name.lower()))}-{seed}"


def _wanted(name: str, seed: int, changes: dict) -> dict:
    if name in SOURCE:
        return asdict(train.Settings(model="seed", loss=SOURCE[name], epochs=20, seed=seed))
    return asdict(replace((STEPS | SHARES)[name], seed=seed, **changes))


def _source(wanted, phrases, vocabulary, embeddings, vectors, store, folder) -> dict:
    sets = [train.make_examples(phrases, split, store, vocabulary) for split in ("train", "val")]
    settings = train.Settings(**wanted)
    made_with = encode.origin(store) | vectors
    train.train(settings, *sets, embeddings, vocabulary, made_with, folder)
    network = keras.models.load_model(folder / "model.keras", compile=False)
    found = train.predict(network, sets[1])
    return {
        "settings": asdict(settings),
        "pictures": len(sets[0].features),
        "val": _figures(found, sets[1].boxes, sets[1].rows),
    }


def _grid(wanted, root, cache, phrases, vocabulary, embeddings, vectors, store, folder) -> dict:
    settings = GridSettings(**wanted)
    _, (train_set, val_set) = open_sets(
        phrases, store.row, root, cache, vocabulary, settings.size, settings.length
    )
    sets = (train_set, val_set, embeddings, vocabulary, vectors | {"untrained": False})

    def trained(asked: GridSettings, folder: Path) -> list[Path]:
        if found := shipped(asked, vocabulary):
            return found
        teachers = []
        for row in TEACHERS[: asked.teachers]:
            teacher = replace(asked, epochs=LARGE[row].epochs, teachers=0)
            teachers += trained(teacher, _folder(cache, row, asked.seed))
        train_members(asked, *sets, folder=folder, teachers=teachers)
        return [member_folder(folder, number) for number in range(asked.members)]

    members = trained(settings, folder)
    ensemble = Ensemble(tuple(map(load_grid, members)))
    histories = [pd.read_csv(member / "history.csv") for member in members]
    return {
        "settings": asdict(settings),
        "shipped": bool(shipped(settings, vocabulary)),
        "pictures": len(train_set.part(settings.share, settings.seed).picture_rows),
        "epoch_seconds": [history["seconds"].tolist() for history in histories],
        "val": score_grid(ensemble, settings.size, val_set),
        "val_lengthened": score_grid(ensemble, settings.size, val_set, lengthened=True),
    }


def shipped(settings: GridSettings, vocabulary: words.Vocabulary) -> list[Path]:
    """Folders of the shipped models that such a training would give, whoever taught it: one, or all
    where as many members are asked for and the first is such a one. None where what ships is
    another, or reads other words, by which real data are known."""
    if words.Vocabulary.load(SHIPPED / "vocabulary.txt").words != vocabulary.words:
        return []
    folders = member_folders(SHIPPED)
    wanted = asdict(replace(settings, members=len(folders)))
    same = [
        folder
        for folder in folders
        if json.loads((folder / "settings.json").read_text("utf-8")).items() >= wanted.items()
    ]
    if settings.members == 1:
        return same
    return folders if settings.members == len(folders) and same[:1] == folders[:1] else []


def score_grid(ensemble: Ensemble, size: int, val: Mentions, lengthened: bool = False) -> dict:
    """Figures of grid models on val: mean IoU, accuracy at IoU .5, pointing.

    With `lengthened` those mentions alone that `words.described` lengthens, so asked; the box to
    find stays that of the mention.
    """
    kept = (val.tokens != val.longer).any(axis=1) if lengthened else np.full(len(val.rows), True)
    asked = (val.longer if lengthened else val.tokens)[kept]
    asker = Asker(ensemble, size)
    found, *_ = asker.ask(val.pictures, val.picture_rows, val.rows[kept], asked)
    return _figures(found[:, 0], val.boxes[kept], val.rows[kept])


def _figures(found: np.ndarray, truth: np.ndarray, pictures: np.ndarray) -> dict:
    iou = box_ops.iou(found, truth)
    middle = (found[:, :2] + found[:, 2:]) / 2
    points = ((middle >= truth[:, :2]) & (middle < truth[:, 2:])).all(axis=1)
    columns = np.stack([iou, iou >= 0.5, points], axis=1).astype(np.float64)
    low, high = metrics.bootstrap(columns, pictures)
    names = ("mean_iou", "accuracy_0.5", "pointing")
    rows = zip(names, columns.mean(axis=0), low, high, strict=True)
    return {name: metrics.figure(*numbers) for name, *numbers in rows} | {"mentions": len(iou)}
