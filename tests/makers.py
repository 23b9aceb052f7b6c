"""What several test files make: tables of phrases, boxes and predictions, roots of a data set."""

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import images, paths
from scene_utils.analysis.metrics import check_predictions
from scene_utils.dataset.entities import MENTION_KEY as KEY

SIDES = ["x_min", "y_min", "x_max", "y_max"]
# The photos of the gallery; the others are kept for measuring.
PHOTOS = sorted(
    paths.PHOTOS / f"{photo}.jpg" for photo in {*pd.read_csv(paths.PHOTOS / "phrases.csv").photo}
)


def files_of(folder):
    """Name and content of each file of a folder, but for a store's lock."""
    files = filter(Path.is_file, folder.iterdir())
    return {path.name: path.read_bytes() for path in files if path.name != ".lock"}


def command(*words):
    """`python -m scene_utils WORDS`, finished, with what it printed."""
    program = [sys.executable, "-m", "scene_utils", *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True)


def write_crops(folder, number, first=0):
    """`number` crops of the photos as <number>.jpg, no two alike, and 700.jpg, no picture."""
    photos = [images.open_image(path) for path in PHOTOS]
    for crop in range(number):
        photo = photos[crop % len(photos)]
        part = photo.crop((crop, crop, 200 + 2 * crop, 190 + crop))
        part.save(folder / f"{first + crop:03d}.jpg")
    (folder / "700.jpg").write_bytes(b"this is no picture")


def phrase_table(rows):
    """Rows (image, sentence, id, first word, phrase, category, boxes) of pictures of 100 x 100
    pixels: the two tables of `entities.Entities`."""
    flat, boxes = [], []
    for *key, phrase, category, own in rows:
        own = np.reshape(own, (-1, 4)).astype(float)
        merged = [*own[:, :2].min(axis=0), *own[:, 2:].max(axis=0)] if len(own) else [np.nan] * 4
        flat.append((*key, phrase, category, len(own), *merged))
        boxes += [(key[0], key[2], *box) for box in own]
    types = {"sentence_id": "int8", "phrase_id": "int32", "first_word_index": "int16"}
    types |= dict.fromkeys(SIDES, "float32")
    phrases = pd.DataFrame(flat, columns=[*KEY, "phrase", "category", "n_boxes", *SIDES])
    boxes = pd.DataFrame(boxes, columns=["image_id", "phrase_id", *SIDES]).drop_duplicates()
    return (
        phrases.assign(width=100, height=100).astype(types),
        boxes.astype({name: types[name] for name in ("phrase_id", *SIDES)}),
    )


def random_boxes(count, seed):
    """Relative boxes `(count, 4)` of any place and size."""
    corners = np.sort(np.random.default_rng(seed).random((count, 2, 2)), axis=1)
    return corners.reshape(count, 4).astype(np.float32)


def predicted(phrases, boxes, rank=1):
    """A checked table of predictions, one box a row of `phrases`."""
    table = phrases[[*KEY, "phrase"]].copy()
    table[SIDES] = np.array(boxes, float)
    return check_predictions(table.assign(rank=rank, score=1.0))


# Roots of Flickr30k Entities.


def thing(*names, box=None, scene=None):
    """An <object> of the XML: its phrase ids, and a box 1-based inclusive or none."""
    inside = "".join(f"<name>{name}</name>" for name in names)
    if box is None:
        inside += f"<scene>{scene or 0}</scene><nobndbox>{0 if scene else 1}</nobndbox>"
    else:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        inside += "<bndbox>" + "".join(f"<{k}>{v}</{k}>" for k, v in sides) + "</bndbox>"
    return f"<object>{inside}</object>"


def annotation(*things, size=(500, 375)):
    width, height = size
    return (
        f"<annotation><filename>x.jpg</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size>{''.join(things)}</annotation>"
    ).encode()


GOOD = {
    "Annotations/11.xml": annotation(
        thing(1, 7, box=(11, 21, 110, 220)),  # one thing with two names
        thing(2, box=(1, 1, 10, 20)),  # two boxes of one phrase
        thing(2, box=(31, 5, 500, 12)),
        thing(3, scene=1),
        thing(4),
    ),
    "Sentences/11.txt": (
        b"[/EN#1/people A man] of [/EN#0/notvisual the year] in [/EN#2/clothing two hats] .\n"
        b"[/EN#7/people/other The Boss] is at [/EN#3/scene the old beach] with [/EN#4/other it] .\n"
        b"Nobody is here .\n"
    ),
    "Annotations/12.xml": annotation(thing(1, box=(3, 4, 5, 6)), size=(333, 500)),
    "Sentences/12.txt": b"[/EN#1/animals A dog] sees [/EN#1/animals itself] .\n",
}


def write_root(root, files, kind="folders", **lists):
    """A root of Flickr30k Entities: `files` as folders or as an archive, lists of ids by split."""
    root.mkdir(parents=True, exist_ok=True)
    if kind == "folders":
        for name, content in files.items():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(content)
    else:
        with zipfile.ZipFile(root / "annotations.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    for name, ids in (lists or {"train": ["11"], "test": ["12"]}).items():
        (root / f"{name}.txt").write_text("".join(f"{image_id}\n" for image_id in ids))
    return root


def assert_same(first, second):
    for name in ("phrases", "boxes", "problems"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))
