"""Train the source system and its controls: one settings dataclass, one function.

Every epoch is a function of (state before it, seed, epoch number), so a run that is killed and
started again gives bit for bit what an undisturbed run gives.
"""

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from scene_utils import box_ops, imports
from scene_utils.dataset.mentions import boxed_mentions
from scene_utils.features.encode import FeatureStore
from scene_utils.paths import atomic, write_text
from scene_utils.runtime import make_deterministic, progress_bar
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
    """Boxed mentions of one split: picture row, token ids and relative merged box.

    `rows (n,)` index the pictures' `features (p, channels)`; `tokens (n, length)`, `boxes (n, 4)`.
    """

    features: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    boxes: np.ndarray

    @property
    def inputs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What `model.predict` takes."""
        return self.features, self.rows, self.tokens


def make_examples(
    phrases: pd.DataFrame, split: str, store: FeatureStore, vocabulary: Vocabulary, length: int = 12
) -> Examples:
    """Boxed mentions of `split` whose picture is in the store, in the table's order."""
    chosen, rows, ids, boxes = boxed_mentions(phrases, split, store.row)
    return Examples(
        store.array(list(ids)),
        rows.astype(np.int32),
        vocabulary.encode(chosen.phrase, length),
        boxes,
    )


def _fingerprint(settings: Settings, made_with: dict, *arrays: np.ndarray) -> str:
    """Hash of all that the trained model depends on, the code of model and training included."""
    digest = hashlib.sha256(imports.code_hash(__file__).encode())
    digest.update(json.dumps([asdict(settings), made_with, keras.__version__]).encode())
    for array in arrays:
        digest.update(str((array.dtype, array.shape)).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def train(
    settings: Settings,
    train_set: Examples,
    val_set: Examples,
    embeddings: np.ndarray,
    vocabulary: Vocabulary,
    made_with: dict,
    folder: Path,
    progress: bool = True,
) -> pd.DataFrame:
    """Train into `folder` and return the history, a row an epoch.

    Writes history.csv (epoch, loss, val_mean_iou, val_accuracy_0.5, seconds), the epoch with the
    highest val mean IoU as model.keras, vocabulary.txt, and at the end settings.json, in which
    `blind_box` is the best one box of all train mentions. A finished folder of the same settings,
    data and code is returned as it is; an unfinished one goes on after its last whole epoch.
    `made_with` names backbone and vectors, for those who load the model.
    """
    arrays = [embeddings]
    for examples in (train_set, val_set):
        arrays += [*examples.inputs, examples.boxes]
    fingerprint = _fingerprint(settings, made_with, *arrays)
    finished = folder / "settings.json"
    started = folder / "started.txt"
    if finished.is_file() and json.loads(finished.read_text())["fingerprint"] == fingerprint:
        return pd.read_csv(folder / "history.csv")
    finished.unlink(missing_ok=True)
    if not started.is_file() or started.read_text().strip() != fingerprint:
        for stale in ("state.keras", "model.keras", "history.csv"):
            (folder / stale).unlink(missing_ok=True)
        write_text(started, fingerprint + "\n")
    vocabulary.save(folder / "vocabulary.txt")
    history = _fit(settings, train_set, val_set, embeddings, folder, progress)
    blind = [round(float(side), 6) for side in box_ops.best_constant(train_set.boxes)]
    known = asdict(settings) | made_with | {"channels": train_set.features.shape[1]}
    known |= {"blind_box": blind, "fingerprint": fingerprint}
    write_text(finished, json.dumps(known, indent=1) + "\n")
    for leftover in (started, folder / "state.keras"):
        leftover.unlink(missing_ok=True)
    return history


def _val_row(epoch: int, loss: float, val_iou: np.ndarray, seconds: float) -> dict:
    return {
        "epoch": epoch,
        "loss": loss,
        "val_mean_iou": float(val_iou.mean()),
        "val_accuracy_0.5": float((val_iou >= 0.5).mean()),
        "seconds": round(seconds, 2),
    }


def _write_history(rows: list[dict], folder: Path) -> pd.DataFrame:
    history = pd.DataFrame(rows)
    write_text(folder / "history.csv", history.to_csv(index=False, float_format="%.6f"))
    return pd.read_csv(folder / "history.csv")


def _fit(
    settings: Settings,
    train_set: Examples,
    val_set: Examples,
    embeddings: np.ndarray,
    folder: Path,
    progress: bool,
):
    make_deterministic(settings.seed)
    steps = -(-len(train_set.rows) // settings.batch_size)
    state, best = folder / "state.keras", folder / "model.keras"
    rows: list[dict] = []
    if state.is_file():
        network = keras.saving.load_model(state)
        done = int(network.optimizer.iterations) // steps
        rows = pd.read_csv(folder / "history.csv").to_dict("records")[:done]
    else:
        network = build_regressor(
            INPUTS[settings.model],
            train_set.features.shape[1],
            embeddings,
            settings.length,
            settings.widths,
            settings.dropout,
        )
        schedule = keras.optimizers.schedules.CosineDecay(
            settings.learning_rate, settings.epochs * steps
        )
        network.compile(
            keras.optimizers.Adam(schedule),
            loss=LOSSES[settings.loss],
            jit_compile=False,
        )
    # Exact now rather than at each step: operations on float16 warn where a processor lacks them.
    features = tf.constant(train_set.features, tf.float32)
    with progress_bar(
        initial=len(rows),
        total=settings.epochs,
        desc=f"{settings.model} {settings.loss}",
        unit="epoch",
        disable=not progress,
    ) as bar:
        for epoch in range(len(rows) + 1, settings.epochs + 1):
            start = time.perf_counter()
            _reseed_dropout(network, settings.seed, epoch)
            batches = _epoch_batches(train_set, features, settings, epoch)
            loss = network.fit(batches, shuffle=False, verbose=0).history["loss"][0]
            val_iou = box_ops.iou(predict(network, *val_set.inputs), val_set.boxes)
            row = _val_row(epoch, loss, val_iou, time.perf_counter() - start)
            # Best model, then history, then state: a kill between them only repeats the epoch.
            if row["val_mean_iou"] > max((r["val_mean_iou"] for r in rows), default=-1):
                with atomic(best) as temporary:
                    network.save(temporary)
            rows.append(row)
            history = _write_history(rows, folder)
            with atomic(state) as temporary:
                network.save(temporary)
            bar.set_postfix(loss=f"{loss:.3f}", val_iou=f"{row['val_mean_iou']:.3f}")
            bar.update()
    return history


def load_regressor(folder: Path) -> keras.Model:
    """The network that `train` finished in the folder."""
    return keras.saving.load_model(folder / "model.keras", compile=False)


def predict(
    network: keras.Model,
    features: np.ndarray,
    rows: np.ndarray,
    tokens: np.ndarray,
    batch_size: int = 1024,
) -> np.ndarray:
    """Relative corners `(n, 4)` float32 of phrases `tokens (n, length)` in pictures `rows (n,)` of
    `features (p, channels)`."""
    parts = []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        inputs = [features[rows[part]].astype(np.float32), tokens[part]]
        # Under a strategy each device answers the whole batch, one after the other.
        parts.append(np.asarray(network.predict_on_batch(inputs))[: len(inputs[0])])
    return np.concatenate(parts)


def _reseed_dropout(network: keras.Model, seed: int, epoch: int) -> None:
    for number, layer in enumerate(network.layers):
        # One with rate 0 draws nothing and has no generator.
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            start = np.random.SeedSequence([seed, epoch, number]).generate_state(2)
            layer.seed_generator.state.assign(start)


def _epoch_batches(examples: Examples, features: tf.Tensor, settings: Settings, epoch: int):
    order = np.random.default_rng([settings.seed, epoch]).permutation(len(examples.rows))
    table = tf.data.Dataset.from_tensor_slices(
        (examples.rows[order], examples.tokens[order], examples.boxes[order])
    )

    def gather(rows, tokens, boxes):
        return (tf.gather(features, rows), tokens), boxes

    return table.batch(settings.batch_size).map(gather).prefetch(2)


def times(folder: Path) -> pd.DataFrame:
    """Epochs and seconds of each run that left a history.csv under `folder`."""
    rows = {}
    for path in sorted(folder.rglob("history.csv")):
        history = pd.read_csv(path)
        best = history.loc[history["val_mean_iou"].idxmax()]
        rows[path.parent.relative_to(folder).as_posix()] = {
            "epochs": len(history),
            "best epoch": int(best["epoch"]),
            "val mean IoU": round(best["val_mean_iou"], 4),
            "val accuracy .5 (%)": round(100 * best["val_accuracy_0.5"], 2),
            "seconds": round(history["seconds"].sum(), 1),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
