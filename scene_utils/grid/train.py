"""Train the grid model: all phrases of a picture share its pass through the backbone.

Every step is a function of (state before it, seed, epoch, number), so a run that is killed and
started again goes on from its last saved step.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from scene_utils import quiet_tensorflow  # noqa: F401  isort: skip
import keras
import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.features.backbones import Backbone, load_backbone
from scene_utils.grid import batches
from scene_utils.grid.batches import GridSettings, Mentions
from scene_utils.grid.folders import member_folder
from scene_utils.grid.network import DESIGN, GridModel, build_grid
from scene_utils.paths import read_finished, write_text
from scene_utils.runtime import fingerprint, make_deterministic, progress_bar
from scene_utils.words import Vocabulary

SAVE_SECONDS = 240


def fast_and_slow(model: GridModel, settings: GridSettings) -> tuple[list, list]:
    """The variables to train: of all but the backbone, and of it, unless its rate is 0."""
    slow = model.visual.layers[1].trainable_variables
    known = {id(variable) for variable in slow}
    every = [v for part in model.parts() for v in part.trainable_variables]
    fast = [variable for variable in every if id(variable) not in known]
    return fast, slow if settings.backbone_rate else []


def make_optimizers(settings: GridSettings, steps: int, fast: list, slow: list) -> list:
    """AdamW over either list of variables; its rate is a cosine with a warm-up to the peak."""
    warm, found = min(200, steps // 10), []
    for rate, variables in ((settings.learning_rate, fast), (settings.backbone_rate, slow)):
        schedule = keras.optimizers.schedules.CosineDecay(
            rate / 30, max(1, steps - warm), alpha=0.01, warmup_target=rate, warmup_steps=warm
        )
        how = {"weight_decay": settings.weight_decay, "global_clipnorm": 5.0}
        found.append(keras.optimizers.AdamW(schedule, **how))
        found[-1].build(variables)
    return found


def val_row(
    epoch: int, losses: np.ndarray, answer: Callable, val: Mentions, seconds: float
) -> dict:
    """A row of the history; `answer` as `batches.best_boxes` takes it."""
    found = batches.best_boxes(answer, val)
    iou, hit = box_ops.iou(found, val.boxes), box_ops.holds_centre(val.boxes, found)
    row = {"score_loss": losses[0], "box_loss": losses[1], "val_mean_iou": iou.mean()}
    row |= {"val_accuracy_0.5": (iou >= 0.5).mean(), "val_pointing": hit.mean()}
    row = {name: round(float(value), 5) for name, value in row.items()}
    return {"epoch": epoch} | row | {"seconds": round(seconds, 1)}


def described_run(
    settings: GridSettings,
    sets: tuple[Mentions, Mentions],
    embeddings: np.ndarray,
    made_with: dict,
    backbone: Backbone,
) -> dict:
    """What settings.json says of a finished run on `sets`, those of train and val."""
    arrays = [embeddings]
    for one in sets:
        # The pictures are those of the mentions; all of them would take long to read.
        arrays += [array for name, array in vars(one).items() if name != "pictures"]
    known = {"model": "grid", "word_dim": embeddings.shape[1], "label": backbone.label}
    known |= {"weights_sha256": backbone.sha256, "fingerprint": fingerprint(__file__, *arrays)}
    return made_with | asdict(settings) | known


def train_grid(
    settings: GridSettings,
    train_set: Mentions,
    val_set: Mentions,
    embeddings: np.ndarray,
    vocabulary: Vocabulary,
    made_with: dict,
    folder: Path,
    weights: str | Path | None = None,
) -> pd.DataFrame:
    """Train into `folder` and return the history, a row an epoch; see `source.train.train`.

    Writes history.csv, the averaged weights of the epoch with the highest val mean IoU as
    visual, text and head .weights.h5, vocabulary.txt, and at the end settings.json.
    `made_with` has `untrained`, whether the backbone starts from random weights, and what else is
    to be remembered. The state is saved every four minutes and after each epoch; a stopped run goes
    on from there.
    """
    # Training on a GPU uses the rest of this module without TensorFlow.
    from scene_utils.grid.ensemble import Ensemble
    from scene_utils.grid.trainer import Trainer

    finished, started = folder / "settings.json", folder / "started.json"
    backbone = load_backbone(settings.backbone, weights, made_with["untrained"])
    wanted = described_run(settings, (train_set, val_set), embeddings, made_with, backbone)
    if read_finished(finished, wanted):
        return pd.read_csv(folder / "history.csv")
    if not read_finished(started, wanted):
        shutil.rmtree(folder / "state", ignore_errors=True)
        write_text(started, json.dumps(wanted))
    vocabulary.save(folder / "vocabulary.txt")
    make_deterministic(settings.seed)
    model = build_grid(backbone, embeddings, **{name: getattr(settings, name) for name in DESIGN})
    per_epoch = len(train_set.picture_rows) // settings.pictures_per_step
    total = settings.epochs * per_epoch
    trainer = Trainer(model, settings, total)
    alone = Ensemble((model,))
    step = trainer.resume(folder / "state")
    # A picture then has the same maps of the backbone in every step.
    if not (settings.augmented or settings.backbone_rate or settings.progressive):
        trainer.keep_maps(train_set)
    log = folder / "history.csv"
    rows = pd.read_csv(log).to_dict("records")[: step // per_epoch] if step >= per_epoch else []
    mirrored = batches.opposite_tokens(vocabulary)
    with progress_bar(initial=step, total=total, desc="grid", unit="step") as bar:
        while step < total:
            epoch, first = divmod(step, per_epoch)
            size = settings.size_in(epoch)
            began, saved, losses = time.perf_counter(), time.perf_counter(), []
            left = batches.epoch_batches(train_set, settings, mirrored, epoch, first)
            for batch in batches.prefetched(left):
                losses.append(trainer.step(size, batch))
                step += 1
                bar.update()
                if time.perf_counter() - saved > SAVE_SECONDS and step % per_epoch:
                    trainer.save(step)
                    saved = time.perf_counter()
            trainer.swap()
            seconds = time.perf_counter() - began
            row = val_row(epoch + 1, np.mean(losses, axis=0), alone.answer, val_set, seconds)
            if row["val_mean_iou"] > max((r["val_mean_iou"] for r in rows), default=-1):
                model.save(folder)
            trainer.swap()
            rows.append(row)
            write_text(log, pd.DataFrame(rows).to_csv(index=False))
            trainer.save(step)
            bar.set_postfix(val_iou=row["val_mean_iou"], val_accuracy=row["val_accuracy_0.5"])
    write_text(finished, json.dumps(wanted, indent=1) + "\n")
    started.unlink()
    shutil.rmtree(folder / "state")
    return pd.read_csv(log)


def train_members(settings: GridSettings, *data, folder: Path, **options) -> list[pd.DataFrame]:
    """Train all members into their folders, see `folders.member_folder`; their histories.

    `data` and `options` are those of `train_grid` between its settings and its folder, and after.
    """
    histories = []
    for number in range(settings.members):
        member = replace(settings, seed=settings.seed + number)
        histories.append(train_grid(member, *data, member_folder(folder, number), **options))
    return histories
