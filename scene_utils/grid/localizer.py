"""The grid model at work: load it, ask it for phrases in one picture, or for a whole split."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import numpy as np
import pandas as pd
import tensorflow as tf

from scene_utils import box_ops, grounding
from scene_utils.dataset.mentions import prediction_table
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid.ensemble import Asker, Ensemble, compiled, load_members
from scene_utils.grid.network import STRIDE, ranked_boxes
from scene_utils.grid.presence import Presence, load_presence
from scene_utils.grid.sentences import Context, Pairs, Together, load_context, pairs_of, phrases_of
from scene_utils.grounding import Grounding
from scene_utils.images import GREY, ImageSource, open_image, squeeze
from scene_utils.paths import PRETRAINED
from scene_utils.words import Vocabulary, tokenize

SHIPPED = PRETRAINED / "grid"
RANKS = 10
PICTURES_REMEMBERED = 16


@dataclass(frozen=True)
class GridLocalizer:
    """A trained grid model with its vocabulary."""

    settings: dict
    vocabulary: Vocabulary
    ensemble: Ensemble = field(repr=False)
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

    def _probabilities(self, worth: np.ndarray, pairs: Pairs | None) -> np.ndarray:
        curve = self.presence if pairs is None else self.context
        return worth if curve is None else curve.hit_probability(worth)

    @cached_property
    def _together(self) -> Together:
        if self.context is None:
            raise ValueError(
                "sentence: expected a model that weighs the phrases of a sentence together, got "
                "one without context.json; notebook 04 trains it on real data"
            )
        return Together(self.context)

    @cached_property
    def _see(self):
        pixels = tf.TensorSpec((1, self.size, self.size, 3), tf.float32)
        seeing = [member.visual for member in self.ensemble.members]
        return compiled(self.ensemble.see, seeing, [pixels])

    @cached_property
    def _answer(self):
        def answer(maps, tokens):
            return self.ensemble.ask(maps, tokens[None])

        maps = tuple(tf.TensorSpec(part.shape, part.dtype) for part in self._see.structured_outputs)
        tokens = tf.TensorSpec((None, self.ensemble.length), tf.int32)
        asked = [part for member in self.ensemble.members for part in (member.text, member.head)]
        return compiled(answer, [*asked, *self.ensemble.networks], [maps, tokens])

    @cached_property
    def _rank(self):
        return tf.function(ranked_boxes, reduce_retracing=True)

    def ground(
        self,
        image: ImageSource,
        phrases: str | Sequence[str],
        top_k: int = 5,
        sentence: str = "",
    ) -> Grounding | list[Grounding]:
        """Boxes for a phrase, or a list of answers for a list of phrases, in one picture.

        `image` is whatever `images.open_image` takes. A picture asked before is not seen again.
        With a `sentence` that the phrases stand in, they help each other, see `context`; `heat`
        stays where each phrase looks by itself. Raises ImageError for what is no picture,
        ValueError for `top_k` outside 1-30, for a sentence that lacks one of the phrases, and for
        a sentence where the model has no `context.json`.
        """
        if not 1 <= top_k <= 30:
            raise ValueError(f"top_k: expected 1 to 30, got {top_k}")
        asked = [phrases] if isinstance(phrases, str) else list(phrases)
        pairs = pairs_of(phrases_of(sentence, asked), self.vocabulary) if sentence else None
        together = self._together if sentence else None
        picture = open_image(image)
        width, height = picture.size
        # The picture as it is given: to squeeze it takes longer than to answer.
        key = picture.size, hashlib.sha256(picture.tobytes()).digest()
        if key not in self._maps:
            pixels = squeeze(picture, self.size)
            self._maps[key] = self._see(tf.constant(pixels[None], tf.float32))
            if len(self._maps) > PICTURES_REMEMBERED:
                self._maps.popitem(last=False)
        tokens = self.vocabulary.encode(asked, self.ensemble.length)
        found = self._answer(self._maps[key], tf.constant(tokens))
        likely, shares = found.boxes, found.shares
        if together is not None:
            shares = together.weigh(likely.numpy(), shares.numpy(), pairs)
        boxes, worth = map(np.asarray, self._rank(likely, shares, top_k))
        heat, weights, logits, anchor = map(np.asarray, found[2:])
        scores = self._probabilities(worth, pairs)
        present = self.presence and self.presence.present_probability(logits)
        answers, cells = [], self.size // STRIDE
        for row, phrase in enumerate(asked):
            words = tokenize(phrase)[: self.ensemble.length]
            answers.append(
                Grounding(
                    phrase,
                    box_ops.to_pixels(boxes[row], width, height),
                    scores[row],
                    None if present is None else float(present[row]),
                    heat[row].reshape(cells, cells),
                    anchor[row].reshape(cells, cells),
                    tuple((word, float(weights[row, place])) for place, word in enumerate(words)),
                    tuple(self.vocabulary.unknown(phrase)),
                )
            )
        return answers[0] if isinstance(phrases, str) else answers

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
        tokens = self.vocabulary.encode(phrases, self.ensemble.length)
        asker = Asker(self.ensemble, self.size, ranks)
        every = np.arange(len(pictures))
        likely, shares, logits = asker.candidates(pictures, every, rows, tokens)
        if pairs is not None:
            shares = self._together.weigh(likely, shares, pairs)
        boxes, worth = asker.rank(likely, shares)
        present = self.presence.present_probability(logits) if self.presence else logits
        return boxes, self._probabilities(worth, pairs), present

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
        `sentences` the phrases of a sentence help each other, see `context`.
        """
        phrases = phrases[phrases.image_id.isin(store.row)].reset_index(drop=True)
        rows = phrases.image_id.map(store.row).to_numpy(int)
        pairs = pairs_of(phrases, self.vocabulary) if sentences else None
        texts = phrases.phrase.tolist()
        boxes, scores, _ = self.relative_boxes(texts, store.pictures, rows, ranks, pairs)
        return prediction_table(phrases, boxes, scores)


def load_localizer(folder: Path | str = SHIPPED) -> GridLocalizer:
    """Load a grid model that `grid_training.train_grid` finished; by default the one that ships.

    Raises FileNotFoundError for a folder that is no finished training.
    """
    folder = Path(folder)
    members = load_members(folder)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    vocabulary = Vocabulary.load(folder / "vocabulary.txt")
    presence = load_presence(folder, members)
    ensemble = Ensemble(members, presence.networks if presence else ())
    context = load_context(folder, vocabulary, settings["word_dim"])
    return GridLocalizer(settings, vocabulary, ensemble, presence, context)
