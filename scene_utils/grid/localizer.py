"""The grid model at work: load it, ask it for phrases in one picture, or for a whole split.

It answers by exported networks, see `exported`; nothing here needs TensorFlow.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from scene_utils import box_ops, exported, grounding
from scene_utils.dataset.mentions import prediction_table
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid.folders import files, member_folders, read_settings
from scene_utils.grid.presence import Presence, hit_probability, load_presence, rarity
from scene_utils.grid.ranking import distinct, ranked_boxes
from scene_utils.grid.sentences import (
    Context,
    Pairs,
    agree,
    factors,
    load_context,
    pairs_of,
    phrases_of,
)
from scene_utils.grounding import Grounding
from scene_utils.images import GREY, ImageSource, open_image, squeeze
from scene_utils.words import Vocabulary, check_phrases, tokenize

RANKS = 10
PICTURES_REMEMBERED = 16


@dataclass(frozen=True)
class GridLocalizer:
    """A trained grid model with its vocabulary.

    Its networks are `see`, from pixels `(1, size, size, 3)` to the map of each member; `ask`, from
    the maps and tokens `(n, length)` to what `ensemble.Asked` tells of n phrases; and, if it reads
    sentences, `context`, see `sentences.Said`.
    """

    settings: dict
    vocabulary: Vocabulary
    networks: dict[str, exported.Network] = field(repr=False)
    presence: Presence | None = field(repr=False)
    context: Context | None = field(repr=False, default=None)
    sees = True
    from_pixels = True

    @property
    def label(self) -> str:
        return grounding.label(self.settings, "grid")

    @property
    def reads_sentences(self) -> bool:
        """Whether phrases of a sentence can help each other, see `sentences`."""
        return self.context is not None

    @property
    def size(self) -> int:
        """Side in px at which the model sees a picture."""
        return self.settings["size"]

    @cached_property
    def _maps(self) -> OrderedDict:
        return OrderedDict()

    def _see(self, pixels: np.ndarray) -> list[np.ndarray]:
        return self.networks["see"](pixels[None].astype(np.float32))

    def _weighed(self, boxes: np.ndarray, shares: np.ndarray, pairs: Pairs | None) -> np.ndarray:
        if pairs is None:
            return shares
        if self.context is None:
            raise ValueError(
                "sentence: expected a model that weighs the phrases of a sentence together, got "
                "one without context.json; notebook 04b trains it on real data"
            )
        return agree(factors(self.said, boxes, pairs), shares, pairs, self.context.weight)

    def said(self, *arrays: np.ndarray) -> np.ndarray:
        """What boxes of one phrase say for those of another, see `sentences.Said`."""
        return self.networks["context"](*arrays)[0]

    def _probabilities(
        self, expected_iou: np.ndarray, tokens: np.ndarray, pairs: Pairs | None
    ) -> np.ndarray:
        fitted = self.presence if pairs is None else self.context
        if fitted is None:
            return expected_iou
        return hit_probability(fitted.hit, expected_iou, rarity(tokens, len(self.vocabulary.words)))

    def ground(
        self,
        image: ImageSource,
        phrases: str | Sequence[str],
        top_k: int = 5,
        sentence: str = "",
    ) -> Grounding | list[Grounding]:
        """Boxes for a phrase, or a list of answers for a list of phrases, in one picture: at most
        `top_k`, fewer where others would be copies of these, see `ranking.distinct`.

        `image` is whatever `images.open_image` takes. A picture asked before is not seen again.
        With a `sentence` that the phrases stand in, they help each other, see `sentences`; `heat`
        stays where each phrase looks by itself. Raises ImageError for what is no picture,
        ValueError for `top_k` outside 1-30, for a sentence that lacks one of the phrases, and for
        a sentence where the model has no `context.json`.
        """
        if not 1 <= top_k <= 30:
            raise ValueError(f"top_k: expected 1 to 30, got {top_k}")
        asked = check_phrases(phrases)
        if not asked:
            return []
        pairs = pairs_of(phrases_of(sentence, asked), self.vocabulary) if sentence else None
        picture = open_image(image)
        width, height = picture.size
        # The picture as it is given: to squeeze it takes longer than to answer.
        key = picture.size, hashlib.sha256(picture.tobytes()).digest()
        if key not in self._maps:
            self._maps[key] = self._see(squeeze(picture, self.size))
            if len(self._maps) > PICTURES_REMEMBERED:
                self._maps.popitem(last=False)
        tokens = self.vocabulary.encode(asked, self.settings["length"])
        found = self.networks["ask"](*self._maps[key], tokens)
        likely, shares, heat, weights, logits, landmark = found
        shares = self._weighed(likely, shares, pairs)
        boxes, expected_iou = ranked_boxes(likely, shares, top_k)
        scores = self._probabilities(expected_iou, tokens, pairs)
        present = self.presence and self.presence.present_probability(logits)
        answers, cells = [], round(heat.shape[1] ** 0.5)
        for row, phrase in enumerate(asked):
            length, kept = self.settings["length"], distinct(boxes[row])
            words = tokenize(phrase)[:length]
            answers.append(
                Grounding(
                    phrase,
                    box_ops.to_pixels(boxes[row, kept], width, height),
                    scores[row, kept],
                    None if present is None else float(present[row]),
                    heat[row].reshape(cells, cells),
                    landmark[row].reshape(cells, cells),
                    tuple((word, float(weights[row, place])) for place, word in enumerate(words)),
                    **self.vocabulary.passed_over(phrase, length),
                )
            )
        return answers[0] if isinstance(phrases, str) else answers

    def candidates(
        self, tokens: np.ndarray, pictures: np.ndarray, rows: np.ndarray
    ) -> list[np.ndarray]:
        """Candidates `(n, k, 4)`, their shares `(n, k)` and the logits `(n,)` of `presence` of n
        phrases `tokens (n, length)`; `rows (n,)` says which of `pictures (p, size, size, 3)` each
        is about."""
        found: list[np.ndarray] = []
        for row in np.unique(rows):
            asked = np.flatnonzero(rows == row)
            answers = self.networks["ask"](*self._see(pictures[row]), tokens[asked])
            answers = [answers[0], answers[1], answers[4]]
            found = found or [np.zeros((len(rows), *part.shape[1:]), "f4") for part in answers]
            for whole, part in zip(found, answers, strict=True):
                whole[asked] = part
        return found or [np.zeros((0, 1, 4), "f4"), np.zeros((0, 1), "f4"), np.zeros(0, "f4")]

    def relative_boxes(
        self,
        phrases: Sequence[str],
        pictures: np.ndarray,
        rows: np.ndarray,
        ranks: int = RANKS,
        pairs: Pairs | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes `(n, ranks, 4)` as fractions of the picture, scores `(n, ranks)` and probabilities
        `(n,)` that the phrases are about their pictures, NaN where the model has none; `Grounding`.

        `pictures (p, size, size, 3)` uint8 RGB; `rows (n,)` says which one each phrase is about.
        Phrases with `pairs` among them help each other.
        """
        tokens = self.vocabulary.encode(phrases, self.settings["length"])
        likely, shares, logits = self.candidates(tokens, pictures, rows)
        shares = self._weighed(likely, shares, pairs)
        boxes, expected_iou = ranked_boxes(likely, shares, ranks)
        present = self.presence.present_probability(logits) if self.presence else logits
        return boxes, self._probabilities(expected_iou, tokens, pairs), present

    def pictures(
        self, folder: Path, ids: Iterable[str], cache: Path, progress: bool = True
    ) -> PictureStore:
        """Pictures `folder/<id>.jpg` at the model's size, squeezed once into `cache`."""
        return squeeze_pictures(folder, ids, self.size, cache, progress=progress)

    def seen(self, store: PictureStore, ids: list[str]) -> np.ndarray:
        """What it sees of pictures of a store, for `look`, and last of one without content."""
        grey = np.full((1, self.size, self.size, 3), GREY, np.uint8)
        return np.concatenate([store.pictures[[store.row[image_id] for image_id in ids]], grey])

    def look(self, phrases: Sequence[str], seen: np.ndarray, rows: np.ndarray) -> tuple:
        """The best box `(n, 4)` as fractions and `present (n,)` of phrases in what is `seen`."""
        boxes, _, present = self.relative_boxes(phrases, seen, rows, 1)
        return boxes[:, 0], present

    def predict(
        self,
        phrases: pd.DataFrame,
        store: PictureStore,
        ranks: int = RANKS,
        sentences: bool = False,
    ) -> pd.DataFrame:
        """A prediction table for rows of an entities phrase table, `ranks` boxes a mention.

        Phrases of a picture that is not in the store get no row. No column of boxes is read. With
        `sentences` the phrases of a sentence help each other, see `sentences`.
        """
        phrases = phrases[phrases.image_id.isin(store.row)].reset_index(drop=True)
        rows = phrases.image_id.map(store.row).to_numpy(int)
        pairs = pairs_of(phrases, self.vocabulary) if sentences else None
        texts = phrases.phrase.tolist()
        boxes, scores, _ = self.relative_boxes(texts, store.pictures, rows, ranks, pairs)
        return prediction_table(phrases, boxes, scores)


def load_grid_localizer(folder: Path | str) -> GridLocalizer:
    """Load a grid model that `train.train_grid` finished.

    Raises FileNotFoundError for a folder that is no finished training.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    made_of = [path for member in member_folders(folder) for path in files(member)]
    networks = exported.load("grid", folder.resolve(), files=made_of)
    vocabulary = Vocabulary.load(folder / "vocabulary.txt")
    return GridLocalizer(
        settings, vocabulary, networks, load_presence(folder), load_context(folder)
    )
