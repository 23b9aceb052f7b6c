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
# # 3 Feature caching
#
# Each picture goes through the backbone once; the mean of its last feature map is kept in a store
# of memory-mapped shards. A run that is interrupted goes on where it stopped; a picture whose file
# changed is computed anew. One that cannot be read is listed, counted, and left out.

# %% tags=["parameters"]
profile = "sample"
data = ""
backbone = "efficientnet_lite0"  # or resnet50, the source study's, after `make data`
weights = ""  # path of the backbone's weights, if they lie elsewhere
untrained = False  # True: random weights, and every table says so
engine = "keras"  # or openvino, another runtime; ray, several machines
precision = "float32"  # or bfloat16, faster where the processor has it

# %%
import numpy as np
import pandas as pd

from scene_utils import images, paths, plots, runtime
from scene_utils.dataset import entities
from scene_utils.features import backbones, encode

runtime.check()
root = paths.data_root(profile, data)
folder = entities.image_folder(root)

# %% [markdown]
# ## The backbone

# %%
encoder = backbones.load_backbone(backbone, weights or None, untrained)
print(f"{encoder.label}: {encoder.size} px to {encoder.channels} channels; {encoder.weights}")

# %% [markdown]
# ## The store

# %%
ids = sorted(entities.image_ids(root))
cache = paths.cache(profile)
target = encode.store_folder(cache, encoder, engine, precision)
store = encode.cache_features(folder, ids, encoder, target, engine=engine, precision=precision)
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
    nearest = np.argsort(-matrix @ matrix[query], kind="stable")[:5]
    for rank, row in enumerate(nearest):
        picture = np.asarray(images.open_image(folder / f"{readable[row]}.jpg"))
        cosine = float(matrix[query] @ matrix[row])
        items.append((picture, [], ["query" if rank == 0 else f"cosine {cosine:.2f}"]))
figure = plots.picture_grid(items, f"nearest pictures, {encoder.label}", columns=5)
pictures_go_to = paths.build(profile) if data else paths.figures(profile)
plots.save(figure, pictures_go_to / "nearest_pictures.png")

# %% [markdown]
# Next: `04_train` trains the source system and its controls on these features.
