"""Is what the phrase names in the picture at all, and how far is its box to be trusted?

A grid model always answers. Two logistic curves, fitted on val, turn the mean logit of the
networks of `train_presence`, and the expected IoU of a box, into probabilities (Platt 1999,
"Probabilistic Outputs for Support Vector Machines"). A rare word promises too much: the second
curve takes the word's rarity too.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene_utils.stats import log_odds, logistic


def last_tokens(tokens: np.ndarray) -> np.ndarray:
    """The last word of each phrase, mostly the thing it names: `(..., length)` to `(...)`."""
    last = np.maximum((tokens > 0).sum(axis=-1) - 1, 0)
    return np.take_along_axis(tokens, last[..., None], axis=-1)[..., 0]


def rarity(tokens: np.ndarray, words: int) -> np.ndarray:
    """Logarithm of the rank by frequency in train of each phrase's last word, `(n, length)` to
    `(n,)`; one that is not among the `words` known has the rank after them."""
    last = last_tokens(tokens)
    return np.log1p(np.where(last > 1, last, words).astype(np.float64))


def hit_probability(
    curve: Sequence[float], expected_iou: np.ndarray, rarity: np.ndarray
) -> np.ndarray:
    """Probability `(n, k)` that boxes of expected IoU `(n, k)` for phrases of `rarity (n,)` have an
    IoU of .5 with the truth; the `curve` has a slope for each, and an offset."""
    return logistic(curve, log_odds(expected_iou), rarity[:, None])


@dataclass(frozen=True)
class Presence:
    """The two curves: of the mean of the networks' logits, and that of `hit_probability`."""

    presence: tuple[float, float]
    hit: tuple[float, float, float]

    def present_probability(self, logit: np.ndarray) -> np.ndarray:
        """Probability that the phrase is about this picture, if it is as likely as not."""
        return logistic(self.presence, np.asarray(logit, np.float64))


def load_presence(folder: Path) -> Presence | None:
    """The curves that `train_presence` left in the folder, or None where it has not been."""
    path = folder / "presence.json"
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return Presence(tuple(known["presence"]), tuple(known["hit"]))
