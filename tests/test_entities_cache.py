"""What is read of Flickr30k Entities is kept, and read anew where a file of it has changed."""

from unittest.mock import Mock

import pandas as pd
import pytest

from scene_utils.dataset import entities
from scene_utils.dataset.entities import read_entities
from tests.makers import GOOD, annotation, assert_same, thing, write_root

MARKED = b"[/EN#1/people A man] runs .\n"


def read(root):
    return read_entities(root, progress=False)  # not the one that is counted


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
