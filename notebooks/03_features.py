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
# # 3 Features
#
# A network trained on ImageNet, the *backbone*, turns a picture into a map of 7 x 7 cells, and the
# mean over the cells into one vector. First one photo, step by step. Then all pictures, once, into
# a store on the disk.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import numpy as np
import pandas as pd

from scene_utils import images, paths, plots, runtime
from scene_utils.dataset import entities
from scene_utils.features import backbones, encode
from scene_utils.study import settings as profiles

runtime.check()
# %matplotlib inline
plots.plt.style.use(plots.STYLE)
settings = profiles.load(profile, data, changes)
root, cache, chosen = settings.root, paths.cache(profile), settings.features
folder = entities.image_folder(root)
pictures_go_to = paths.build(profile) if settings.real else paths.figures(profile)

# %% [markdown]
# ## One photo
#
# The whole photo is squeezed to a square, whatever its shape.

# %%
backbone = backbones.load_backbone(chosen.backbone, settings.weights or None, chosen.untrained)
pixels, width, height = images.read_squeezed(paths.PHOTOS / "astronaut.jpg", backbone.size)
maps = np.asarray(backbone.model(pixels[None].astype(np.float32)))[0]
print(f"{backbone.label}; weights of sha256 {backbone.sha256[:12]}...")
print(f"photo {width} x {height} -> pixels {pixels.shape} -> map {maps.shape}")

# %% [markdown]
# A channel of the map is high where the photo has something it has learned to look for. These are
# the five that differ most from cell to cell.

# %%
busiest = np.argsort(-maps.std(axis=(0, 1)))[:5]
figure, axes = plots.new_figure(9.6, 2.0, ncols=6)
axes[0, 0].imshow(pixels)
axes[0, 0].set_title("squeezed")
for axis, channel in zip(axes[0, 1:], busiest, strict=True):
    axis.imshow(maps[..., channel], cmap="cividis")
    axis.set_title(f"channel {channel}")
for axis in axes.flat:
    axis.set_axis_off()
plots.save(figure, paths.figures(profile) / "one_map.png")

# %% [markdown]
# The mean over the cells is what the source system sees: what is in the photo, hardly where.

# %%
vector = maps.mean(axis=(0, 1))
print(f"map {maps.shape} -> vector {vector.shape}:", *vector[:8].round(2), "...")

# %% [markdown]
# ## All pictures, once
#
# The vectors are kept in memory-mapped shards. A run that is interrupted goes on where it stopped.
# A picture whose file changed is computed anew. One that cannot be read is listed and left out.

# %%
ids = sorted(entities.image_ids(root))
how = {"engine": chosen.engine, "precision": chosen.precision}
target = encode.store_folder(cache, backbone, **how)
store = encode.cache_features(folder, ids, backbone, target, **how)
encode.choose(cache, store)

# %%
# NBVAL_CHECK_OUTPUT
print(f"{len(store.row):,} of {len(ids):,} pictures have features")
print(f"{len(store.unreadable)} could not be read, {len(store.remarks)} look odd")
pd.concat([store.unreadable.rename(columns={"reason": "remark"}), store.remarks])

# %% [markdown]
# ## Do the features mean anything?
#
# Nearest pictures by cosine. With trained weights, neighbours look alike.

# %%
readable = sorted(store.row)[:2000]
matrix = store.array(readable).astype(np.float32)
matrix -= matrix.mean(axis=0)
matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
items = []
for query in (0, 7):
    cosines = matrix @ matrix[query]
    for rank, row in enumerate(np.argsort(-cosines, kind="stable")[:5]):
        picture = np.asarray(images.open_image(images.picture_file(folder, readable[row])))
        items.append((picture, [], [f"cosine {cosines[row]:.2f}" if rank else "query"]))
figure = plots.picture_grid(items, f"nearest pictures, {backbone.label}", columns=5)
plots.save(figure, pictures_go_to / "nearest_pictures.png")

# %% [markdown]
# Next: `04_train` trains the source system and its controls on these features.
