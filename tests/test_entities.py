"""The reader of Flickr30k Entities: known counts of the real set, and faults that harm one picture.

The small data roots are written here by hand, as folders and as an archive; the counts of the real
set are the published ones, or regular expressions over the archive.
"""

import re
import zipfile
from collections import Counter
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops
from scene_utils.dataset import entities
from scene_utils.dataset.annotations import parse_sentences
from scene_utils.dataset.entities import read_entities

# Images in train.txt to boxed mentions: the whole set as published, and the part without the 999
# images that the archive at hand lacks.
TRAIN_MENTIONS = {29_783: 427_226, 28_784: 414_333}


def thing(*names, box=None, scene=None):
    """An <object> of the XML: its phrase ids, and a box 1-based inclusive or none."""
    inside = "".join(f"<name>{name}</name>" for name in names)
    if box is None:
        inside += f"<scene>{scene or 0}</scene><nobndbox>{0 if scene else 1}</nobndbox>"
    else:
        sides = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
        inside += "<bndbox>" + "".join(f"<{k}>{v}</{k}>" for k, v in sides) + "</bndbox>"
    return f"<object>{inside}</object>"


def annotation(*things, size=(500, 375), head=""):
    width, height = size
    return (
        f"{head}<annotation><filename>x.jpg</filename><size><width>{width}</width>"
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


def read(root, **options):
    return read_entities(root, progress=False, **options)


def assert_same(first, second):
    for name in ("phrases", "boxes", "problems"):
        pd.testing.assert_frame_equal(getattr(first, name), getattr(second, name))


@pytest.fixture(params=["folders", "archive"])
def kind(request):
    return request.param


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


def test_without_boxes_only_sentences_and_size_are_read(tmp_path, kind):
    nonsense = annotation(
        thing("x", box=(9, 9, 1, 1)), thing(1, box=("?", 2, "", 4)), size=(500, 375)
    )
    files = GOOD | {"Annotations/11.xml": nonsense}
    del files["Annotations/12.xml"]
    root = write_root(tmp_path / "root", files, kind)
    found = read(root, boxes=False)
    assert found.problems.empty
    assert found.boxes.empty
    with_boxes = read(write_root(tmp_path / "whole", GOOD, kind))
    text_columns = ["image_id", "split", "sentence_id", "phrase_id", "first_word_index", "phrase"]
    pd.testing.assert_frame_equal(found.phrases[text_columns], with_boxes.phrases[text_columns])
    assert list(found.phrases) == list(with_boxes.phrases)
    assert found.phrases[box_ops.COLUMNS].isna().all(axis=None)
    assert (found.phrases.n_boxes == 0).all()
    sizes = found.phrases.groupby("image_id")[["width", "height"]].first()
    assert sizes.loc["11"].tolist() == [500, 375]
    assert sizes.loc["12"].tolist() == [0, 0], "not known without an XML file"


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


BOMB = '<!DOCTYPE a [<!ENTITY b "1"><!ENTITY c "&b;&b;&b;&b;">]>'
XML, SENTENCES = "Annotations/bad.xml", "Sentences/bad.txt"
MARKED = b"[/EN#1/people A man] runs .\n"
FAULTS = {
    "truncated": (XML, annotation(thing(1, box=(1, 1, 5, 5)))[:-20], "expected a whole XML file"),
    "empty XML": (XML, b"", "expected a whole XML file"),
    "no XML": (XML, b"\xff\xfe\x00picture", "expected a "),
    "entity bomb": (XML, annotation(thing(1, box=(1, 1, "&c;", 5)), head=BOMB), "<! declaration"),
    "hidden bomb": (
        XML,
        annotation(thing(1, box=(1, 1, "&c;", 5)), head=BOMB).decode().encode("utf-16"),
        "<! declaration",
    ),
    "missing XML": (XML, None, "missing: its phrases have no box"),
    "oversized": (XML, b"<annotation>" + b" " * 1_000_000 + b"</annotation>", "at most 1,000,000"),
    "no size": (XML, b"<annotation></annotation>", "expected an integer in <size/width>, got None"),
    "coordinate": (XML, annotation(thing(1, box=(1, "one", 5, 5))), "in <ymin>, got 'one'"),
    "no coordinate": (XML, annotation(thing(1, box=(1, 1, "", 5))), "in <xmax>, got ''"),
    "endless coordinate": (XML, annotation(thing(1, box=(1, 1, "9" * 400, 5))), "in <xmax>, got"),
    "word as name": (XML, annotation(thing("man", box=(1, 1, 5, 5))), "in <name>, got 'man'"),
    "no name": (XML, annotation(thing("", box=(1, 1, 5, 5))), "in <name>, got None"),
    "endless name": (XML, annotation(thing("9" * 30, box=(1, 1, 5, 5))), "in <name>, got '999"),
    "word as width": (XML, annotation(size=("wide", 3)), "in <size/width>, got 'wide'"),
    "endless width": (XML, annotation(size=("9" * 30, 3)), "in <size/width>, got '999"),
    "inverted": (XML, annotation(thing(1, box=(9, 1, 5, 5))), "[8.0, 0.0, 5.0, 5.0] in row 0"),
    "no height": (
        XML,
        annotation(thing(1, box=(1, 1, 5, 5)), thing(2, box=(1, 6, 5, 5))),
        "[0.0, 5.0, 5.0, 5.0] in row 1 (1 such rows of 2)",
    ),
    "missing sentences": (SENTENCES, None, "missing"),
    "empty sentences": (SENTENCES, b"", "expected sentences with phrases, found none"),
    "no phrases": (SENTENCES, b"A man runs .\n", "expected sentences with phrases, found none"),
    "broken mark": (
        SENTENCES,
        MARKED + b"[/EN#1/people A man runs .\n",
        "line 2: expected phrases",
    ),
    "mark without id": (SENTENCES, b"[/EN#/people A man] runs .\n", "line 1: expected phrases"),
    "mark in a mark": (SENTENCES, b"[/EN#1/other a [/EN#2/x b] c] .\n", "line 1: expected phrases"),
    "endless id": (SENTENCES, b"[/EN#" + b"9" * 20 + b"/people A man] .\n", "expected phrases"),
    "oversized sentences": (SENTENCES, MARKED * 40_000, "at most 1,000,000"),
}


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


def test_damaged_bytes_in_an_archive_are_listed(tmp_path):
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


def test_an_archive_that_is_none_is_named(tmp_path):
    root = write_root(tmp_path / "root", GOOD, "archive")
    path = root / "annotations.zip"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match="expected a whole zip archive") as caught:
        read(root)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_root_without_annotations_or_lists_says_what_is_expected(tmp_path):
    root = write_root(tmp_path / "root", {}, train=["11"])
    with pytest.raises(FileNotFoundError, match=r"expected annotations.zip, or the folders"):
        read(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"expected train.txt, val.txt or test.txt"):
        read(tmp_path / "empty")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", []),
        ("No mark .", []),
        ("[/EN#5/people A man]", [(0, 5, 0, "people", "A man")]),
        ("In [/EN#5/scene a  park] now", [(0, 5, 1, "scene", "a  park")]),
        ("a b [/EN#0/notvisual c d] e [/EN#6/other f]", [(0, 6, 5, "other", "f")]),
        ("[/EN#1/people/animals They] go", [(0, 1, 0, "people", "They")]),
        (
            "[/EN#1/people A man] , [/EN#1/people he] .",
            [(0, 1, 0, "people", "A man"), (0, 1, 3, "people", "he")],
        ),
        ("\nx\n[/EN#9/other y]\n", [(2, 9, 0, "other", "y")]),
    ],
)
def test_parse_sentences(line, expected):
    assert parse_sentences(line) == expected


def test_read_ids(tmp_path):
    (tmp_path / "val.txt").write_text("12\n\n 7 \r\n12\nphoto_3-b\n")
    assert entities.read_ids(tmp_path, "val") == ["12", "7", "photo_3-b"]
    assert entities.read_ids(tmp_path / "elsewhere", str(tmp_path / "val.txt")) == [
        *("12", "7", "photo_3-b")
    ]


def test_read_ids_says_what_is_missing(tmp_path):
    wanted = r"expected a list of image ids.*give a path"
    with pytest.raises(FileNotFoundError, match=wanted) as caught:
        entities.read_ids(tmp_path, "mine")
    assert str(caught.value).startswith(f"{tmp_path / 'mine.txt'}: ")


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


@pytest.fixture
def reads(monkeypatch):
    """Counts how often the official files are read."""
    counted = Mock(wraps=entities.read_entities)
    monkeypatch.setattr(entities, "read_entities", counted)
    return counted


@pytest.fixture
def small(tmp_path, kind):
    return write_root(tmp_path / "root", GOOD, kind)


def load(root, cache):
    return entities.load_entities(root, cache, progress=False)


@pytest.mark.parametrize("xml", [GOOD["Annotations/11.xml"], b"<annot"], ids=["whole", "damaged"])
def test_the_second_load_reads_the_cache(xml, kind, tmp_path, reads):
    root = write_root(tmp_path / "root", GOOD | {"Annotations/11.xml": xml}, kind)
    first, second = (load(root, tmp_path / "cache") for _ in range(2))
    assert reads.call_count == 1
    assert_same(second, first)
    assert_same(second, read(root))
    assert len(first.phrases) == 7
    assert second.problems.file.tolist() == ["Annotations/11.xml"] * (xml == b"<annot")


NEW_BOX = annotation(thing(1, box=(3, 4, 5, 7)), size=(333, 500))
EDITS = {  # files of the root as text, and files of the annotations
    "a list": ({"test.txt": ""}, {}),
    "other lists": ({"train.txt": "", "val.txt": "11\n"}, {}),
    "unrelated captions": ({"UNRELATED_CAPTIONS": "12 1\n"}, {}),
    "an annotation": ({}, {"Annotations/12.xml": NEW_BOX}),
    "a picture": (
        {"test.txt": "12\n13\n"},
        {"Annotations/13.xml": annotation(), "Sentences/13.txt": MARKED},
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_read_anew(edit, small, kind, tmp_path, reads):
    before = load(small, tmp_path / "cache")
    texts, files = EDITS[edit]
    if files:
        write_root(small, GOOD | files, kind)
    for name, content in texts.items():
        (small / name).write_text(content)
    after = load(small, tmp_path / "cache")
    assert reads.call_count == 2
    assert not after.phrases.equals(before.phrases)
    assert_same(after, read(small))
    assert_same(load(small, tmp_path / "cache"), after)
    assert reads.call_count == 2


@pytest.mark.parametrize("damage", [None, b"", b"half", b"[]", b"{}", b"\xff\xfe"], ids=repr)
@pytest.mark.parametrize("table", ["entities.json", "phrases.parquet", "boxes.parquet"])
def test_a_half_written_cache_is_not_whole(table, damage, tmp_path, reads):
    root, cache = write_root(tmp_path / "root", GOOD), tmp_path / "cache"
    first = load(root, cache)
    whole = (cache / table).read_bytes()
    if damage is None:
        (cache / table).unlink()
    else:
        (cache / table).write_bytes(whole[: len(whole) // 2] if damage == b"half" else damage)
    for _ in range(2):
        assert_same(load(root, cache), first)
        assert reads.call_count == 2


def test_a_stop_between_two_tables_leaves_no_mixture(tmp_path, reads, monkeypatch):
    root, cache = write_root(tmp_path / "root", GOOD), tmp_path / "cache"
    first = load(root, cache)
    original = (root / "test.txt").read_text()
    (root / "test.txt").write_text("")
    write = pd.DataFrame.to_parquet

    def stop_at_boxes(table, path, **options):
        if "boxes" in path.name:
            raise KeyboardInterrupt
        return write(table, path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pd.DataFrame, "to_parquet", stop_at_boxes)
        with pytest.raises(KeyboardInterrupt):
            load(root, cache)
    (root / "test.txt").write_text(original)
    assert_same(load(root, cache), first)
    assert reads.call_count == 3
    assert sorted(path.name for path in cache.iterdir()) == [
        *("boxes.parquet", "entities.json", "phrases.parquet", "problems.parquet")
    ]


# The real set.


@pytest.fixture(scope="module")
def boxed(real_entities):
    return real_entities.phrases[real_entities.phrases.n_boxes > 0]


def test_real_counts(real_entities, boxed):
    assert real_entities.problems.empty
    images = real_entities.phrases.groupby("split").image_id.nunique()
    mentions = boxed.groupby("split").size()
    assert images[["val", "test"]].tolist() == [1_000, 1_000]
    assert mentions[["val", "test"]].tolist() == [14_433, 14_481]
    assert images["train"] in TRAIN_MENTIONS
    assert mentions["train"] == TRAIN_MENTIONS[images["train"]]


def test_real_boxes_equal_a_count_by_regular_expressions(real_data, real_entities):
    if not (real_data / "annotations.zip").is_file():
        pytest.skip("needs annotations.zip")
    listed = set(real_entities.phrases.image_id)
    elements, unique, named, scenes = 0, 0, Counter(), set()
    with zipfile.ZipFile(real_data / "annotations.zip") as archive:
        for name in archive.namelist():
            image_id = name.removeprefix("Annotations/").removesuffix(".xml")
            if image_id not in listed:
                continue
            xml = archive.read(name).decode()
            elements += xml.count("<bndbox>")
            boxes = set()
            for part in xml.split("<object>")[1:]:
                names = re.findall(r"<name>(\d+)</name>", part)
                if "<scene>1</scene>" in part:
                    scenes.update((image_id, int(name)) for name in names)
                if "<bndbox>" in part:
                    boxes.add(tuple(re.findall(r"<[xy]m(?:in|ax)>(\d+)<", part)))
                    named[image_id] += len(names)
            unique += len(boxes)
    assert real_entities.boxes.groupby("image_id").size().to_dict() == named
    # An object with two names has two rows: rows past the elements are the further names.
    assert len(real_entities.boxes) == named.total() > elements
    corners = real_entities.boxes.drop_duplicates(["image_id", *box_ops.COLUMNS])
    assert len(corners) == unique <= elements
    phrases = real_entities.phrases
    ids = list(zip(phrases.image_id, phrases.phrase_id, strict=True))
    assert {one for one, scene in zip(ids, phrases.scene, strict=True) if scene} == scenes & {*ids}
    if len(listed) == 31_783:
        assert elements == 275_775


def test_real_tables_fit_together(real_entities, boxed):
    phrases, boxes = real_entities.phrases, real_entities.boxes
    key = ["image_id", "sentence_id", "phrase_id", "first_word_index"]
    assert not phrases.duplicated(key).any()
    assert set(phrases.sentence_id) == set(range(5))
    assert phrases.phrase_id.min() > 0
    assert (phrases[["width", "height"]].max(axis=1) == 500).mean() > 0.99
    box_ops.check(boxes[box_ops.COLUMNS].to_numpy())
    assert ((box_ops.relative(boxed) >= 0) & (box_ops.relative(boxed) <= 1)).all()
    unboxed = phrases[phrases.n_boxes == 0]
    assert unboxed[box_ops.COLUMNS].isna().all(axis=None)


def test_real_unrelated_captions_are_among_those_without_a_phrase(real_data, real_entities):
    # The annotators marked no phrase in a caption that is not of the picture, so the list, which
    # counts from 1, must name captions that have no row; those are few.
    lines = (real_data / "UNRELATED_CAPTIONS").read_text().splitlines()
    pairs = {tuple(line.split()) for line in lines if not line.startswith("#")}
    phrases = real_entities.phrases
    sentences = phrases.groupby("image_id").sentence_id.agg(set)
    without = {
        (image_id, str(sentence_id + 1))
        for image_id, found in sentences.items()
        for sentence_id in set(range(5)) - found
    }
    listed = {pair for pair in pairs if pair[0] in sentences.index}
    assert listed
    assert listed <= without
    assert len(without) < 0.001 * 5 * len(sentences)
    assert not phrases.unrelated.any()


def test_every_phrase_stands_in_its_sentence_at_its_first_word(real_entities):
    phrases = real_entities.phrases.iloc[::17]
    for sentence, first, phrase in zip(
        phrases.sentence, phrases.first_word_index, phrases.phrase, strict=True
    ):
        words = phrase.split()
        assert sentence.split()[first : first + len(words)] == words
