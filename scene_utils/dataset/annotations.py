"""One picture's two official files, Sentences/<id>.txt and Annotations/<id>.xml, to numbers."""

import contextlib
import itertools
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field

import numpy as np

from scene_utils import box_ops

MARK = re.compile(r"\[/EN#\S+ ([^\[\]]*)\]")
_PHRASE = re.compile(r"\[/EN#(\d{1,9})/([^\s\]/][^\s\]]*) ([^\[\]]*)\]")


@dataclass(frozen=True)
class Annotation:
    """One picture's XML: size in pixels, boxes `(n, 4)` in the box type, their phrase ids, the ids
    of scenes, and what is odd about the boxes."""

    width: int = 0
    height: int = 0
    phrase_ids: tuple[int, ...] = ()
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    scenes: frozenset[int] = frozenset()
    remarks: tuple[str, ...] = ()


def parse_sentences(text: str) -> list[tuple[int, int, int, str, str]]:
    """A sentence file to (sentence_id, phrase_id, first_word_index, category, phrase) tuples.

    >>> parse_sentences("[/EN#1/people A man] in [/EN#0/notvisual it] [/EN#2/clothing a hat] .")
    [(0, 1, 0, 'people', 'A man'), (0, 2, 4, 'clothing', 'a hat')]

    Raises ValueError where a line has a phrase mark that cannot be read.
    """
    found = []
    for sentence_id, line in enumerate(text.splitlines()):
        word, end, marks = 0, 0, 0
        for match in _PHRASE.finditer(line):
            marks += 1
            word += len(line[end : match.start()].split())
            phrase_id, category, phrase = int(match[1]), match[2].split("/")[0], match[3].strip()
            if phrase_id != 0 and phrase:
                found.append((sentence_id, phrase_id, word, category, phrase))
            word += len(phrase.split())
            end = match.end()
        if marks != line.count("[/EN#"):
            raise ValueError(
                f"line {sentence_id + 1}: expected phrases as [/EN#id/category words], got {line!r}"
            )
    return found


def _number(text: str | None, path: str, kind: type = int) -> int | float:
    with contextlib.suppress(TypeError, ValueError):
        if abs(number := kind(text)) < 2**31:  # the tables hold int32
            return number
    wanted = "an integer" if kind is int else "a number"
    raise ValueError(f"expected {wanted} in <{path}>, got {repr(text)[:60]}")


def parse_annotation(xml: bytes, boxes: bool = True) -> Annotation:
    """One picture's XML, or without `boxes` its size alone. Coordinates become the box type here.

    A box is cut at the picture's edges; one that lies beyond them is left out. Raises ValueError
    that says what was expected: not XML, no number, a box without area.
    """
    if b"<!" in xml or b"\0" in xml:
        # Entity bombs and external entities start with a declaration, which UTF-16 would hide from
        # this search; real files have neither.
        raise ValueError("expected a plain annotation, got a file with a <! declaration")
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as why:
        raise ValueError(f"expected a whole XML file, got one that ends or breaks: {why}") from why
    width, height = (_number(root.findtext(p), p) for p in ("size/width", "size/height"))
    if not boxes:
        return Annotation(width, height)
    phrase_ids: list[int] = []
    corners: list[list[float]] = []
    scenes: set[int] = set()
    for item in root.iter("object"):
        names = [_number(name.text, "name") for name in item.findall("name")]
        if item.findtext("scene") == "1":
            scenes.update(names)
        if (box := item.find("bndbox")) is not None:
            corner = [_number(box.findtext(s), s, float) for s in ("xmin", "ymin", "xmax", "ymax")]
            phrase_ids += names
            corners += [corner] * len(names)
    whole = box_ops.from_inclusive(np.reshape(corners, (-1, 4)))
    box_ops.check(whole, "bndbox (as x_min, y_min, x_max, y_max, 0-based)")
    remarks = []
    if any(side != round(side) for corner in corners for side in corner):
        remarks.append("expected whole numbers as coordinates, got decimals: read as they are")
    inside = np.clip(whole, 0, np.float32([width, height, width, height]))
    if beyond := int((inside != whole).any(axis=1).sum()):
        remarks.append(
            f"expected boxes within {width} x {height} pixels, got {beyond} that reach beyond: cut"
        )
    kept = box_ops.area(inside) > 0
    ids = tuple(itertools.compress(phrase_ids, kept))
    return Annotation(width, height, ids, inside[kept], frozenset(scenes), tuple(remarks))
