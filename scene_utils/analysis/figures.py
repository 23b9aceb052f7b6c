"""What the figures of notebooks 05 to 05d share: a model looks the same in all of them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scene_utils.plots import COLOURS

GREY = "#8a8a8a"
COLOUR_OF = {
    **{"best constant": "black", "best per category": COLOURS[5], "source-mse": GREY},
    **{"text-only": COLOURS[0], "image-only": COLOURS[4], "source": COLOURS[1], "grid": COLOURS[2]},
}
# Their order serves those that have no colour.
MARKERS = "osD^vP"


def look(name: str) -> dict:
    """Colour and line of a model."""
    colour = COLOUR_OF.get(name, COLOURS[3])
    return {"color": colour, "ls": "--" if colour == "black" else "-"}


def bars(figures: Sequence[dict], scale: float = 100) -> tuple[np.ndarray, np.ndarray]:
    """Values `(n,)` and lengths of the error bars `(2, n)` of figures with low and high."""
    value, low, high = (np.array([f[k] for f in figures]) * scale for k in ("value", "low", "high"))
    return value, np.clip(np.stack([value - low, high - value]), 0, None)


def curve(axis: Axes, places, figures: Sequence[dict], name: str, number: int, **style) -> None:
    """Figures in % above `places`, with their intervals, as the line of the model `name`."""
    values, ends = bars(figures)
    style = {"marker": MARKERS[number % len(MARKERS)], "ms": 5, "capsize": 2, "label": name} | style
    axis.errorbar(places, values, yerr=ends, **look(name) | style)


def marks(axis: Axes, rows: dict[str, list[tuple[float, dict]]], spread: float, labels) -> None:
    """Figures in % beside the labelled rows, a mark a model; `rows` has (row, figure) of each."""
    for number, (name, found) in enumerate(rows.items()):
        values, ends = bars([figure for _, figure in found])
        shift = np.linspace(-spread, spread, len(rows))[number]
        marker, colour = MARKERS[number % len(MARKERS)], look(name)["color"]
        style = {"fmt": marker, "ms": 5, "capsize": 2, "color": colour, "label": name}
        axis.errorbar(values, [row + shift for row, _ in found], xerr=ends, **style)
    axis.set_yticks(range(len(labels)), labels)
    axis.grid(axis="y", visible=False)


def finish(figure: Figure, note: str, axis: Axes | None = None, columns: int = 6) -> None:
    """Give the figure its title, what its numbers rest on, and below it the legend of an axis."""
    if axis is not None:
        handles = axis.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=columns)
    figure.suptitle(note)
