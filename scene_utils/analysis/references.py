"""What can be had without looking, and what a coarse grid or an oracle could reach at most.

Blind boxes are fitted on train alone. They stand beside every model, found on the same mentions: a
subset of a split may be easier or harder than the whole, for them as for a model.
"""

import numpy as np
import pandas as pd

from scene_utils import box_ops
from scene_utils.analysis import metrics
from scene_utils.dataset.mentions import prediction_table

GRIDS = (7, 14, 28)
BEST = ("best constant", "best per category")
ORACLES = ("largest box", *(f"grid {n}x{n}{end}" for n in GRIDS for end in ("", ", best")))


def reference_boxes(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, np.ndarray]:
    """Relative boxes `(n, 4)` for the n boxed mentions `test`, by the name of the reference.

    Blind: `best constant` has the highest mean IoU to train, of all mentions or per category.
    Oracles, which read the truth: `largest box`, the largest merged box of the mention's picture;
    `grid 7x7` and so on, each side of the truth moved to the nearest border of a grid's cells (a
    box may thereby lose all area: a miss); `grid 7x7, best`, the box of whole cells with the
    highest IoU, which is made of the borders on either side of each side of the truth.
    """
    fitted, truth = box_ops.relative(train), box_ops.relative(test)
    constants = {
        "mean box": fitted.mean(axis=0),
        "whole image": np.float32([0, 0, 1, 1]),
        "centred .8": np.float32([0.1, 0.1, 0.9, 0.9]),
        "best constant": box_ops.best_constant(fitted),
    }
    found = {name: np.tile(box, (len(test), 1)) for name, box in constants.items()}
    found["best per category"] = found["best constant"].copy()
    for name in set(train.category) & set(test.category):
        box = box_ops.best_constant(fitted[(train.category == name).to_numpy()])
        found["best per category"][(test.category == name).to_numpy()] = box
    area = pd.Series(box_ops.area(test[box_ops.COLUMNS].to_numpy(np.float32)))
    found["largest box"] = truth[area.groupby(test.image_id.to_numpy()).transform("idxmax")]
    corners = np.array([*np.ndindex(2, 2, 2, 2)])[:, None]
    for cells in GRIDS:
        found[f"grid {cells}x{cells}"] = np.round(truth * cells) / cells
        low = np.minimum(np.floor(truth * cells), cells - 1)
        trials = (low + corners) / np.float32(cells)  # (16, n, 4)
        best = trials[box_ops.iou(trials, truth).argmax(axis=0), np.arange(len(truth))]
        found[f"grid {cells}x{cells}, best"] = best.astype(np.float32)
    return found


def predictions(phrases: pd.DataFrame, split: str) -> dict[str, pd.DataFrame]:
    """Prediction tables of all references for the boxed mentions of `split`, fitted on train.

    Each has one box a mention, of score 1; a box without area gives no row.
    """
    boxed = phrases[phrases.n_boxes > 0]
    train, test = boxed[boxed.split == "train"], boxed[boxed.split == split]
    if train.empty or test.empty:
        raise ValueError(f"expected boxed mentions of train and {split}, got none of one of them")
    found = {}
    for name, relative in reference_boxes(train, test).items():
        table = prediction_table(test, relative[:, None], np.ones(len(test), np.float32))
        table = table[box_ops.area(table[box_ops.COLUMNS].to_numpy()) > 0]
        found[name] = metrics.check_predictions(table)
    return found
