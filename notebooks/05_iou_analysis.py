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
from scene_utils.analysis import figures as draw
from scene_utils.analysis import metrics as scoring
from scene_utils.analysis import mistakes as faults
from scene_utils.analysis import predictions as kept
from scene_utils.dataset import entities, sample_layout
from scene_utils.study import tables

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
stale = kept.stale(cache)
if renew and stale:
    kept.make(cache, root, stale, weights, seed)
elif stale:
    print("read as they are, though models, data or code have changed:", ", ".join(stale))
phrases = pd.read_parquet(cache / "phrases.parquet")
test = kept.test_mentions(phrases, root)
truth = pd.read_parquet(cache / "boxes.parquet")
truth = truth[truth.image_id.isin(test.image_id)]
predictions = kept.load(cache)
names = list(predictions)
together = kept.TOGETHER  # the phrases of a sentence asked at once, where that is learned
ours = [name for name in names if name != together][-1]
shown = [name for name in ("text-only", "source", ours, together) if name in names]
shown = [references.BEST[0], *dict.fromkeys(shown)]
made_with = kept.settings(cache, "source") or kept.settings(cache, ours)
backbone = made_with.get("label", "unknown")
own = kept.settings(cache, ours)
other = own.get("label", backbone)
if own.get("members", 1) > 1:
    of_seeds = " and ".join(map(str, kept.seeds(cache, ours)))
    other = f"{own['members']} x {other}, seeds {of_seeds}"
if other != backbone:
    backbone = f"{backbone} ({ours}: {other})"

# %%
# NBVAL_CHECK_OUTPUT
results = {name: scoring.evaluate(predictions[name], test, truth, **draws) for name in names}
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
labels = {name: kept.label(cache, name) for name in names}
note = f"{described['name']}, test, {described['mentions']:,} mentions"
if any("untrained" in label for label in labels.values()):
    note += ", untrained"
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
blind_boxes = references.predictions(pd.concat([fitted_on, test]), "test")
blind = {name: scoring.evaluate(table, test, truth, **draws) for name, table in blind_boxes.items()}
tables.scores(blind, "merged")

# %% [markdown]
# ## The models
#
# Mean IoU in 1, accuracies and pointing in %, with 95 % intervals over images. `merged`: truth is
# the box around all of a phrase's boxes. `any`: the best of them counts. `grid+sentence` is the
# grid model told the whole sentence, whose phrases then help each other; all others are told the
# phrase.

# %%
# The best blind boxes stand beside the models in all that follows.
answered = {name: blind_boxes[name] for name in references.BEST} | predictions
scored = {name: scoring.score_mentions(table, test, truth) for name, table in answered.items()}
labelled = {labels[name]: result for name, result in results.items()}

# %%
# NBVAL_CHECK_OUTPUT
tables.scores(labelled, "merged")

# %%
# NBVAL_CHECK_OUTPUT
tables.scores(labelled, "any")

# %%
above = {name: figure for name, figure in blind.items() if not name.startswith("grid")}
figure = draw.model_bars(labelled, above, references.ORACLES, f"{note}, merged box")
plots.save(figure, figures / "models.png")

# %% [markdown]
# MDETR's protocol: recall at 1, 5 and 10 and the upper bound of all candidates, at IoU .5. A model
# with one box has the same in each column.

# %%
# NBVAL_CHECK_OUTPUT
tables.recall(results, "any")

# %%
# NBVAL_CHECK_OUTPUT
tables.categories(results, "any")

# %%
figure = draw.category_points({name: (blind | results)[name] for name in shown}, note)
plots.save(figure, figures / "categories.png")

# %%
ranked = {name: results[name] for name in names if scored[name].candidates.max() > 1}
if ranked:
    figure = draw.recall_curves({"best constant": blind["best constant"]} | ranked, note)
    plots.save(figure, figures / "recall.png")

# %% [markdown]
# ## Which differences are real?
#
# Each model against each other on the same images, resampled together. A difference is called real
# where its 95 % interval leaves out 0 (`~` where it does not).

# %%
# NBVAL_CHECK_OUTPUT
differences = scoring.differences(scored, "merged", **draws)
tables.differences(differences, list(scored))

# %%
figure = draw.difference_matrix(differences, list(scored), note)
plots.save(figure, figures / "differences.png")

# %% [markdown]
# ## How far off?

# %%
ious = {name: scored[name].iou_merged.to_numpy() for name in shown}
figure = draw.iou_distribution(ious, f"{note}, merged box")
plots.save(figure, figures / "iou_distribution.png")

# %% [markdown]
# ## What decides?
#
# Size above all: a large object is hit without looking, as the constant box shows.

# %%
known = words.load_vectors("glove50").index
compared = {name: scored[name] for name in shown}
groups = breakdown.by_group(compared, breakdown.describe(test, known), **draws)
figure = draw.what_decides(groups, f"{note}, merged box, bars 95 %")
plots.save(figure, figures / "what_decides.png")

# %% [markdown]
# How often does the phrase's last word stand in the phrases of train? A rare word is found less
# often, and its score promises too much.

# %%
# NBVAL_CHECK_OUTPUT
frequency = breakdown.by_frequency(compared, test, fitted_on, **draws)
tables.frequency(frequency)

# %% [markdown]
# The sample has an easy part, whose pictures hold one to three things, and a hard one, where others
# miss a phrase by a word.

# %%
# NBVAL_CHECK_OUTPUT
part = getattr(sample_layout, "part_of", None) if not data else None
parts = breakdown.by_part(scored, [*map(part, scored[ours].image_id)], **draws) if part else {}
tables.parts(parts)

# %% [markdown]
# ## Where boxes lie
#
# A model that is unsure retreats to the middle, where most of the truth is.

# %%
boxed = test[test.n_boxes > 0].astype(dict.fromkeys(entities.MENTION_KEY[1:], "int64"))


def relative_guesses(name: str) -> np.ndarray:
    first = predictions[name][predictions[name]["rank"] == 1]
    table = first.merge(boxed[[*entities.MENTION_KEY, "width", "height"]])
    return box_ops.relative(table)


guesses = {name: relative_guesses(name) for name in shown[1:]}
figure = draw.mass_maps(box_ops.relative(boxed), guesses, note)
plots.save(figure, figures / "where_answers_lie.png")

# %% [markdown]
# ## Is the score worth something?
#
# Only where a model gives scores that differ.

# %%
curves = {name: breakdown.calibration(scored[name], **draws) for name in names}
curves = {name: curve for name, curve in curves.items() if curve is not None}
if curves:
    figure = draw.calibration_curve(curves, f"{note}, merged box")
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
asked = kept.load_beside(cache, "presence", names)
there = {name: breakdown.presence(table, test, **draws) for name, table in asked.items()}
there = {name: kinds for name, kinds in there.items() if kinds}
tables.presence(there)

# %%
if there:
    figure = draw.presence_curves(there, note)
    plots.save(figure, figures / "presence.png")

# %% [markdown]
# ## Which mistakes?
#
# Does the box fall on another phrase's object of the picture? And of the mentions that were missed,
# how often would the box of another phrase have been right?

# %%
# NBVAL_CHECK_OUTPUT
found = {name: faults.mistakes(scored[name], answered[name], test) for name in scored}
mistakes = faults.mistake_table(found)
mistakes.T

# %%
figure = draw.mistake_bars(mistakes, f"{note}, merged box")
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
asked = kept.load_beside(cache, "perturbations", names)
falls = {name: perturbations.falls(table, test, **draws) for name, table in asked.items()}
tables.perturbations({name: table.to_dict("records") for name, table in falls.items()})

# %%
if falls:
    figure = draw.perturbation_points(falls, f"{note}, merged box, bars 95 %")
    plots.save(figure, figures / "perturbations.png")

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
picked = faults.pick(seen, scores=ours in curves)


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
figure = draw.gallery(items, f"{ours}, {note}")
plots.save(figure, (paths.build(profile) if data else figures) / "gallery.png")

# %% [markdown]
# Photos that nobody trained on, with boxes drawn by eye:

# %%
photos = kept.load_beside(cache, "photos", [ours]).get(ours)
if photos is not None:
    both = kept.photo_phrases().merge(photos, on=["photo", "phrase"], suffixes=("", "_guess"))
    both["iou"] = box_ops.iou(both[box_ops.COLUMNS].to_numpy(), both[guess].to_numpy())
    items = []
    for _, row in both.groupby("photo", sort=False).head(3).iterrows():
        picture = images.open_image(paths.PHOTOS / f"{row.photo}.jpg")
        scale = smaller / max(picture.size)
        picture.thumbnail((smaller, smaller))
        item = {"image": np.asarray(picture), "phrase": row.phrase, "iou": row.iou, "group": ""}
        item |= {"truth": np.float32(row[box_ops.COLUMNS].tolist()) * scale}
        items.append(item | {"guess": np.float32(row[guess].tolist()) * scale})
    figure = draw.gallery(items, f"{ours}, trained on {described['name']}: photos")
    plots.save(figure, figures / "gallery_photos.png")

# %% [markdown]
# ## metrics.json
#
# All figures with what they depend on; `scene_utils.analysis.metrics_file` describes it, and the
# tables of the README are written from it.

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
    labels,
    results,
    references=blind,
    oracles=list(references.ORACLES),
    differences=differences.to_dict("records"),
    groups=groups.to_dict("records"),
    frequency=frequency,
    parts=parts,
    mistakes=mistakes.to_dict("index"),
    misses={name: table.reset_index().to_dict("records") for name, table in misses.items()},
    unread=unread,
    calibration={
        name: {"error": curve.attrs["error"], "bins": curve.to_dict("records")}
        for name, curve in curves.items()
    },
    presence=there,
    perturbations={name: table.to_dict("records") for name, table in falls.items()},
)
print(metrics_file.caption(metrics))

# %% [markdown]
# Next: `06_query_widget` lets you ask it yourself.
