"""The reader of Flickr30k Entities on small roots: all it gives, and what a fault harms."""

import zipfile

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops
from scene_utils.dataset import entities
from scene_utils.dataset.entities import read_entities
from tests.makers import GOOD, annotation, assert_same, thing, write_root


def read(root, **options):
    return read_entities(root, **options)


def test_a_small_root_gives_every_column(tmp_path, kind):
    root = write_root(tmp_path / "root", GOOD, kind)
    (root / "UNRELATED_CAPTIONS").write_text("# format: <imageID> <sentence number>\n11 2\n99 1\n")
    found = read(root)
    assert found.problems.empty
    nan = np.nan
    expected = pd.DataFrame(
        [
            ("11", "train", 0, 1, 0, "A man", "people", False, False, 1, 10, 20, 110, 220),
            # "A man of the year in": six words, those of the mark left out among them.
            ("11", "train", 0, 2, 6, "two hats", "clothing", False, False, 2, 0, 0, 500, 20),
            ("11", "train", 1, 7, 0, "The Boss", "people", False, True, 1, 10, 20, 110, 220),
            ("11", "train", 1, 3, 4, "the old beach", "scene", True, True, 0, nan, nan, nan, nan),
            ("11", "train", 1, 4, 8, "it", "other", False, True, 0, nan, nan, nan, nan),
            ("12", "test", 0, 1, 0, "A dog", "animals", False, False, 1, 2, 3, 5, 6),
            ("12", "test", 0, 1, 3, "itself", "animals", False, False, 1, 2, 3, 5, 6),
        ],
        columns=[
            *("image_id", "split", "sentence_id", "phrase_id", "first_word_index", "phrase"),
            *("category", "scene", "unrelated", "n_boxes", *box_ops.COLUMNS),
        ],
    )
    spoken = ["A man of the year in two hats ."] * 2
    spoken += ["The Boss is at the old beach with it ."] * 3 + ["A dog sees itself ."] * 2
    expected.insert(6, "sentence", spoken)
    expected.insert(8, "width", [500] * 5 + [333] * 2)
    expected.insert(9, "height", [375] * 5 + [500] * 2)
    pd.testing.assert_frame_equal(found.phrases, expected, check_dtype=False)
    assert (found.phrases[box_ops.COLUMNS].dtypes == np.float32).all()
    assert (found.boxes[box_ops.COLUMNS].dtypes == np.float32).all()
    rows = [
        ("11", 1, 10, 20, 110, 220),
        ("11", 7, 10, 20, 110, 220),
        ("11", 2, 0, 0, 10, 20),
        ("11", 2, 30, 4, 500, 12),
        ("12", 1, 2, 3, 5, 6),
    ]
    assert list(found.boxes.itertuples(index=False, name=None)) == rows


def test_ids_given_by_hand_choose_pictures_and_splits(tmp_path, kind):
    root = write_root(tmp_path / "root", GOOD, kind)
    phrases = read(root, ids={"12": "mine"}).phrases
    assert phrases[["image_id", "split"]].drop_duplicates().values.tolist() == [["12", "mine"]]


@pytest.mark.parametrize(
    ("things", "reason", "box"),
    [
        (
            [thing(1, box=("11.5", 21, 110, 220))],
            "expected whole numbers as coordinates, got decimals: read as they are",
            [10.5, 20, 110, 220],
        ),
        (
            [thing(1, box=(-5, 21, 9999, 220)), thing(2, box=(600, 1, 700, 9))],
            "expected boxes within 500 x 375 pixels, got 2 that reach beyond: cut",
            [0, 20, 500, 220],
        ),
    ],
)
def test_odd_boxes_are_read_and_listed(things, reason, box, tmp_path):
    files = GOOD | {"Annotations/11.xml": annotation(*things)}
    found = read(write_root(tmp_path / "root", files))
    assert found.problems.values.tolist() == [["Annotations/11.xml", reason]]
    mine = found.boxes[found.boxes.image_id == "11"]
    assert mine[box_ops.COLUMNS].to_numpy().tolist() == [box]


CAPTION = "[/EN#1/people Señor Müller] runs .\r\n"
WRITTEN = {
    "UTF-8": ("utf-8", ""),
    "UTF-8 with a mark": ("utf-8-sig", ""),
    "UTF-16": ("utf-16", ""),
    "Windows": ("cp1252", "expected UTF-8, got byte 0xf1 at 16: read as Windows-1252"),
}


@pytest.mark.parametrize("system", WRITTEN)
def test_text_of_other_systems_is_read_right_and_what_is_not_utf_8_is_listed(
    system, tmp_path, kind
):
    coding, reason = WRITTEN[system]
    files = GOOD | {"Sentences/11.txt": CAPTION.encode(coding)}
    root = write_root(tmp_path / "root", files, kind)
    for name in ("train.txt", "test.txt"):
        if (root / name).is_file():
            (root / name).write_bytes((root / name).read_text().encode(coding))
    found = read(root)
    assert found.phrases.phrase[found.phrases.image_id == "11"].tolist() == ["Señor Müller"]
    assert found.problems.reason.tolist() == ([reason] if reason else [])


XML, SENTENCES = "Annotations/bad.xml", "Sentences/bad.txt"
MARKED = b"[/EN#1/people A man] runs .\n"
BOX = (1, 1, 5, 5)
BAD_XML = {
    "truncated": (annotation(thing(1, box=BOX))[:-20], "expected a whole XML file"),
    "missing": (None, "missing: its phrases have no box"),
    "oversized": (b"<annotation>" + b" " * 1_000_000 + b"</annotation>", "at most 1,000,000"),
    "no size": (b"<annotation></annotation>", "expected an integer in <size/width>, got None"),
    "endless width": (annotation(size=("9" * 30, 3)), "in <size/width>, got '999"),
    "coordinate": (annotation(thing(1, box=(1, "one", 5, 5))), "in <ymin>, got 'one'"),
    "no coordinate": (annotation(thing(1, box=(1, 1, "", 5))), "in <xmax>, got ''"),
    "endless coordinate": (annotation(thing(1, box=(1, 1, "9" * 400, 5))), "in <xmax>, got"),
    "word as name": (annotation(thing("man", box=BOX)), "in <name>, got 'man'"),
    "endless name": (annotation(thing("9" * 30, box=BOX)), "in <name>, got '999"),
    "no height": (
        annotation(thing(1, box=BOX), thing(2, box=(1, 6, 5, 5))),
        "[0.0, 5.0, 5.0, 5.0] in row 1 (1 such rows of 2)",
    ),
}
BAD_SENTENCES = {
    "missing": (None, "missing"),
    "empty": (b"", "expected sentences with phrases, found none"),
    "broken mark": (MARKED + b"[/EN#1/people A man runs .\n", "line 2: expected phrases"),
    "mark without id": (b"[/EN#/people A man] runs .\n", "line 1: expected phrases"),
    "mark in a mark": (b"[/EN#1/other a [/EN#2/x b] c] .\n", "line 1: expected phrases"),
    "endless id": (b"[/EN#" + b"9" * 20 + b"/people A man] .\n", "expected phrases"),
    "oversized": (MARKED * 40_000, "at most 1,000,000"),
}
FAULTS = {f"XML: {fault}": (XML, *case) for fault, case in BAD_XML.items()}
FAULTS |= {f"sentences: {fault}": (SENTENCES, *case) for fault, case in BAD_SENTENCES.items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_listed_and_harms_no_other_picture(fault, tmp_path, kind):
    name, content, reason = FAULTS[fault]
    files = GOOD | {XML: annotation(thing(1, box=(1, 1, 5, 5))), SENTENCES: MARKED}
    if content is None:
        del files[name]
    else:
        files[name] = content
    root = write_root(tmp_path / "root", files, kind, train=["11", "bad"], test=["12"])
    found = read(root)
    assert found.problems.file.tolist() == [name]
    assert reason in found.problems.reason[0]
    good = read(write_root(tmp_path / "good", GOOD, kind))
    others = found.phrases[found.phrases.image_id != "bad"].reset_index(drop=True)
    pd.testing.assert_frame_equal(others, good.phrases)
    pd.testing.assert_frame_equal(
        found.boxes[found.boxes.image_id != "bad"].reset_index(drop=True), good.boxes
    )
    bad = found.phrases[found.phrases.image_id == "bad"]
    if name == XML:
        assert bad.phrase.tolist() == ["A man"], "the sentences are whole"
        assert bad.n_boxes.tolist() == [0]
        assert bad[[*box_ops.COLUMNS]].isna().all(axis=None)
        assert "bad" not in set(found.boxes.image_id)
    else:
        assert bad.empty


def test_damaged_bytes_in_an_archive_are_listed_and_no_archive_named(tmp_path):
    root = write_root(tmp_path / "root", GOOD, "archive")
    path = root / "annotations.zip"
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("Annotations/11.xml")
    start = member.header_offset + 30 + len(member.filename)
    reasons = set()
    for place in range(start, start + member.compress_size, 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        found = read(root)
        assert found.problems.file.tolist() == ["Annotations/11.xml"]
        reasons.update(found.problems.reason.str.extract(r"(expected a whole file in \S+)")[0])
        assert (found.phrases[found.phrases.image_id == "12"].n_boxes == 1).all()
    assert reasons == {"expected a whole file in annotations.zip,"}
    path.write_bytes(whole[:-60])
    with pytest.raises(ValueError, match=f"^{path}: expected a whole zip archive"):
        read(root)


def test_a_root_without_annotations_or_lists_says_what_is_expected(tmp_path):
    root = write_root(tmp_path / "root", {}, train=["11"])
    with pytest.raises(FileNotFoundError, match=r"expected annotations.zip, or the folders"):
        read(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected train.txt, val.txt or test.txt"):
        read(tmp_path / "empty")


def test_ids_are_those_of_a_list_or_it_is_said_to_be_missing(tmp_path):
    (tmp_path / "val.txt").write_text("12\n\n 7 \r\n12\nphoto_3-b\n")
    assert entities.read_ids(tmp_path, "val") == ["12", "7", "photo_3-b"]
    elsewhere = entities.read_ids(tmp_path / "elsewhere", str(tmp_path / "val.txt"))
    assert elsewhere == ["12", "7", "photo_3-b"]
    wanted = rf"^{tmp_path}/mine\.txt: expected a list of image ids.*give a path"
    with pytest.raises(FileNotFoundError, match=wanted):
        entities.read_ids(tmp_path, "mine")


@pytest.mark.parametrize("bad", ["../12", "/etc/passwd", "..", "12.jpg", "a\\b", "12,13", "x\0"])
def test_read_ids_refuses_what_could_be_a_path(bad, tmp_path):
    root = write_root(tmp_path / "root", GOOD, train=["11", bad])
    with pytest.raises(ValueError, match="expected image ids, one a line") as caught:
        entities.read_ids(root, "train")
    assert str(caught.value).startswith(f"{root / 'train.txt'}: ")
    assert str(caught.value).endswith(repr(bad))
    with pytest.raises(ValueError, match="expected image ids"):
        read(root)


def test_image_ids_are_the_pictures_of_either_folder(tmp_path):
    assert entities.image_ids(tmp_path) == set()
    assert entities.image_folder(tmp_path) == tmp_path / "flickr30k-images"
    (tmp_path / "flickr30k_images").mkdir()
    for name in ("11.jpg", "12.jpg", "readme.txt"):
        (tmp_path / "flickr30k_images" / name).touch()
    assert entities.image_ids(tmp_path) == {"11", "12"}
    assert entities.image_folder(tmp_path) == tmp_path / "flickr30k_images"


def test_count_tells_lists_from_pictures_at_hand(tmp_path):
    phrases = read(write_root(tmp_path / "root", GOOD)).phrases
    table = entities.count(phrases, ["12", "other"])
    assert table.loc["train"].tolist() == [1, 5, 3, 0, 0]
    assert table.loc["test"].tolist() == [1, 2, 2, 1, 2]


def test_the_tables_come_back_from_the_cache_as_they_were(kind, tmp_path):
    files = GOOD | {"Annotations/11.xml": b"<annot"}
    found, cache = read(write_root(tmp_path / "root", files, kind)), tmp_path / "cache"
    entities.write_tables(found, cache)
    names = ("phrases", "boxes", "problems")
    kept = [cache / f"{name}.parquet" for name in names]
    assert_same(entities.Entities(*map(pd.read_parquet, kept)), found)
    before = [path.read_bytes() for path in kept]
    entities.write_tables(found, cache)
    assert [path.read_bytes() for path in kept] == before
    assert sorted(cache.iterdir()) == sorted(kept)
