"""The phrases of a sentence help each other: a box of one makes boxes of another likelier.

In "a man in a blue shirt" the man is he whose box holds the shirt's. What a pair of boxes says is
learned from annotations alone, see `train_sentences`. A grid model's candidates for all phrases of
a sentence are then weighed together. (Wang et al. 2016, "Structured Matching for Phrase
Localization", couple phrases in a like way.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

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
    """Ordered pairs of phrases of one sentence, the one helped by the other."""

    one: np.ndarray  # (m,), a row number of a table of phrases
    other: np.ndarray  # (m,), likewise
    tokens: np.ndarray  # (m, 8 + 5 + 8): the one, what is between if they are neighbours, the other
    # (m, 3): whether the one comes first, whether they are neighbours with few words between, and
    # how many phrases apart they are, in fourths up to 1.
    order: np.ndarray


def pairs_of(phrases: pd.DataFrame, vocabulary: Vocabulary) -> Pairs:
    """All pairs of the table; it has image_id, sentence_id, first_word_index, phrase, sentence."""
    first = phrases.first_word_index.to_numpy(int)
    end = first + phrases.phrase.str.split().str.len().to_numpy(int)
    words = phrases.sentence.str.lower().str.split().tolist()

    def padded(words: Sequence[str], length: int) -> list[int]:
        ids = [vocabulary.index.get(word, 1) for word in words[-length:]]
        return ids + [0] * (length - len(ids))

    read = [padded(tokenize(phrase), PHRASE) for phrase in phrases.phrase]
    one, other, tokens, order = [], [], [], []
    for rows in phrases.groupby(["image_id", "sentence_id"], sort=False).indices.values():
        rows = rows[np.argsort(first[rows], kind="stable")]
        for (i, a), (j, b) in permutations(enumerate(rows), 2):
            low, high = (a, b) if i < j else (b, a)
            joint = words[a][end[low] : first[high]]
            near = abs(i - j) == 1 and len(joint) <= JOINT
            one.append(a)
            other.append(b)
            tokens.append(read[a] + padded(joint if near else [], JOINT) + read[b])
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
    table = pd.DataFrame({"first_word_index": first, "phrase": list(phrases)})
    return table.assign(image_id="", sentence_id=0, sentence=sentence)


def factors(said: Callable, boxes: np.ndarray, pairs: Pairs) -> np.ndarray:
    """How much likelier each candidate of each pair's one is for each of its other's first
    `HELPERS`, `(m, k, l)`; `boxes (n, k, 4)` are the candidates of the n phrases.

    `said` gives its logarithm, for tokens and order of `Pairs` and boxes `(m, k, 4)`, `(m, l, 4)`.
    """
    heard = boxes[:, :HELPERS]
    found = [np.zeros((0, boxes.shape[1], heard.shape[1]), np.float32)]
    for start in range(0, len(pairs.one), 64):
        part = slice(start, start + 64)
        one, other = boxes[pairs.one[part]], heard[pairs.other[part]]
        found.append(np.asarray(said(pairs.tokens[part], pairs.order[part], one, other)))
    return np.exp(np.concatenate(found))


def agree(factors: np.ndarray, shares: np.ndarray, pairs: Pairs, weight: float) -> np.ndarray:
    """New shares `(n, k)` of the candidates of n phrases with these `pairs`.

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
