"""Fit anew, on val, the curves that turn the shipped grid model's answers into probabilities.

    .venv/bin/python data/pretrained/fit_curves.py DATA

DATA is a folder of Flickr30k Entities. Writes presence.json and context.json of
`data/pretrained/grid`; its networks stay as they are.
"""

import json
import sys
import tempfile
from pathlib import Path

from scene_utils.dataset import entities
from scene_utils.grid import train_presence, train_sentences
from scene_utils.grid.batches import make_mentions
from scene_utils.grid.localizer import load_grid_localizer
from scene_utils.paths import PRETRAINED, write_text


def main() -> None:
    root, folder = Path(sys.argv[1]), PRETRAINED / "grid"
    model = load_grid_localizer(folder)
    here = entities.image_ids(root)
    ids = [image_id for image_id in entities.read_ids(root, "val") if image_id in here]
    phrases = entities.read_entities(root, dict.fromkeys(ids, "val")).phrases
    with tempfile.TemporaryDirectory() as cache:
        store = model.pictures(entities.image_folder(root), ids, Path(cache))
        val = make_mentions(phrases, "val", store, model.vocabulary, model.settings["length"])
        found = {
            "presence.json": train_presence.fit_curves(model, val),
            "context.json": train_sentences.fit_curves(model, phrases, store),
        }
    for name, curves in found.items():
        known = json.loads((folder / name).read_text(encoding="utf-8")) | curves
        write_text(folder / name, json.dumps(known, indent=1) + "\n")
        print(name, *curves.items(), sep="\n  ")


if __name__ == "__main__":
    main()
