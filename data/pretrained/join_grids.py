"""Put finished grid models together in one folder; train `presence` and `context` beside them.

What ships was made by, with D the folder of Flickr30k Entities and G=data/cache/flickr30k/gpu,

    train_on_gpu.py $G/first --data-root $D epochs=36 seed=4
    train_on_gpu.py $G/other --data-root $D epochs=12 seed=2
    train_on_gpu.py $G/second --data-root $D epochs=16 seed=6 --teacher $G/first --teacher $G/other
    train_views.py $D $G/first $G/views
    join_grids.py $G/both $G/views $G/second --data-root $D
    ship_grid.py $G/both
    add_words.py
    train_instances.py $D
    fit_curves.py $D

each after `.venv/bin/python data/pretrained/`. The first three want a GPU; on two CPU cores
`train_views` takes 90 minutes, `join_grids` 20, `train_instances` 20. What ships went on from the
first member's weights as they had been shipped before, rounded and with the words of `add_words`.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import paths, words
from scene_utils.features import encode
from scene_utils.grid import train_presence, train_sentences
from scene_utils.grid.batches import GridSettings, open_sets
from scene_utils.grid.folders import PARTS, member_folder, member_folders

MEMBER = (*(f"{part}.weights.h5" for part in PARTS), "vocabulary.txt", "history.csv")


def join(folder: Path, members: list[Path]) -> None:
    """Copy the members' trainings into the folder; ValueError for some that cannot answer together.

    A member's settings come last, so that a copy that was stopped is not taken as whole.
    """
    vocabularies = {(member / "vocabulary.txt").read_bytes() for member in members}
    if len(vocabularies) > 1:
        raise ValueError(
            f"expected members that read the same words, got {len(vocabularies)} lists"
        )
    (folder / "settings.json").unlink(missing_ok=True)
    for number in reversed(range(len(members))):
        member = members[number]
        target = member_folder(folder, number)
        settings = json.loads((member / "settings.json").read_text(encoding="utf-8"))
        settings["members"] = len(members)
        target.mkdir(parents=True, exist_ok=True)
        for name in MEMBER:
            shutil.copyfile(member / name, target / name)
        paths.write_text(target / "settings.json", json.dumps(settings, indent=1) + "\n")
    member_folders(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("members", type=Path, nargs="+")
    parser.add_argument("--profile", default="flickr30k")
    parser.add_argument("--data-root", type=Path, required=True)
    arguments = parser.parse_args()
    join(arguments.folder, arguments.members)
    known = json.loads((arguments.folder / "settings.json").read_text(encoding="utf-8"))
    settings = GridSettings(**{name: known[name] for name in GridSettings.__dataclass_fields__})
    cache = paths.cache(arguments.profile)
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
    rows = encode.open_chosen(cache).row
    root, size = arguments.data_root, settings.size
    store, sets = open_sets(phrases, rows, root, cache, vocabulary, size, settings.length)
    train_presence.train_presence(arguments.folder, settings, vocabulary, *sets)
    train_sentences.train_context(arguments.folder, phrases, vocabulary, embeddings, store)


if __name__ == "__main__":
    main()
