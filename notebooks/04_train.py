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
# # 4 Training
#
# The source system as published: the pooled picture feature and the mean GloVe vector of the
# phrase, concatenated, dense layers with dropout, four coordinates. Beside it what it must beat:
# the best constant box, the best box of each category, and the same network with the picture or
# the phrase taken away. All are trained by one function; the loss is chosen on val.

# %% tags=["parameters"]
profile = "sample"
data = ""
weights = ""
seed = 0
epochs = 20
grid = "shipped"  # the model that scores places: "train" it here, take the "shipped" one, or "none"
grid_backbone = "efficientnet_lite2"
grid_epochs = 12
grid_size = 320  # pixels of its input's side
grid_progressive = True  # smaller pictures in the first half of the epochs
grid_pictures = 16  # pictures a step, with 8 phrases each
grid_blocks = 3  # residual blocks that compare places
grid_anchored = False  # whether the second reading of a phrase is shown where to look
grid_members = 2  # such models, of seeds one after the other, that answer together

# %%
import json
import shutil

import numpy as np
import pandas as pd

from scene_utils import images, paths, plots, runtime, words
from scene_utils.dataset import entities
from scene_utils.features import encode
from scene_utils.grid import ensemble, localizer, presence, sentences
from scene_utils.grid import train as grid_training
from scene_utils.source import train
from scene_utils.study import ablation_plots, ablation_table

runtime.check()
cache = paths.cache(profile)
models = cache / "models"

# %% [markdown]
# ## Examples

# %%
# NBVAL_CHECK_OUTPUT
phrases = pd.read_parquet(cache / "phrases.parquet")
vocabulary = words.Vocabulary.load(cache / "vocabulary.txt")
embeddings = np.load(cache / "embeddings.npy", allow_pickle=False)
store = encode.open_chosen(cache)
train_set, val_set = (
    train.make_examples(phrases, split, store, vocabulary) for split in ("train", "val")
)
made_with = encode.origin(store) | json.loads((cache / "vectors.json").read_text())
for name, examples in (("train", train_set), ("val", val_set)):
    print(f"{name}: {len(examples.rows):,} mentions of {len(examples.features):,} pictures")


# %%
def run(name: str, **settings) -> pd.DataFrame:
    chosen = train.Settings(epochs=epochs, seed=seed, **settings)
    return train.train(chosen, train_set, val_set, embeddings, vocabulary, made_with, models / name)


# %% [markdown]
# ## Which loss?
#
# The paper's squared error, and three others, on the source system.

# %%
losses = {loss: run(f"seed-{loss}", model="seed", loss=loss) for loss in train.LOSSES}
best_loss = max(losses, key=lambda loss: losses[loss]["val_mean_iou"].max())
shutil.copytree(models / f"seed-{best_loss}", models / "seed", dirs_exist_ok=True)

# %%
# NBVAL_CHECK_OUTPUT
rows = {
    loss: history.loc[history["val_mean_iou"].idxmax(), ["epoch", "val_mean_iou"]]
    for loss, history in losses.items()
}
print(f"chosen on val: {best_loss}")
pd.DataFrame(rows).T.astype({"epoch": int}).round(4)

# %% [markdown]
# ## The controls

# %%
histories = {f"seed ({loss})": history for loss, history in losses.items()}
for model in ("text-only", "image-only"):
    histories[model] = run(model, model=model, loss=best_loss)
for model in ("constant", "per-category"):
    histories[model] = run(model, model=model)

# %% [markdown]
# ## A model that scores places
#
# The source system has one vector for the whole picture. The grid model asks each place of the
# picture instead: a phrase becomes a convolution of the picture's map, its words ask each cell one
# by one, and each cell gives a score and a box of its own. On real data two of them answer
# together: the candidates are cells of both, and the best box is one that both agree on. The two
# that ship were trained for 36 and for 16 epochs on a GPU, and the first of them taught the second
# (see the model card); on a laptop that takes hours. On the sample one is trained here.

# %%
if grid == "train":
    root = paths.data_root(profile, data)
    settings = grid_training.GridSettings(
        backbone=grid_backbone,
        size=grid_size,
        epochs=grid_epochs,
        progressive=grid_progressive,
        pictures_per_step=grid_pictures,
        blocks=grid_blocks,
        anchored=grid_anchored,
        members=grid_members,
        seed=seed,
    )
    squeezed, mentions = grid_training.open_sets(
        phrases, store.row, root, cache, vocabulary, grid_size, settings.length
    )
    given = weights if weights and grid_backbone == made_with["backbone"] else None
    grid_training.train_members(
        settings,
        *mentions,
        embeddings,
        vocabulary,
        made_with,
        folder=models / "grid",
        weights=given,
    )
    presence.train_presence(models / "grid", settings, vocabulary, *mentions)
    if data:  # in the sample no phrase of a sentence says anything of another
        sentences.train_context(models / "grid", phrases, vocabulary, embeddings, squeezed, seed)
elif grid == "shipped":
    shutil.copytree(paths.PRETRAINED / "grid", models / "grid", dirs_exist_ok=True)
if grid != "none":
    members = ensemble.member_folders(models / "grid")
    for member in members:
        trained = json.loads((member / "settings.json").read_text())
        name = "grid" if len(members) == 1 else f"grid (seed {trained['seed']})"
        histories[name] = pd.read_csv(member / "history.csv")

# %%
# NBVAL_CHECK_OUTPUT
columns = ["epoch", "val_mean_iou", "val_accuracy_0.5"]
best = {
    name: table.loc[table["val_mean_iou"].idxmax(), columns] for name, table in histories.items()
}
pd.DataFrame(best).T.astype({"epoch": int}).round(4)

# %%
note = f"{profile}, {made_with['label']}, {made_with['vectors']}, seed {seed}"
figure = plots.learning_curves(histories, note)
plots.save(figure, paths.figures(profile) / "learning_curves.png")

# %% [markdown]
# ## Its two readings
#
# A phrase is read twice: for what it names, and for what it tells that by. With `grid_anchored` the
# second reading is shown in training where to look, which annotations know: at the boxes of what
# the phrase ends in. Then it finds the anchor, and how the thing must lie from there. Two phrases
# of a picture that differ in the anchor alone prove it: without it nothing tells them apart.

# %%
said = phrases[(phrases.split == "val") & (phrases.n_boxes == 1)]
said = said[said.phrase.map(words.names_two)].drop_duplicates(["image_id", "phrase"])
alike = said.phrase.str.lower().str.replace(r"^\w+ | the (?!.* the ).*$", "", regex=True)
pairs = said.groupby(["image_id", alike], sort=False).phrase.agg(list)
pairs = pairs[pairs.map(len) == 2].groupby(level="image_id", sort=False).head(1)
if data or grid == "none" or pairs.empty:
    print("shown on the embedded sample")
else:
    model = localizer.load_localizer(models / "grid")
    folder = entities.image_folder(paths.data_root(profile, data))
    items = []
    for (image_id, _), pair in pairs.head(3).items():
        image = images.open_image(folder / f"{image_id}.jpg")
        for found in model.ground(image, pair, top_k=1):
            items.append((np.asarray(image), found.phrase, found.boxes[0], found.anchor))
    figure = plots.readings(items[::2] + items[1::2], f"{profile}, val, seed {seed}")
    plots.save(figure, paths.figures(profile) / "readings.png")

# %% [markdown]
# ## The phrases of a sentence
#
# In "a man in a blue shirt" the man is he whose box holds the shirt's. How boxes of two phrases lie
# is learned from annotations alone: all annotated train pictures serve, whether at hand or not.
# Below, how often the right one of a picture's like entities (its people, its clothes) is chosen on
# the val annotations: from the phrase alone, and with the true box of another phrase. Then the
# grid model on val, by how much is made of it (0: each phrase by itself).

# %%
# NBVAL_CHECK_OUTPUT
learned = models / "grid" / "context.json"
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
# From the source system to the grid model, one change a row, then larger ones, then others beside
# them, scored on val; `make ablation PROFILE=... DATA=...` trains what is missing (hours). In
# brackets the 95 % interval over images of a single seed, or the range of several.

# %%
rows = ablation_table.read(paths.figures(profile) / "ablation.json")
if rows:
    ablation_plots.save_all(rows, paths.figures(profile), f"{profile}, val")
else:
    print("no ablation of this profile yet: `make ablation`")
ablation_table.table(rows)

# %% [markdown]
# ## What failed
#
# Tried on real data, judged on val (mean IoU / accuracy at IoU .5), seed 0 unless said, and left
# out. But for the first and the last these were trials beside the study, whose code was not kept.
#
# - To show the second reading where to look, which the sample needs: the row "anchors shown" above
#   against "+ contrast with other pictures".
# - To ask the mirrored picture as well, left and right exchanged in the phrase, and join the
#   answers of two models of 12 epochs: .646 / 74.3 % instead of .646 / 74.6 % (2026-11-26).
# - To average over pictures of 256, 320 and 384 px: .645 / 72.9 % instead of .640 / 72.9 %, for
#   three times the work (the model of 2026-11-24).
# - Pictures of 384 px: one more epoch of the first of these two, at a fifth of its rate, .632 /
#   73.1 %, and .635 / 73.5 % at 320 px (2026-11-26). The pictures at hand have 224 px.
# - To let overlapping boxes vote: .639 / 72.8 % instead of .640 / 72.9 %
#   (the model of 2026-11-24).
# - To keep phrases of one caption from the same place: .633 / 72.2 % instead of .634 / 71.8 %
#   (an older one).
# - To multiply the probabilities of two models instead of taking their mean: .651 / 74.1 % instead
#   of .650 / 74.8 % (the first of the models of 12 epochs and an older one, 2026-11-25).
# - A second look, finer features pooled round the best boxes to score and correct them: on train
#   pictures 77.7 became 86.9 %, on val 72.4 % stayed 72.4 (2026-11-25).
# - To teach the grid model what the rest of a sentence says: no gain in any form, since a caption
#   of a picture seen can be learned by heart. What the annotations of all pictures say of pairs of
#   boxes, without the picture, did help (above).
# - Nine more epochs of an older model at full size: no gain after the sixth (2026-11-24).
# - The best box of a phrase from all annotations, added to the scores: .1 points at most.
# - On an NVIDIA H200, as it scored the best epoch, 2026-11-26: to train without augmentation, after
#   12 epochs .635 / 73.8 % instead of .644 / 74.3 % (seed 2); 24 epochs, .644 / 74.3 % (seed 3), no
#   more than 12, where 36 had .657 / 74.8 % (seed 4); 20 epochs taught by models of 12 and 24, .649
#   / 75.1 % (seed 5), no better than 16 taught by those of 12 and 36, .653 / 75.4 % (seed 6). Five
#   models instead of two do help, .670 / 76.3 % instead of .662 / 76.1 %, but take more than twice
#   the time and room.

# %% [markdown]
# What each run took on this machine, and its best epoch on val:

# %%
train.times(models)

# %% [markdown]
# Next: `05_iou_analysis` scores them on test, once.
