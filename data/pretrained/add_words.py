"""Let the shipped grid model read words that no train phrase has, by their GloVe vectors.

    .venv/bin/python data/pretrained/add_words.py

Training leaves the vectors of rare words near GloVe's (their cosine is .99), so a word that it has
never seen is read by GloVe's own. Appends the `COMMON` most frequent words of GloVe that the
vocabulary lacks to it, and their rows to the tables of words of `data/pretrained/grid`. A second
call finds nothing to add.
"""

import shutil
from pathlib import Path

import h5py
import numpy as np
from ship_grid import PACKED, rounded

from scene_utils.grid.folders import member_folders, read_settings
from scene_utils.paths import PRETRAINED, atomic
from scene_utils.words import COMMON, Vocabulary, load_vectors

TABLES = ("text.weights.h5", "context.weights.h5")


def lengthen(path: Path, rows: np.ndarray, words: int) -> None:
    """Append rows `(m, d)` to the one table `(words, d)` in a file of weights."""

    def sought(name: str, part: h5py.Group | h5py.Dataset) -> str | None:
        return name if getattr(part, "shape", None) == (words, rows.shape[1]) else None

    with atomic(path) as temporary:
        shutil.copyfile(path, temporary)
        with h5py.File(temporary, "r+") as file:
            name = file.visititems(sought)
            table = np.concatenate([file[name][()], rows])
            del file[name]
            file.create_dataset(name, data=table, **PACKED)


def main() -> None:
    folder = PRETRAINED / "grid"
    vectors = load_vectors(read_settings(folder)["vectors"])
    known = Vocabulary.load(folder / "vocabulary.txt")
    more = [word for word in list(vectors.index)[:COMMON] if word not in known.index]
    if not more:
        return
    rows = rounded(vectors.matrix[[vectors.index[word] for word in more]].astype(np.float16))
    for member in member_folders(folder):
        for path in (member / name for name in TABLES if (member / name).is_file()):
            lengthen(path, rows, len(known.words))
        Vocabulary.of([*known.words, *more]).save(member / "vocabulary.txt")
    print(f"{len(more):,} words added to {len(known.words):,}")


if __name__ == "__main__":
    main()
