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
# # 5 IoU analysis
#
# Every model has answered every phrase of the test split once. How good are its boxes? Does a model
# read and look at all? What decides whether a box is right is in `05b_more`, which mistakes are
# made in `05c_mistakes`, and the boxes themselves in `05d_pictures`.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd

from scene_utils import grounding, paths, plots, runtime, words
from scene_utils.analysis import breakdown, metrics_file, perturbations, references, sample_errors
from scene_utils.analysis import metrics as scoring
from scene_utils.analysis import predictions as kept
from scene_utils.dataset import entities
from scene_utils.study import settings as profiles
from scene_utils.study import tables

runtime.check()
# %matplotlib inline
plots.plt.style.use(["default", plots.STYLE])
settings = profiles.load(profile, data, changes)
root, cache, figures = settings.root, paths.cache(profile), paths.figures(profile)
draws = {"resamples": settings.resamples, "seed": settings.seed}

# %% [markdown]
# ## One IoU
#
# The overlap of two boxes, by what they cover together: 1 where they are the same, 0 where they do
# not touch. An answer counts as right from .5 on.

# %%
# NBVAL_CHECK_OUTPUT
truth, guess = np.array([40, 20, 160, 140]), np.array([80, 40, 200, 140])  # x, y, x, y in pixels
low, high = np.maximum(truth[:2], guess[:2]), np.minimum(truth[2:], guess[2:])
both = np.prod(np.maximum(high - low, 0))
either = np.prod(truth[2:] - truth[:2]) + np.prod(guess[2:] - guess[:2]) - both
print(f"IoU = {both:,} / {either:,} = {both / either:.3f}")
figure, axes = plots.new_figure(3.6, 2.6)
white = np.full((160, 240, 3), 255, np.uint8)
plots.draw_boxes(axes[0, 0], white, [truth, guess], ["truth", "guess"], [plots.TRUTH, plots.GUESS])

# %% [markdown]
# ## Predictions
#
# Kept in the cache. Only what is missing, or was made by other code or from other data, is made
# anew. With `renew=false` nothing is, and TensorFlow stays out of it.

# %%
stale = kept.stale(cache)
if settings.renew and stale:
    kept.make(cache, root, stale, settings.weights, settings.seed)
elif stale:
    print("read as they are, though models, data or code have changed:", ", ".join(stale))
phrases = pd.read_parquet(cache / "phrases.parquet")
test = kept.test_phrases(phrases, root)
boxes = pd.read_parquet(cache / "boxes.parquet")
boxes = boxes[boxes.image_id.isin(test.image_id)]
predictions = kept.load(cache)
names = list(predictions)
ours, beside = kept.compared(names)
shown = [references.BEST[0], *beside]

# %%
# NBVAL_CHECK_OUTPUT
results = {name: scoring.evaluate(predictions[name], test, boxes, **draws) for name in names}
labels = {name: grounding.label(kept.settings(cache, name), name) for name in names}
here = phrases[(phrases.split == "test") | phrases.image_id.isin(entities.image_ids(root))]
fitted_on = here[here.split == "train"]
described = {
    "profile": profile,
    "name": "Flickr30k Entities, the images at hand" if settings.real else "embedded sample",
    "split": "test",
    "images": results[ours]["images"],
    "mentions": results[ours]["mentions"],
    "train_images": int(fitted_on.image_id.nunique()),
}
note = metrics_file.note(described, labels)
print(f"{note} of {described['images']:,} images; {described['train_images']:,} train images")

# %% [markdown]
# ## The result
#
# Mean IoU in 1, accuracies and pointing in %, with 95 % intervals over images, for the box around
# all of a phrase's boxes. The blind box is fitted on the same train pictures as the models.
# `grid+sentence` is the grid model told the whole sentence, whose phrases then help each other.

# %%
# NBVAL_CHECK_OUTPUT
blind_boxes = references.predictions(pd.concat([fitted_on, test]), "test")
blind = {name: scoring.evaluate(table, test, boxes, **draws) for name, table in blind_boxes.items()}
labelled = {labels[name]: result for name, result in results.items()}
tables.scores({"best constant": blind["best constant"]} | labelled, "merged")

# %%
above = {name: result for name, result in blind.items() if not name.startswith("grid")}
rows = above | labelled
bars = [f"{n} (oracle)" if n in references.ORACLES else n.replace(" (", "\n(") for n in rows]
colours = [plots.GREY] * len(above) + [plots.COLOURS[0]] * len(labelled)
height = 0.28 * len(bars) + 0.14 * sum("\n" in bar for bar in bars)
figure, axes = plots.new_figure(7.5, 0.9 + height, ncols=2, sharey=True)
columns = (("mean_iou", "mean IoU"), ("accuracy_0.5", "accuracy at IoU .5 (% of mentions)"))
for axis, (metric, label), scale in zip(axes[0], columns, (1, 100), strict=True):
    values, ends = plots.bars([row["merged"][metric] for row in rows.values()], scale)
    edge = {"capsize": 2.5, "lw": 1}
    drawn = axis.barh(bars, values, 0.65, xerr=ends, color=colours, error_kw=edge)
    texts = [f"{v:.1f}" if scale == 100 else f"{v:.3f}".lstrip("0") for v in values]
    # The patch keeps it readable on the line of the constant box.
    patch = {"fc": "w", "ec": "none", "pad": 0.8}
    axis.bar_label(drawn, texts, padding=4, fontsize=8.5, bbox=patch)
    line = blind["best constant"]["merged"][metric]["value"] * scale
    axis.axvline(line, color=plots.COLOURS[3], ls="--", lw=1.2)
    axis.set(xlabel=label, xlim=(0, (values + ends[1]).max() * 1.14))
    axis.grid(axis="y", visible=False)
axes[0, 0].invert_yaxis()
about = "blue: models, grey: references, dashed: best constant box, bars: 95 %"
plots.finish(figure, f"{note}, merged box\n{about}")
plots.save(figure, figures / "models.png")

# %% [markdown]
# ## Does it read? Does it look?
#
# Ask with another phrase of the picture, with the words shuffled, show another picture, or a grey
# one. A model that does not read loses nothing by the first, one that does not look nothing by the
# last two.

# %%
asked = kept.load_beside(cache, "perturbations", names)
falls = {name: breakdown.falls(table, test, **draws) for name, table in asked.items()}
if falls:
    figure, axes = plots.new_figure(7.5, 3.6)
    axes[0, 0].axvline(0, color="grey", lw=1)
    order = perturbations.CHANGES
    rows = {
        name: [(order.index(row["change"]), row) for row in table.to_dict("records")]
        for name, table in falls.items()
    }
    plots.marks(axes[0, 0], rows, 0.28, order)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel("fall of accuracy at IoU .5 (points)")
    plots.finish(figure, f"{note}, merged box, bars 95 %", axes[0, 0])
    plots.save(figure, figures / "perturbations.png")

# %% [markdown]
# ## metrics.json
#
# All figures with what they depend on. The README's tables and the notebooks from `05b_more` on are
# made from it.

# %%
answered = {name: blind_boxes[name] for name in references.BEST} | predictions
scored = {name: scoring.score_mentions(table, test, boxes) for name, table in answered.items()}
compared = {name: scored[name] for name in shown}
kinds = breakdown.describe(test, words.load_vectors("glove50").index)
calibration = {name: breakdown.calibration(scored[name], **draws) for name in names}
asked = kept.load_beside(cache, "presence", names)
presence = {name: breakdown.presence(table, test, **draws) for name, table in asked.items()}
asked = kept.load_beside(cache, "things", names)
merged = {name: predictions[name][predictions[name]["rank"] == 1] for name in asked}
single = merged | {f"{name}, each thing": table for name, table in asked.items()}
things = {name: breakdown.things(of, test, boxes, **draws) for name, of in single.items()}
asked = kept.load_beside(cache, "alike", names)
unplaced = kept.load_beside(cache, "alike_unplaced", names)
asked |= {f"{name} without places": table for name, table in unplaced.items()}
alike = {name: breakdown.of_alike(of, **draws) for name, of in asked.items() if len(of)}
asked = kept.load_beside(cache, "photos", names)
once = kept.load_beside(cache, "photos_once", names)
asked |= {f"{name} without a second look": table for name, table in once.items()}
drawn = pd.read_csv(kept.PHOTO_BOXES)
photos = {name: breakdown.photos(table, drawn, **draws) for name, table in asked.items()}
found = {name: breakdown.mistakes(scored[name], answered[name], test) for name in scored}
scenes = {} if settings.real else sample_errors.scenes_of(root, "test")
part = {name: "easy" if scene.easy else "hard" for name, scene in scenes.items()}
part_of = [part[name] for name in scored[ours].image_id] if scenes else []
parts = breakdown.by_part(scored, part_of, **draws)
misses = {}
for name in names if scenes else []:
    missed = sample_errors.misses(scored[name], predictions[name], scenes)
    misses[name] = sample_errors.shares(missed).reset_index().to_dict("records")
source = kept.settings(cache, "source")
inputs = {"backbone": source.get("label", "unknown"), "vectors": source.get("vectors", "unknown")}
metrics = metrics_file.write_metrics(
    figures / "metrics.json",
    described,
    inputs | draws,
    labels,
    results,
    references=blind,
    oracles=list(references.ORACLES),
    differences=scoring.differences(scored, **draws).to_dict("records"),
    groups=breakdown.by_group(compared, kinds, **draws).to_dict("records"),
    frequency=breakdown.by_frequency(compared, test, fitted_on, **draws),
    parts=parts,
    mistakes={name: breakdown.mistake_shares(table) for name, table in found.items()},
    misses=misses,
    unread=sample_errors.unread(scenes.values()) if scenes else {},
    calibration={name: curve for name, curve in calibration.items() if curve is not None},
    presence={name: kinds for name, kinds in presence.items() if kinds},
    alike=alike,
    photos=photos,
    things=things,
    perturbations={name: table.to_dict("records") for name, table in falls.items()},
)

# %% [markdown]
# Next: `05b_more`, or `06_query_widget` to ask it yourself.
