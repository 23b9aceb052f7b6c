"""Scores as probabilities: a logistic curve fitted to them, and the area under their ROC curve."""

from collections.abc import Sequence

import numpy as np


def log_odds(share: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of shares in [0, 1], those next to the ends cut to be finite."""
    share = np.clip(np.asarray(share, np.float64), 1e-4, 1 - 1e-4)
    return np.log(share / (1 - share))


def logistic(curve: Sequence[float], *x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), z the sum of each x times its slope and, last in `curve`, the offset."""
    *slopes, offset = curve
    return 1 / (1 + np.exp(-sum(map(np.multiply, slopes, x), offset)))


def fit_logistic(
    y: np.ndarray, *x: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, ...]:
    """Slopes and offset of the logistic curve of highest likelihood, by Newton's method.

    Each x and weights `(n,)`, y `(n,)` of 0 and 1. A slight ridge keeps separable data finite.
    """
    y = np.asarray(y, np.float64)
    weights = np.ones(len(y)) if weights is None else weights
    columns = np.stack([*x, np.ones(len(y))], axis=1).astype(np.float64)
    curve = np.zeros(columns.shape[1])
    for _ in range(50):
        share = logistic(curve, *columns.T[:-1])
        slope = columns.T @ (weights * (share - y)) + 1e-3 * curve
        bend = (columns.T * (weights * share * (1 - share))) @ columns + 1e-3 * np.eye(len(curve))
        change = np.linalg.solve(bend, slope)
        curve -= change
        if np.abs(change).max() < 1e-9:
            break
    return tuple(map(float, curve))


def area_under_roc(
    positive: np.ndarray, negative: np.ndarray, positive_weights=None, negative_weights=None
) -> np.ndarray:
    """Share of pairs in which the positive is higher, ties counting half (Mann and Whitney 1947).

    Scores `(n,)` and `(m,)`. Weights `(..., n)` and `(..., m)`, as of a bootstrap's resamples, give
    an area `(...)` each.
    """
    positive, negative = np.asarray(positive), np.asarray(negative)
    mine = np.ones(len(positive)) if positive_weights is None else positive_weights
    others = np.ones(len(negative)) if negative_weights is None else negative_weights
    order = np.argsort(negative, kind="stable")
    below = np.cumsum(others[..., order], axis=-1, dtype=np.float64)
    below = np.concatenate([np.zeros((*below.shape[:-1], 1)), below], axis=-1)
    sides = (np.searchsorted(negative[order], positive, side=side) for side in ("left", "right"))
    beaten = sum(below[..., side] for side in sides) / 2
    return (mine * beaten).sum(axis=-1) / (mine.sum(axis=-1) * others.sum(axis=-1))
