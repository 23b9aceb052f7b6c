"""The source system, or one of its controls, at work: from a picture and phrases to boxes."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops, exported, grounding
from scene_utils.dataset.mentions import prediction_table
from scene_utils.features.encode import FeatureStore, cache_features, openvino_encoder
from scene_utils.features.weights import SIZE, Weights, find_weights
from scene_utils.grounding import Grounding
from scene_utils.images import GREY, ImageSource, read_squeezed
from scene_utils.words import Vocabulary, check_phrases

LEAST = 0.002  # smallest side of a box, as a fraction of the picture: a narrower one is widened


@dataclass(frozen=True)
class SourceModel:
    """A trained source system with its vocabulary; `weights` are its backbone's, if elsewhere."""

    settings: dict
    vocabulary: Vocabulary
    network: exported.Network = field(repr=False)
    weights: str | Path | None = None
    size = SIZE  # side in px of the square that a picture is squeezed to
    from_pixels = False  # it answers from features that may be cached, see `seen`
    reads_sentences = False

    @property
    def sees(self) -> bool:
        """Whether its answer depends on the picture at all."""
        return self.settings["model"] != "text-only"

    @cached_property
    def backbone(self) -> Weights:
        """Where its features come from. ValueError for other weights than those of its training."""
        names = ("backbone", "untrained", "weights_sha256")
        return find_weights(self.weights, *(self.settings[name] for name in names))

    def encode(self, pixels: np.ndarray) -> np.ndarray:
        """Features `(p, channels)` of pictures `(p, size, size, 3)`, in half precision as stored
        ones are; zeros for a model that does not see."""
        if not self.sees:
            return np.zeros((len(pixels), self.settings["channels"]), np.float16)
        return openvino_encoder(self.backbone)(pixels).astype(np.float16)

    def regress(self, features: np.ndarray, rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        """Relative corners `(n, 4)` of phrases `tokens (n, length)` in pictures `rows (n,)` of
        `features (p, channels)`, so wide that every answer is a box."""
        found = [np.zeros((0, 4), np.float32)]
        for part in np.array_split(np.arange(len(rows)), -(-len(rows) // 1024) or 1):
            found += self.network(features[rows[part]].astype(np.float32), tokens[part])
        corners = np.concatenate(found)
        low = np.minimum(corners[:, :2], 1 - LEAST)
        return np.concatenate([low, np.maximum(corners[:, 2:], low + LEAST)], axis=1)

    def ground(
        self,
        image: ImageSource,
        phrases: str | Sequence[str],
        top_k: int = 1,
        sentence: str = "",
        instances: bool = False,
    ) -> Grounding | list[Grounding]:
        """An answer to a phrase, or a list of answers to a list; one box each, however many are
        asked for, since the network gives one. It reads each phrase by itself."""
        grounding.check_top_k(top_k)
        asked, length = check_phrases(phrases), self.settings["length"]
        if not asked:
            return []
        pixels, width, height = read_squeezed(image, self.size)
        feature = self.encode(pixels[None])  # (1, channels)
        tokens = self.vocabulary.encode(asked, length)  # (n, 12)
        relative = self.regress(feature, np.zeros(len(asked), int), tokens)  # (n, 4)
        boxes = box_ops.to_pixels(relative, width, height)
        answers = [
            Grounding(phrase, box[None], **self.vocabulary.passed_over(phrase, length))
            for phrase, box in zip(asked, boxes, strict=True)
        ]
        return answers[0] if isinstance(phrases, str) else answers

    def pictures(self, folder: Path, ids: Iterable[str], cache: Path) -> FeatureStore | None:
        """Features of `folder/<id>.jpg`, made in `cache`; None for a model that does not see."""
        given = folder, ids, self.backbone, cache
        return cache_features(*given, engine="openvino") if self.sees else None

    def seen(self, store: FeatureStore, ids: list[str]) -> np.ndarray:
        """What it sees of pictures of a store, for `look`, and last of one without content."""
        grey = self.encode(np.full((1, self.size, self.size, 3), GREY, np.uint8))
        return np.concatenate([store.array(ids) if self.sees else grey.repeat(len(ids), 0), grey])

    def look(self, phrases: Sequence[str], seen: np.ndarray, rows: np.ndarray) -> tuple:
        """Boxes `(n, 4)` as fractions, of phrases in what is `seen`, and None: it does not say
        whether they are there."""
        tokens = self.vocabulary.encode(phrases, self.settings["length"])
        return self.regress(seen, rows, tokens), None

    def predict(self, phrases: pd.DataFrame, store: FeatureStore | None) -> pd.DataFrame:
        """A prediction table for rows of an entities phrase table; one box each, rank 1, score 1.

        Phrases of a picture that is not in the store get no row, if the model sees. No column of
        boxes is read.
        """
        if self.sees:
            phrases = phrases[phrases.image_id.isin(store.row)]
        rows, ids = pd.factorize(phrases.image_id)
        boxes, _ = self.look(phrases.phrase.tolist(), self.seen(store, list(ids)), rows)
        scores = np.ones((len(phrases), 1), np.float32)
        return prediction_table(phrases.reset_index(drop=True), boxes[:, None], scores)


def load_source(folder: Path, weights: str | Path | None = None) -> SourceModel:
    """The source system, or the control, that `train.train` finished in the folder."""
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.load(folder / "vocabulary.txt")
    networks = exported.load("source", folder.resolve(), files=[folder / "model.keras"])
    return SourceModel(settings, vocabulary, networks["regress"], weights)
