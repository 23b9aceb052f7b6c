"""The phrases of a sentence help each other: a box of one makes boxes of another likelier.

In "a man in a blue shirt" the man is he whose box holds the shirt's. What a pair of boxes says is
learned from annotations alone: of the entities of a picture that are of a phrase's category, which
is the one, given the box of another phrase of the sentence? No picture is looked at, so all
annotated train pictures serve, also those that are not at hand, and no picture can be learned by
heart. A grid model's candidates for all phrases of a sentence are then weighed together. (Wang et
al. 2016, "Structured Matching for Phrase Localization", couple phrases in a like way.)
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils.words import Vocabulary, tokenize

PHRASE, JOINT = 8, 5  # the last words of a phrase, the words between two, that are read
HELPERS = 32  # best candidates of another phrase that are heard
ROUNDS = 2
# What one phrase may say of a box, in units of log probability.
LOUDEST = 4.0


@dataclass(frozen=True)
class Pairs:
    """Ordered pairs of phrases of one sentence: `one (m,)` is helped by `other (m,)`, both row
    numbers of a table of phrases; `tokens (m, 8 + 5 + 8)` of the one, of the words between if they
    are neighbours, and of the other; `order (m, 3)`: whether the one comes first, whether they are
    neighbours with few words between, and how many phrases apart they are, in fourths up to 1."""

    one: np.ndarray
    other: np.ndarray
    tokens: np.ndarray
    order: np.ndarray


def pairs_of(phrases: pd.DataFrame, vocabulary: Vocabulary) -> Pairs:
    """All pairs of the table; it has image_id, sentence_id, first_word_index, phrase, sentence."""
    first = phrases.first_word_index.to_numpy(int)
    end = first + phrases.phrase.str.split().str.len().to_numpy(int)
    words = phrases.sentence.str.lower().str.split().tolist()
    ids = [
        [vocabulary.index.get(token, 1) for token in tokenize(phrase)] for phrase in phrases.phrase
    ]
    one, other, tokens, order = [], [], [], []
    sentences = phrases.groupby(["image_id", "sentence_id"], sort=False).indices
    for rows in sentences.values():
        rows = rows[np.argsort(first[rows], kind="stable")]
        for i, a in enumerate(rows):
            for j, b in enumerate(rows):
                if i == j:
                    continue
                low, high = (a, b) if i < j else (b, a)
                joint = words[a][end[low] : first[high]]
                near = abs(i - j) == 1 and len(joint) <= JOINT
                line = np.zeros(PHRASE + JOINT + PHRASE, np.int32)
                line[: len(ids[a][-PHRASE:])] = ids[a][-PHRASE:]
                if near:
                    line[PHRASE : PHRASE + len(joint)] = [
                        vocabulary.index.get(word, 1) for word in joint
                    ]
                line[PHRASE + JOINT :][: len(ids[b][-PHRASE:])] = ids[b][-PHRASE:]
                one.append(a)
                other.append(b)
                tokens.append(line)
                order.append((i < j, near, min(abs(i - j), 4) / 4))
    return Pairs(
        np.array(one, np.int64),
        np.array(other, np.int64),
        np.array(tokens, np.int32).reshape(-1, PHRASE + JOINT + PHRASE),
        np.array(order, np.float32).reshape(-1, 3),
    )


def phrases_of(sentence: str, phrases: Sequence[str]) -> pd.DataFrame:
    """A table for `pairs_of` of phrases that stand in a sentence, in any case and order.

    A phrase given twice is its second occurrence. Raises ValueError for one that is not there.
    """
    words = sentence.lower().split()
    taken, first = set(), []
    for phrase in phrases:
        own = phrase.lower().split()
        places = [
            place
            for place in range(len(words))
            if words[place : place + len(own)] == own and (place, len(own)) not in taken
        ]
        if not own or not places:
            raise ValueError(f"sentence: expected to find '{phrase}' in it, got '{sentence}'")
        first.append(places[0])
        taken.add((places[0], len(own)))
    return pd.DataFrame(
        {
            "image_id": "",
            "sentence_id": 0,
            "first_word_index": first,
            "phrase": list(phrases),
            "sentence": sentence,
        }
    )


# Tokens and order of `Pairs`, and boxes `(m, k, 4)`, `(m, l, 4)`, to `(m, k, l)`: the logarithm of
# how much likelier each box of the one is for each of the other.
Said = Callable[..., np.ndarray]


def factors(said: Said, boxes: np.ndarray, pairs: Pairs) -> np.ndarray:
    """How much likelier each candidate of each pair's one is for each of its other's first
    `HELPERS`, `(m, k, l)`; `boxes (n, k, 4)` are the candidates of the n phrases."""
    heard = boxes[:, :HELPERS]
    found = [np.zeros((0, boxes.shape[1], heard.shape[1]), np.float32)]
    for start in range(0, len(pairs.one), 64):
        part = slice(start, start + 64)
        one, other = boxes[pairs.one[part]], heard[pairs.other[part]]
        found.append(np.asarray(said(pairs.tokens[part], pairs.order[part], one, other)))
    return np.exp(np.concatenate(found))


def agree(factors: np.ndarray, shares: np.ndarray, pairs: Pairs, weight: float) -> np.ndarray:
    """New shares `(n, k)` of the candidates of n phrases with these `pairs`; see `Together`.

    Each phrase hears from each other of its sentence how likely its own boxes are, the mean over
    the other's boxes by their shares; in the second round these are the new ones.
    """
    if not len(factors):
        return shares
    before, new = np.log(shares + 1e-9), shares
    for _ in range(ROUNDS):
        told = new[pairs.other, :HELPERS]
        told = told / told.sum(axis=1, keepdims=True)
        message = np.log(np.einsum("mkl,ml->mk", factors, told))
        middle = (message * new[pairs.one]).sum(axis=1, keepdims=True)
        heard_of = np.zeros_like(before)
        np.add.at(heard_of, pairs.one, np.clip(message - middle, -LOUDEST, LOUDEST))
        logits = before + weight * heard_of
        new = np.exp(logits - logits.max(axis=1, keepdims=True))
        new /= new.sum(axis=1, keepdims=True)
    return new


@dataclass(frozen=True)
class Context:
    """How much what phrases of a sentence say of each other counts, and the curve of
    `presence.hit_probability` for the expected IoU after it."""

    weight: float
    hit: tuple[float, float, float]


def load_context(folder: Path) -> Context | None:
    """What `train_sentences` left in the folder, or None where it has not been."""
    path = folder / "context.json"
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return Context(known["weight"], tuple(known["hit"]))
