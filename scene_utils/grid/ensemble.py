"""Grid models that answer together: every cell of each is a candidate.

Models that differ in their seed alone err in different places (Lakshminarayanan et al. 2017,
"Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"). Each member has an
equal part of the probability, and the box with the highest expected IoU under it is one that
several members agree on. Here they may also differ in how long they were trained, and by whom they
were taught. One model is an ensemble of one.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import tensorflow as tf

from scene_utils.grid.network import (
    CANDIDATES,
    STRIDE,
    GridModel,
    candidates,
    load_grid,
    ranked_boxes,
)

# In what members may differ.
OWN = ("seed", "epochs", "teachers", "taught_by", "fingerprint")


class Told(NamedTuple):
    """What n phrases get: `boxes (n, k, 4)` and `shares (n, k)`, see `grid_model.candidates`, k of
    them as `Ensemble.count` says; `heat (n, cells²)`, the probability of each cell; the words'
    `weights (n, length)`; the `logits (n,)` of `presence`, NaN where there is no network; and
    `anchor (n, cells²)`, the share of the second reading's looks at each cell."""

    boxes: tf.Tensor
    shares: tf.Tensor
    heat: tf.Tensor
    weights: tf.Tensor
    logits: tf.Tensor
    anchor: tf.Tensor


@dataclass(frozen=True)
class Ensemble:
    """Members of one vocabulary and input size; for each the network of `presence`, or none."""

    members: tuple[GridModel, ...] = field(repr=False)
    networks: tuple[keras.Model, ...] = field(repr=False, default=())

    @property
    def length(self) -> int:
        """Words of a phrase that are read."""
        return self.members[0].length

    def count(self, size: int) -> int:
        """Candidates of a phrase in a picture seen at `size` px."""
        return len(self.members) * min(CANDIDATES, (size // STRIDE) ** 2)

    def see(self, pixels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Each member's map of pictures `(b, size, size, 3)`, see `GridModel`."""
        return tuple(member.visual(pixels, training=False) for member in self.members)

    def ask(self, maps: tuple[tf.Tensor, ...], tokens: tf.Tensor) -> Told:
        """Phrases `tokens (b, p, length)` of the pictures that gave the maps; n = b * p."""
        each = [member.ask(grid, tokens) for member, grid in zip(self.members, maps, strict=True)]
        scores = [one.scores for one in each]
        if len(each) > 1:
            # Members' scores have no common zero; their logarithms of probability do.
            scores = [tf.nn.log_softmax(one) for one in scores]
        boxes = tf.concat([one.boxes for one in each], axis=1)
        found = candidates(tf.concat(scores, axis=-1), boxes, len(each) * CANDIDATES)
        logits = [
            network([one.seen, one.scores, one.phrases], training=False)
            for network, one in zip(self.networks, each, strict=bool(self.networks))
        ] or [tf.fill(tf.shape(scores[0])[:1], np.nan)]
        heat = [tf.nn.softmax(one) for one in scores]
        weights = [one.weights for one in each]
        anchor = [tf.exp(one.looked) for one in each]
        means = (tf.add_n(p) / len(p) for p in (heat, weights, logits, anchor))
        return Told(*found, *means)


def compiled(function: Callable, models: Iterable[keras.Model], signature: Sequence) -> Callable:
    """`function`, which asks the models, for arguments as the signature says, with the weights that
    they have now as constants.

    What is done to weights alone, their casts and the order in memory that a convolution wants, is
    then done once and not at each call.
    """
    weights = [(v, v.numpy()) for model in models for v in model.variables]

    def with_weights(*arguments):
        with keras.StatelessScope([(v, tf.constant(value)) for v, value in weights]):
            return function(*arguments)

    return tf.function(with_weights, input_signature=signature).get_concrete_function()


def member_folder(folder: Path, number: int) -> Path:
    """Where member `number`, from 0, of a grid model lies: the first in the model's own folder."""
    return folder / f"member{number + 1}" if number else folder


def member_folders(folder: Path) -> list[Path]:
    """Folders of all members of a finished grid model.

    Raises FileNotFoundError where one is no finished training, ValueError where one differs from
    the first in more than `OWN`.
    """
    found: list[dict] = []
    while not found or len(found) < found[0]["members"]:
        path = member_folder(folder, len(found)) / "settings.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{path.parent}: expected a finished grid model, found no settings.json"
            )
        found.append(json.loads(path.read_text(encoding="utf-8")))
        for name, value in found[0].items():
            if name not in OWN and found[-1][name] != value:
                raise ValueError(
                    f"{path}: expected {name} {value!r} as of the first member, got "
                    f"{found[-1][name]!r}; train the members anew"
                )
    return [member_folder(folder, number) for number in range(len(found))]


def record(folder: Path) -> bytes:
    """Settings and histories of all members: what is fitted to a model holds for this one alone."""
    files = ("settings.json", "history.csv")
    return b"".join((member / f).read_bytes() for member in member_folders(folder) for f in files)


def load_members(folder: Path) -> tuple[GridModel, ...]:
    """The models that `grid_training.train_members` left in the folder; see `member_folders`."""
    return tuple(load_grid(member) for member in member_folders(folder))


def phrase_batches(rows: np.ndarray, per_picture: int = 16, batch: int = 8) -> Iterator[np.ndarray]:
    """Numbers of the phrases of pictures `rows (n,)`, in arrays `(batch, per_picture)` whose rows
    are of one picture each. Short rows repeat their phrases, a short array its first row, so that
    every call of a model has the same shape."""
    order = np.argsort(rows, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(rows[order])) + 1)
    jobs = [
        group[start : start + per_picture]
        for group in groups
        for start in range(0, len(group), per_picture)
    ]
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        index = np.stack([np.resize(job, per_picture) for job in part])
        yield np.concatenate([index, np.repeat(index[:1], batch - len(part), axis=0)])


class Asker:
    """Answers phrases with models that see pictures at `size` px; compiled once."""

    def __init__(self, ensemble: Ensemble, size: int, ranks: int = 1):
        self.ensemble, self.size, self.ranks = ensemble, size, ranks

    @tf.function(reduce_retracing=True)
    def _ask(self, pixels, tokens):
        pixels = tf.cast(pixels, tf.float32)
        if pixels.shape[1] != self.size:
            pixels = tf.image.resize(pixels, (self.size, self.size))
        told = self.ensemble.ask(self.ensemble.see(pixels), tokens)
        return told.boxes, told.shares, told.logits

    @tf.function(reduce_retracing=True)
    def _rank(self, boxes, shares):
        return ranked_boxes(boxes, shares, self.ranks)

    def rank(self, boxes: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The best `ranks` of candidates, see `grid_model.ranked_boxes`."""
        parts = []
        for start in range(0, len(boxes), 256):
            part = slice(start, start + 256)
            parts.append(self._rank(tf.constant(boxes[part]), tf.constant(shares[part])))
        return tuple(np.concatenate(found) for found in zip(*parts, strict=True))

    def ask(
        self, pictures: np.ndarray, picture_rows: np.ndarray, rows: np.ndarray, tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Relative boxes `(n, ranks, 4)` and their expected IoU `(n, ranks)` of n phrases, see
        `grid_training.Mentions`, and the logits `(n,)` of `presence`, NaN where there is none."""
        boxes, shares, logits = self.candidates(pictures, picture_rows, rows, tokens)
        return *self.rank(boxes, shares), logits

    def candidates(
        self,
        pictures: np.ndarray,
        picture_rows: np.ndarray,
        rows: np.ndarray,
        tokens: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `ask`, but the candidates instead of the best of them, see `Told`."""
        count = self.ensemble.count(self.size)
        boxes = np.zeros((len(rows), count, 4), np.float32)
        shares = np.zeros((len(rows), count), np.float32)
        logits = np.zeros(len(rows), np.float32)
        for index in phrase_batches(rows):
            pixels = pictures[picture_rows[rows[index[:, 0]]]]
            found, share, logit = self._ask(pixels, tokens[index])
            boxes[index] = np.reshape(found, (*index.shape, count, 4))
            shares[index] = np.reshape(share, (*index.shape, count))
            logits[index] = np.reshape(logit, index.shape)
        return boxes, shares, logits
