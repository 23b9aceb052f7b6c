"""The grid model at work: load it, ask it for phrases in one picture, or for a whole split.

It answers by exported networks, see `exported`; nothing here needs TensorFlow.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from scene_utils import box_ops, exported, grounding
from scene_utils.dataset.mentions import prediction_table
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid import places
from scene_utils.grid.folders import member_folders, read_fitted, read_settings
from scene_utils.grid.ranking import (
    around,
    distinct,
    hit_probability,
    ranked_boxes,
    rarity,
    single_things,
)
from scene_utils.grid.sentences import Pairs, agree, factors, pairs_of, phrases_of
from scene_utils.grounding import Grounding
from scene_utils.images import GREY, ImageSource, open_image, squeeze
from scene_utils.stats import log_odds, logistic
from scene_utils.words import Vocabulary, check_phrases, tokenize

PICTURES_REMEMBERED = 32
TOLD = 0, 1, 4, 6, 7  # of `ensemble.Asked`, what `candidates` gives
ASKED_AT_ONCE = 16  # phrases, where many are asked
# A photo with a longer side than this has pixels that the network did not see; Flickr30k's have it.
FEW_PIXELS = 500
SMALL = 0.2  # share of the photo under which an answer is looked at again
WHOLE = 1.3  # times the sides of a thing, in which its part is looked for
DOUBT = 0.1  # by so much a score may fall, for the second answer to be taken


@dataclass(frozen=True)
class GridLocalizer:
    """A trained grid model.

    Its networks are `see`, from pixels `(1, size, size, 3)` to the map of each member; `ask`, from
    the maps and tokens `(n, length)` to what `ensemble.Asked` tells of n phrases; and, if it reads
    sentences, `context`, see `sentences.factors`. `presence`, `context` and `instances` are what
    `folders.read_fitted` gives.
    """

    settings: dict
    vocabulary: Vocabulary
    networks: dict[str, exported.Network] = field(repr=False)
    presence: dict | None = field(repr=False)
    context: dict | None = field(repr=False)
    instances: dict | None = field(repr=False)
    _maps: OrderedDict = field(init=False, repr=False, default_factory=OrderedDict)
    sees = True
    from_pixels = True

    @property
    def reads_sentences(self) -> bool:
        """Whether phrases of a sentence can help each other, see `sentences`."""
        return self.context is not None

    @property
    def size(self) -> int:
        """Side in px at which the model sees a picture."""
        return self.settings["size"]

    def _see(self, pixels: np.ndarray) -> list[np.ndarray]:
        return self.networks["see"](pixels[None].astype(np.float32))

    def _maps_of(self, picture: Image.Image) -> list[np.ndarray]:
        # The picture as it is given: to squeeze it takes longer than to answer.
        key = picture.size, hashlib.sha256(picture.tobytes()).digest()
        if key not in self._maps:
            self._maps[key] = self._see(squeeze(picture, self.size))
            if len(self._maps) > PICTURES_REMEMBERED:
                self._maps.popitem(last=False)
        return self._maps[key]

    def _ask(self, picture: Image.Image, phrases: Sequence[str]) -> tuple:
        """Tokens of phrases, what `ask` finds for them, and of that what `candidates` gives."""
        tokens = self.vocabulary.encode(phrases, self.settings["length"])
        found = self.networks["ask"](*self._maps_of(picture), tokens)
        return tokens, found, [found[number] for number in TOLD]

    def said(self, *arrays: np.ndarray) -> np.ndarray:
        """What boxes of one phrase say for those of another, see `sentences.factors`."""
        return self.networks["context"](*arrays)[0]

    def _found(
        self,
        phrases: Sequence[str],
        tokens: np.ndarray,
        found: list,
        count: int,
        pairs: Pairs | None = None,
        placed: bool = True,
    ) -> tuple:
        """The `count` best of what `candidates` found: boxes `(n, count, 4)`, scores `(n, count)`
        and `present (n,)`, NaN where the model does not say it; see `Grounding`.

        Where a phrase says where its thing lies, what it may name is weighed by that too, see
        `places`, unless `placed` is off.
        """
        likely, shares, logits = found[:3]
        shares = shares.copy()  # what was asked once may serve for several tables
        for row, phrase in enumerate(phrases if placed else ()):
            if sides := places.sides(phrase):
                shares[row] = places.weighed(likely[row], shares[row], sides)
        fitted = self.presence if pairs is None else self.context
        if pairs is not None:
            if self.context is None:
                raise ValueError(
                    "sentence: expected a model that weighs the phrases of a sentence together, "
                    "got one without context.json; notebook 04b trains it on real data"
                )
            said = factors(self.said, likely, pairs)
            shares = agree(said, shares, pairs, self.context["weight"])
        boxes, scores = ranked_boxes(likely, shares, count)
        if fitted is not None:
            rare = rarity(tokens, len(self.vocabulary.words))
            scores = hit_probability(fitted["hit"], scores, rare)
        if self.presence is not None:
            # As if it were as likely as not beforehand.
            logits = logistic(self.presence["presence"], np.asarray(logits, np.float64))
        return boxes, scores, logits

    def _best(self, picture: Image.Image, phrase: str, **how) -> tuple[np.ndarray, float]:
        """The best box `(4,)` of one phrase, as fractions, and its score."""
        tokens, _, told = self._ask(picture, [phrase])
        boxes, scores, _ = self._found([phrase], tokens, told, 1, **how)
        return boxes[0, 0], float(scores[0, 0])

    def _exchange(
        self,
        picture: Image.Image,
        phrase: str,
        part: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
    ) -> None:
        """Exchange the first of an answer's boxes `(k, 4)` for what the model finds in a part of
        the picture, which it then sees larger, unless it is far less sure of that; lower ranks are
        not to have higher scores."""
        part = box_ops.to_pixels(part, *picture.size).round()
        found, score = self._best(picture.crop(part.tolist()), phrase, placed=False)
        if score < scores[0] - DOUBT:
            return
        left, top, right, bottom = part
        found = box_ops.to_pixels(found, right - left, bottom - top) + part[[0, 1, 0, 1]]
        boxes[0] = found / np.tile(picture.size, 2)
        scores[:] = np.minimum(scores, score)
        scores[0] = score

    def _look_closer(
        self, picture: Image.Image, phrases: Sequence[str], boxes: np.ndarray, scores: np.ndarray
    ) -> None:
        """A second look for what is small: for a part in the thing that it is a part of, and for
        what is found in what is round it."""
        for row, phrase in enumerate(phrases):
            if named := places.part_of(phrase):
                phrase, whole = named
                thing, _ = self._best(picture, whole)
                self._exchange(picture, phrase, around(thing, WHOLE), boxes[row], scores[row])
            if box_ops.area(boxes[row, 0]) < SMALL:
                self._exchange(picture, phrase, around(boxes[row, 0]), boxes[row], scores[row])

    def _things(
        self,
        phrase: str,
        things: np.ndarray,
        likely: np.ndarray,
        boxes: np.ndarray,
        scores: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes and scores of each thing that a phrase names, of `ensemble.Asked`'s for it; where
        that is one, the first of the merged `boxes` and `scores`, which is the better answer."""
        if self.instances is None:
            raise ValueError(
                "instances: expected a model that tells single things apart, got one without "
                "instances.json"
            )
        if places.sides(phrase):
            return boxes[:1], scores[:1]
        kept = single_things(things, likely, self.instances["least"])
        if len(kept) == 1:
            return boxes[:1], scores[:1]
        return things[kept], logistic(self.instances["hit"], log_odds(likely[kept]))

    def ground(
        self,
        image: ImageSource,
        phrases: str | Sequence[str],
        top_k: int = 5,
        sentence: str = "",
        closer: bool = True,
        instances: bool = False,
    ) -> Grounding | list[Grounding]:
        """An answer to a phrase, or a list of answers to a list, in one picture: at most `top_k`
        boxes, fewer where others would be copies of these, see `ranking.distinct`.

        `image` is whatever `images.open_image` takes. A picture asked before is not seen again.
        Where a phrase says where its thing lies, that counts, see `places`. With a `sentence` that
        the phrases stand in, they help each other, see `sentences`; else small things and parts in
        a photo of more than `FEW_PIXELS` get a second look, see `_look_closer`, unless `closer` is
        off. `heat` stays that of each phrase by itself, and of the first look.
        With `instances` a phrase of several things is answered by each of them, best first, with
        the probability that it is one. Raises ImageError for what is no picture, ValueError for
        `top_k` outside 1-30, for a sentence that lacks one of the phrases, and for a sentence or
        instances where the model has not learned of these.
        """
        grounding.check_top_k(top_k)
        asked = check_phrases(phrases)
        if not asked:
            return []
        pairs = pairs_of(phrases_of(sentence, asked), self.vocabulary) if sentence else None
        picture = open_image(image)
        width, height = picture.size
        length = self.settings["length"]
        tokens, (_, _, heat, weights, _, landmark, *things), told = self._ask(picture, asked)
        boxes, scores, present = self._found(asked, tokens, told, top_k, pairs)
        if closer and pairs is None and max(picture.size) > FEW_PIXELS:
            self._look_closer(picture, asked, boxes, scores)
        answers, cells = [], round(heat.shape[1] ** 0.5)
        for row, phrase in enumerate(asked):
            kept = distinct(boxes[row])
            best, score = boxes[row, kept], scores[row, kept]
            if instances:
                best, score = self._things(phrase, *(part[row] for part in things), best, score)
            answers.append(
                Grounding(
                    phrase,
                    box_ops.to_pixels(best[:top_k], width, height),
                    score[:top_k],
                    None if self.presence is None else float(present[row]),
                    heat[row].reshape(cells, cells),
                    landmark[row].reshape(cells, cells),
                    tuple(zip(tokenize(phrase), map(float, weights[row]), strict=False)),
                    **self.vocabulary.passed_over(phrase, length),
                )
            )
        return answers[0] if isinstance(phrases, str) else answers

    def candidates(
        self, tokens: np.ndarray, pictures: np.ndarray, rows: np.ndarray
    ) -> list[np.ndarray]:
        """Candidates `(n, k, 4)`, their shares `(n, k)`, the logits `(n,)` of presence, single
        things `(n, t, 4)` and how likely each is one `(n, t)` of n phrases `tokens (n, length)`;
        `rows (n,)` says which of `pictures (p, size, size, 3)` each is about."""
        found: list[np.ndarray] = []
        for row in np.unique(rows):
            asked, seen = np.flatnonzero(rows == row), self._see(pictures[row])
            each, which = np.unique(tokens[asked], axis=0, return_inverse=True)
            # Always as many at once: the runtime keeps memory for every number it has been asked.
            shape = ASKED_AT_ONCE, tokens.shape[1]
            parts = [
                self.networks["ask"](*seen, np.resize(each[start:], shape))
                for start in range(0, len(each), ASKED_AT_ONCE)
            ]
            answers = [np.concatenate([part[n] for part in parts]) for n in TOLD]
            found = found or [np.zeros((len(rows), *part.shape[1:]), "f4") for part in answers]
            for whole, part in zip(found, answers, strict=True):
                whole[asked] = part[which.ravel()]
        shapes = (0, 1, 4), (0, 1), (0,), (0, 1, 4), (0, 1)
        return found or [np.zeros(shape, "f4") for shape in shapes]

    def pictures(self, folder: Path, ids: Iterable[str], cache: Path) -> PictureStore:
        """Pictures `folder/<id>.jpg` at the model's size, squeezed once into `cache`."""
        return squeeze_pictures(folder, ids, self.size, cache)

    def seen(self, store: PictureStore, ids: list[str]) -> np.ndarray:
        """What it sees of pictures of a store, for `look`, and last of one without content."""
        grey = np.full((1, self.size, self.size, 3), GREY, np.uint8)
        return np.concatenate([store.pictures[[store.row[image_id] for image_id in ids]], grey])

    def look(
        self, phrases: Sequence[str], seen: np.ndarray, rows: np.ndarray, placed: bool = True
    ) -> tuple:
        """The best box `(n, 4)` as fractions and `present (n,)` of phrases in what is `seen`; see
        `_found` for `placed`."""
        tokens = self.vocabulary.encode(phrases, self.settings["length"])
        found = self.candidates(tokens, seen, rows)
        boxes, _, present = self._found(phrases, tokens, found, 1, placed=placed)
        return boxes[:, 0], present

    def asked(self, phrases: pd.DataFrame, store: PictureStore) -> tuple:
        """Rows of an entities phrase table whose picture is in the store, their tokens, and what
        `candidates` gives for them."""
        phrases = phrases[phrases.image_id.isin(store.row)].reset_index(drop=True)
        rows = phrases.image_id.map(store.row).to_numpy(int)
        tokens = self.vocabulary.encode(phrases.phrase, self.settings["length"])
        return phrases, tokens, self.candidates(tokens, store.pictures, rows)

    def predict(
        self,
        phrases: pd.DataFrame,
        store: PictureStore,
        ranks: int = 10,
        sentences: bool = False,
        instances: bool = False,
        asked: tuple | None = None,
    ) -> pd.DataFrame:
        """A prediction table for rows of an entities phrase table, `ranks` boxes a mention.

        Phrases of a picture that is not in the store get no row. No column of boxes is read. With
        `sentences` the phrases of a sentence help each other, see `sentences`; with `instances`
        each thing that a phrase names has a box, see `ground`, and there may be fewer. Who wants
        several tables gives what `asked` gave.
        """
        phrases, tokens, found = asked or self.asked(phrases, store)
        pairs = pairs_of(phrases, self.vocabulary) if sentences else None
        boxes, scores, _ = self._found(phrases.phrase, tokens, found, ranks, pairs)
        if instances:
            each = zip(phrases.phrase, *found[3:], boxes.copy(), scores.copy(), strict=True)
            for row, given in enumerate(each):
                single, score = (part[:ranks] for part in self._things(*given))
                scores[row] = np.nan
                boxes[row, : len(single)], scores[row, : len(single)] = single, score
        return prediction_table(phrases, boxes, scores).dropna(ignore_index=True)


def load_grid_localizer(folder: Path) -> GridLocalizer:
    """The grid model that `train.train_members` finished in the folder. Raises FileNotFoundError
    for a folder that is no finished training."""
    settings = read_settings(folder)
    members, kept = member_folders(folder), ("settings.json", "vocabulary.txt", "*.h5")
    made_of = [f for member in members for name in kept for f in sorted(member.glob(name))]
    networks = exported.load("grid", folder.resolve(), files=made_of)
    vocabulary = Vocabulary.load(folder / "vocabulary.txt")
    fitted = (read_fitted(folder, name) for name in ("presence", "context", "instances"))
    return GridLocalizer(settings, vocabulary, networks, *fitted)
