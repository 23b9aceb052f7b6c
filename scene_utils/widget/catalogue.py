"""The pictures that the query widget offers, with their phrases, sentences and truth."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops, paths
from scene_utils.dataset import entities
from scene_utils.images import ImageSource, picture_file

PHOTO, OWN = "photo", "your photo"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to ask: `truth` maps a phrase in lower case to its merged box `(4,)` in pixels.

    `sentences` are pairs of a text and its phrases. `size` is width and height in pixels where
    `image` is a smaller copy, else None.
    """

    name: str
    kind: str
    image: ImageSource = field(repr=False)
    phrases: tuple[str, ...] = ()
    sentences: tuple[tuple[str, tuple[str, ...]], ...] = ()
    truth: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    size: Sequence[int] | None = None

    @property
    def alt(self) -> str:
        """The text for screen readers."""
        if self.kind == OWN:
            return f"your photo {self.name}"
        known = ", ".join(self.phrases[:4])
        return f"{self.name}: a picture with {known}" if known else self.name

    def true_box(self, phrase: str) -> np.ndarray | None:
        """The truth `(4,)` of a phrase, whatever its case; None where it is not known."""
        return self.truth.get(" ".join(phrase.lower().split()))


def _of_table(phrases: pd.DataFrame, folder: Path, kind: str) -> list[Picture]:
    found = []
    for image_id, rows in phrases.groupby("image_id", sort=False):
        path = picture_file(folder, image_id)
        if not path.is_file():
            continue
        boxed = rows[rows.n_boxes > 0]
        # Where sentences mean different things by the same words, no one truth is known.
        meanings = boxed.groupby(boxed.phrase.str.lower()).phrase_id.transform("nunique")
        sure = boxed[meanings == 1]
        named = tuple(dict.fromkeys([*sure.phrase, *boxed.phrase, *rows.phrase]))
        sentences = tuple(
            (text, tuple(dict.fromkeys(group.phrase)))
            for text, group in rows.groupby("sentence", sort=False)
        )
        boxes = sure[box_ops.COLUMNS].to_numpy(np.float32)
        truth = dict(zip(sure.phrase.str.lower(), boxes, strict=True))
        found.append(Picture(image_id, kind, path, named, sentences, truth))
    return found


def catalogue(profile: str = "sample", data: str = "") -> list[Picture]:
    """The photos in `data/photos`, then the pictures at hand of the profile's test split.

    Without the profile's phrase table, which notebook 01 makes, the photos alone.
    """
    photos = pd.read_csv(paths.PHOTOS / "phrases.csv").rename(columns={"photo": "image_id"})
    photos = photos.sort_values("image_id", kind="stable", ignore_index=True)
    photos["sentence"] = photos.groupby("image_id").phrase.transform(", ".join)
    found = _of_table(photos.assign(n_boxes=1, phrase_id=photos.index), paths.PHOTOS, PHOTO)
    table = paths.cache(profile) / "phrases.parquet"
    if table.is_file():
        phrases = pd.read_parquet(table)
        folder = entities.image_folder(paths.data_root(profile, data))
        kind = "Flickr30k Entities" if data else "sample scene"
        found += _of_table(phrases[phrases.split == "test"], folder, kind)
    return found
