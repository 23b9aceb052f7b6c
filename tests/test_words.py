"""Words as GloVe writes them, vectors from real files, and a vocabulary that survives the disk."""

import gzip
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from scene_utils import words as text
from scene_utils.words import (
    FREQUENT,
    Vectors,
    Vocabulary,
    build_vocabulary,
    described,
    load_vectors,
    locate,
    read_glove_text,
    tokenize,
)

PHRASES = ["A man", "the man 's red T-shirt", "two dogs", "An old caf\u00e9", "a man in a hat"]
PHRASES += ["3 o'clock"]


def vectors_of(*words, dim=4):
    rows = np.random.default_rng(len(words)).normal(size=(len(words), dim)).astype(np.float32)
    return Vectors("made", {word: row for row, word in enumerate(words)}, rows)


@pytest.fixture(scope="module")
def glove50():
    return load_vectors("glove50")


@pytest.mark.parametrize(
    ("phrase", "tokens"),
    [
        ("", ""),
        (" , . ( ) \" ' - ", ""),
        ("\U0001f600 \u2764\ufe0f", ""),
        ("A Man", "a man"),
        ("The man's hat", "the man 's hat"),
        ("The man\u2019s hat", "the man 's hat"),
        ("the boys' ball", "the boys ball"),
        ("a 'quoted' sign", "a quoted sign"),
        ("\u201cquoted\u201d \u2018sign\u2019", "quoted sign"),
        ("that doesn't", "that does n't"),
        ("O'Neill", "o'neill"),
        ("T-shirt", "t-shirt"),
        ("red -- blue", "red blue"),
        ("pre- and post-war", "pre and post-war"),
        ("No.7, 2 x4 and 3.5", "no.7 2 x4 and 3.5"),
        ("U.S. flag.", "u.s flag"),
        ("Caf\u00e9 CR\u00c8ME", "caf\u00e9 cr\u00e8me"),
        ("cafe\u0301", "caf\u00e9"),  # the accent typed as a sign of its own
        ("\ufb01sh", "fish"),  # a ligature
        ("man\U0001f600hat", "man hat"),
    ],
)
def test_tokenize(phrase, tokens):
    assert tokenize(phrase) == tokens.split()


def write_vectors(path, lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


def test_read_made_vectors(tmp_path):
    lines = ["the 1 2 3", "caf\u00e9 -0.5 1e-3 0", "\u2028 7 8 9", "the 4 5 6"]
    path = write_vectors(tmp_path / "three.txt", lines)
    vectors = read_glove_text(path)  # of a word given twice the first
    assert (vectors.name, vectors.dim) == ("three", 3)
    # A line feed alone ends a line, not the other signs that str.splitlines breaks at.
    assert vectors.index == {"the": 0, "caf\u00e9": 1, "\u2028": 2}
    assert vectors.matrix.dtype == np.float32
    assert vectors.matrix.tolist() == np.float32([[1, 2, 3], [-0.5, 1e-3, 0], [7, 8, 9]]).tolist()
    assert read_glove_text(path, "mine").name == "mine"


DAMAGE = {
    "too few numbers": ("w5 1 2", "2 numbers"),
    "too many numbers": ("w5 1 2 3 4", "4 numbers"),
    "no number": ("w5 1 two 3", "two"),
    "not finite": ("w5 1 nan 3", "not finite"),
    "only a word": ("w5", "0 numbers"),
    "not UTF-8": ("\udcff 1 2 3", "decode"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_line_is_passed_over_and_many_are_refused(damage, tmp_path):
    line, shown = DAMAGE[damage]
    lines = [f"w{n} {n} 1 0" for n in range(40)]
    path = tmp_path / "v.txt"

    def write(*bad):
        rows = [line if row in bad else good for row, good in enumerate(lines)]
        path.write_bytes("\n".join(rows).encode("utf-8", "surrogateescape") + b"\n")

    write(5)
    vectors = read_glove_text(path)
    assert list(vectors.index) == [f"w{n}" for n in range(40) if n != 5]
    assert vectors.matrix[:, 0].tolist() == [n for n in range(40) if n != 5]
    write(5, 6, 7, 20)
    told = f"expected GloVe's text format.*a word and 3 numbers a line; line 6: got .*{shown}"
    with pytest.raises(ValueError, match=f"^{path}: {told}"):
        read_glove_text(path)


@pytest.mark.parametrize(
    "written",
    [
        lambda rows: "\n".join(rows).encode() + b"\n",
        lambda rows: "\r\n".join(rows).encode(),
        lambda rows: b"\xef\xbb\xbf" + "\n".join(rows).encode(),
        lambda rows: f"{len(rows)} 3\n".encode() + "\n".join(rows).encode(),
        lambda rows: "\n".join(f"{row.replace(' ', chr(9))} " for row in rows[3:]).encode(),
        lambda rows: gzip.compress("\n".join(rows).encode()),
    ],
    ids=["GloVe", "CRLF", "with a mark", "word2vec", "tabs", "gzip"],
)
def test_common_forms_of_vectors_are_read(written, tmp_path):
    rows = [". . . 1 2 3", "at name@domain.com 4 5 6", "2000 .5 1e-3 -2", "café 7 8 9"]
    rows += [f"w{n} {n} 1 0" for n in range(30)]
    content = written(rows)
    path = tmp_path / ("v.txt.gz" if content[:2] == b"\x1f\x8b" else "v.txt")
    path.write_bytes(content)
    vectors = read_glove_text(path)
    assert vectors.dim == 3
    np.testing.assert_array_equal(vectors.matrix[vectors.index["café"]], [7, 8, 9])
    if "at name@domain.com" in vectors.index:
        assert list(vectors.index)[:3] == [". . .", "at name@domain.com", "2000"]
        np.testing.assert_allclose(vectors.matrix[2], [0.5, 1e-3, -2])
        assert len(vectors.index) == 34


@pytest.mark.parametrize("phrases", ["", "   ", "?!", ["a cup", "..."], ["a cup", None]])
def test_a_phrase_without_words_is_refused_by_its_number(phrases):
    number = "1 of 1" if isinstance(phrases, str) else "2 of 2"
    with pytest.raises(ValueError, match=f"phrase {number}: expected words that name a thing"):
        text.check_phrases(phrases)


@pytest.mark.parametrize("content", [b"", b"\n\n\n", b"PK\x03\x04\x00\xff\xfe" * 500])
def test_a_file_of_another_kind_or_none_is_refused(content, tmp_path):
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"^{path}: expected GloVe's text format"):
        read_glove_text(path)
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/none.txt.*make data"):
        load_vectors(str(tmp_path / "none.txt"))


def test_one_line_in_a_thousand_may_be_damaged(tmp_path):
    lines = [f"w{n} {n} 1 0" for n in range(5000)]
    few = [("x" * 350_000 if n == 4000 else line) for n, line in enumerate(lines)]
    found = read_glove_text(write_vectors(tmp_path / "few.txt", few)).index
    assert list(found) == [f"w{n}" for n in range(5000) if n != 4000]
    many = [("broken" if n % 300 == 299 else line) for n, line in enumerate(lines)]
    with pytest.raises(ValueError, match="line 300: got 0 numbers"):
        read_glove_text(write_vectors(tmp_path / "many.txt", many))


def test_packaged_glove_is_glove_6b(glove50):
    assert (glove50.name, glove50.dim, glove50.matrix.shape) == ("glove50", 50, (400_000, 50))
    assert sorted(glove50.index.values()) == list(range(400_000))
    # The start of the published file: its most frequent words, and the first numbers of "the".
    assert list(glove50.index)[:6] == ["the", ",", ".", "of", "to", "and"]
    first = [0.418, 0.24968, -0.41242, 0.1217, 0.34527]
    np.testing.assert_allclose(glove50.matrix[0, :5], first, atol=1e-6)
    assert np.isfinite(glove50.matrix).all()


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("shirt", (["shirt"], "exact")),
        ("t-shirt", (["t-shirt"], "exact")),
        ("blue-shirt", (["blue", "shirt"], "parts")),
        ("blue-zzz", (["blue"], "parts")),
        ("zz9", (["number"], "digits")),
        ("skatebord", (["skateboard"], "spelling")),  # a letter left out
        ("skateboaard", (["skateboard"], "spelling")),  # one too many
        ("skatebaord", (["skateboard"], "spelling")),  # two swapped
        ("skateboatd", (["skateboard"], "spelling")),  # one wrong
        ("sksteboatd", ([], "unknown")),  # two wrong
        ("blux", ([], "unknown")),  # too short to correct
        ("", ([], "unknown")),
    ],
)
def test_locate(word, expected):
    vectors = vectors_of("blue", "shirt", "t-shirt", "number", "skateboard", "shirts")
    assert locate(word, vectors) == expected


def test_locate_takes_the_most_frequent_correction_and_no_rare_one():
    vectors = vectors_of("brown", "crown", "drown")
    assert locate("xrown", vectors) == (["brown"], "spelling")
    rare = Vectors("made", {"brown": text.COMMON, "crown": text.COMMON - 1}, np.zeros((0, 4)))
    assert locate("xrown", rare) == (["crown"], "spelling")
    assert locate("browx", rare) == ([], "unknown")
    assert locate("no9", vectors) == ([], "unknown"), "there is no word `number` here"


def test_vocabulary_holds_the_given_phrases_words_alone(glove50):
    vocabulary, embeddings, table = build_vocabulary(PHRASES, glove50)
    expected = Counter(" ".join(PHRASES).lower().split())
    assert dict(zip(table.word, table["count"], strict=True)) == expected
    assert set(vocabulary.words[2:]) == set(expected)
    assert vocabulary.words[:3] == ("<pad>", "<unk>", "a")
    assert embeddings.shape == (len(vocabulary.words), 50)
    order = [(-expected[word], word) for word in vocabulary.words[2:]]
    assert order == sorted(order)
    assert vocabulary.index == {word: row for row, word in enumerate(vocabulary.words)}
    other, again, _ = build_vocabulary(PHRASES[::-1], glove50)
    assert other.words == vocabulary.words
    np.testing.assert_array_equal(again, embeddings)


def test_embeddings_are_the_words_own_vectors():
    vectors = vectors_of("red", "hat", "skateboard", "big", "number")
    phrases = ["red hat", "red skatebord", "big-red hat zq 77", "red zq zq"]
    vocabulary, embeddings, table = build_vocabulary(phrases, vectors)
    assert vocabulary.words == ("<pad>", "<unk>", "red", "hat", "77", "big-red", "skatebord")
    red, hat, skateboard, big, number = vectors.matrix
    expected = {"red": red, "hat": hat, "77": number}
    expected |= {"big-red": (big + red) / 2, "skatebord": skateboard}
    for word, vector in expected.items():
        np.testing.assert_allclose(embeddings[vocabulary.index[word]], vector, rtol=1e-6)
    assert not embeddings[0].any()
    counts = {"red": 3, "hat": 2, "77": 1, "big-red": 1, "skatebord": 1}
    mean = sum(counts[word] * vector for word, vector in expected.items()) / 8
    np.testing.assert_allclose(embeddings[1], mean, rtol=1e-5)
    found = table.set_index("word")[["count", "found", "stands_for"]].T.to_dict("list")
    assert found["zq"] == [3, "unknown", ""]
    assert found["big-red"] == [1, "parts", "big red"]
    assert found["skatebord"] == [1, "spelling", "skateboard"]
    for unknown in ([], [""], ["zzqx qqzz"]):
        with pytest.raises(ValueError, match=r"^vocabulary: expected phrases with words of made"):
            build_vocabulary(unknown, vectors)


def test_vocabulary_comes_back_from_disk(tmp_path, glove50):
    vocabulary, *_ = build_vocabulary(PHRASES, glove50)
    vocabulary.save(tmp_path / "vocabulary.txt")
    assert Vocabulary.load(tmp_path / "vocabulary.txt") == vocabulary
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.txt"]


@pytest.mark.parametrize(
    "words",
    [[], ["<pad>"], ["man", "hat"], ["<unk>", "<pad>", "man"], ["<pad>", "<unk>", "man", "man"]],
)
def test_a_damaged_vocabulary_is_refused(words, tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("\n".join(words))
    with pytest.raises(ValueError, match=r"^vocabulary: expected <pad>, <unk>, then each word"):
        Vocabulary.load(path)


@pytest.fixture
def vocabulary():
    return Vocabulary.of(["<pad>", "<unk>", "a", "man", "'s", "hat"])


def test_encode_pads_cuts_and_marks_unknown_words(vocabulary):
    phrases = ["A man's hat", "the hat", "", "!?", "hat a hat a hat a"]
    ids = vocabulary.encode(phrases, length=5)
    assert ids.dtype == np.int32
    assert ids.tolist() == [
        [2, 3, 4, 5, 0],
        [1, 5, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [5, 2, 5, 2, 5],
    ]
    assert vocabulary.encode(iter(phrases)).shape == (5, 12)
    assert vocabulary.encode([], 5).shape == (0, 5)
    assert vocabulary.encode(["<pad>", "<unk>"], 2).tolist() == [[1, 0], [1, 0]], "as words"
    found = vocabulary.passed_over("A tall man's red hat, red", 6)
    assert found == {"unknown": ("tall", "red"), "rare": (), "unread": ("red",)}
    frequent = Vocabulary.of(["<pad>", "<unk>", *map(str, range(FREQUENT - 2)), "oboe"])
    assert frequent.passed_over(f"the {FREQUENT - 3} oboe", 5)["rare"] == ("oboe",)


def said(sentence, *phrases, sentence_id=0):
    """Phrases of one sentence as the tables of a study have them."""
    words = sentence.split()
    rows = []
    for phrase in phrases:
        length = len(phrase.split())
        first = next(i for i in range(len(words)) if words[i : i + length] == phrase.split())
        rows.append(("1", sentence_id, first, phrase, sentence))
    names = ["image_id", "sentence_id", "first_word_index", "phrase", "sentence"]
    return pd.DataFrame(rows, columns=names)


def test_a_phrase_is_read_on_to_the_next_of_its_sentence():
    table = said(
        "A man in a blue hat holds a big dog and a cat near the river , a bird",
        *("A man", "a blue hat", "a big dog", "a cat", "the river", "a bird"),
    )
    assert described(table) == [
        "A man in a blue hat",
        "a blue hat holds a big dog",
        "a big dog",  # "and" begins another thing
        "a cat near the river",
        "the river",
        "a bird",  # nothing follows
    ]
    # Rows in another order, and beside those of another sentence, are told apart.
    other = said("a cat near a dog", "a cat", "a dog", sentence_id=1)
    mixed = pd.concat([table, other]).sample(frac=1, random_state=0)
    longer = dict(zip(mixed.sentence_id.astype(str) + mixed.phrase, described(mixed), strict=True))
    assert longer["0a cat"] == "a cat near the river"
    assert longer["1a cat"] == "a cat near a dog"


def test_a_phrase_is_not_read_on_too_far():
    table = said("a man who has just thrown a ball to a dog", "a man", "a ball", "a dog")
    assert described(table) == ["a man", "a ball", "a dog"]  # four words between; "to"
    assert described(table, between=4)[0] == "a man who has just thrown a ball"
    assert described(table, between=4, longest=7)[0] == "a man"
    assert described(said("two dogs a cat", "two dogs", "a cat")) == ["two dogs", "a cat"]


def test_a_phrase_names_two_things_where_a_second_determiner_stands():
    two = ["the cup above the star", "A man with his dog", "one of the men", "three cups in a row"]
    one = ["the red cup", "all the cups", "men", "", "cups of tea", "a the"]
    assert [text.names_two(phrase) for phrase in two + one] == [True] * 4 + [False] * 6
