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
# # 4b The grid model
#
# The source system has one vector for the whole picture. The grid model asks each place of the
# picture instead. A phrase becomes a convolution of the picture's map, its words ask each cell one
# by one, and each cell gives a score and a box of its own.
#
# On the sample it is trained here. Two models ship that were trained on real data, on a GPU, for 36
# and for 16 epochs; the first taught the second (see their card).

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import inspect
import json
import shutil

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from scene_utils import images, models, paths, plots, runtime, words
from scene_utils.dataset import entities
from scene_utils.features import encode
from scene_utils.grid import batches, folders, network, train, train_presence, train_sentences
from scene_utils.study import settings as profiles

runtime.check()
# %matplotlib inline
plots.plt.style.use(plots.STYLE)
settings = profiles.load(profile, data, changes)
root, cache, figures = settings.root, paths.cache(profile), paths.figures(profile)
folder = cache / "models" / "grid"

# %% [markdown]
# ## The network's head
#
# It takes the picture's map and the phrase's vectors, and gives a score and a box for each cell.

# %%
print(inspect.getsource(network.build_head))

# %% [markdown]
# ## Train it, or take the one that ships
#
# A phrase that is not about the picture is told by a second, small network (*presence*). On the
# sample the backbone stays as it is and pictures are seen whole, so their maps are made once.

# %%
chosen = vars(settings.grid).copy()
how = chosen.pop("model")
if how == "train":
    phrases = pd.read_parquet(cache / "phrases.parquet")
    vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
    embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
    store = encode.open_chosen(cache)
    made_with = encode.origin(store) | json.loads((cache / "vectors.json").read_text())
    grid_settings = batches.GridSettings(**chosen, seed=settings.seed)
    squeezed, mentions = batches.open_sets(
        phrases, store.row, root, cache, vocabulary, grid_settings.size, grid_settings.length
    )
    same = grid_settings.backbone == made_with["backbone"]
    weights = settings.weights or None if same else None
    trained = cache / "training" / "grid"
    train.train_members(
        *(grid_settings, *mentions, embeddings, vocabulary, made_with),
        **{"folder": trained, "weights": weights},
    )
    train_presence.train_presence(trained, grid_settings, vocabulary, *mentions)
    if settings.real:  # in the sample no phrase of a sentence says anything of another
        train_sentences.train_context(
            trained, phrases, vocabulary, embeddings, squeezed, settings.seed
        )
    paths.replace_folder(trained, folder)
elif how == "shipped":
    paths.replace_folder(paths.PRETRAINED / "grid", folder)
else:
    shutil.rmtree(folder, ignore_errors=True)
there = folder.is_dir()
print("grid model:", how)

# %%
# NBVAL_CHECK_OUTPUT
histories, kept = {}, {}
columns = ["epoch", "val_mean_iou", "val_accuracy_0.5"]
for member in folders.member_folders(folder) if there else []:
    known = json.loads((member / "settings.json").read_text())
    name = f"grid (seed {known['seed']})"
    histories[name] = history = pd.read_csv(member / "history.csv")
    # Of the epochs the best is kept; what was trained on for other views than these, as it ended.
    row = history["val_mean_iou"].idxmax() if "views" not in known else history.index[-1]
    kept[name] = history.loc[row, columns]
pd.DataFrame(kept, columns).T.astype({"epoch": int}).round(4)

# %%
source = pd.read_csv(cache / "models" / "source" / "history.csv")
figure, axes = plots.new_figure(7.5, 3.4)
for name, history in (histories | {"source": source}).items():
    style = "--" if name == "source" else "o-" if len(history) == 1 else "-"
    axes[0, 0].plot(history["epoch"], history["val_mean_iou"], style, label=name)
axes[0, 0].set(xlabel="epoch", ylabel="mean IoU on val")
axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
axes[0, 0].legend()
axes[0, 0].set_title(f"{profile}, grid model: {how}")
plots.save(figure, figures / "learning_curves_grid.png")

# %% [markdown]
# ## Its two readings
#
# A phrase is read twice: for the thing that it names, and for the second thing that tells which one
# is meant, its *landmark*. With `grid.landmarks_shown` training shows the second reading where the
# landmark is. Two phrases of a picture that differ in the landmark alone test it: without it
# nothing tells them apart.

# %%
pairs = pd.Series(dtype=object)
if there and not settings.real:
    said = pd.read_parquet(cache / "phrases.parquet").query("split == 'val' and n_boxes == 1")
    said = said[said.phrase.map(words.names_two)].drop_duplicates(["image_id", "phrase"])
    alike = said.phrase.str.lower().str.replace(r"^\w+ | the (?!.* the ).*$", "", regex=True)
    pairs = said.groupby(["image_id", alike], sort=False).phrase.agg(list)
    pairs = pairs[pairs.map(len) == 2].groupby(level="image_id", sort=False).head(1).head(3)
if pairs.empty:
    print("shown on the embedded sample")
else:
    grid = models.load_model(folder)
    blue = LinearSegmentedColormap.from_list("", [plots.COLOURS[0] + "00", plots.COLOURS[0] + "d0"])
    figure, axes = plots.new_figure(9.6, 5.6, nrows=2, ncols=3)
    for axis in axes.flat:
        axis.set_axis_off()
    for column, ((image_id, _), pair) in zip(axes.T, pairs.items(), strict=False):
        picture = images.open_image(images.picture_file(entities.image_folder(root), image_id))
        for axis, answer in zip(column, grid.ground(picture, pair, top_k=1), strict=True):
            grey = np.asarray(picture.convert("L").convert("RGB"))
            plots.draw_boxes(axis, grey, answer.boxes, colours=[plots.GUESS])
            corners = (0, picture.width, picture.height, 0)
            axis.imshow(answer.landmark, blue, extent=corners, interpolation="bilinear")
            axis.set_title(answer.phrase)
    figure.suptitle(f"box: the answer; blue: where the landmark is looked for ({profile}, val)")
    plots.save(figure, figures / "readings.png")

# %% [markdown]
# ## The phrases of a sentence
#
# In "a man in a blue shirt" the man is he whose box holds the shirt's. How boxes of two phrases lie
# is learned from annotations alone. Below, how often the right one of a picture's like things (its
# people, its clothes) is chosen on the val annotations: from the phrase alone, and with the true
# box of another phrase. Then the grid model on val, by how much is made of it (0: each phrase by
# itself).

# %%
# NBVAL_CHECK_OUTPUT
learned = folder / "context.json"
if learned.is_file():
    found = json.loads(learned.read_text())
    print(f"{found['alone']:.3f} alone, {found['with_another']:.3f} with another's box")
    by_weight = pd.DataFrame(found["val_by_weight"], columns=["weight", *columns[1:]])
    print(by_weight.set_index("weight").round(4).to_string())
else:
    print("learned on real data alone")

# %% [markdown]
# What each part is worth, one change a row, and what more pictures would bring, stands in
# `figures/flickr30k/README.md`.
#
# Next: `05_iou_analysis` scores all models on test, once.
