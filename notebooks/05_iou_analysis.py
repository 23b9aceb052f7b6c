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
# # 5 IoU analysis
#
# Every model answers every phrase of the test split once; the answers are kept as
# `predictions/<model>.parquet`, and from here on nothing but them and the annotations counts.

# %% tags=["parameters"]
profile = "sample"
data = ""
seed = 0

# %%
import numpy as np
import pandas as pd

from scene_utils import (
    boxes,
    entities,
    environment,
    evaluate,
    features,
    ground,
    images,
    paths,
    plots,
    report,
)

environment.check()
cache = paths.cache(profile)
root = paths.data_root(profile, data)
names = ["constant", "per-category", "text-only", "image-only", "seed-mse", "seed"]

# %% [markdown]
# ## Predictions

# %%
phrases = pd.read_parquet(cache / "phrases.parquet")
truth_boxes = pd.read_parquet(cache / "boxes.parquet")
store = features.open_chosen(cache)
test = phrases[(phrases.split == "test") & phrases.image_id.isin(store.row)]
predictions = {}
for name in names:
    localizer = ground.load_model(cache / "models" / name)
    path = cache / "predictions" / f"{name}.parquet"
    with paths.atomic(path) as temporary:
        ground.predict_phrases(localizer, test, store).to_parquet(temporary, index=False)
    predictions[name] = evaluate.read_predictions(path)
made_with = localizer.settings

# %% [markdown]
# ## The table
#
# Mean IoU in 1, accuracies and pointing in %, with 95 % intervals over images. `merged`: truth is
# the box around all of a phrase's boxes. `any`: the best of them counts.

# %%
results = {name: evaluate.evaluate(predictions[name], test, truth_boxes) for name in names}
train_images = phrases[(phrases.split == "train") & phrases.image_id.isin(store.row)]
described = {
    "name": "Flickr30k Entities, the images at hand" if data else "embedded sample",
    "split": "test",
    "images": results["seed"]["images"],
    "mentions": results["seed"]["mentions"],
    "train_images": int(train_images.image_id.nunique()),
}
metrics = report.write_metrics(
    paths.figures(profile) / "metrics.json",
    described,
    {"backbone": made_with["label"], "vectors": made_with["vectors"], "seed": seed},
    results,
)
print(report.caption(metrics))

# %%
# NBVAL_CHECK_OUTPUT
evaluate.table(results, "merged")

# %%
# NBVAL_CHECK_OUTPUT
evaluate.table(results, "any")

# %% [markdown]
# ## Figures

# %%
note = f"{described['name']}, test, {described['mentions']:,} mentions, {made_with['label']}"
figure = plots.metric_bars(results, note)
plots.save(figure, paths.figures(profile) / "models.png")

# %%
scored = {name: evaluate.score_mentions(predictions[name], test, truth_boxes) for name in names}
figure = plots.iou_distribution(
    {name: table["iou_merged"].to_numpy() for name, table in scored.items()}, note
)
plots.save(figure, paths.figures(profile) / "iou_distribution.png")

# %% [markdown]
# ## What the source system does
#
# Two of its best, two middling and two of its worst answers.

# %%
seen = scored["seed"].merge(test[[*entities.MENTION_KEY, "width", "height", *boxes.COLUMNS]])
seen = seen.merge(
    predictions["seed"], on=[*entities.MENTION_KEY, "phrase"], suffixes=("", "_guess")
)
seen = seen.sort_values("iou_merged", ascending=False, kind="stable").reset_index(drop=True)
items = []
for row in (len(seen) // 50, len(seen) // 20, len(seen) // 3, len(seen) // 2, -20, -5):
    mention = seen.iloc[row]
    picture = np.asarray(images.open_image(entities.image_folder(root) / f"{mention.image_id}.jpg"))
    # A picture may be stored squeezed; boxes are in pixels of the original.
    scale = np.float32(picture.shape[1::-1] * 2) / np.float32([mention.width, mention.height] * 2)
    guess = mention[[f"{side}_guess" for side in boxes.COLUMNS]].to_numpy(np.float32)
    items.append(
        {
            "image": picture,
            "phrase": mention.phrase,
            "truth": mention[boxes.COLUMNS].to_numpy(np.float32) * scale,
            "guess": guess * scale,
            "iou": mention.iou_merged,
        }
    )
figure = plots.gallery(items, title=f"source system, {profile}: best, middling, worst")
pictures_go_to = paths.build(profile) if data else paths.figures(profile)
plots.save(figure, pictures_go_to / "gallery.png")

# %% [markdown]
# Next: `06_query_widget` lets you ask it yourself.
