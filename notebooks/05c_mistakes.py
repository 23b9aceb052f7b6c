# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 5c Mistakes
#
# What scores say, whether a thing is there at all, and which mistakes are made. All of it from the
# `metrics.json` that `05_iou_analysis` wrote.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd

from scene_utils import paths, plots, runtime
from scene_utils.analysis import breakdown, metrics_file
from scene_utils.analysis import predictions as kept
from scene_utils.study import tables

runtime.check()
# %matplotlib inline
plots.plt.style.use(["default", plots.STYLE])
figures = paths.figures(profile)
metrics = metrics_file.read_metrics(figures / "metrics.json")
note = metrics_file.note(metrics["data"], metrics["labels"])
ours, _ = kept.compared(metrics["models"])

# %% [markdown]
# ## What does the score say?
#
# Only of models whose scores differ.

# %%
if metrics["calibration"]:
    figure, axes = plots.new_figure(5.6, 4.4)
    axes[0, 0].plot([0, 1], [0, 100], color="grey", lw=1, ls=":")
    for number, (name, found) in enumerate(metrics["calibration"].items()):
        label = f"{name}, mean error {100 * found['error']:.1f} points"
        scores = [row["score"] for row in found["bins"]]
        plots.curve(axes[0, 0], scores, found["bins"], name, number, label=label)
    axes[0, 0].set(xlabel="score of the box (mean of the bin)", xlim=(0, 1))
    axes[0, 0].set(ylabel="IoU .5 reached (% of the bin)", ylim=(0, 100))
    axes[0, 0].legend(loc="upper left")
    plots.finish(figure, f"{note}, merged box")
    plots.save(figure, figures / "calibration.png")
print("models with scores:", ", ".join(metrics["calibration"]) or "none")

# %% [markdown]
# ## Is it there at all?
#
# Every phrase is asked about its own picture and about another. `present` is the model's
# probability that a phrase is about the picture; below .1 the widget warns. Many phrases of
# another picture do name something in this one ("a man"). `absent things` are those whose last word
# no phrase of the picture uses; but "a man" may name its "two males". `absent categories` are those
# of them of whose category, such as people or animals, the picture has nothing.

# %%
# NBVAL_CHECK_OUTPUT
tables.presence(metrics["presence"])

# %%
if metrics["presence"]:
    figure, ((axis,),) = plots.new_figure(5.6, 4.4)
    axis.plot([0, 100], [0, 100], color="grey", lw=1, ls=":")
    for name, kinds in metrics["presence"].items():
        for (kind, curve), dashes in zip(kinds.items(), ("-", "--", ":"), strict=False):
            alarms, hits = (100 * np.array(curve[key]) for key in ("false_alarms", "found"))
            label = f"{name}, {kind}: area {curve['area']['value']:.3f}"
            axis.plot(alarms, hits, label=label, **plots.look(name) | {"ls": dashes})
    axis.set(xlabel="phrases of the picture that are flagged (%)", xlim=(0, 100))
    axis.set(ylabel="phrases of another picture that are flagged (%)", ylim=(0, 100))
    axis.legend(loc="lower right")
    plots.finish(figure, note)
    plots.save(figure, figures / "presence.png")

# %% [markdown]
# ## Which mistakes?
#
# Does the box fall on another phrase's thing? And of the mentions that were missed, how often would
# the box of another phrase have been right?

# %%
# NBVAL_CHECK_OUTPUT
table = pd.DataFrame.from_dict(metrics["mistakes"], orient="index")
table.T

# %%
colours = [plots.COLOURS[n] for n in (2, 0, 5, 1)]
colours += ["#F0C36D", plots.COLOURS[4], "#999999", "#444444"]
figure, ((axis,),) = plots.new_figure(7.5, 1.5 + 0.33 * len(table))
left = np.zeros(len(table))
for kind, colour in zip(breakdown.MISTAKES, colours, strict=True):
    values = table[kind].to_numpy()
    if values.max() == 0:
        continue
    bars = axis.barh(table.index, values, 0.7, left, color=colour, label=kind)
    dark = kind in ("right", "another object of its category", "no answer")
    texts = [f"{value:.0f}" if value >= 5 else "" for value in values]
    axis.bar_label(bars, texts, label_type="center", fontsize=8.5, color="w" if dark else "k")
    left += values
axis.invert_yaxis()
axis.set(xlabel="mentions (%)", xlim=(0, 100))
axis.grid(axis="y", visible=False)
plots.finish(figure, f"{note}, merged box", axis, columns=4)
plots.save(figure, figures / "mistakes.png")

# %% [markdown]
# On the sample each thing is known, so the one under a wrong box can be held against the phrase:
# which word does it miss? "relation" where it has all that the phrase names but stands elsewhere.

# %%
# NBVAL_CHECK_OUTPUT
pd.DataFrame(metrics["misses"].get(ours, []))

# %% [markdown]
# Of "the cup above the star" and "the cup above the hat" of one picture, who reads no further
# answers both alike, and is right about one of the two at most; likewise of "the cup above the
# star" and "the cup left of the star" who does not read the relation. These are the bounds; who is
# above both reads all of it.

# %%
# NBVAL_CHECK_OUTPUT
metrics["unread"]
