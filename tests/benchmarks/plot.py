"""The plot of `make bench`, from figures/bench.json alone."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from scene_utils.plots import COLOURS, new_figure, styled

PRECISION_COLOURS = {"float32": COLOURS[0], "bfloat16": COLOURS[1], "int8": COLOURS[2]}

DRAWN = ("pass", "caching", "cost", "training")


@styled
def speed(result: dict) -> Figure:
    """The pass of each backbone by runtime, caching beside the pass, the cost of pictures, and a
    training step."""
    drawers = [
        *(
            (lambda axis, name=name: _pass(axis, name, result["pass"]["backbones"][name]))
            for name in result.get("pass", {}).get("backbones", {})
        ),
        *(
            (lambda axis, name=name, draw=draw: draw(axis, result[name]))
            for name, draw in (("caching", _caching), ("cost", _cost), ("training", _training))
            if name in result
        ),
    ]
    rows = max(1, -(-len(drawers) // 2))
    figure, axes = new_figure(9.6, 3.6 * rows + 0.4, nrows=rows, ncols=2)
    for axis in axes.flat[len(drawers) :]:
        axis.set_axis_off()
    for axis, draw in zip(axes.flat, drawers, strict=False):
        draw(axis)
    figure.suptitle(_where({name: result[name] for name in DRAWN if name in result}))
    return figure


def _where(sections: dict) -> str:
    """A line for each machine and day that sections were measured on."""
    found: dict[str, list[str]] = {}
    for name, section in sections.items():
        about = (section["machine"].get(key, "?") for key in ("processor", "cores", "date"))
        found.setdefault("{}, {} cores, {}".format(*about), []).append(name)
    if len(found) == 1:
        return next(iter(found))
    return "\n".join(f"{', '.join(names)}: {about}" for about, names in found.items())


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
    rows = section["rows"][::-1]
    labels = [f"{r['backbone']}\n{r['precision']}, {r['pictures are']}" for r in rows]
    bars = axis.barh(labels, [100 * row["share"] for row in rows], color=COLOURS[2])
    axis.bar_label(bars, fmt="%.0f", label_type="center", color="white")
    ceilings = [100 * row["ceiling"] for row in rows]
    axis.plot(ceilings, labels, "|", color="black", ms=13, label="what reading leaves")
    axis.tick_params(axis="y", labelsize=7)
    axis.axvline(92, color="grey", ls="--", label="goal, 92")
    axis.margins(x=0.04)
    axis.set_xlim(left=0)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("whole caching (% of the pass alone)")
    axis.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=2)


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


def _training(axis: Axes, section: dict) -> None:
    names = list(next(iter(section["sizes"].values()))["step_seconds"])
    height = 0.8 / len(section["sizes"])
    places = range(len(names))
    for number, (size, row) in enumerate(section["sizes"].items()):
        seconds = [row["step_seconds"][name] for name in names]
        y = [place + height * (number - (len(section["sizes"]) - 1) / 2) for place in places]
        bars = axis.barh(y, seconds, height, color=COLOURS[number], label=f"{size} px")
        axis.bar_label(bars, fmt="%.2f", padding=2)
    axis.set_yticks(list(places), names)
    axis.margins(x=0.12)
    axis.grid(visible=False, axis="y")
    axis.set_xlabel("training step of the grid model (s, 16 pictures)")
    axis.set_title(section["backbone"])
    axis.legend()
