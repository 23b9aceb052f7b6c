"""Train the grid model: all phrases of a picture share its pass through the backbone.

Every step is a function of (state before it, seed, epoch, number), so a run that is killed and
started again goes on from its last saved step.
"""

import hashlib
import json
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from scene_utils import box_ops
from scene_utils.dataset import entities
from scene_utils.dataset.mentions import boxed_mentions
from scene_utils.features import folding
from scene_utils.features.backbones import Backbone, load_backbone, weights_hash
from scene_utils.features.pixels import PictureStore, squeeze_pictures
from scene_utils.grid import layers, network
from scene_utils.grid.ensemble import Asker, Ensemble, member_folder
from scene_utils.grid.network import (
    STRIDE,
    GridModel,
    anchor_loss,
    build_grid,
    contrast_loss,
    grid_loss,
    taught_loss,
)
from scene_utils.paths import write_text
from scene_utils.runtime import make_deterministic, progress_bar
from scene_utils.words import DETERMINERS, Vocabulary, described, names_two, tokenize

SAVE_SECONDS = 240
# Ends of the random gain of brightness, its shift in pixel values, and the gain of colour, which
# keeps hues, since phrases name them.
LIGHT = ((0.6, 1.4), (-35, 35), (0.4, 1.5))
# More places than these where a second reading may look tell it nothing.
ANCHORS = 4
ANCHOR_WEIGHT = 0.5
# Share of a box that must lie in a view for its phrase to be asked there, or to be looked for.
VISIBLE = 0.6
OPPOSITES = (("left", "right"), ("leftmost", "rightmost"))


@dataclass(frozen=True)
class GridSettings:
    """What a run of the grid model depends on beside its data; rates are peaks of a cosine.

    A `progressive` run sees pictures at about .7 of `size` in the first half of its epochs, which
    takes half the time (after Tan and Le 2021, "EfficientNetV2", section 4). `lengthened` is how
    often a phrase is read with what its sentence says of it next, see `text.described`. `share` of
    the train pictures are used, and only so many. There to be left out, one by one, in the
    ablation: `tuned`, the training of the backbone; `product`, the product of map and phrase;
    `own_vectors`, vectors of the words' own beside GloVe's; `composed`, the scores that add up what
    single words and places say; `contrasted`, the loss that holds words against other pictures, see
    `network.contrast_loss`; `anchored`, the loss that shows the second reading where to look,
    see `network.anchor_loss`; `augmented`. `members` models are
    trained, the others from the seeds that follow, and answer together, see `ensemble`. `teachers`
    finished models are asked about each view too, and their answers learned, see
    `network.taught_loss`.
    """

    backbone: str = "efficientnet_lite0"
    size: int = 320
    epochs: int = 12
    progressive: bool = True
    pictures_per_step: int = 16
    phrases_per_picture: int = 8
    length: int = 12
    learning_rate: float = 1e-3
    backbone_rate: float = 1.5e-4
    weight_decay: float = 0.05
    lengthened: float = 0.3
    share: float = 1.0
    tuned: bool = True
    product: bool = True
    own_vectors: bool = True
    composed: bool = True
    contrasted: bool = True
    anchored: bool = True
    augmented: bool = True
    blocks: int = 3
    members: int = 1
    teachers: int = 0
    policy: str = "mixed_bfloat16"
    seed: int = 0

    def size_in(self, epoch: int) -> int:
        """Side in px at which epoch number `epoch`, from 0, sees pictures."""
        small = max(32, round(0.7 * self.size / 32) * 32)
        return small if self.progressive and epoch < self.epochs // 2 else self.size


@dataclass(frozen=True)
class Mentions:
    """Boxed mentions of one split with their pictures.

    `rows (n,)` index `picture_rows (p,)`, and these `pictures (., size, size, 3)`;
    `tokens (n, length)`; `boxes (n, 4)` relative; `longer (n, length)` the tokens of the same
    phrases as `text.described` gives them. `anchors (n, 2, ANCHORS, 4)` are relative boxes where
    the second reading is to look, of the phrase and of its longer form, see `anchor_boxes`.
    """

    pictures: np.ndarray
    picture_rows: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    boxes: np.ndarray
    longer: np.ndarray
    anchors: np.ndarray

    def part(self, share: float, seed: int = 0) -> "Mentions":
        """The mentions of a random share of the pictures; a larger share holds a smaller one."""
        if share >= 1:
            return self
        count = max(1, round(share * len(self.picture_rows)))
        order = np.random.default_rng([seed, 1]).permutation(len(self.picture_rows))
        chosen = np.sort(order[:count])
        number = np.full(len(self.picture_rows), -1)
        number[chosen] = np.arange(count)
        kept = number[self.rows] >= 0
        return Mentions(
            self.pictures,
            self.picture_rows[chosen],
            number[self.rows[kept]],
            self.tokens[kept],
            self.boxes[kept],
            self.longer[kept],
            self.anchors[kept],
        )

    def of_picture(self) -> list[np.ndarray]:
        """Mention numbers of each picture, in order."""
        order = np.argsort(self.rows, kind="stable")
        starts = np.searchsorted(self.rows[order], np.arange(1, len(self.picture_rows)))
        return np.split(order, starts)


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
        anchor_boxes(rows, chosen.phrase, chosen.described, boxes, length),
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
    mentions of train and val in them; see `pictures.squeeze_pictures` and `make_mentions`."""
    store = squeeze_pictures(entities.image_folder(root), ids, size, cache / "squeezed")
    splits = ("train", "val")
    return store, [make_mentions(phrases, split, store, vocabulary, length) for split in splits]


def anchor_boxes(
    rows: np.ndarray,
    phrases: Sequence[str],
    longer: Sequence[str],
    boxes: np.ndarray,
    length: int,
) -> np.ndarray:
    """Where the second reading of phrases is to look, and of their longer forms.

    For n phrases of pictures `rows (n,)`, their own `boxes (n, 4)`, and a model that reads `length`
    words: `(n, 2, ANCHORS, 4)`, boxes of any of which it may be, and NaN for those that are not
    there. A phrase that names one thing has its own. One that names two, or was made longer, has
    those of the picture's other mentions which name one thing and hold all words that follow its
    last determiner; where there are none, those that hold its last word, which are of its sort at
    least.
    """
    found = np.full((len(rows), 2, ANCHORS, 4), np.nan, np.float32)
    found[:, :, 0] = boxes[:, None]
    keys = list(map(tuple, boxes.tolist()))
    named: dict[int, list[tuple[set[str], int]]] = {}
    asked = []
    for number, (row, phrase, long) in enumerate(zip(rows, phrases, longer, strict=True)):
        two = names_two(phrase)
        if two:
            asked.append((number, 0, phrase))
        else:
            named.setdefault(row, []).append((set(tokenize(phrase)), number))
        if two or long != phrase:
            asked.append((number, 1, long))
    for number, form, phrase in asked:
        words = tokenize(phrase)[:length]
        start = max((place for place, word in enumerate(words) if word in DETERMINERS), default=0)
        others: dict[tuple, None] = {}
        for told in (set(words[start + 1 :]), set(words[-1:]) - DETERMINERS):
            others = others or {
                keys[other]: None
                for held, other in named.get(rows[number], [])
                if told and told <= held and keys[other] != keys[number]
            }
        found[number, form] = np.nan
        if len(others) <= ANCHORS:
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


def last_tokens(tokens: np.ndarray) -> np.ndarray:
    """The last word of each phrase, mostly the thing it names: `(..., length)` to `(...)`."""
    last = np.maximum((tokens > 0).sum(axis=-1) - 1, 0)
    return np.take_along_axis(tokens, last[..., None], axis=-1)[..., 0]


def _window(rng: np.random.Generator) -> np.ndarray:
    """A random view, `xyxy` in fractions of the picture: a crop, or a step back past its edges."""
    if rng.random() > 0.8:
        return np.float32([0, 0, 1, 1])
    scale, aspect = rng.uniform(0.5, 1.25), np.exp(rng.uniform(-0.2, 0.2))
    size = np.array([scale * aspect, scale / aspect])
    corner = rng.uniform(np.minimum(0, 1 - size), np.maximum(0, 1 - size))
    return np.concatenate([corner, corner + size]).astype(np.float32)


def _view(boxes: np.ndarray, window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Boxes as fractions of the window, and the share of each that lies in it."""
    size = window[2:] - window[:2]
    moved = (boxes - np.tile(window[:2], 2)) / np.tile(size, 2)
    clipped = np.clip(moved, 0, 1)
    return clipped.astype(np.float32), box_ops.area(clipped) / np.maximum(box_ops.area(moved), 1e-9)


class Batch(NamedTuple):
    """A step's b pictures with p phrases each, as `Trainer.step` takes them."""

    pictures: np.ndarray
    """Numbers of the pictures among those of the split `(b,)`."""
    pixels: np.ndarray
    """`(b, size, size, 3)` uint8."""
    windows: np.ndarray
    """What is seen of them, `(b, 4)` as y, x, y, x; x swapped where the picture is mirrored."""
    light: np.ndarray
    """Gain and shift of brightness and gain of colour, `(b, 3)`."""
    tokens: np.ndarray
    """`(b, p, length)`."""
    boxes: np.ndarray
    """In the window, `(b, p, 4)`."""
    anchors: np.ndarray
    """Likewise, `(b, p, ANCHORS, 4)`, see `anchor_boxes`."""
    absent: np.ndarray
    """Whether no phrase of a picture has a phrase's last word, `(b, p, b)`."""


def epoch_batches(
    mentions: Mentions, settings: GridSettings, mirrored: np.ndarray, epoch: int, first: int = 0
) -> Iterator[Batch]:
    """Batches of one epoch from number `first` on."""
    per, count = settings.phrases_per_picture, settings.pictures_per_step
    groups = mentions.of_picture()
    held = words_of_pictures(mentions, len(mirrored))
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(groups))
    for number in range(first, len(order) // count):
        rng = np.random.default_rng([settings.seed, epoch, number])
        chosen = order[number * count : (number + 1) * count]
        light = np.stack([rng.uniform(*ends, count) for ends in LIGHT], axis=1)
        windows, parts = np.zeros((count, 4), np.float32), []
        for place, picture in enumerate(chosen):
            group = groups[picture]
            window = _window(rng) if settings.augmented else np.float32([0, 0, 1, 1])
            boxes, seen = _view(mentions.boxes[group], window)
            usable = np.flatnonzero(seen >= VISIBLE)
            if len(usable) < min(3, len(group)):
                window, boxes = np.float32([0, 0, 1, 1]), mentions.boxes[group]
                usable = np.arange(len(group))
            pick = rng.permutation(usable)[:per]
            pick = np.concatenate([pick, rng.choice(usable, per - len(pick))])
            boxes, asked = boxes[pick], group[pick]
            longer = rng.random((per, 1)) < settings.lengthened
            tokens = np.where(longer, mentions.longer[asked], mentions.tokens[asked])
            anchors = mentions.anchors[asked, longer[:, 0].astype(int)]
            anchors, seen = _view(anchors, window)
            anchors[seen < VISIBLE] = np.nan
            if settings.augmented and rng.random() < 0.5:
                window = window[[2, 1, 0, 3]]
                boxes, anchors = box_ops.mirror(boxes), box_ops.mirror(anchors)
                tokens = mirrored[tokens]
            windows[place] = window[[1, 0, 3, 2]]
            parts.append((tokens, boxes, anchors))
        if not settings.augmented:
            light = np.tile([1.0, 0.0, 1.0], (count, 1))
        tokens, boxes, anchors = (np.stack(part) for part in zip(*parts, strict=True))
        pixels = mentions.pictures[mentions.picture_rows[chosen]]
        yield Batch(
            chosen,
            pixels,
            windows,
            light.astype(np.float32),
            tokens.astype(np.int32),
            boxes.astype(np.float32),
            anchors.astype(np.float32),
            ~held[chosen][:, last_tokens(tokens)].transpose(1, 2, 0),
        )


def prefetched(batches: Iterable, ahead: int = 4) -> Iterator:
    """The same batches, made by a thread while the model works."""
    waiting: queue.Queue = queue.Queue(ahead)
    end = object()

    def run() -> None:
        try:
            for batch in batches:
                waiting.put(batch)
            waiting.put(end)
        except BaseException as error:
            waiting.put(error)

    threading.Thread(target=run, daemon=True).start()
    while (batch := waiting.get()) is not end:
        if isinstance(batch, BaseException):
            raise batch
        yield batch


def seen_at(size: int, pixels: tf.Tensor, windows: tf.Tensor, light: tf.Tensor) -> tf.Tensor:
    """Views `(b, size, size, 3)` of pictures as `epoch_batches` says them; beyond an edge, grey."""
    seen = tf.image.crop_and_resize(
        tf.cast(pixels, tf.float32),
        windows,
        tf.range(tf.shape(pixels)[0]),
        (size, size),
        extrapolation_value=127.0,
    )
    light = light[:, None, None]
    seen = (seen - 127) * light[..., :1] + 127 + light[..., 1:2]
    grey = tf.reduce_mean(seen, axis=-1, keepdims=True)
    return tf.clip_by_value(grey + (seen - grey) * light[..., 2:], 0, 255)


def fast_and_slow(model: GridModel) -> tuple[list, list]:
    """The variables to train: of all but the backbone, and of the backbone."""
    slow = model.visual.layers[1].trainable_variables
    known = {id(variable) for variable in slow}
    every = [v for part in model.parts() for v in part.trainable_variables]
    return [variable for variable in every if id(variable) not in known], slow


def make_optimizer(rate: float, weight_decay: float, steps: int, variables: list):
    """AdamW over the variables, its rate a cosine with a warm-up to the peak `rate`."""
    warm = min(200, steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        rate / 30, max(1, steps - warm), alpha=0.01, warmup_target=rate, warmup_steps=warm
    )
    made = keras.optimizers.AdamW(schedule, weight_decay=weight_decay, global_clipnorm=5.0)
    made.build(variables)
    return made


class Trainer:
    """Model, optimisers and averaged weights of one run, and the compiled step over them.

    What the `teachers` say of a view is learned too.
    """

    def __init__(
        self,
        model: GridModel,
        settings: GridSettings,
        steps: int,
        teachers: Sequence[GridModel] = (),
    ):
        self.model, self.settings, self.teachers = model, settings, teachers
        self.fast, self.slow = fast_and_slow(model)
        self.variables = [*self.slow, *self.fast]
        self.averaged = [tf.Variable(v.value, trainable=False) for v in self.variables]
        rates = (settings.learning_rate, settings.backbone_rate)
        self.optimizers = [
            make_optimizer(rate, settings.weight_decay, steps, variables)
            for rate, variables in zip(rates, (self.fast, self.slow), strict=True)
            if variables
        ]
        parts = dict(zip(("visual", "text", "head"), model.parts(), strict=True))
        self.checkpoint = tf.train.Checkpoint(
            optimizers=self.optimizers, averaged=self.averaged, **parts
        )

    @tf.function
    def step(self, size: int, pixels, windows, light, tokens, truth, anchors, absent):
        """One update on pictures seen at `size` px; gives score loss and box loss."""
        seen = seen_at(size, pixels, windows, light)
        told = [model.ask(model.visual(seen, training=False), tokens) for model in self.teachers]
        with tf.GradientTape() as tape:
            grid = self.model.visual(seen, training=True)
            answered = self.model.ask(grid, tokens, training=True)
            truth, cells = tf.reshape(truth, (-1, 4)), size // STRIDE
            losses = grid_loss(answered.scores, answered.boxes, truth, cells)
            total = losses[0] + 2 * losses[1]
            if self.settings.contrasted:
                absent = tf.reshape(absent, (-1, tf.shape(grid)[0]))
                total += contrast_loss(grid, answered, truth, absent, cells)
            if self.settings.anchored:
                anchors = tf.reshape(anchors, (-1, ANCHORS, 4))
                total += ANCHOR_WEIGHT * anchor_loss(answered, truth, anchors, cells)
            if told:
                shares = tf.reduce_mean([tf.nn.softmax(one.scores) for one in told], axis=0)
                boxes = tf.reduce_mean([one.boxes for one in told], axis=0)
                total += taught_loss(answered, shares, boxes)
        gradients = tape.gradient(total, self.variables)
        count = len(self.slow)
        self.optimizers[0].apply_gradients(zip(gradients[count:], self.fast, strict=True))
        if self.slow:
            self.optimizers[1].apply_gradients(zip(gradients[:count], self.slow, strict=True))
        done = tf.cast(self.optimizers[0].iterations, tf.float32)
        keep = tf.minimum(0.999, (1 + done) / (10 + done))
        for average, variable in zip(self.averaged, self.variables, strict=True):
            average.assign_sub((1 - keep) * (average - variable))
        return losses

    def swap(self) -> None:
        """Exchange the model's weights with their moving average."""
        for average, variable in zip(self.averaged, self.variables, strict=True):
            kept = tf.identity(variable.value)
            variable.assign(average)
            average.assign(kept)


def _val_row(epoch: int, losses: np.ndarray, asker: Asker, val: Mentions, seconds: float) -> dict:
    found, *_ = asker.ask(val.pictures, val.picture_rows, val.rows, val.tokens)
    iou = box_ops.iou(found[:, 0], val.boxes)
    middle = (found[:, 0, :2] + found[:, 0, 2:]) / 2
    hit = ((middle >= val.boxes[:, :2]) & (middle < val.boxes[:, 2:])).all(axis=1)
    return {
        "epoch": epoch,
        "score_loss": round(float(losses[0]), 5),
        "box_loss": round(float(losses[1]), 5),
        "val_mean_iou": round(float(iou.mean()), 5),
        "val_accuracy_0.5": round(float((iou >= 0.5).mean()), 5),
        "val_pointing": round(float(hit.mean()), 5),
        "seconds": round(seconds, 1),
    }


def _fingerprint(embeddings: np.ndarray, *sets: Mentions) -> str:
    """Hash of the code of the model and of its training, the vectors and the mentions."""
    digest = hashlib.sha256()
    for path in (__file__, network.__file__, layers.__file__, folding.__file__):
        digest.update(Path(path).read_bytes())
    arrays = [embeddings]
    for mentions in sets:
        arrays += [mentions.picture_rows, mentions.rows, mentions.tokens, mentions.longer]
        arrays += [mentions.boxes, mentions.anchors]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def described_run(
    settings: GridSettings,
    sets: tuple[Mentions, Mentions],
    embeddings: np.ndarray,
    vocabulary: Vocabulary,
    made_with: dict,
    backbone: Backbone,
    teachers: Sequence[Path],
) -> dict:
    """What settings.json says of a finished run on `sets`, those of train and val; see `train_grid`
    for the rest. ValueError for teachers that are not as many as the settings say, or read other
    words; FileNotFoundError for one that is not finished."""
    if len(teachers) != settings.teachers:
        raise ValueError(f"teachers: expected {settings.teachers} folders, got {len(teachers)}")
    taught_by = []
    for path in teachers:
        if not (path / "settings.json").is_file():
            raise FileNotFoundError(
                f"{path}: expected a finished grid model as a teacher, got none"
            )
        if Vocabulary.load(path / "vocabulary.txt").words != vocabulary.words:
            raise ValueError(f"{path}: expected a teacher of the same vocabulary, got another")
        teacher = json.loads((path / "settings.json").read_text(encoding="utf-8"))
        mark = f"{teacher['epochs']} epochs, seed {teacher['seed']}, {teacher['fingerprint'][:8]}"
        taught_by.append(mark)
    return (
        made_with
        | asdict(settings)
        | {"model": "grid", "word_dim": embeddings.shape[1]}
        | {"label": backbone.label, "weights_sha256": weights_hash(backbone)}
        | {"taught_by": taught_by, "fingerprint": _fingerprint(embeddings, *sets)}
    )


def train_grid(
    settings: GridSettings,
    train_set: Mentions,
    val_set: Mentions,
    embeddings: np.ndarray,
    vocabulary: Vocabulary,
    made_with: dict,
    folder: Path,
    weights: str | Path | None = None,
    progress: bool = True,
    teachers: Sequence[Path] = (),
) -> pd.DataFrame:
    """Train into `folder` and return the history, a row an epoch; see `training.train`.

    Writes history.csv, the averaged weights of the epoch with the highest val mean IoU as
    visual, text and head .weights.h5, vocabulary.txt, and at the end settings.json.
    `made_with` has `untrained`, whether the backbone starts from random weights, and what else is
    to be remembered. `teachers` are as many folders of finished models with the same vocabulary as
    the settings say, see `described_run`. The state is saved every four minutes and after each
    epoch; a stopped run goes on from there.
    """
    finished, state = folder / "settings.json", folder / "state.json"
    train_set = train_set.part(settings.share, settings.seed)
    backbone = load_backbone(settings.backbone, weights, made_with["untrained"])
    sets = (train_set, val_set)
    wanted = described_run(settings, sets, embeddings, vocabulary, made_with, backbone, teachers)
    if finished.is_file() and json.loads(finished.read_text()) == wanted:
        return pd.read_csv(folder / "history.csv")
    finished.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary.save(folder / "vocabulary.txt")
    make_deterministic(settings.seed)
    model = build_grid(
        backbone, embeddings, **{name: getattr(settings, name) for name in network.DESIGN}
    )
    per_epoch = len(train_set.picture_rows) // settings.pictures_per_step
    total = settings.epochs * per_epoch
    trainer = Trainer(model, settings, total, [network.load_grid(path) for path in teachers])
    asker = Asker(Ensemble((model,)), settings.size)
    step, rows = 0, []
    if state.is_file():
        known = json.loads(state.read_text())
        if known["settings"] == wanted:
            step, rows = known["step"], known["rows"]
            trainer.checkpoint.read(str(folder / known["file"])).expect_partial()

    def save() -> None:
        name = f"state-{step}"
        trainer.checkpoint.write(str(folder / name))
        write_text(
            state, json.dumps({"settings": wanted, "step": step, "rows": rows, "file": name})
        )
        for path in folder.glob("state-*"):
            if path.name.split(".")[0] != name:
                path.unlink()

    mirrored = opposite_tokens(vocabulary)
    with progress_bar(
        initial=step, total=total, desc="grid", unit="step", disable=not progress
    ) as bar:
        while step < total:
            epoch, first = divmod(step, per_epoch)
            size = settings.size_in(epoch)
            began, saved, losses = time.perf_counter(), time.perf_counter(), []
            batches = epoch_batches(train_set, settings, mirrored, epoch, first)
            for batch in prefetched(batches):
                losses.append(
                    [float(loss) for loss in trainer.step(size, *map(tf.constant, batch[1:]))]
                )
                step += 1
                bar.update()
                if time.perf_counter() - saved > SAVE_SECONDS and step % per_epoch:
                    save()
                    saved = time.perf_counter()
            trainer.swap()
            seconds = time.perf_counter() - began
            row = _val_row(epoch + 1, np.mean(losses, axis=0), asker, val_set, seconds)
            if row["val_mean_iou"] > max((r["val_mean_iou"] for r in rows), default=-1):
                model.save(folder)
            trainer.swap()
            rows.append(row)
            write_text(folder / "history.csv", pd.DataFrame(rows).to_csv(index=False))
            save()
            bar.set_postfix(val_iou=row["val_mean_iou"], val_accuracy=row["val_accuracy_0.5"])
    write_text(finished, json.dumps(wanted, indent=1) + "\n")
    for path in folder.glob("state*"):
        path.unlink()
    return pd.read_csv(folder / "history.csv")


def train_members(settings: GridSettings, *data, folder: Path, **options) -> list[pd.DataFrame]:
    """Train all members into their folders, see `ensemble.member_folder`; their histories.

    `data` and `options` are those of `train_grid` between its settings and its folder, and after.
    """
    for number in range(1, settings.members):
        finished = member_folder(folder, number) / "settings.json"
        # Else one of a former training might be taken for a member while the first is trained.
        if finished.is_file() and json.loads(finished.read_text())["epochs"] != settings.epochs:
            finished.unlink()
    return [
        train_grid(
            replace(settings, seed=settings.seed + number),
            *data,
            member_folder(folder, number),
            **options,
        )
        for number in range(settings.members)
    ]
