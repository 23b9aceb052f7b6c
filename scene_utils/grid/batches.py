"""What the grid model is trained on: mentions with their pictures, in batches of random views."""

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.dataset import entities
from scene_utils.dataset.mentions import boxed_mentions
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid.ranking import last_tokens, ranked_boxes
from scene_utils.words import DETERMINERS, Vocabulary, described, names_two, tokenize

# Ends of the random gain of brightness, its shift in pixel values, and the gain of colour, which
# keeps hues, since phrases name them.
LIGHT = ((0.6, 1.4), (-35, 35), (0.4, 1.5))
# More places than these where a second reading may look tell it nothing.
LANDMARKS = 4
# Share of a box that must lie in a view for its phrase to be asked there, or to be looked for.
VISIBLE = 0.6
OPPOSITES = (("left", "right"), ("leftmost", "rightmost"))
WHOLE = np.float32([0, 0, 1, 1])  # a view of all of a picture


@dataclass(frozen=True)
class GridSettings:
    """What a run of the grid model depends on beside its data; rates are peaks of a cosine."""

    backbone: str = "efficientnet_lite0"
    size: int = 320
    epochs: int = 12
    progressive: bool = True  # see `size_in`
    pictures_per_step: int = 16
    phrases_per_picture: int = 8
    length: int = 12
    learning_rate: float = 1e-3
    backbone_rate: float = 1.5e-4  # 0: the backbone stays as it is, and a step takes less time
    weight_decay: float = 0.05
    lengthened: float = 0.3  # how often a phrase is read as `words.described` gives it
    landmarks_shown: bool = True  # to the second reading, see `losses.landmark_loss`
    augmented: bool = True  # random views
    channels: int = 128
    blocks: int = 3
    members: int = 1  # models, of seeds one after the other, that answer together; see `ensemble`
    policy: str = "float32"
    presence_steps: int = 300  # see `train_presence`
    seed: int = 0

    def size_in(self, epoch: int) -> int:
        """Side in px at which epoch number `epoch`, from 0, sees pictures: in the first half of a
        progressive run .7 of the whole, which takes half the time (after Tan and Le 2021,
        "EfficientNetV2", section 4)."""
        small = max(32, round(0.7 * self.size / 32) * 32)
        return small if self.progressive and epoch < self.epochs // 2 else self.size


@dataclass(frozen=True)
class Mentions:
    """Boxed mentions of one split with their pictures; boxes are fractions of these."""

    pictures: np.ndarray  # (., size, size, 3) uint8, of all splits
    picture_rows: np.ndarray  # (p,), which of these are of the split
    rows: np.ndarray  # (n,), the place in `picture_rows` of each mention's picture
    tokens: np.ndarray  # (n, length)
    boxes: np.ndarray  # (n, 4)
    longer: np.ndarray  # (n, length), of the same phrases as `words.described` gives them
    landmarks: np.ndarray  # (n, 2, LANDMARKS, 4), see `landmark_boxes`


def by_picture(rows: np.ndarray) -> list[np.ndarray]:
    """The numbers, in order, of those that have the same picture, for each of `rows (n,)`."""
    order = np.argsort(rows, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(rows[order])) + 1)


def make_mentions(
    phrases: pd.DataFrame, split: str, store: PictureStore, vocabulary: Vocabulary, length: int
) -> Mentions:
    """Boxed mentions of `split` whose picture is in the store, in the table's order."""
    phrases = phrases[phrases.split == split]
    phrases = phrases.assign(described=described(phrases, longest=length))
    chosen, rows, ids, boxes = boxed_mentions(phrases, split, store.row)
    return Mentions(
        store.pictures,
        np.array([store.row[image_id] for image_id in ids]),
        rows,
        vocabulary.encode(chosen.phrase, length),
        boxes,
        vocabulary.encode(chosen.described, length),
        landmark_boxes(rows, chosen.phrase, chosen.described, boxes, length),
    )


def open_sets(
    phrases: pd.DataFrame,
    ids: Iterable[str],
    root: Path,
    cache: Path,
    vocabulary: Vocabulary,
    size: int,
    length: int,
) -> tuple[PictureStore, list[Mentions]]:
    """The pictures `ids` of the data in `root` at `size` px, squeezed once into `cache`, and the
    mentions of train and val in them."""
    store = squeeze_pictures(entities.image_folder(root), ids, size, cache / "squeezed")
    splits = ("train", "val")
    return store, [make_mentions(phrases, split, store, vocabulary, length) for split in splits]


def landmark_boxes(
    rows: np.ndarray, phrases: Sequence[str], longer: Sequence[str], boxes: np.ndarray, length: int
) -> np.ndarray:
    """Where the second reading of phrases is to look, and of their longer forms.

    For n phrases of pictures `rows (n,)`, their own `boxes (n, 4)`, and a model that reads `length`
    words: `(n, 2, LANDMARKS, 4)`, boxes of any of which it may be, and NaN for those that are not
    there. A phrase that names one thing has its own. One that names two, or was made longer, has
    those of the picture's other mentions which name one thing and hold all words that follow its
    last determiner; where there are none, those that hold its last word, which are of its sort at
    least.
    """
    found = np.full((len(rows), 2, LANDMARKS, 4), np.nan, np.float32)
    found[:, :, 0] = boxes[:, None]
    corners = list(map(tuple, boxes.tolist()))
    named = defaultdict(list)  # words and boxes of what names one thing, by picture
    for row, phrase, box in zip(rows, phrases, corners, strict=True):
        if not names_two(phrase):
            named[row].append((set(tokenize(phrase)), box))
    forms = enumerate(zip(phrases, longer, strict=True))
    for (number, said), form in itertools.product(forms, (0, 1)):
        if said[form] == said[0] and not names_two(said[form]):
            continue
        words = tokenize(said[form])[:length]
        start = max((place for place, word in enumerate(words) if word in DETERMINERS), default=0)
        others: dict[tuple, None] = {}
        for told in (set(words[start + 1 :]), set(words[-1:]) - DETERMINERS):
            others = others or {
                box: None
                for held, box in named[rows[number]]
                if told and told <= held and box != corners[number]
            }
        found[number, form] = np.nan
        if len(others) <= LANDMARKS:
            found[number, form, : len(others)] = np.reshape(list(others), (-1, 4))
    return found


def opposite_tokens(vocabulary: Vocabulary) -> np.ndarray:
    """For each token id, the id to read instead in a mirrored picture (left for right)."""
    mirrored = np.arange(len(vocabulary.words))
    for one, other in OPPOSITES:
        if one in vocabulary.index and other in vocabulary.index:
            pair = [vocabulary.index[one], vocabulary.index[other]]
            mirrored[pair] = pair[::-1]
    return mirrored


def words_of_pictures(mentions: Mentions, size: int) -> np.ndarray:
    """Which of `size` tokens the phrases of each picture hold, `(p, size)` bool."""
    held = np.zeros((len(mentions.picture_rows), size), bool)
    for tokens in (mentions.tokens, mentions.longer):
        held[mentions.rows[:, None], tokens] = True
    return held


def random_window(rng: np.random.Generator) -> np.ndarray:
    """A random view, `xyxy` in fractions of the picture: a crop, or a step back past its edges."""
    if rng.random() > 0.8:
        return WHOLE
    return window_of(rng, rng.uniform(0.5, 1.25), np.exp(rng.uniform(-0.2, 0.2)))


def window_of(rng: np.random.Generator, scale: float, aspect: float) -> np.ndarray:
    """A view somewhere in the picture, or round it, of `scale` times its sides."""
    size = np.array([scale * aspect, scale / aspect])
    corner = rng.uniform(np.minimum(0, 1 - size), np.maximum(0, 1 - size))
    return np.concatenate([corner, corner + size]).astype(np.float32)


def in_view(boxes: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as fractions of the window, and the share of each that lies in it."""
    moved = (boxes - np.tile(window[:2], 2)) / np.tile(window[2:] - window[:2], 2)
    clipped = np.clip(moved, 0, 1)
    return clipped.astype(np.float32), box_ops.area(clipped) / np.maximum(box_ops.area(moved), 1e-9)


class Batch(NamedTuple):
    """A step's b pictures with p phrases each, as `Trainer.step` takes them."""

    pictures: np.ndarray  # (b,), numbers among those of the split
    pixels: np.ndarray  # (b, size, size, 3) uint8
    windows: np.ndarray  # (b, 4), what is seen, as y, x, y, x; x swapped in a mirrored picture
    light: np.ndarray  # (b, 3), gain and shift of brightness, gain of colour
    tokens: np.ndarray  # (b, p, length)
    boxes: np.ndarray  # (b, p, 4), in the window
    landmarks: np.ndarray  # (b, p, LANDMARKS, 4), likewise, see `landmark_boxes`
    absent: np.ndarray  # (b, p, b), whether no phrase of a picture has a phrase's last word


def epoch_batches(
    mentions: Mentions, settings: GridSettings, mirrored: np.ndarray, epoch: int, first: int = 0
) -> Iterator[Batch]:
    """Batches of one epoch from number `first` on."""
    per, count = settings.phrases_per_picture, settings.pictures_per_step
    groups = by_picture(mentions.rows)
    held = words_of_pictures(mentions, len(mirrored))
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(groups))
    for number in range(first, len(order) // count):
        rng = np.random.default_rng([settings.seed, epoch, number])
        chosen = order[number * count : (number + 1) * count]
        light = np.stack([rng.uniform(*ends, count) for ends in LIGHT], axis=1)
        if not settings.augmented:
            light = np.tile([1.0, 0.0, 1.0], (count, 1))
        parts = []
        for group in (groups[picture] for picture in chosen):
            window = random_window(rng) if settings.augmented else WHOLE
            boxes, seen = in_view(mentions.boxes[group], window)
            usable = np.flatnonzero(seen >= VISIBLE)
            if len(usable) < min(3, len(group)):
                window, boxes = WHOLE, mentions.boxes[group]
                usable = np.arange(len(group))
            pick = rng.permutation(usable)[:per]
            pick = np.concatenate([pick, rng.choice(usable, per - len(pick))])
            boxes, asked = boxes[pick], group[pick]
            longer = rng.random((per, 1)) < settings.lengthened
            tokens = np.where(longer, mentions.longer[asked], mentions.tokens[asked])
            landmarks = mentions.landmarks[asked, longer[:, 0].astype(int)]
            landmarks, seen = in_view(landmarks, window)
            landmarks[seen < VISIBLE] = np.nan
            if settings.augmented and rng.random() < 0.5:
                window = window[[2, 1, 0, 3]]
                boxes, landmarks = box_ops.mirror(boxes), box_ops.mirror(landmarks)
                tokens = mirrored[tokens]
            parts.append((window[[1, 0, 3, 2]], tokens, boxes, landmarks))
        windows, tokens, boxes, landmarks = map(np.stack, zip(*parts, strict=True))
        pixels = mentions.pictures[mentions.picture_rows[chosen]]
        absent = ~held[chosen][:, last_tokens(tokens)].transpose(1, 2, 0)
        light, tokens = light.astype(np.float32), tokens.astype(np.int32)
        yield Batch(chosen, pixels, windows, light, tokens, boxes, landmarks, absent)


def prefetched(batches: Iterable, ahead: int = 4) -> Iterator:
    """The same batches, made by a thread while the model works."""
    batches = iter(batches)
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, batches, None) for _ in range(ahead))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(pool.submit(next, batches, None))
            yield batch


def best_boxes(answer: Callable, mentions: Mentions, batch: int = 8) -> np.ndarray:
    """The best relative box `(n, 4)` of each mention.

    `answer` takes pictures `(batch, ...)` and `tokens (batch, 16, length)` and gives candidates of
    all these phrases, see `network.candidates`. A picture's phrases are repeated, and a batch's
    first picture, so that every call has the same shape.
    """
    jobs = [
        np.resize(group[start : start + 16], 16)
        for group in by_picture(mentions.rows)
        for start in range(0, len(group), 16)
    ]
    found = np.zeros((len(mentions.rows), 4), np.float32)
    for start in range(0, len(jobs), batch):
        part = jobs[start : start + batch]
        index = np.stack(part + part[:1] * (batch - len(part)))
        pictures = mentions.pictures[mentions.picture_rows[mentions.rows[index[:, 0]]]]
        boxes, _ = ranked_boxes(*map(np.asarray, answer(pictures, mentions.tokens[index])), 1)
        found[index] = boxes.reshape(*index.shape, 4)
    return found
