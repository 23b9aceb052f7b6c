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
# Every model has answered every phrase of the test split once. From here on nothing but those
# answers and the annotations counts: how good they are, what they are worth beside what needs no
# model, what decides whether one is right, which mistakes are made, and whether a model reads and
# looks at all.

# %% tags=["parameters"]
profile = "sample"
data = ""
weights = ""
seed = 0
resamples = 1000
renew = True

# %%
import numpy as np
import pandas as pd

from scene_utils import box_ops, images, paths, plots, runtime, words
from scene_utils.analysis import breakdown, metrics_file, perturbations, references, sample_errors
from scene_utils.analysis import figures as analysis_plots
from scene_utils.analysis import metrics as evaluate
from scene_utils.analysis import predictions as answers
from scene_utils.dataset import entities

runtime.check()
cache = paths.cache(profile)
root = paths.data_root(profile, data)
figures = paths.figures(profile)
draws = {"resamples": resamples, "seed": seed}

# %% [markdown]
# ## Answers
#
# Kept in the cache. Only what is missing, or was made by other code or from other data, is made
# anew; with `renew = False` nothing is, and TensorFlow stays out of it.

# %%
stale = answers.stale(cache)
if renew and stale:
    answers.make(cache, root, stale, weights, seed)
elif stale:
    print("read as they are, though models, data or code have changed:", ", ".join(stale))
phrases = pd.read_parquet(cache / "phrases.parquet")
test = answers.test_mentions(phrases, root)
truth = pd.read_parquet(cache / "boxes.parquet")
truth = truth[truth.image_id.isin(test.image_id)]
predictions = answers.load(cache)
names = list(predictions)
together = answers.TOGETHER  # the phrases of a sentence asked at once, where that is learned
ours = [name for name in names if name != together][-1]
shown = [name for name in ("constant", "text-only", "seed", ours, together) if name in names]
shown = list(dict.fromkeys(shown))
made_with = answers.settings(cache, "seed") or answers.settings(cache, ours)
backbone = made_with.get("label", "unknown")
own = answers.settings(cache, ours)
other = own.get("label", backbone)
if own.get("members", 1) > 1:
    of_seeds = " and ".join(map(str, answers.seeds(cache, ours)))
    other = f"{own['members']} x {other}, seeds {of_seeds}"
if other != backbone:
    backbone = f"{backbone} ({ours}: {other})"

# %%
# NBVAL_CHECK_OUTPUT
scored = {name: evaluate.score_mentions(predictions[name], test, truth) for name in names}
results = {name: evaluate.evaluate(predictions[name], test, truth, **draws) for name in names}
here = phrases[(phrases.split == "test") | phrases.image_id.isin(entities.image_ids(root))]
fitted_on = here[here.split == "train"]
described = {
    "profile": profile,
    "name": "Flickr30k Entities, the images at hand" if data else "embedded sample",
    "split": "test",
    "images": results[ours]["images"],
    "mentions": results[ours]["mentions"],
    "train_images": int(fitted_on.image_id.nunique()),
}
note = f"{described['name']}, test, {described['mentions']:,} mentions"
print(f"{note} of {described['images']:,} images; {described['train_images']:,} train images")
print("models:", ", ".join(names))

# %% [markdown]
# ## What needs no model
#
# Blind boxes are fitted on the same train pictures as the models. An oracle reads the truth: the
# picture's largest box, and the truth moved to the borders of a coarse grid's cells, the ceiling of
# what such a grid can answer.

# %%
# NBVAL_CHECK_OUTPUT
blind = references.report(pd.concat([fitted_on, test]), truth, "test", **draws)
evaluate.table(blind, "merged")

# %% [markdown]
# ## The models
#
# Mean IoU in 1, accuracies and pointing in %, with 95 % intervals over images. `merged`: truth is
# the box around all of a phrase's boxes. `any`: the best of them counts. `grid+sentence` is the
# grid model told the whole sentence, whose phrases then help each other; all others are told the
# phrase.

# %%
# NBVAL_CHECK_OUTPUT
evaluate.table(results, "merged")

# %%
# NBVAL_CHECK_OUTPUT
evaluate.table(results, "any")

# %%
above = {name: figure for name, figure in blind.items() if not name.startswith("grid")}
figure = analysis_plots.model_bars(results, above, references.ORACLES, f"{note}, merged box")
plots.save(figure, figures / "models.png")

# %% [markdown]
# MDETR's protocol: recall at 1, 5 and 10 and the upper bound of all candidates, at IoU .5. A model
# with one box has the same in each column.

# %%
# NBVAL_CHECK_OUTPUT
evaluate.recall_table(results, "any")

# %%
# NBVAL_CHECK_OUTPUT
evaluate.category_table(results, "any")

# %%
figure = analysis_plots.category_points({name: results[name] for name in shown}, note)
plots.save(figure, figures / "categories.png")

# %%
ranked = {name: results[name] for name in names if scored[name].candidates.max() > 1}
if ranked:
    figure = analysis_plots.recall_curves({"constant": results["constant"]} | ranked, note)
    plots.save(figure, figures / "recall.png")

# %% [markdown]
# ## Which differences are real?
#
# Each model against each other on the same images, resampled together. A difference is called real
# where its 95 % interval leaves out 0 (`~` where it does not).

# %%
# NBVAL_CHECK_OUTPUT
differences = evaluate.differences(scored, "merged", **draws)
metrics_file.difference_table(differences, names, "accuracy_0.5")

# %%
figure = analysis_plots.difference_matrix(differences, names, note)
plots.save(figure, figures / "differences.png")

# %% [markdown]
# ## How far off?

# %%
ious = {name: scored[name].iou_merged.to_numpy() for name in shown}
figure = analysis_plots.iou_distribution(ious, f"{note}, merged box")
plots.save(figure, figures / "iou_distribution.png")

# %% [markdown]
# ## What decides?
#
# Size above all: a large object is hit without looking, as the constant box shows.

# %%
known = words.load_vectors("glove50").index
groups = breakdown.by_group(
    {name: scored[name] for name in shown}, breakdown.describe(test, known), **draws
)
figure = analysis_plots.what_decides(groups, f"{note}, merged box, bars 95 %")
plots.save(figure, figures / "what_decides.png")

# %% [markdown]
# ## Where boxes lie
#
# A model that is unsure retreats to the middle, where most of the truth is.

# %%
boxed = test[test.n_boxes > 0].astype(dict.fromkeys(entities.MENTION_KEY[1:], "int64"))


def relative_guesses(name: str) -> np.ndarray:
    first = predictions[name][predictions[name]["rank"] == 1]
    table = first.merge(boxed[[*entities.MENTION_KEY, "width", "height"]])
    return box_ops.to_relative(
        table[box_ops.COLUMNS].to_numpy(), table.width.to_numpy(), table.height.to_numpy()
    )


guesses = {name: relative_guesses(name) for name in shown[1:]}
figure = analysis_plots.mass_maps(references.relative_truth(boxed), guesses, note)
plots.save(figure, figures / "where_answers_lie.png")

# %% [markdown]
# ## Is the score worth something?
#
# Only where a model gives scores that differ.

# %%
curves = {name: breakdown.calibration(scored[name], **draws) for name in names}
curves = {name: curve for name, curve in curves.items() if curve is not None}
if curves:
    figure = analysis_plots.calibration_curve(curves, f"{note}, merged box")
    plots.save(figure, figures / "calibration.png")
print("models with scores:", ", ".join(curves) or "none")

# %% [markdown]
# ## Is it there at all?
#
# Every phrase is asked about its own picture and about another. `present` is the model's
# probability that a phrase is about the picture; below .25 the widget warns. Many phrases of
# another picture do name something in this one ("a man"); `absent things` are those whose last word
# no phrase of the picture uses.

# %%
# NBVAL_CHECK_OUTPUT
asked = answers.load_beside(cache, "presence", names)
there = {name: breakdown.presence(table, test, **draws) for name, table in asked.items()}
there = {name: kinds for name, kinds in there.items() if kinds}
breakdown.presence_table(there)

# %%
if there:
    figure = analysis_plots.presence_curves(there, note)
    plots.save(figure, figures / "presence.png")

# %% [markdown]
# ## Which mistakes?
#
# Does the box fall on another phrase's object of the picture? And of the mentions that were missed,
# how often would the box of another phrase have been right?

# %%
# NBVAL_CHECK_OUTPUT
found = {name: breakdown.mistakes(scored[name], predictions[name], test) for name in names}
mistakes = breakdown.mistake_table(found)
mistakes.T

# %%
figure = analysis_plots.mistake_bars(mistakes, f"{note}, merged box")
plots.save(figure, figures / "mistakes.png")

# %% [markdown]
# On the sample each object is known, so the one under a wrong box can be held against the phrase:
# which word does it miss? "relation" where it has all that the phrase names but stands elsewhere.

# %%
# NBVAL_CHECK_OUTPUT
misses = {}
if not data:
    scenes = sample_errors.scenes_of(root, "test")
    for name in names:
        missed = sample_errors.misses(scored[name], predictions[name], test, scenes)
        misses[name] = sample_errors.shares(missed)
misses.get(ours, "not the sample")

# %% [markdown]
# Of "the cup above the star" and "the cup above the hat" of one picture, who reads no further
# answers both alike, and is right about one of the two at most; likewise of "the cup above the
# star" and "the cup left of the star" who does not read the relation. Who is above both bounds
# reads all of it.

# %%
# NBVAL_CHECK_OUTPUT
unread = {} if data else sample_errors.unread(scenes.values())
unread

# %% [markdown]
# ## Does it read? Does it look?
#
# Ask with another phrase of the picture, with the words shuffled, show another picture, or a grey
# one. A model that does not read loses nothing by the first, one that does not look nothing by the
# last two.

# %%
# NBVAL_CHECK_OUTPUT
asked = answers.load_beside(cache, "probes", names)
falls = {name: perturbations.falls(table, test, **draws) for name, table in asked.items()}
perturbations.table(falls)

# %%
if falls:
    learned = {name: table for name, table in falls.items() if name != "constant"}
    figure = analysis_plots.probe_points(learned, f"{note}, merged box, bars 95 %")
    plots.save(figure, figures / "probes.png")

# %% [markdown]
# ## Gallery
#
# Best, median and worst answers, and the misses that the model was surest of (where it has
# scores). Pictures of the real set stay out of `figures/`.

# %%
smaller = 320  # pixels of a picture's longer side in the galleries
guess = [f"{side}_guess" for side in box_ops.COLUMNS]
seen = scored[ours].merge(
    boxed[[*entities.MENTION_KEY, "width", "height", *box_ops.COLUMNS]], on=entities.MENTION_KEY
)
first = predictions[ours][predictions[ours]["rank"] == 1]
seen = seen.merge(
    first[[*entities.MENTION_KEY, *box_ops.COLUMNS]],
    on=entities.MENTION_KEY,
    suffixes=("", "_guess"),
)
picked = breakdown.pick(seen, scores=ours in curves)


# %%
def shown_with_boxes(mention) -> dict:
    # A picture may be stored squeezed; it is shown as the original was, whose pixels boxes are in.
    scale = smaller / max(mention.width, mention.height)
    picture = images.open_image(entities.image_folder(root) / f"{mention.image_id}.jpg")
    picture = picture.resize((round(mention.width * scale), round(mention.height * scale)))
    item = {"image": np.asarray(picture), "phrase": mention.phrase, "iou": mention.iou_merged}
    item |= {"truth": mention[box_ops.COLUMNS].to_numpy(np.float32) * scale}
    item |= {"guess": mention[guess].to_numpy(np.float32) * scale, "group": mention.group}
    return item | ({"score": mention.score} if ours in curves else {})


items = [shown_with_boxes(mention) for _, mention in picked.iterrows()]
figure = analysis_plots.gallery(items, f"{ours}, {note}")
plots.save(figure, (paths.build(profile) if data else figures) / "gallery.png")

# %% [markdown]
# Photos that nobody trained on, with boxes drawn by eye:

# %%
photos = answers.load_beside(cache, "photos", [ours]).get(ours)
if photos is not None:
    both = answers.photo_phrases().merge(photos, on=["photo", "phrase"], suffixes=("", "_guess"))
    both["iou"] = box_ops.iou(both[box_ops.COLUMNS].to_numpy(), both[guess].to_numpy())
    items = []
    for _, row in both.groupby("photo", sort=False).head(3).iterrows():
        picture = images.open_image(paths.PHOTOS / f"{row.photo}.jpg")
        scale = smaller / max(picture.size)
        picture.thumbnail((smaller, smaller))
        item = {"image": np.asarray(picture), "phrase": row.phrase, "iou": row.iou, "group": ""}
        item |= {"truth": np.float32(row[box_ops.COLUMNS].tolist()) * scale}
        items.append(item | {"guess": np.float32(row[guess].tolist()) * scale})
    figure = analysis_plots.gallery(items, f"{ours}, trained on {described['name']}: photos")
    plots.save(figure, figures / "gallery_photos.png")

# %% [markdown]
# ## metrics.json
#
# All figures with what they depend on; `scene_utils.analysis.metrics_file` describes it, and the tables of the
# README are written from it.

# %%
metrics = metrics_file.write_metrics(
    figures / "metrics.json",
    described,
    {
        "backbone": backbone,
        "vectors": made_with.get("vectors", "unknown"),
        "seed": seed,
        "resamples": resamples,
    },
    results,
    references=blind,
    oracles=list(references.ORACLES),
    differences=differences.to_dict("records"),
    groups=groups.to_dict("records"),
    mistakes=mistakes.to_dict("index"),
    misses={name: table.reset_index().to_dict("records") for name, table in misses.items()},
    unread=unread,
    calibration={
        name: {"error": curve.attrs["error"], "bins": curve.to_dict("records")}
        for name, curve in curves.items()
    },
    presence=there,
    probes={name: table.to_dict("records") for name, table in falls.items()},
)
print(metrics_file.caption(metrics))

# %% [markdown]
# Next: `06_query_widget` lets you ask it yourself.
