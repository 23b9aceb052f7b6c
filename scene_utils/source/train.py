"""Train any model of the study: one settings dataclass, one function.

Every epoch is a function of (state before it, seed, epoch number), so a run that is killed and
started again gives bit for bit what an undisturbed run gives.
"""

import hashlib
import json
import time
from collections.abc import Container
from dataclasses import asdict, dataclass
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from scene_utils import box_ops
from scene_utils.features.encode import FeatureStore
from scene_utils.paths import atomic, write_text
from scene_utils.runtime import progress_bar
from scene_utils.source import model as model_module
from scene_utils.words import Vocabulary

LOSSES = model_module.LOSSES
BLIND = ("constant", "per-category")
MODELS = (*BLIND, *model_module.INPUTS)


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
        if self.model not in MODELS:
            raise ValueError(f"model: expected one of {MODELS}, got {self.model!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {tuple(LOSSES)}, got {self.loss!r}")


@dataclass(frozen=True)
class Examples:
    """Boxed mentions of one split: picture row, token ids, relative merged box and category.

    `rows (n,)` index the pictures' `features (p, channels)`; `tokens (n, length)`, `boxes (n, 4)`.
    """

    features: np.ndarray
    rows: np.ndarray
    tokens: np.ndarray
    boxes: np.ndarray
    categories: np.ndarray


def boxed_mentions(
    phrases: pd.DataFrame, split: str, known: Container[str]
) -> tuple[pd.DataFrame, np.ndarray, pd.Index, np.ndarray]:
    """Boxed mentions of `split` whose picture is known, in the table's order.

    Gives their n rows of the table, the picture of each as a number `(n,)`, the image id behind
    each number, and the merged boxes `(n, 4)` as fractions of the picture. Raises ValueError where
    there is none.
    """
    chosen = phrases[(phrases.split == split) & (phrases.n_boxes > 0)]
    chosen = chosen[chosen.image_id.isin(known)]
    if chosen.empty:
        raise ValueError(f"expected boxed mentions with a picture in split {split!r}, got none")
    rows, ids = pd.factorize(chosen.image_id)
    boxes = box_ops.to_relative(
        chosen[box_ops.COLUMNS].to_numpy(), chosen.width.to_numpy(), chosen.height.to_numpy()
    )
    return chosen, rows, ids, np.clip(boxes, 0, 1)


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
        chosen.category.to_numpy(str),
    )


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow and ask for bitwise repeatable kernels."""
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def _fingerprint(settings: Settings, made_with: dict, *arrays: np.ndarray) -> str:
    """Hash of all that the trained model depends on, the code of model and training included."""
    digest = hashlib.sha256()
    for path in (Path(__file__), Path(model_module.__file__)):
        digest.update(path.read_bytes())
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
    highest val mean IoU as model.keras (boxes.json for the blind models), vocabulary.txt, and at
    the end settings.json. A finished folder of the same settings, data and code is returned as it
    is; an unfinished one goes on after its last whole epoch. `made_with` names backbone and
    vectors, for those who load the model.
    """
    arrays = [embeddings]
    for examples in (train_set, val_set):
        arrays += [examples.features, examples.rows, examples.tokens, examples.boxes]
    fingerprint = _fingerprint(settings, made_with, *arrays)
    finished = folder / "settings.json"
    started = folder / "started.txt"
    if finished.is_file() and json.loads(finished.read_text())["fingerprint"] == fingerprint:
        return pd.read_csv(folder / "history.csv")
    finished.unlink(missing_ok=True)
    if not started.is_file() or started.read_text().strip() != fingerprint:
        for stale in ("state.keras", "model.keras", "boxes.json", "history.csv"):
            (folder / stale).unlink(missing_ok=True)
        write_text(started, fingerprint + "\n")
    vocabulary.save(folder / "vocabulary.txt")
    if settings.model in BLIND:
        history = _fit_blind(settings, train_set, val_set, folder)
    else:
        history = _fit_network(settings, train_set, val_set, embeddings, folder, progress)
    settings_json = asdict(settings) | made_with | {"fingerprint": fingerprint}
    write_text(finished, json.dumps(settings_json, indent=1) + "\n")
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


def _fit_blind(settings: Settings, train_set: Examples, val_set: Examples, folder: Path):
    """The best one box of all train mentions, and for `per-category` of each category."""
    start = time.perf_counter()
    fitted = {"*": box_ops.best_constant(train_set.boxes)}
    if settings.model == "per-category":
        for category in np.unique(train_set.categories):
            fitted[category] = box_ops.best_constant(
                train_set.boxes[train_set.categories == category]
            )
    boxes = {key: [round(float(side), 6) for side in box] for key, box in fitted.items()}
    write_text(folder / "boxes.json", json.dumps(boxes, indent=1) + "\n")
    seconds = time.perf_counter() - start
    train_iou = box_ops.iou(blind_boxes(boxes, train_set.categories), train_set.boxes)
    val_iou = box_ops.iou(blind_boxes(boxes, val_set.categories), val_set.boxes)
    return _write_history([_val_row(1, 1 - train_iou.mean(), val_iou, seconds)], folder)


def blind_boxes(boxes: dict[str, list[float]], categories: np.ndarray) -> np.ndarray:
    """Relative boxes `(n, 4)` by category; "*" serves those without a box of their own."""
    return np.float32([boxes.get(category, boxes["*"]) for category in categories])


def _fit_network(
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
        network = model_module.build_regressor(
            model_module.INPUTS[settings.model],
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
            val_iou = box_ops.iou(predict(network, val_set), val_set.boxes)
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


def predict(network: keras.Model, examples: Examples, batch_size: int = 1024) -> np.ndarray:
    """Relative corners `(n, 4)` float32 of all examples."""
    parts = []
    for start in range(0, len(examples.rows), batch_size):
        part = slice(start, start + batch_size)
        inputs = [examples.features[examples.rows[part]].astype(np.float32), examples.tokens[part]]
        # Under a strategy each device answers the whole batch, one after the other.
        parts.append(np.asarray(network.predict_on_batch(inputs))[: len(inputs[0])])
    return np.concatenate(parts)


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
