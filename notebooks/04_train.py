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
# # 4 The source system
#
# The system under study: the pooled feature of the picture and the mean GloVe vector of the phrase,
# concatenated, dense layers with dropout, four coordinates. Four losses are compared on val. Beside
# it stand its controls, the same network without the picture, and without the phrase.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import inspect
import json

import numpy as np
import pandas as pd

from scene_utils import box_ops, grounding, images, models, paths, plots, runtime, words
from scene_utils.features import encode
from scene_utils.source import model as source_model
from scene_utils.source import train
from scene_utils.study import settings as profiles

runtime.check()
# %matplotlib inline
plots.plt.style.use(plots.STYLE)
settings = profiles.load(profile, data, changes)
cache = paths.cache(profile)
folder = cache / "models"

# %% [markdown]
# ## Examples
#
# One for each boxed mention: the picture's vector, the phrase's token ids, and the true box as
# fractions of the picture.

# %%
# NBVAL_CHECK_OUTPUT
phrases = pd.read_parquet(cache / "phrases.parquet")
vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
store = encode.open_chosen(cache)
train_set, val_set = (
    train.make_examples(phrases, split, store, vocabulary) for split in ("train", "val")
)
for name, examples in (("train", train_set), ("val", val_set)):
    print(f"{name}: {len(examples.rows):,} mentions of {len(examples.features):,} pictures")
made_with = encode.origin(store) | json.loads((cache / "vectors.json").read_text())
print(f"inputs: {made_with['label']} {train_set.features.shape[1:]}, ", end="")
print(f"{made_with['vectors']} {embeddings.shape[1:]}")

# %% [markdown]
# ## The network
#
# This is the package's own text.

# %%
print(inspect.getsource(source_model.build_regressor))

# %%
network = source_model.build_regressor(
    source_model.INPUTS["source"],
    train_set.features.shape[1],
    embeddings,
    **{name: getattr(train.Settings, name) for name in ("length", "widths", "dropout")},
)
network.summary(line_length=88)

# %% [markdown]
# The words' mean and the four coordinates are layers of their own. Centre and size become corners,
# so that no box is upside down.

# %%
print(inspect.getsource(source_model.MeanVector))

# %%
print(inspect.getsource(source_model.Corners))

# %% [markdown]
# ## Four losses
#
# The published system minimises the squared error of the coordinates. The others are the Huber loss
# (`smooth_l1`), 1 - IoU, and 1 - generalised IoU. The best epoch of each is kept, by mean IoU on
# val.


# %%
def run(name: str, **chosen) -> pd.DataFrame:
    """Train into models/<name>, or read what is finished; one row an epoch."""
    chosen |= {"epochs": settings.train.epochs, "batch_size": settings.train.batch}
    chosen |= {"learning_rate": settings.train.learning_rate, "seed": settings.seed}
    chosen = train.Settings(**chosen)
    data = (train_set, val_set, embeddings, vocabulary, made_with)
    return train.train(chosen, *data, folder / name)


tried = train.LOSSES if settings.train.loss == "best" else {"mse", settings.train.loss}
losses = {loss: run(f"source-{loss}", model="source", loss=loss) for loss in tried}

# %%
# NBVAL_CHECK_OUTPUT
columns = ["epoch", "val_mean_iou", "val_accuracy_0.5"]


def best_epochs(histories: dict[str, pd.DataFrame]) -> pd.DataFrame:
    best = {name: h.loc[h["val_mean_iou"].idxmax(), columns] for name, h in histories.items()}
    return pd.DataFrame(best).T.astype({"epoch": int}).round(4)


best_epochs(losses)

# %%
# NBVAL_CHECK_OUTPUT
loss = settings.train.loss
if loss == "best":
    loss = max(losses, key=lambda name: losses[name]["val_mean_iou"].max())
paths.replace_folder(folder / f"source-{loss}", folder / "source")
print("the source system is trained with", loss)

# %% [markdown]
# ## Controls
#
# What can be had from the phrase alone, and from the picture alone? And from neither: the best
# blind box of notebook 01.

# %%
# NBVAL_CHECK_OUTPUT
histories = {f"source ({name})": history for name, history in losses.items()}
for control in ("text-only", "image-only"):
    histories[control] = run(control, model=control, loss=loss)
blind = box_ops.best_constant(train_set.boxes)
blind_iou = box_ops.iou(np.tile(blind, (len(val_set.boxes), 1)), val_set.boxes)
print(f"best blind box: {blind_iou.mean():.4f}")
best_epochs(histories)

# %%
figure, axes = plots.new_figure(7.5, 3.8)
for number, (name, history) in enumerate(histories.items()):
    style = "-" if name.startswith("source") else "--"
    colour = plots.COLOURS[number % len(plots.COLOURS)]
    axes[0, 0].plot(history["epoch"], history["val_mean_iou"], style, label=name, color=colour)
axes[0, 0].axhline(blind_iou.mean(), color="grey", ls=":", label="best blind box")
axes[0, 0].set(xlabel="epoch", ylabel="mean IoU on val")
axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
axes[0, 0].legend(ncols=2)
note = f"{profile}, {made_with['label']}, {made_with['vectors']}, seed {settings.seed}"
axes[0, 0].set_title(note)
plots.save(figure, paths.figures(profile) / "learning_curves.png")

# %% [markdown]
# ## Ask it
#
# The model just trained, asked about one photo. It gives one box a phrase. What answers is exported
# here, for all that later notebooks ask.

# %%
asked = ("source", "source-mse", "text-only", "image-only")
source, *_ = [models.load_model(folder / name) for name in asked]
photo = images.open_image(paths.PHOTOS / "astronaut.jpg")
answers = source.ground(photo, ["a woman", "an orange suit", "an American flag"])
items = [(np.asarray(photo), answer.boxes, [answer.phrase]) for answer in answers]
figure = plots.picture_grid(items, grounding.label(source.settings, "source"))
plots.save(figure, paths.figures(profile) / "source_photo.png")

# %% [markdown]
# What each run took on this machine:

# %%
runs = {path.parent.name: pd.read_csv(path) for path in sorted(folder.glob("*/history.csv"))}
pd.DataFrame(
    {name: {"epochs": len(run), "seconds": run.seconds.sum()} for name, run in runs.items()}
).T

# %% [markdown]
# Next: `04b_grid` trains a model that asks each place of the picture.
