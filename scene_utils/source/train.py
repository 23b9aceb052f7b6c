"""Train the source system and its controls: one settings dataclass, one function.

Every epoch is a function of (state before it, seed, epoch number), so a run that is killed and
started again gives bit for bit what an undisturbed run gives.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from scene_utils import box_ops
from scene_utils.dataset.mentions import boxed_mentions
from scene_utils.features.encode import FeatureStore
from scene_utils.paths import atomic, read_finished, write_text
from scene_utils.runtime import fingerprint, make_deterministic, progress_bar
from scene_utils.source.model import INPUTS, LOSSES, build_regressor
from scene_utils.words import Vocabulary


@dataclass(frozen=True)
class Settings:
    """What a run depends on beside its data."""

    model: str = "source"
    loss: str = "giou"
    epochs: int = 40
    batch_size: int = 256
    learning_rate: float = 5e-4
    dropout: float = 0.5
    widths: tuple[int, ...] = (1024, 512)
    length: int = 12
    seed: int = 0

    def __post_init__(self):
        if self.model not in INPUTS:
            raise ValueError(f"model: expected one of {tuple(INPUTS)}, got {self.model!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {tuple(LOSSES)}, got {self.loss!r}")


@dataclass(frozen=True)
class Examples:
    """n boxed mentions of one split: `features (p, channels)` of its pictures, which of these each
    is about `(n,)`, token ids `(n, length)` and relative merged boxes `(n, 4)`."""

    features: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    boxes: np.ndarray


def make_examples(
    phrases: pd.DataFrame, split: str, store: FeatureStore, vocabulary: Vocabulary, length: int = 12
) -> Examples:
    """Boxed mentions of `split` whose picture is in the store, in the table's order."""
    chosen, rows, ids, boxes = boxed_mentions(phrases, split, store.row)
    tokens = vocabulary.encode(chosen.phrase, length)
    return Examples(store.array(list(ids)), rows.astype(np.int32), tokens, boxes)


def train(
    settings: Settings,
    train_set: Examples,
    val_set: Examples,
    embeddings: np.ndarray,
    vocabulary: Vocabulary,
    made_with: dict,
    folder: Path,
) -> pd.DataFrame:
    """Train into `folder` and return the history, a row an epoch: epoch, loss, val_mean_iou,
    val_accuracy_0.5, seconds.

    It is in history.csv too; beside it are the epoch with the highest val mean IoU, vocabulary.txt
    and, once it is finished, settings.json. A finished folder of the same settings, data and code
    is returned as it is; an unfinished one goes on after its last whole epoch. `made_with` names
    backbone and vectors; `blind_box` is the best one box of all train mentions.
    """
    made_of = json.dumps([asdict(settings), made_with, keras.__version__])
    arrays = embeddings, *vars(train_set).values(), *vars(val_set).values()
    wanted = {"fingerprint": fingerprint(__file__, made_of, *arrays)}
    finished, started = folder / "settings.json", folder / "started.json"
    if read_finished(finished, wanted):
        return pd.read_csv(folder / "history.csv")
    if not read_finished(started, wanted):
        for stale in ("state.keras", "model.keras", "history.csv"):
            (folder / stale).unlink(missing_ok=True)
        write_text(started, json.dumps(wanted))
    vocabulary.save(folder / "vocabulary.txt")
    history = _fit(settings, (train_set, val_set), embeddings, folder)
    blind = [round(float(side), 6) for side in box_ops.best_constant(train_set.boxes)]
    known = asdict(settings) | made_with | {"channels": train_set.features.shape[1]}
    known |= {"blind_box": blind} | wanted
    write_text(finished, json.dumps(known, indent=1) + "\n")
    for leftover in (started, folder / "state.keras"):
        leftover.unlink(missing_ok=True)
    return history


def _fit(settings: Settings, sets: tuple, embeddings: np.ndarray, folder: Path):
    make_deterministic(settings.seed)
    train_set, val_set = sets
    steps = -(-len(train_set.rows) // settings.batch_size)
    state, log, rows = folder / "state.keras", folder / "history.csv", []
    if state.is_file():
        network = keras.saving.load_model(state)
        done = int(network.optimizer.iterations) // steps
        rows = pd.read_csv(log).to_dict("records")[:done]
    else:
        inputs, channels = INPUTS[settings.model], train_set.features.shape[1]
        design = settings.length, settings.widths, settings.dropout
        network = build_regressor(inputs, channels, embeddings, *design)
        total = settings.epochs * steps
        rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, total)
        network.compile(keras.optimizers.Adam(rate), loss=LOSSES[settings.loss], jit_compile=False)
    # Exact now rather than at each step: operations on float16 warn where a processor lacks them.
    features = tf.constant(train_set.features, tf.float32)
    left = range(len(rows) + 1, settings.epochs + 1)
    for epoch in progress_bar(left, desc=folder.name, unit="epoch"):
        start = time.perf_counter()
        _reseed_dropout(network, settings.seed, epoch)
        batches = _epoch_batches(train_set, features, settings, epoch)
        loss = network.fit(batches, shuffle=False, verbose=0).history["loss"][0]
        iou = box_ops.iou(predict(network, val_set), val_set.boxes)
        row = {
            "epoch": epoch,
            "loss": loss,
            "val_mean_iou": float(iou.mean()),
            "val_accuracy_0.5": float((iou >= 0.5).mean()),
            "seconds": round(time.perf_counter() - start, 2),
        }
        # Best model, then history, then state: a kill between them only repeats the epoch.
        if row["val_mean_iou"] > max((r["val_mean_iou"] for r in rows), default=-1):
            with atomic(folder / "model.keras") as temporary:
                network.save(temporary)
        rows.append(row)
        write_text(log, pd.DataFrame(rows).to_csv(index=False, float_format="%.6f"))
        with atomic(state) as temporary:
            network.save(temporary)
    return pd.read_csv(log)


def load_regressor(folder: Path) -> keras.Model:
    """The network that `train` finished in the folder."""
    return keras.saving.load_model(folder / "model.keras", compile=False)


def predict(network: keras.Model, examples: Examples) -> np.ndarray:
    """Relative corners `(n, 4)` float32 of the examples."""
    found = [np.zeros((0, 4), np.float32)]
    for part in np.array_split(np.arange(len(examples.rows)), -(-len(examples.rows) // 1024) or 1):
        seen = examples.features[examples.rows[part]].astype(np.float32)
        # Called, not traced: each of the study's networks answers val once an epoch.
        found.append(np.asarray(network([seen, examples.tokens[part]], training=False)))
    return np.concatenate(found)


def _reseed_dropout(network: keras.Model, seed: int, epoch: int) -> None:
    for number, layer in enumerate(network.layers):
        # One with rate 0 draws nothing and has no generator.
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            start = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
            layer.seed_generator.state.assign(start)


def _epoch_batches(examples: Examples, features: tf.Tensor, settings: Settings, epoch: int):
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(examples.rows))
    shuffled = tuple(a[order] for a in (examples.rows, examples.tokens, examples.boxes))
    table = tf.data.Dataset.from_tensor_slices(shuffled)

    def gather(rows, tokens, boxes):
        return (tf.gather(features, rows), tokens), boxes

    return table.batch(settings.batch_size).map(gather).prefetch(2)
