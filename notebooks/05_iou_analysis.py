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
# Every model has answered every phrase of the test split once. How good are its boxes? What
# decides whether one is right? Does a model read and look at all? `05b_more` shows the rest.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd

from scene_utils import box_ops, images, paths, plots, runtime, words
from scene_utils.analysis import breakdown, metrics_file, perturbations, references, sample_errors
from scene_utils.analysis import figures as draw
from scene_utils.analysis import metrics as scoring
from scene_utils.analysis import mistakes as faults
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
test = kept.test_mentions(phrases, root)
boxes = pd.read_parquet(cache / "boxes.parquet")
boxes = boxes[boxes.image_id.isin(test.image_id)]
predictions = kept.load(cache)
names = list(predictions)
ours = [name for name in names if name != kept.TOGETHER][-1]
others = ("text-only", "source", ours, kept.TOGETHER)
shown = [references.BEST[0], *(name for name in names if name in others)]

# %%
# NBVAL_CHECK_OUTPUT
results = {name: scoring.evaluate(predictions[name], test, boxes, **draws) for name in names}
labels = {name: kept.label(cache, name) for name in names}
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
figure = draw.model_bars(labelled, above, references.ORACLES, f"{note}, merged box")
plots.save(figure, figures / "models.png")

# %% [markdown]
# Is a difference real? Each against each other on the same images: where the interval leaves out 0.

# %%
answered = {name: blind_boxes[name] for name in references.BEST} | predictions
scored = {name: scoring.score_mentions(table, test, boxes) for name, table in answered.items()}
differences = scoring.differences(scored, **draws)
figure = draw.difference_matrix(differences, list(scored), note)
plots.save(figure, figures / "differences.png")

# %%
ious = {name: scored[name].iou_merged.to_numpy() for name in shown}
figure = draw.iou_distribution(ious, f"{note}, merged box")
plots.save(figure, figures / "iou_distribution.png")

# %% [markdown]
# What decides? Size above all.

# %%
kinds = breakdown.describe(test, words.load_vectors("glove50").index)
compared = {name: scored[name] for name in shown}
groups = breakdown.by_group(compared, kinds, **draws)
figure = draw.what_decides(groups, f"{note}, merged box, bars 95 %")
plots.save(figure, figures / "what_decides.png")

# %% [markdown]
# ## Does it read? Does it look?
#
# Ask with another phrase of the picture, with the words shuffled, show another picture, or a grey
# one. A model that does not read loses nothing by the first, one that does not look nothing by the
# last two.

# %%
asked = kept.load_beside(cache, "perturbations", names)
falls = {name: perturbations.falls(table, test, **draws) for name, table in asked.items()}
if falls:
    figure, axes = plots.new_figure(7.5, 3.6)
    axes[0, 0].axvline(0, color="grey", lw=1)
    order = perturbations.CHANGES
    rows = {
        name: [(order.index(row["change"]), row) for row in table.to_dict("records")]
        for name, table in falls.items()
    }
    draw.marks(axes[0, 0], rows, 0.28, order)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel("fall of accuracy at IoU .5 (points)")
    draw.finish(figure, f"{note}, merged box, bars 95 %", axes[0, 0])
    plots.save(figure, figures / "perturbations.png")

# %% [markdown]
# ## Best, median and worst
#
# And the misses that it was surest of. Pictures of the real set stay out of `figures/`.

# %%
calibration = {name: breakdown.calibration(scored[name], **draws) for name in names}
calibration = {name: curve for name, curve in calibration.items() if curve is not None}
sides = [*entities.MENTION_KEY, *box_ops.COLUMNS]
first = predictions[ours][predictions[ours]["rank"] == 1]
seen = scored[ours].merge(test[[*sides, "width", "height"]], on=entities.MENTION_KEY)
seen = seen.merge(first[sides], on=entities.MENTION_KEY, suffixes=("", "_guess"))
picked = faults.pick(seen, scores=ours in calibration).rename(columns={"iou_merged": "iou"})
if ours not in calibration:
    picked = picked.drop(columns="score")
folder = entities.image_folder(root)
pictures = [images.open_image(images.picture_file(folder, name)) for name in picked.image_id]
figure = draw.gallery(picked, pictures, f"{ours}, {note}")
plots.save(figure, (paths.build(profile) if settings.real else figures) / "gallery.png")

# %% [markdown]
# ## metrics.json
#
# All figures with what they depend on. The tables of the README and of `05b_more` come from it.

# %%
asked = kept.load_beside(cache, "presence", names)
presence = {name: breakdown.presence(table, test, **draws) for name, table in asked.items()}
found = {name: faults.mistakes(scored[name], answered[name], test) for name in scored}
scenes = {} if settings.real else sample_errors.scenes_of(root, "test")
part_of = sample_errors.parts(scored[ours], scenes) if scenes else []
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
    differences=differences.to_dict("records"),
    groups=groups.to_dict("records"),
    frequency=breakdown.by_frequency(compared, test, fitted_on, **draws),
    parts=parts,
    mistakes=faults.mistake_table(found).to_dict("index"),
    misses=misses,
    unread=sample_errors.unread(scenes.values()) if scenes else {},
    calibration=calibration,
    presence={name: kinds for name, kinds in presence.items() if kinds},
    perturbations={name: table.to_dict("records") for name, table in falls.items()},
)
print(metrics_file.caption(metrics))

# %% [markdown]
# Next: `05b_more` for the rest, or `06_query_widget` to ask it yourself.
