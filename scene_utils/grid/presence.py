"""Is what the phrase names in the picture at all, and how far is its box to be trusted?

A grid model always answers. Two logistic curves, fitted on val, turn the mean logit of the
networks of `train_presence` and the expected IoU of a box into probabilities (Platt 1999,
"Probabilistic Outputs for Support Vector Machines").
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene_utils.stats import log_odds, logistic


@dataclass(frozen=True)
class Presence:
    """Slope and offset of the two curves: of the mean of the networks' logits, and of the log odds
    of the expected IoU."""

    presence: tuple[float, float]
    hit: tuple[float, float]

    def hit_probability(self, expected_iou: np.ndarray) -> np.ndarray:
        """Probability that a box of this expected IoU has an IoU of .5 with the truth."""
        return logistic(log_odds(expected_iou), self.hit)

    def present_probability(self, logit: np.ndarray) -> np.ndarray:
        """Probability that the phrase is about this picture, if it is as likely as not."""
        return logistic(np.asarray(logit, np.float64), self.presence)


def load_presence(folder: Path) -> Presence | None:
    """The curves that `train_presence` left in the folder, or None where it has not been."""
    path = folder / "presence.json"
    if not path.is_file():
        return None
    known = json.loads(path.read_text(encoding="utf-8"))
    return Presence(tuple(known["presence"]), tuple(known["hit"]))
