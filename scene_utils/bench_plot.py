"""The plot of `make bench`, from figures/bench.json alone."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scene_utils.plots import COLOURS, new_figure, styled

PRECISION_COLOURS = {
    "float32": COLOURS[0],
    "bfloat16": COLOURS[1],
    "int8": COLOURS[4],
}


@styled
def speed(result: dict) -> Figure:
    """The pass of each backbone by runtime, caching beside the pass, and the cost of pictures."""
    drawers = [
        *(
            (lambda axis, name=name: _pass(axis, name, result["pass"]["backbones"][name]))
            for name in result.get("pass", {}).get("backbones", {})
        ),
        *([lambda axis: _caching(axis, result["caching"])] if "caching" in result else []),
        *([lambda axis: _cost(axis, result["cost"])] if "cost" in result else []),
    ]
    rows = max(1, -(-len(drawers) // 2))
    figure, axes = new_figure(9.6, 3.6 * rows + 0.4, nrows=rows, ncols=2)
    for axis in axes.flat[len(drawers) :]:
        axis.set_axis_off()
    for axis, draw in zip(axes.flat, drawers, strict=False):
        draw(axis)
    machine = next((section["machine"] for section in result.values()), {})
    about = (machine.get(key, "?") for key in ("processor", "cores", "date"))
    figure.suptitle("{}, {} cores, {}".format(*about))
    return figure


def _pass(axis: Axes, name: str, row: dict) -> None:
    rates = sorted(row["pictures_per_second"].items(), key=lambda item: item[1])
    colours = [PRECISION_COLOURS[key.split()[-1]] for key, _ in rates]
    bars = axis.barh([key for key, _ in rates], [rate for _, rate in rates], color=colours)
    axis.bar_label(bars, fmt="%.3g", padding=2)
    axis.margins(x=0.12)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("model pass (pictures/s at 224 px)")
    axis.set_title(name)


def _caching(axis: Axes, section: dict) -> None:
    labels, shares = [], []
    for row in section["rows"]:
        labels.append(f"{row['backbone']}\n{row['precision']}, {row['pictures are']}")
        shares.append(100 * row["share"])
    bars = axis.barh(labels[::-1], shares[::-1], color=COLOURS[2])
    axis.bar_label(bars, fmt="%.0f", padding=2)
    axis.tick_params(axis="y", labelsize=7)
    axis.axvline(92, color="grey", ls="--")
    axis.margins(x=0.12)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("whole caching, % of the pass alone (dashed: 92)")


def _cost(axis: Axes, section: dict) -> None:
    table, measured = section["table"], section["measured"]
    axis.plot([r["pictures"] for r in table], [r["seconds"] for r in table], label="model")
    points = [(r["pictures"], r["seconds"]) for r in measured]
    axis.plot(*zip(*points, strict=True), "o", label="measured")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("pictures of 500 x 375 px")
    axis.set_ylabel("seconds, efficientnet_lite0 in bfloat16")
    axis.legend()
