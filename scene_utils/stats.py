"""Scores as probabilities: a logistic curve fitted to them, and the area under their ROC curve."""

import numpy as np


def log_odds(share: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of shares in [0, 1], those next to the ends cut to be finite."""
    share = np.clip(np.asarray(share, np.float64), 1e-4, 1 - 1e-4)
    return np.log(share / (1 - share))


def logistic(x: np.ndarray, curve: tuple[float, float]) -> np.ndarray:
    """1 / (1 + exp(-(slope x + offset))) of a `curve` of slope and offset."""
    return 1 / (1 + np.exp(-(curve[0] * x + curve[1])))


def fit_logistic(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray | None = None
) -> tuple[float, float]:
    """Slope and offset of the logistic curve of highest likelihood, by Newton's method.

    x, weights `(n,)`, y `(n,)` of 0 and 1. A slight ridge keeps separable data finite.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    weights = np.ones(len(x)) if weights is None else weights
    columns = np.stack([x, np.ones(len(x))], axis=1)
    curve = np.zeros(2)
    for _ in range(50):
        share = logistic(x, curve)
        slope = columns.T @ (weights * (share - y)) + 1e-3 * curve
        bend = (columns.T * (weights * share * (1 - share))) @ columns + 1e-3 * np.eye(2)
        change = np.linalg.solve(bend, slope)
        curve -= change
        if np.abs(change).max() < 1e-9:
            break
    return float(curve[0]), float(curve[1])


def area_under_roc(
    positive: np.ndarray,
    negative: np.ndarray,
    positive_weights: np.ndarray | None = None,
    negative_weights: np.ndarray | None = None,
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
