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
# What does a phrase name, and where is it? This notebook reads Flickr30k Entities' official files
# (or makes the embedded sample, which has exactly their form), counts what is there, and writes the
# tables that every later notebook starts from: `phrases.parquet` and `box_ops.parquet`.

# %% tags=["parameters"]
profile = "sample"
data = ""  # folder of Flickr30k Entities; empty: the embedded sample is made
pictures = 1600  # train pictures of the sample; val has an eighth and test three sixteenths of it

# %%
import numpy as np
import pandas as pd

from scene_utils import box_ops, images, paths, plots, runtime
from scene_utils.dataset import entities, sample

pd.Series(runtime.check(), name="version").to_frame()

# %% [markdown]
# ## The data

# %%
root = paths.data_root(profile, data)
if not data:
    sample.generate(root, train=pictures, val=pictures // 8, test=pictures * 3 // 16)
cache = paths.cache(profile)
found = entities.load_entities(root, cache)
at_hand = entities.image_ids(root)
phrases = found.phrases
print(f"{len(found.problems)} annotation files could not be read")
found.problems.head()

# %% [markdown]
# A *mention* is a phrase in a sentence that stands for an entity. Only mentions with a box can be
# scored, and only those with a picture at hand can be trained on. A picture that is missing is
# counted here and is no error.

# %%
# NBVAL_CHECK_OUTPUT
entities.count(phrases, at_hand).T

# %% [markdown]
# ## Categories and boxes
#
# A phrase can have several boxes ("two men"), or none ("the yard").

# %%
# NBVAL_CHECK_OUTPUT
here = phrases[phrases.image_id.isin(at_hand)]
by_category = here.groupby("category")
pd.DataFrame(
    {
        "mentions": by_category.size(),
        "with a box (%)": by_category.n_boxes.apply(lambda n: 100 * (n > 0).mean()).round(1),
        "with several (%)": by_category.n_boxes.apply(lambda n: 100 * (n > 1).mean()).round(1),
    }
).sort_values("mentions", ascending=False)

# %%
boxed = here[here.n_boxes > 0]
relative = box_ops.to_relative(
    boxed[box_ops.COLUMNS].to_numpy(), boxed.width.to_numpy(), boxed.height.to_numpy()
)
areas = pd.Series(box_ops.area(relative), index=boxed.category)
common = boxed.category.value_counts().index[:5]
figure = plots.box_sizes(
    {name: areas[name].to_numpy() for name in common}, f"merged boxes of all splits, {profile}"
)
plots.save(figure, paths.figures(profile) / "box_sizes.png")

# %% [markdown]
# Where boxes lie decides how far a blind guess gets: the share of mentions whose box covers each
# place of the picture.

# %%
figure = plots.coverage_map(relative, f"{len(relative):,} boxes, {profile}")
plots.save(figure, paths.figures(profile) / "where_boxes_lie.png")

# %% [markdown]
# ## A look at the pictures
#
# Each with the phrases of its first sentence. Real pictures are shown here only and are not kept
# with the figures.

# %%
folder = entities.image_folder(root)
items = []
for image_id, group in boxed[(boxed.split == "val") & (boxed.sentence_id == 0)].groupby("image_id"):
    try:
        squeezed, width, height = images.read_squeezed(folder / f"{image_id}.jpg", 224)
    except images.ImageError as error:
        print(error)
        continue
    size = np.float32([width, height] * 2) / np.float32([*group[["width", "height"]].iloc[0]] * 2)
    picture = np.asarray(images.open_image(folder / f"{image_id}.jpg"))
    items.append((picture, group[box_ops.COLUMNS].to_numpy() * size, group.phrase.tolist()))
    if len(items) == 6:
        break
figure = plots.picture_grid(items, f"first sentences of six val pictures, {profile}")
pictures_go_to = paths.build(profile) if data else paths.figures(profile)
plots.save(figure, pictures_go_to / "pictures.png")

# %% [markdown]
# Next: `02_vocabulary` turns phrases into word vectors.
