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
# # 1 Data exploration
#
# What does a phrase name, and where is it? This notebook reads Flickr30k Entities' official files,
# or draws the embedded sample, which has exactly their form. It begins with one phrase and ends
# with the number that every model has to beat. It writes `phrases.parquet` and `boxes.parquet`.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd

from scene_utils import box_ops, images, paths, plots, runtime
from scene_utils.dataset import entities, sample
from scene_utils.study import settings as profiles

# %matplotlib inline
plots.plt.style.use(plots.STYLE)
settings = profiles.load(profile, data, changes)
root, cache = settings.root, paths.cache(profile)
pd.Series(runtime.check(), name="version").to_frame()

# %% [markdown]
# ## One phrase
#
# A picture comes with five sentences, in which phrases are marked: `EN#`, the number of a thing,
# its category, the words. Its XML says where the things are, in pixels.

# %%
if not settings.real:
    sample.generate(root, **vars(settings.explore))
found = entities.read_entities(root)
entities.write_tables(found, cache)
at_hand = entities.image_ids(root)
phrases = found.phrases
here = phrases[phrases.image_id.isin(at_hand)]
boxed = here[here.n_boxes > 0]
one = boxed[boxed.split == "val"].iloc[0]
read = entities.opener(root)
print(read(f"Sentences/{one.image_id}.txt").decode().splitlines()[one.sentence_id])

# %%
xml = read(f"Annotations/{one.image_id}.xml").decode()
thing = next(part for part in xml.split("<object>") if f"<name>{one.phrase_id}</name>" in part)
print("<object>" + "".join(thing.split("</object>")[0].split()) + "</object>")

# %% [markdown]
# Both become one row. A box is `x_min, y_min, x_max, y_max` in pixels of the original picture, the
# last two exclusive.

# %%
one.to_frame("one mention")

# %%
folder = entities.image_folder(root)
pictures_go_to = paths.build(profile) if settings.real else paths.figures(profile)


def with_boxes(mentions: pd.DataFrame) -> tuple:
    """A picture, boxes in its own pixels (it may be stored smaller), and their phrases."""
    first = mentions.iloc[0]
    picture = np.asarray(images.open_image(images.picture_file(folder, first.image_id)))
    pixels = box_ops.to_pixels(box_ops.relative(mentions), picture.shape[1], picture.shape[0])
    return picture, pixels, mentions.phrase.tolist()


figure = plots.picture_grid([with_boxes(one.to_frame().T.infer_objects())], columns=2)
plots.save(figure, pictures_go_to / "one_phrase.png")

# %% [markdown]
# ## All phrases
#
# A *mention* is a phrase in a sentence that stands for a thing. Only mentions with a box can be
# scored, and only those with a picture at hand can be trained on.

# %%
# NBVAL_CHECK_OUTPUT
print(f"{len(found.problems)} annotation files could not be read")
entities.count(phrases, at_hand).T

# %% [markdown]
# A phrase can have several boxes ("two men"), or none ("the yard"). The *merged* box goes round
# all of them.

# %%
# NBVAL_CHECK_OUTPUT
by_category = here.groupby("category")
pd.DataFrame(
    {
        "mentions": by_category.size(),
        "with a box (%)": by_category.n_boxes.apply(lambda n: 100 * (n > 0).mean()).round(1),
        "with several (%)": by_category.n_boxes.apply(lambda n: 100 * (n > 1).mean()).round(1),
    }
).sort_values("mentions", ascending=False)

# %% [markdown]
# The phrases of the first sentence of six pictures. Real pictures are shown here only and are not
# kept with the figures.

# %%
first_sentences = boxed[(boxed.split == "val") & (boxed.sentence_id == 0)].groupby("image_id")
items = [with_boxes(mentions) for _, mentions in list(first_sentences)[:6]]
figure = plots.picture_grid(items, f"first sentences of six val pictures, {profile}")
plots.save(figure, pictures_go_to / "pictures.png")

# %% [markdown]
# ## How large are boxes?

# %%
relative = box_ops.relative(boxed)
areas = pd.Series(100 * box_ops.area(relative), index=boxed.category)
figure, axes = plots.new_figure(7.5, 3.2)
for category in boxed.category.value_counts().index[:5]:
    style = {"histtype": "step", "density": True, "lw": 1.8, "label": category}
    axes[0, 0].hist(areas[category], np.linspace(0, 100, 41), **style)
axes[0, 0].set(xlabel="box area (% of the picture)", ylabel="density (per %)", xlim=(0, 100))
axes[0, 0].set_title(f"merged boxes of all splits, {profile}")
axes[0, 0].legend()
plots.save(figure, paths.figures(profile) / "box_sizes.png")

# %% [markdown]
# ## Where are they?
#
# The share of boxes that cover each place of the picture.

# %%
figure, axes = plots.new_figure(5.0, 4.0)
share = 100 * box_ops.coverage(relative)
shown = axes[0, 0].imshow(share, cmap="cividis", vmin=0, extent=(0, 1, 1, 0))
axes[0, 0].set(xlabel="x (fraction of the width)", ylabel="y (fraction of the height)")
axes[0, 0].set_title(f"{len(relative):,} boxes, {profile}")
axes[0, 0].grid(visible=False)
figure.colorbar(shown, label="boxes that cover it (%)")
plots.save(figure, paths.figures(profile) / "where_boxes_lie.png")

# %% [markdown]
# ## The number to beat
#
# Most boxes cover the middle. So one box, the same for every picture and phrase, is often not bad.
# This is the best such box of the train split, and its mean IoU on val. A model that looks and
# reads must do better.

# %%
# NBVAL_CHECK_OUTPUT
train, val = (relative[(boxed.split == split).to_numpy()] for split in ("train", "val"))
blind = box_ops.best_constant(train)
iou = box_ops.iou(np.tile(blind, (len(val), 1)), val)
print("best blind box, in fractions of the picture:", *(f"{side:.2f}" for side in blind))
print(f"on val: mean IoU {iou.mean():.3f}, IoU of .5 or more for {100 * (iou >= 0.5).mean():.1f} %")

# %% [markdown]
# Next: `02_vocabulary` turns phrases into word vectors.
