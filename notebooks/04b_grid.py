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
from scene_utils.study import ablation_table
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
# A phrase that is not about the picture is told by a second, small network (*presence*).

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
histories = {}
for member in folders.member_folders(folder) if there else []:
    seed = json.loads((member / "settings.json").read_text())["seed"]
    histories[f"grid (seed {seed})"] = pd.read_csv(member / "history.csv")
columns = ["epoch", "val_mean_iou", "val_accuracy_0.5"]
best = {name: h.loc[h["val_mean_iou"].idxmax(), columns] for name, h in histories.items()}
pd.DataFrame(best, columns).T.astype({"epoch": int}).round(4)

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
# ## What is each part worth, and what would more pictures bring?
#
# From the source system to the grid model, one change a row, then larger ones, scored on val. In
# brackets the 95 % interval over images of a single seed, or the range of several. `make ablation`
# trains the rows that today's code can train; of the others the commit says which code did.

# %%
rows = ablation_table.read(figures / "ablation.json")
ablation_table.table(rows) if rows else print("no ablation of this profile: `make ablation`")

# %%
if rows:
    names, seeds = zip(*ablation_table.by_name(rows).items(), strict=True)
    figure, axes = plots.new_figure(7.5, 1.2 + 0.3 * len(names))
    kinds = {"accuracy 0.5": "as they are", "accuracy 0.5, lengthened": "lengthened"}
    for shift, (column, label) in zip((-0.12, 0.12), kinds.items(), strict=True):
        value, low, high = 100 * np.array([ablation_table.bracketed(r, column) for r in seeds]).T
        style = {"fmt": "o" if shift < 0 else "D", "ms": 5, "label": f"phrases {label}"}
        ends = np.abs([value - low, high - value])
        axes[0, 0].errorbar(value, np.arange(len(names)) + shift, xerr=ends, **style)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    axes[0, 0].set_xlabel("IoU .5 reached on val (%)")
    axes[0, 0].legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    plots.save(figure, figures / "ablation.png")

# %% [markdown]
# Misses against the number of train pictures, and the power law through them, by least squares on
# logarithms (Hestness et al. 2017, "Deep Learning Scaling is Predictable"):

# %%
of_shares = ("of the pictures", ablation_table.ALL)
shares = [r for r in rows if r["seed"] == 0 and r["row"].endswith(of_shares)]
shares = sorted((r["pictures"], r["val"]["accuracy_0.5"]["value"]) for r in shares)
if len(shares) > 2:
    pictures, accuracy = map(np.array, zip(*shares, strict=True))
    whole = 29_783  # train pictures of Flickr30k Entities
    figure, axes = plots.new_figure(5.6, 3.8)
    line = np.geomspace(pictures[0], whole, 60)
    slope, offset = np.polyfit(np.log(pictures), np.log(1 - accuracy), 1)
    law = 100 * np.exp(offset + slope * np.log(line))
    axes[0, 0].loglog(line, law, "--", color="grey", label="power law")
    axes[0, 0].loglog(pictures, 100 * (1 - accuracy), "o", label="measured")
    axes[0, 0].loglog(whole, law[-1], "o", mfc="white", label=f"extrapolated: {law[-1]:.1f} %")
    axes[0, 0].set_xticks([*pictures, whole], [f"{count:,}" for count in (*pictures, whole)])
    axes[0, 0].set_yticks([20, 30, 40], ["20", "30", "40"])
    axes[0, 0].minorticks_off()
    axes[0, 0].set(xlabel="train pictures", ylabel="IoU .5 missed on val (%)")
    axes[0, 0].legend()
    plots.save(figure, figures / "data_scaling.png")

# %% [markdown]
# Next: `05_iou_analysis` scores all models on test, once.
