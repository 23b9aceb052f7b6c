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
# The other protocol and recall, categories, where boxes lie, what scores say, whether a thing is
# there at all, and which mistakes are made. All of it from `metrics.json` and the predictions that
# `05_iou_analysis` read.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import pandas as pd

from scene_utils import box_ops, images, paths, plots, runtime
from scene_utils.analysis import figures as draw
from scene_utils.analysis import metrics_file, references
from scene_utils.analysis import predictions as kept
from scene_utils.dataset import entities
from scene_utils.study import settings as profiles
from scene_utils.study import tables

runtime.check()
# %matplotlib inline
plots.plt.style.use(["default", plots.STYLE])
settings = profiles.load(profile, data, changes)
root, cache, figures = settings.root, paths.cache(profile), paths.figures(profile)
metrics = metrics_file.read_metrics(figures / "metrics.json")
results, described = metrics["models"], metrics["data"]
note = metrics_file.note(described, metrics["labels"])
names = list(results)
ours = [name for name in names if name != kept.TOGETHER][-1]
shown = [name for name in names if name in ("text-only", "source", ours, kept.TOGETHER)]
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
figure = draw.recall_curves(compared, note)
plots.save(figure, figures / "recall.png")

# %% [markdown]
# ## Categories

# %%
# NBVAL_CHECK_OUTPUT
tables.categories(results, "any")

# %%
figure = draw.category_points(compared, note)
plots.save(figure, figures / "categories.png")

# %% [markdown]
# ## Rare words, easy and hard phrases
#
# How often does the phrase's last word stand in the phrases of train? A rare word is found less
# often, and its score promises too much.

# %%
# NBVAL_CHECK_OUTPUT
tables.frequency(metrics["frequency"])

# %% [markdown]
# Half of the sample's pictures are easy: they hold one to three things, each alone of its kind. In
# the others things are alike, so that an adjective or a relation must be read.

# %%
# NBVAL_CHECK_OUTPUT
tables.parts(metrics["parts"])

# %% [markdown]
# ## Differences in accuracy
#
# In points, with 95 % intervals; `~` where the interval holds 0.

# %%
# NBVAL_CHECK_OUTPUT
differences = pd.DataFrame(metrics["differences"])
tables.differences(differences, [*references.BEST, *names])

# %% [markdown]
# ## Where predictions lie
#
# A model that is unsure retreats to the middle, where most of the truth is.

# %%
phrases = pd.read_parquet(cache / "phrases.parquet")
test = kept.test_mentions(phrases, root)
predictions = kept.load(cache)
boxed = test[test.n_boxes > 0]
guesses = {}
for name in shown:
    first = predictions[name][predictions[name]["rank"] == 1]
    table = first.merge(boxed[[*entities.MENTION_KEY, "width", "height"]])
    guesses[name] = box_ops.relative(table)
figure = draw.mass_maps(box_ops.relative(boxed), guesses, note)
plots.save(figure, figures / "where_predictions_lie.png")

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
        draw.curve(axes[0, 0], scores, found["bins"], name, number, label=label)
    axes[0, 0].set(xlabel="score of the box (mean of the bin)", xlim=(0, 1))
    axes[0, 0].set(ylabel="IoU .5 reached (% of the bin)", ylim=(0, 100))
    axes[0, 0].legend(loc="upper left")
    draw.finish(figure, f"{note}, merged box")
    plots.save(figure, figures / "calibration.png")
print("models with scores:", ", ".join(metrics["calibration"]) or "none")

# %% [markdown]
# ## Is it there at all?
#
# Every phrase is asked about its own picture and about another. `present` is the model's
# probability that a phrase is about the picture; below .25 the widget warns. Many phrases of
# another picture do name something in this one ("a man"); `absent things` are those whose last word
# no phrase of the picture uses.

# %%
# NBVAL_CHECK_OUTPUT
tables.presence(metrics["presence"])

# %%
if metrics["presence"]:
    figure = draw.presence_curves(metrics["presence"], note)
    plots.save(figure, figures / "presence.png")

# %% [markdown]
# ## Which mistakes?
#
# Does the box fall on another phrase's thing? And of the mentions that were missed, how often would
# the box of another phrase have been right?

# %%
# NBVAL_CHECK_OUTPUT
mistakes = pd.DataFrame.from_dict(metrics["mistakes"], orient="index")
mistakes.T

# %%
figure = draw.mistake_bars(mistakes, f"{note}, merged box")
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

# %% [markdown]
# ## Photos
#
# Photos that nobody trained on, with boxes drawn by eye.

# %%
photos = kept.load_beside(cache, "photos", [ours]).get(ours)
if photos is not None:
    both = pd.read_csv(kept.PHOTO_PHRASES).merge(
        photos, on=["photo", "phrase"], suffixes=("", "_guess")
    )
    guess = [f"{side}_guess" for side in box_ops.COLUMNS]
    both["iou"] = box_ops.iou(both[box_ops.COLUMNS].to_numpy(), both[guess].to_numpy())
    first = both.groupby("photo", sort=False).head(3).assign(group="")
    pictures = [images.open_image(paths.PHOTOS / f"{photo}.jpg") for photo in first.photo]
    first[["width", "height"]] = [picture.size for picture in pictures]
    title = f"{metrics['labels'][ours]}, trained on {described['name']}: photos"
    figure = draw.gallery(first, pictures, title)
    plots.save(figure, figures / "gallery_photos.png")
