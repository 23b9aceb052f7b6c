"""Flickr30k Entities' official files to two flat tables; `annotations` reads one picture's.

Plummer et al., Flickr30k Entities, IJCV 2017. A data root holds `annotations.zip`, or the folders
`Annotations/<id>.xml` and `Sentences/<id>.txt`; `train.txt`, `val.txt`, `test.txt` with an image id
a line; `UNRELATED_CAPTIONS`; and the pictures in `flickr30k-images/<id>.jpg`.
"""

import hashlib
import json
import os
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
from scene_utils.paths import atomic, decode, write_text
from scene_utils.runtime import progress_bar

SPLITS = ("train", "val", "test")
IMAGE_FOLDERS = ("flickr30k-images", "flickr30k_images")
# The largest real file has 27 kB; one past this is damage or an attack, never an annotation.
LARGEST_FILE = 1_000_000


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
        raise FileNotFoundError(
            f"{path}: expected a list of image ids, one a line; found no such file. "
            "Name a list NAME.txt of the data root as NAME, or give a path that ends in .txt"
        )
    ids = decode(path.read_bytes())[0].split()
    for image_id in ids:
        if not re.fullmatch(r"[\w-]+", image_id):
            raise ValueError(f"{path}: expected image ids, one a line, got {image_id!r}")
    return list(dict.fromkeys(ids))


def image_folder(root: Path) -> Path:
    """The folder of pictures of a data root (which need not exist)."""
    for name in IMAGE_FOLDERS:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    return Path(root) / IMAGE_FOLDERS[0]


def image_ids(root: Path) -> set[str]:
    """Ids of the pictures that a data root holds."""
    return set(picture_files(image_folder(root)))


def opener(root: Path) -> Callable[[str], bytes | None]:
    """A function from a name (`Annotations/<id>.xml`) to the file's bytes, None if missing."""
    archive = root / "annotations.zip"
    if (root / "Sentences").is_dir():

        def find(name: str) -> tuple[int, Callable[[], bytes]] | None:
            path = root / name
            return (path.stat().st_size, path.read_bytes) if path.is_file() else None

    elif archive.is_file():
        try:
            source = zipfile.ZipFile(archive)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{archive}: expected a whole zip archive, got {error}") from error
        members = {info.filename: info for info in source.infolist()}

        def find(name: str) -> tuple[int, Callable[[], bytes]] | None:
            info = members.get(name)
            return info and (info.file_size, lambda: source.read(info))

    else:
        raise FileNotFoundError(
            f"{root}: expected annotations.zip, or the folders Annotations and Sentences, of "
            "Flickr30k Entities; found neither. `make data` says how to obtain them"
        )

    def read(name: str) -> bytes | None:
        size, content = find(name) or (0, lambda: None)
        if size > LARGEST_FILE:
            raise ValueError(f"expected at most {LARGEST_FILE:,} bytes in an annotation")
        try:
            return content()
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise ValueError(f"expected a whole file in {archive.name}, got {error}") from error

    return read


def _unrelated(root: Path) -> set[tuple[str, int]]:
    path = root / "UNRELATED_CAPTIONS"
    if not path.is_file():
        return set()
    found = set()
    for line in decode(path.read_bytes())[0].splitlines():
        if line.startswith("#") or not line.strip():
            continue
        match = re.fullmatch(r"(\S+)\s+(\d+)", line.strip())
        if not match:
            raise ValueError(f"{path}: expected `<image id> <sentence number>`, got {line!r}")
        # The file counts sentences from 1.
        found.add((match[1], int(match[2]) - 1))
    return found


def read_entities(
    root: Path | str, ids: dict[str, str] | None = None, boxes: bool = True, progress: bool = True
) -> Entities:
    """Read a data root's official files.

    `ids` maps image ids to split names (default: train, val and test lists of the root). With
    `boxes=False` no annotation box is read, only sentences and, where there is an XML file, the
    original image's size. A file that is missing or damaged is listed in `problems`, not fatal.
    """
    root = Path(root)
    if ids is None:
        present = [split for split in SPLITS if (root / f"{split}.txt").is_file()]
        ids = {image_id: split for split in present for image_id in read_ids(root, split)}
        if not ids:
            raise FileNotFoundError(f"{root}: expected train.txt, val.txt or test.txt, found none")
    read, unrelated = opener(root), _unrelated(root)
    mentions: list[tuple] = []
    box_rows: list[tuple[str, int]] = []
    corners: list[np.ndarray] = []
    problems: list[tuple[str, str]] = []
    for image_id, split in progress_bar(
        ids.items(), desc="annotations", unit="image", disable=not progress, mininterval=1
    ):
        width, height, scenes = 0, 0, frozenset()
        name = f"Annotations/{image_id}.xml"
        try:
            xml = read(name)
            if xml is None:
                if boxes:
                    problems.append((name, "missing: its phrases have no box"))
            elif boxes:
                annotation = annotations.parse_annotation(xml)
                width, height, scenes = annotation.width, annotation.height, annotation.scenes
                problems.extend((name, remark) for remark in annotation.remarks)
                box_rows.extend((image_id, phrase_id) for phrase_id in annotation.phrase_ids)
                corners.append(annotation.boxes)
            else:
                width, height = annotations.parse_size(xml)
        except (ValueError, OSError) as error:
            problems.append((name, str(error)))
        name = f"Sentences/{image_id}.txt"
        try:
            text = read(name)
            decoded, odd = decode(text or b"")
            if odd:
                problems.append((name, odd))
            found = annotations.parse_sentences(decoded)
        except (ValueError, OSError) as error:
            problems.append((name, str(error)))
            continue
        sentences = [
            " ".join(annotations.MARK.sub(r"\1", line).split()) for line in decoded.splitlines()
        ]
        if not found:
            reason = "missing" if text is None else "expected sentences with phrases, found none"
            problems.append((name, reason))
        for sentence_id, phrase_id, word, category, phrase in found:
            mentions.append(
                (
                    *(image_id, split, sentence_id, phrase_id, word, phrase),
                    *(sentences[sentence_id], category, width, height),
                    *(phrase_id in scenes, (image_id, sentence_id) in unrelated),
                )
            )
    table = pd.DataFrame(box_rows, columns=["image_id", "phrase_id"])
    table[box_ops.COLUMNS] = np.concatenate([*corners, np.zeros((0, 4), np.float32)])
    table = table.astype({"image_id": "str", "phrase_id": "int32"})
    columns = [MENTION_KEY[0], "split", *MENTION_KEY[1:], "phrase"]
    columns += ["sentence", "category", "width", "height", "scene", "unrelated"]
    phrases = pd.DataFrame(mentions, columns=columns).astype(
        {"sentence_id": "int8", "phrase_id": "int32", "first_word_index": "int16"}
        | {"width": "int32", "height": "int32", "scene": "bool", "unrelated": "bool"}
        | dict.fromkeys(["image_id", "split", "phrase", "sentence", "category"], "str")
    )
    grouped = table.groupby(["image_id", "phrase_id"], sort=False)[box_ops.COLUMNS]
    merged = grouped.agg({"x_min": "min", "y_min": "min", "x_max": "max", "y_max": "max"})
    merged.insert(0, "n_boxes", grouped.size().astype("int16"))
    phrases = phrases.merge(merged.reset_index(), on=["image_id", "phrase_id"], how="left")
    phrases["n_boxes"] = phrases["n_boxes"].fillna(0).astype("int16")
    return Entities(phrases, table, pd.DataFrame(problems, columns=["file", "reason"], dtype="str"))


def _fingerprint(root: Path) -> str:
    """Changes when the reader or what it read changes; costs no reading of the annotations.

    A folder's own time does not change when a file in it is edited, so each file's time counts.
    """
    readers = (Path(__file__), Path(annotations.__file__))
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in readers]
    for name in ("annotations.zip", "Annotations", "Sentences"):
        if (root / name).exists():
            state = (root / name).stat()
            parts.append(f"{name} {state.st_size} {state.st_mtime_ns}")
        if (root / name).is_dir():
            with os.scandir(root / name) as entries:
                states = [(entry.name, entry.stat()) for entry in entries]
            parts += sorted(f"{file} {s.st_size} {s.st_mtime_ns}" for file, s in states)
    for name in (*(f"{split}.txt" for split in SPLITS), "UNRELATED_CAPTIONS"):
        if (root / name).is_file():
            parts.append(hashlib.sha256((root / name).read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_entities(root: Path | str, cache: Path, progress: bool = True) -> Entities:
    """`read_entities` of the root's own splits, kept as parquet in the folder `cache`.

    Files: phrases.parquet, boxes.parquet, problems.parquet, and entities.json, written last, with
    the fingerprint of what was read; where that differs, the official files are read anew.
    """
    root = Path(root)
    names = ("phrases", "boxes", "problems")
    stamp = cache / "entities.json"
    fingerprint = _fingerprint(root)
    try:
        known = json.loads(stamp.read_text())["fingerprint"] == fingerprint
        if known:
            return Entities(*(pd.read_parquet(cache / f"{name}.parquet") for name in names))
    except (OSError, ValueError, KeyError, TypeError):
        pass
    stamp.unlink(missing_ok=True)
    result = read_entities(root, progress=progress)
    for name in names:
        with atomic(cache / f"{name}.parquet") as temporary:
            getattr(result, name).to_parquet(temporary, index=False)
    write_text(stamp, json.dumps({"fingerprint": fingerprint}) + "\n")
    return result


def count(phrases: pd.DataFrame, at_hand: Iterable[str]) -> pd.DataFrame:
    """Counts a split: images and boxed mentions in the lists, and those with a picture at hand."""
    at_hand = set(at_hand)
    rows = []
    for split, group in phrases.groupby("split", sort=False):
        boxed = group[group.n_boxes > 0]
        here = boxed.image_id.isin(at_hand)
        rows.append(
            {
                "split": split,
                "images": group.image_id.nunique(),
                "mentions": len(group),
                "boxed mentions": len(boxed),
                "images at hand": boxed.image_id[here].nunique(),
                "boxed mentions at hand": int(here.sum()),
            }
        )
    return pd.DataFrame(rows).set_index("split")
