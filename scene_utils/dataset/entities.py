"""Flickr30k Entities' official files to two flat tables; `annotations` reads one picture's.

Plummer et al., Flickr30k Entities, IJCV 2017. A data root holds `annotations.zip`, or the folders
`Annotations/<id>.xml` and `Sentences/<id>.txt`; `train.txt`, `val.txt`, `test.txt` with an image id
a line; `UNRELATED_CAPTIONS`; and the pictures in `flickr30k-images/<id>.jpg`.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset import annotations
from scene_utils.dataset.mentions import MENTION_KEY
from scene_utils.images import picture_files
from scene_utils.paths import atomic, decode
from scene_utils.runtime import progress_bar

SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = ("flickr30k-images", "flickr30k_images")
# The largest real file has 27 kB; one past this is damage or an attack, never an annotation.
LARGEST_FILE = 1_000_000
# Of the table of phrases, before what the boxes add.
COLUMNS = dict.fromkeys([MENTION_KEY[0], "split"], "str")
COLUMNS |= dict(zip(MENTION_KEY[1:], ("int8", "int32", "int16"), strict=True))
COLUMNS |= dict.fromkeys(["phrase", "sentence", "category"], "str")
COLUMNS |= {"width": "int32", "height": "int32", "scene": "bool", "unrelated": "bool"}


@dataclass(frozen=True)
class Entities:
    """What a reader gets: two tables, and what could not be read.

    `phrases` has a row a mention of an entity (not visual ones are left out): image_id, split,
    sentence_id (0-4), phrase_id (the number behind EN#), first_word_index, phrase, sentence (its
    words without marks), category (of several, the first as written), width and height (pixels of
    the original image; 0 where not known), scene, unrelated (the caption is not of the image),
    n_boxes, and x_min, y_min, x_max, y_max of the box merged around the phrase's boxes (NaN where
    it has none). `boxes` has a row a box of a phrase: image_id, phrase_id and its four columns.
    `problems` has file and reason.
    """

    phrases: pd.DataFrame
    boxes: pd.DataFrame
    problems: pd.DataFrame


def read_ids(root: Path, split: str) -> list[str]:
    """Image ids of `<split>.txt` in the data root, or of a list at the path `split`."""
    path = Path(split) if Path(split).suffix else Path(root) / f"{split}.txt"
    if not path.is_file():
        remedy = "Name a list NAME.txt of the data root as NAME, or give a path that ends in .txt"
        raise FileNotFoundError(f"{path}: expected a list of image ids, one a line. {remedy}")
    ids = decode(path.read_bytes())[0].split()
    for image_id in ids:
        if not re.fullmatch(r"[\w-]+", image_id):
            raise ValueError(f"{path}: expected image ids, one a line, got {image_id!r}")
    return list(dict.fromkeys(ids))


def image_folder(root: Path) -> Path:
    """The folder of pictures of a data root (which need not exist)."""
    folders = [Path(root) / name for name in IMAGE_FOLDERS]
    return next(filter(Path.is_dir, folders), folders[0])


def image_ids(root: Path) -> set[str]:
    """Ids of the pictures that a data root holds."""
    return set(picture_files(image_folder(root)))


def opener(root: Path) -> Callable[[str], bytes | None]:
    """A function from a name (`Annotations/<id>.xml`) to the file's bytes, None if missing."""
    archive = root / "annotations.zip"
    if (root / "Sentences").is_dir():
        folder = root
    elif archive.is_file():
        try:
            folder = zipfile.Path(archive)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive}: expected a whole zip archive, got {error}") from error
    else:
        raise FileNotFoundError(
            f"{root}: expected annotations.zip, or the folders Annotations and Sentences, of "
            "Flickr30k Entities; found neither. `make data` says how to obtain them"
        )

    def read(name: str) -> bytes | None:
        path = folder / name
        if not path.is_file():
            return None
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"expected a whole file in {archive.name}, got {error}") from error
        if len(content) > LARGEST_FILE:
            raise ValueError(f"expected at most {LARGEST_FILE:,} bytes in an annotation")
        return content

    return read


def _unrelated(root: Path) -> set[tuple[str, int]]:
    path, found = root / "UNRELATED_CAPTIONS", set()
    text = decode(path.read_bytes())[0] if path.is_file() else ""
    for line in text.splitlines():
        if match := re.fullmatch(r"\s*(\S+)\s+(\d+)\s*", line):
            found.add((match[1], int(match[2]) - 1))  # the file counts sentences from 1
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"{path}: expected `<image id> <sentence number>`, got {line!r}")
    return found


def read_entities(
    root: Path | str, ids: dict[str, str] | None = None, boxes: bool = True
) -> Entities:
    """Read a data root's official files.

    `ids` maps image ids to split names (default: train, val and test lists of the root). Without
    `boxes` only sentences are read and the original image's size. A file that is missing or damaged
    is listed in `problems`, not fatal.
    """
    root = Path(root)
    if ids is None:
        present = [split for split in SPLITS if (root / f"{split}.txt").is_file()]
        ids = {image_id: split for split in present for image_id in read_ids(root, split)}
        if not ids:
            raise FileNotFoundError(f"{root}: expected train.txt, val.txt or test.txt, found none")
    read, unrelated = opener(root), _unrelated(root)
    mentions: list[tuple] = []
    boxed: list[tuple[str, int]] = []
    corners = [np.zeros((0, 4), np.float32)]
    problems: list[tuple[str, str]] = []
    bar = progress_bar(ids.items(), desc="annotations", unit="image", mininterval=1)
    for image_id, split in bar:
        annotation, name = annotations.Annotation(), f"Annotations/{image_id}.xml"
        try:
            xml = read(name)
            if xml is not None:
                annotation = annotations.parse_annotation(xml, boxes)
            elif boxes:
                problems.append((name, "missing: its phrases have no box"))
        except (ValueError, OSError) as error:
            problems.append((name, str(error)))
        problems += [(name, remark) for remark in annotation.remarks]
        boxed += [(image_id, phrase_id) for phrase_id in annotation.phrase_ids]
        corners.append(annotation.boxes)
        name = f"Sentences/{image_id}.txt"
        try:
            content = read(name)
            text, odd = decode(content or b"")
            if odd:
                problems.append((name, odd))
            found = annotations.parse_sentences(text)
        except (ValueError, OSError) as error:
            problems.append((name, str(error)))
            continue
        if not found:
            reason = "missing" if content is None else "expected sentences with phrases, found none"
            problems.append((name, reason))
        sentences = [" ".join(annotations.MARK.sub(r"\1", s).split()) for s in text.splitlines()]
        for sentence_id, phrase_id, word, category, phrase in found:
            key = (image_id, split, sentence_id, phrase_id, word)
            said = (phrase, sentences[sentence_id], category)
            of_scene = phrase_id in annotation.scenes, (image_id, sentence_id) in unrelated
            mentions.append((*key, *said, annotation.width, annotation.height, *of_scene))
    table = pd.DataFrame(boxed, columns=["image_id", "phrase_id"])
    table[box_ops.COLUMNS] = np.concatenate(corners)
    table = table.astype({"image_id": "str", "phrase_id": "int32"})
    phrases = pd.DataFrame(mentions, columns=list(COLUMNS)).astype(COLUMNS)
    grouped = table.groupby(["image_id", "phrase_id"], sort=False)[box_ops.COLUMNS]
    merged = grouped.agg({"x_min": "min", "y_min": "min", "x_max": "max", "y_max": "max"})
    merged.insert(0, "n_boxes", grouped.size())
    phrases = phrases.merge(merged.reset_index(), on=["image_id", "phrase_id"], how="left")
    phrases["n_boxes"] = phrases["n_boxes"].fillna(0).astype("int16")
    return Entities(phrases, table, pd.DataFrame(problems, columns=["file", "reason"], dtype="str"))


def write_tables(found: Entities, cache: Path) -> None:
    """Keep the tables as boxes, problems and, last, phrases.parquet in the folder `cache`."""
    for name in ("boxes", "problems", "phrases"):
        with atomic(cache / f"{name}.parquet") as temporary:
            getattr(found, name).to_parquet(temporary, index=False)


def count(phrases: pd.DataFrame, at_hand: Iterable[str]) -> pd.DataFrame:
    """Counts a split: images and boxed mentions in the lists, and those with a picture at hand."""
    boxed = phrases[phrases.n_boxes > 0]
    here = boxed[boxed.image_id.isin(set(at_hand))]
    counts = {
        "images": phrases.groupby("split").image_id.nunique(),
        "mentions": phrases.groupby("split").size(),
        "boxed mentions": boxed.groupby("split").size(),
        "images at hand": here.groupby("split").image_id.nunique(),
        "boxed mentions at hand": here.groupby("split").size(),
    }
    splits = pd.Index(phrases.split.unique(), name="split")
    return pd.DataFrame(counts, splits).fillna(0).astype("int64")
