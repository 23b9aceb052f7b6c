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
# # 5b More of the analysis
#
# What needs no model, the other protocol and recall, what decides whether a box is right, and which
# differences are real. All of it from the `metrics.json` that `05_iou_analysis` wrote.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd

from scene_utils import paths, plots, runtime
from scene_utils.analysis import metrics as scoring
from scene_utils.analysis import metrics_file, references
from scene_utils.analysis import predictions as kept
from scene_utils.study import tables

runtime.check()
# %matplotlib inline
plots.plt.style.use(["default", plots.STYLE])
figures = paths.figures(profile)
metrics = metrics_file.read_metrics(figures / "metrics.json")
results, described = metrics["models"], metrics["data"]
note = metrics_file.note(described, metrics["labels"])
names = list(results)
ours, shown = kept.compared(names)
blind = {references.BEST[0]: metrics["references"][references.BEST[0]]}
compared = blind | {name: results[name] for name in shown}
labelled = {metrics["labels"][name]: result for name, result in results.items()}

# %% [markdown]
# ## What needs no model
#
# An oracle reads the truth: the picture's largest box, and the truth moved to the borders of a
# coarse grid's cells, the ceiling of what such a grid can answer.

# %%
# NBVAL_CHECK_OUTPUT
tables.scores(metrics["references"], "merged")

# %% [markdown]
# ## The other protocol
#
# `any`: of a phrase's boxes the best counts.

# %%
# NBVAL_CHECK_OUTPUT
tables.scores(labelled, "any")

# %% [markdown]
# Recall at 1, 5 and 10 and the upper bound of all candidates, at IoU .5, as MDETR counts. A model
# with one box has the same in each column.

# %%
# NBVAL_CHECK_OUTPUT
tables.recall(results, "any")

# %%
figure, axes = plots.new_figure(7.5, 3.4, ncols=2, sharey=True)
places = range(len(scoring.RECALLS))
for axis, protocol in zip(axes[0], ("any", "merged"), strict=True):
    for number, (name, result) in enumerate(compared.items()):
        found = result["recall"][protocol]["all"]
        plots.curve(axis, places, [found[k] for k in scoring.RECALLS], name, number)
    axis.set_xticks(places, [name.replace("_", "\n") for name in scoring.RECALLS])
    axis.set(xlabel="boxes that may answer", title=f"{protocol} box", ylim=(0, 100))
axes[0, 0].set_ylabel("mentions with a box of IoU .5 (%)")
plots.finish(figure, note, axes[0, 0])
plots.save(figure, figures / "recall.png")

# %% [markdown]
# ## Categories

# %%
# NBVAL_CHECK_OUTPUT
tables.categories(results, "any")

# %%
recall = {name: result["recall"] for name, result in compared.items()}
kinds = next(iter(recall.values()))["any"]
figure, axes = plots.new_figure(7.5, 0.9 + 0.45 * len(kinds), ncols=2, sharex=True, sharey=True)
for axis, protocol in zip(axes[0], ("any", "merged"), strict=True):
    rows = {
        name: [(row, found[protocol][kind]["1"]) for row, kind in enumerate(kinds)]
        for name, found in recall.items()
    }
    plots.marks(axis, rows, 0.26, [f"{kind} ({of['mentions']:,})" for kind, of in kinds.items()])
    axis.set_xlabel(f"recall at 1, {protocol} box (% of mentions)")
    axis.axhline(0.5, color="#bbbbbb", lw=0.8)
axes[0, 0].invert_yaxis()
plots.finish(figure, note, axes[0, 0])
plots.save(figure, figures / "categories.png")

# %% [markdown]
# ## What decides?
#
# Size above all.

# %%
groups = pd.DataFrame(metrics["groups"])
bins_of = groups.groupby("what", sort=False).bin.nunique()
columns = list(bins_of.index[bins_of > 1])
rows = -(-len(columns) // 3)
figure, axes = plots.new_figure(7.5, 2.35 * rows, nrows=rows, ncols=3, sharey=True)
for axis in axes.flat[len(columns) :]:
    axis.set_axis_off()
for axis, what in zip(axes.flat, columns, strict=False):
    here = groups[groups.what == what]
    bins = list(dict.fromkeys(here.bin))
    for number, (name, of_model) in enumerate(here.groupby("model", sort=False)):
        places = [bins.index(label) for label in of_model.bin]
        plots.curve(axis, places, of_model.to_dict("records"), name, number, ms=4, lw=1.2)
    axis.set_xticks(range(len(bins)), bins)
    axis.tick_params(axis="x", labelsize=8, rotation=35 if sum(map(len, bins)) > 24 else 0)
    axis.set(xlabel=what, xlim=(-0.4, max(len(bins) - 0.6, 0.6)))
for axis in axes[:, 0]:
    axis.set_ylabel("IoU .5 (% of mentions)", fontsize=8.5)
axes[0, 0].set_ylim(0)
plots.finish(figure, f"{note}, merged box, bars 95 %", axes[0, 0])
plots.save(figure, figures / "what_decides.png")

# %% [markdown]
# ## Rare words, easy and hard phrases
#
# How often does the phrase's last word stand in the phrases of train? A rare word is found less
# often, and its score promises too much.

# %%
# NBVAL_CHECK_OUTPUT
tables.frequency(metrics["frequency"])

# %% [markdown]
# Half of the sample's test pictures are easy: they hold one to three things, each alone of its
# kind. In the others things are alike, so that an adjective or a relation must be read.

# %%
# NBVAL_CHECK_OUTPUT
tables.parts(metrics["parts"])

# %% [markdown]
# ## Is a difference real?
#
# Each model against each other on the same images: accuracy in points, with 95 % intervals; `~`
# where the interval holds 0.

# %%
# NBVAL_CHECK_OUTPUT
differences = pd.DataFrame(metrics["differences"])
order = [*references.BEST, *names]
tables.differences(differences, order)

# %%
values = np.full((len(order), len(order)), np.nan)
real = np.zeros(values.shape, bool)
rows = differences[differences.metric == "accuracy_0.5"]
i, j = (pd.Index(order).get_indexer(side) for side in (rows.better, rows.worse))
values[i, j], values[j, i] = 100 * rows.value, -100 * rows.value
real[i, j] = real[j, i] = rows.real
figure, ((axis,),) = plots.new_figure(7.5, 1.5 + 0.5 * len(order))
largest = np.nanmax(np.abs(values), initial=1)
shades = np.where(real, values, np.nan)
image = axis.imshow(shades, "PuOr", vmin=-largest, vmax=largest, aspect="auto")
image.cmap.set_bad("#eeeeee")
for i, j in np.ndindex(values.shape):
    if i != j:
        dark = real[i, j] and abs(values[i, j]) > 0.6 * largest
        colour = "white" if dark else "black" if real[i, j] else "#666666"
        text = f"{values[i, j]:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0")
        axis.text(j, i, text, ha="center", va="center", color=colour)
axis.set_xticks(range(len(order)), order, rotation=25, ha="right")
axis.set_yticks(range(len(order)), order)
axis.grid(visible=False)
axis.spines[:].set_visible(False)
figure.colorbar(image, label="row minus column (points)")
about = "accuracy at IoU .5; coloured: 95 % interval of the difference leaves out 0"
plots.finish(figure, f"{note}\n{about}")
plots.save(figure, figures / "differences.png")
