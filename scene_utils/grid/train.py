"""Train the grid model: all phrases of a picture share its pass through the backbone.

Every step is a function of (state before it, seed, epoch, number), so a run that is killed and
started again goes on from its last saved step.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from scene_utils import box_ops, imports
from scene_utils.features.backbones import Backbone, load_backbone
from scene_utils.grid import network
from scene_utils.grid.batches import (
    GridSettings,
    Mentions,
    epoch_batches,
    opposite_tokens,
    prefetched,
)
from scene_utils.grid.folders import member_folder
from scene_utils.grid.network import GridModel, build_grid
from scene_utils.paths import write_text
from scene_utils.runtime import make_deterministic, progress_bar
from scene_utils.words import Vocabulary

SAVE_SECONDS = 240


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


def _val_row(epoch: int, losses: np.ndarray, asker, val: Mentions, seconds: float) -> dict:
    found, _ = asker.ask(val.pictures, val.picture_rows, val.rows, val.tokens)
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
    """Hash of all code that the training runs, the vectors and the mentions."""
    digest = hashlib.sha256(imports.code_hash(__file__).encode())
    arrays = [embeddings]
    for mentions in sets:
        arrays += [mentions.picture_rows, mentions.rows, mentions.tokens, mentions.longer]
        arrays += [mentions.boxes, mentions.landmarks]
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
        | {"label": backbone.label, "weights_sha256": backbone.sha256}
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
    """Train into `folder` and return the history, a row an epoch; see `source.train.train`.

    Writes history.csv, the averaged weights of the epoch with the highest val mean IoU as
    visual, text and head .weights.h5, vocabulary.txt, and at the end settings.json.
    `made_with` has `untrained`, whether the backbone starts from random weights, and what else is
    to be remembered. `teachers` are as many folders of finished models with the same vocabulary as
    the settings say, see `described_run`. The state is saved every four minutes and after each
    epoch; a stopped run goes on from there.
    """
    # Training on a GPU uses the rest of this module without TensorFlow.
    from scene_utils.grid.ensemble import Asker, Ensemble
    from scene_utils.grid.trainer import Trainer

    finished, state = folder / "settings.json", folder / "state.json"
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
                    [
                        float(loss)
                        for loss in trainer.step(size, *map(keras.ops.convert_to_tensor, batch[1:]))
                    ]
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
    """Train all members into their folders, see `folders.member_folder`; their histories.

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
