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
# # 5d Pictures
#
# How far boxes are off, where they lie, and mentions to look at: on the test split, and on photos.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from scene_utils import box_ops, images, paths, plots, runtime
from scene_utils.analysis import metrics as scoring
from scene_utils.analysis import metrics_file, references
from scene_utils.analysis import predictions as kept
from scene_utils.dataset import entities
from scene_utils.study import settings as profiles

runtime.check()
# %matplotlib inline
plots.plt.style.use(["default", plots.STYLE])
settings = profiles.load(profile, data, changes)
root, cache, figures = settings.root, paths.cache(profile), paths.figures(profile)
metrics = metrics_file.read_metrics(figures / "metrics.json")
note = metrics_file.note(metrics["data"], metrics["labels"])
phrases = pd.read_parquet(cache / "phrases.parquet")
test = kept.test_phrases(phrases, root)
boxes = pd.read_parquet(cache / "boxes.parquet")
boxes = boxes[boxes.image_id.isin(test.image_id)]
predictions = kept.load(cache)
ours, shown = kept.compared(predictions)

# %% [markdown]
# ## How far are boxes off?
#
# The distribution of IoU, beside the blind box's.

# %%
here = phrases[(phrases.split == "test") | phrases.image_id.isin(entities.image_ids(root))]
fitted_on = here[here.split == "train"]
blind = references.BEST[0]
answers = {blind: references.predictions(pd.concat([fitted_on, test]), "test")[blind]}
answers |= {name: predictions[name] for name in shown}
scored = {name: scoring.score_mentions(table, test, boxes) for name, table in answers.items()}
figure, axes = plots.new_figure(7.5, 3.6, ncols=2)
grid = np.linspace(0, 1, 201)
for name, table in scored.items():
    values, line = table.iou_merged.to_numpy(), {"lw": 1.6} | plots.look(name)
    share, edges = np.histogram(values, np.linspace(0, 1, 21))
    axes[0, 0].stairs(100 * share / len(values), edges, **line)
    reached = 1 - np.searchsorted(np.sort(values), grid, side="left") / len(values)
    axes[0, 1].plot(grid, 100 * reached, label=name, **line)
axes[0, 0].set(xlabel="IoU (bins of .05)", ylabel="mentions (%)", xlim=(0, 1))
axes[0, 1].set(xlabel="IoU threshold", ylabel="mentions that reach it (%)")
axes[0, 1].set(xlim=(0, 1), ylim=(0, 100))
for axis in axes[0]:
    axis.axvline(0.5, color="grey", lw=1, ls=":")
plots.finish(figure, f"{note}, merged box", axes[0, 1])
plots.save(figure, figures / "iou_distribution.png")

# %% [markdown]
# ## Where predictions lie
#
# A model that is unsure retreats to the middle, where most of the truth is.

# %%
boxed = test[test.n_boxes > 0]
first = {name: predictions[name][predictions[name]["rank"] == 1] for name in shown}
sized = boxed[[*entities.MENTION_KEY, "width", "height"]]
maps = {"truth": 100 * box_ops.coverage(box_ops.relative(boxed))}
for name in shown:
    maps[name] = 100 * box_ops.coverage(box_ops.relative(first[name].merge(sized)))
apart = [maps[name] - maps["truth"] for name in shown]
most = max(share.max() for share in maps.values())
widest = max([1.0, *(np.abs(share).max() for share in apart)])
figure, axes = plots.new_figure(7.5, 4.2, nrows=2, ncols=len(maps), sharex=True, sharey=True)
place = {"extent": (0, 1, 1, 0), "aspect": 0.75}
for axis, (name, share) in zip(axes[0], maps.items(), strict=True):
    above = axis.imshow(share, vmin=0, vmax=most, **place)
    axis.set_title(name)
for axis, share in zip(axes[1, 1:], apart, strict=True):
    below = axis.imshow(share, cmap="PuOr", vmin=-widest, vmax=widest, **place)
    axis.set_xlabel("x (of the width)")
axes[1, 0].set_axis_off()
axes[1, 1].set_ylabel("minus the truth")
for axis in axes.flat:
    axis.grid(visible=False)
    axis.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
axes[0, 0].set_ylabel("y (of the height)")
figure.colorbar(above, ax=axes[0], label="boxes over it (%)")
figure.colorbar(below, ax=axes[1], label="points")
plots.finish(figure, note)
plots.save(figure, figures / "where_predictions_lie.png")


# %% [markdown]
# ## Best, median and worst
#
# Of the best tenth, of those around the median and of the worst tenth three each, drawn at random,
# and the misses that the model was surest of. Pictures of the real set stay out of `figures/`.


# %%
def gallery(mentions, pictures, title):
    """Pictures with truth and guess, the box columns and those with `_guess` behind their names.

    A picture may be stored squeezed; it is shown as the original was, of `width` and `height`.
    Each `group` has rows of its own; `score` is shown where there is such a column.
    """
    sides = [f"{side}{end}" for end in ("", "_guess") for side in box_ops.COLUMNS]
    pairs = mentions[sides].to_numpy(np.float32).reshape(-1, 2, 4)
    groups = mentions.assign(picture=pictures, boxes=list(pairs)).groupby("group", sort=False)
    lines = [(name, of[n : n + 3]) for name, of in groups for n in range(0, len(of), 3)]
    figure, axes = plots.new_figure(7.5, 2.2 * len(lines) + 0.5, nrows=len(lines), ncols=3)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, (group, rows) in zip(axes, lines, strict=True):
        for axis, row in zip(line, rows.to_dict("records"), strict=False):
            scale = 320 / max(row["width"], row["height"])
            image = row["picture"].resize([round(row[k] * scale) for k in ("width", "height")])
            looks = {"colours": (plots.TRUTH, plots.GUESS), "styles": ("-", "--")}
            plots.draw_boxes(axis, np.asarray(image), row["boxes"] * np.float32(scale), **looks)
            text = row["phrase"]
            text = text if len(text) <= 34 else text[:33].rstrip() + "…"
            score = f", score {row['score']:.2f}" if "score" in row else ""
            axis.set_title(f"{text}\nIoU {row['iou']:.2f}{score}", fontsize=8.5)
        style = {"transform": line[0].transAxes, "rotation": 90, "ha": "right", "va": "center"}
        line[0].text(-0.04, 0.5, group, **style)
    looks = (("truth", plots.TRUTH, "-"), ("prediction", plots.GUESS, "--"))
    handles = [Patch(fill=False, ec=ec, lw=2, ls=ls, label=name) for name, ec, ls in looks]
    figure.legend(handles=handles, loc="outside lower center", ncols=2)
    plots.finish(figure, title)
    return figure


sides = [*entities.MENTION_KEY, *box_ops.COLUMNS]
seen = scored[ours].merge(test[[*sides, "width", "height"]], on=entities.MENTION_KEY)
seen = seen.merge(first[ours][sides], on=entities.MENTION_KEY, suffixes=("", "_guess"))
seen = seen[seen.answered].rename(columns={"iou_merged": "iou"}).sample(frac=1, random_state=0)
seen = seen.sort_values("iou", ascending=False, kind="stable").reset_index(drop=True)
tenth = max(len(seen) // 10, 3)
middle = max(len(seen) // 2 - tenth // 2, 0)
groups = {
    "best tenth": seen[:tenth].sample(frac=1, random_state=0),
    "around the median": seen[middle : middle + tenth].sample(frac=1, random_state=0),
    "worst tenth": seen[-tenth:].sample(frac=1, random_state=0),
}
if ours in metrics["calibration"]:
    missed = seen[seen.iou < 0.5]
    groups["surest misses"] = missed.sort_values("score", ascending=False, kind="stable")
else:
    groups = {name: of.drop(columns="score") for name, of in groups.items()}
# Each of another picture.
picked = [of.drop_duplicates("image_id")[:3].assign(group=name) for name, of in groups.items()]
picked = pd.concat(picked, ignore_index=True)
folder = entities.image_folder(root)
pictures = [images.open_image(images.picture_file(folder, name)) for name in picked.image_id]
figure = gallery(picked, pictures, f"{ours}, {note}")
plots.save(figure, (paths.build(profile) if settings.real else figures) / "gallery.png")

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
    picked = both.groupby("photo", sort=False).head(3).assign(group="")
    pictures = [images.open_image(paths.PHOTOS / f"{photo}.jpg") for photo in picked.photo]
    picked[["width", "height"]] = [picture.size for picture in pictures]
    title = f"{metrics['labels'][ours]}, trained on {metrics['data']['name']}: photos"
    figure = gallery(picked, pictures, title)
    plots.save(figure, figures / "gallery_photos.png")
