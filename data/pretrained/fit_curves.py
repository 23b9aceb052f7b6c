"""Fit anew, on val, the curves that turn the shipped grid model's answers into probabilities.

    .venv/bin/python data/pretrained/fit_curves.py DATA

DATA is a folder of Flickr30k Entities. Writes presence.json, context.json and, of instances.json,
what tells the one on the left from others, all of `data/pretrained/grid`; its networks stay as they
are.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from scene_utils import box_ops
from scene_utils.analysis import alike
from scene_utils.dataset import entities
from scene_utils.features.pixels import PictureStore
from scene_utils.grid import places, train_presence, train_sentences
from scene_utils.grid.batches import make_mentions
from scene_utils.grid.localizer import GridLocalizer, load_grid_localizer
from scene_utils.paths import PRETRAINED, write_text
from scene_utils.stats import fit_logistic, log_odds


def fit_placed(model: GridLocalizer, found: entities.Entities, store: PictureStore) -> dict:
    """The curve from how likely the thing at a place is one that is named to the probability that
    it is the one meant; and on val how many questions of `alike` are answered right."""
    asked = alike.questions(found.phrases, found.boxes)
    rows = asked.image_id.map(store.row).to_numpy(int)
    tokens = model.vocabulary.encode(asked.phrase, model.settings["length"])
    *_, things, likely = model.candidates(tokens, store.pictures, rows)
    truth = asked[box_ops.COLUMNS].to_numpy(np.float32)
    told, hits = [], []
    for row, phrase in enumerate(asked.phrase):
        best = places.meant(things[row], likely[row], places.sides(phrase))[0]
        told.append(likely[row, best])
        hits.append(box_ops.iou(things[row, best], truth[row]) >= 0.5)
    curve = fit_logistic(np.array(hits), log_odds(np.array(told)))
    return {"placed": list(curve), "val_placed": [len(hits), round(float(np.mean(hits)), 5)]}


def main() -> None:
    root, folder = Path(sys.argv[1]), PRETRAINED / "grid"
    model = load_grid_localizer(folder)
    here = entities.image_ids(root)
    ids = [image_id for image_id in entities.read_ids(root, "val") if image_id in here]
    annotated = entities.read_entities(root, dict.fromkeys(ids, "val"))
    phrases = annotated.phrases
    with tempfile.TemporaryDirectory() as cache:
        store = model.pictures(entities.image_folder(root), ids, Path(cache))
        val = make_mentions(phrases, "val", store, model.vocabulary, model.settings["length"])
        found = {
            "presence.json": train_presence.fit_curves(model, val),
            "context.json": train_sentences.fit_curves(model, phrases, store),
            "instances.json": fit_placed(model, annotated, store),
        }
    for name, curves in found.items():
        known = json.loads((folder / name).read_text(encoding="utf-8")) | curves
        write_text(folder / name, json.dumps(known, indent=1) + "\n")
        print(name, *curves.items(), sep="\n  ")


if __name__ == "__main__":
    main()
