"""Readers meet thousands of files that nobody wrote by hand: out comes what they promise, or one of
the errors that they document; never a hang, never more memory than their bounds allow."""

import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from scene_utils import box_ops, images, paths
from scene_utils import words as text
from scene_utils.dataset import annotations

thousands = settings(
    max_examples=1500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

REAL_XML = b"""<annotation><size><width>500</width><height>333</height><depth>3</depth></size>
<object><name>1</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
</object><object><name>2</name><scene>1</scene><nobndbox>0</nobndbox></object></annotation>"""
REAL_LINE = "[/EN#1/people A man] in [/EN#0/notvisual it] [/EN#2/clothing/other a red hat] ."
REAL_GLOVE = b"the 0.1 -0.2 3e-2\nof 1 2 3\ncaf\xc3\xa9 0 0 1\n"


@st.composite
def damaged(draw, whole: bytes):
    """A real file with a few pieces removed, repeated, swapped for others, or made up."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 5))):
        start = draw(st.integers(0, len(content)))
        stop = draw(st.integers(start, min(len(content), start + 40)))
        piece = draw(
            st.one_of(
                st.binary(max_size=12),
                st.sampled_from([b"", b"<", b">", b"&lt;", b"&x;", b"</", b"]", b"[/EN#", b"/"]),
                st.sampled_from([b"-1", b"1e999", b"nan", b"99999999999999999999", b"\n", b" "]),
                st.just(bytes(content[start:stop]) * 3),
            )
        )
        content[start:stop] = piece
    return bytes(content)


@pytest.mark.slow
@thousands
@given(st.one_of(st.binary(max_size=400), damaged(REAL_XML)))
def test_xml(content):
    try:
        found = annotations.parse_annotation(content)
    except ValueError:
        return
    assert found.boxes.shape == (len(found.phrase_ids), 4)
    box_ops.check(found.boxes)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_bombs_are_refused_at_once(encoding):
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    bombs = [
        f'<!DOCTYPE a [<!ENTITY l0 "lol">{laughs}]><annotation>&l11;</annotation>',
        '<!DOCTYPE a [<!ENTITY f SYSTEM "file:///etc/passwd">]><annotation>&f;</annotation>',
        f'<!DOCTYPE a [<!ENTITY q "{"a" * 50_000}">]><annotation>{"&q;" * 50_000}</annotation>',
    ]
    for bomb in bombs:
        with pytest.raises(ValueError, match="declaration"):
            annotations.parse_annotation(bomb.encode(encoding))


@pytest.mark.slow
@thousands
@given(st.one_of(st.text(max_size=300), damaged(REAL_LINE.encode()).map(os.fsdecode)))
def test_sentences(line):
    try:
        found = annotations.parse_sentences(line)
    except ValueError:
        return
    for sentence, phrase_id, word, category, phrase in found:
        assert 0 <= sentence < max(1, len(line.splitlines()))
        assert phrase_id > 0
        assert 0 <= word <= len(line.split())
        assert category
        assert phrase.strip() == phrase != ""


def test_a_long_line_of_marks_takes_no_longer_than_its_length():
    # 27 kB is the largest real file; the reader's bound is 1 MB.
    assert len(annotations.parse_sentences(REAL_LINE * 12_000)) == 24_000
    for line in ("[/EN#" * 200_000, "[/EN#1/a b" * 100_000):
        with pytest.raises(ValueError, match="line 1: expected phrases"):
            annotations.parse_sentences(line)


@pytest.mark.slow
@thousands
@given(content=st.one_of(st.binary(max_size=300), damaged(REAL_GLOVE)))
def test_glove_files(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzz.txt"
    path.write_bytes(content)
    try:
        vectors = text.read_glove_text(path)
    except ValueError as refused:
        message = str(refused)
        assert message.startswith(f"{path}: expected GloVe's text format")
        return
    assert vectors.matrix.shape == (len(vectors.index), vectors.dim)
    assert np.isfinite(vectors.matrix).all()


def in_little_memory(program: str, *words, mebibytes: int = 400):
    """Run a program that may take so much memory beyond its imports, and no more than a minute."""
    limit = (
        "import resource, numpy, pandas, PIL.Image\n"
        "from scene_utils import images, words as text\nfrom scene_utils.dataset import entities\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (used + {mebibytes} * 2**20,) * 2)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", "import sys\n" + limit + program, *map(str, words)],
        **{"capture_output": True, "text": True, "timeout": 60, "cwd": paths.ROOT},
    )


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_a_line_or_an_annotation_of_a_gigabyte_fits_in_little_memory(tmp_path):
    names = ("long.txt", "Annotations/1.xml", "Sentences/1.txt")
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with open(tmp_path / name, "wb") as file:  # a hole: it takes no room on the disk
            file.write(b"the 1 2 3\n")
            file.truncate(1 << 30)
    answer = in_little_memory(
        "try:\n    text.read_glove_text(sys.argv[1] + '/long.txt')\n"
        "except ValueError as error:\n    print(error)\n"
        "found = entities.read_entities(sys.argv[1], {'1': 'test'})\n"
        "print(found.problems.to_string())\n",
        tmp_path,
    )
    assert "expected GloVe's text format" in answer.stdout, answer.stderr[-500:]
    assert answer.stdout.count("expected at most 1,000,000 bytes") == 2, answer.stderr[-500:]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc")
def test_the_largest_picture_and_what_is_larger_stay_within_bounds(tmp_path):
    largest, larger, raw = (tmp_path / name for name in ("a.png", "b.png", "c.jpg"))
    Image.new("L", (10_000, 10_000)).save(largest, compress_level=1)
    Image.new("1", (50_000, 50_000)).save(larger, compress_level=1)
    with open(raw, "wb") as file:
        file.truncate(2 << 30)
    answer = in_little_memory(
        "for path in sys.argv[1:]:\n"
        "    try:\n        print(images.open_image(path).size)\n"
        "    except images.ImageError as error:\n        print(error)\n",
        *(largest, larger, raw),
        mebibytes=1500,
    )
    lines = answer.stdout.splitlines()
    assert lines[0] == "(10000, 10000)", answer.stderr[-500:]
    assert "expected at most 100 megapixels" in lines[1]
    assert "expected at most 1,000,000,000 bytes" in lines[2]


def _encoded(kind: str, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, kind, **options)
    return target.getvalue()


PICTURES = [_encoded(kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM")]
PICTURES += [_encoded("JPEG", progressive=True), _encoded("TIFF", compression="tiff_lzw")]


@pytest.mark.slow
@thousands
@given(st.one_of(st.binary(max_size=200), *map(damaged, PICTURES)))
def test_pictures(content):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged metadata
        try:
            found = images.open_image(content, "upload")
        except images.ImageError as refused:
            message = str(refused)
            assert message.startswith("upload: expected ")
            return
    assert found.mode == "RGB"
    assert 0 < found.width * found.height <= images.LARGEST_PIXELS
    assert images.squeeze(found, 8).shape == (8, 8, 3)
