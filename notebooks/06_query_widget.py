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
# # 6 Query widget
#
# Choose a picture or bring your own, type a phrase, press Enter. The box is the answer of the best
# model that was trained; `05_iou_analysis` says how far to trust it.

# %% tags=["parameters"]
profile = "sample"
data = ""
weights = ""
model = ""  # a folder of models/; empty: grid where there is one, else seed

# %%
import numpy as np
import pandas as pd

from scene_utils import entities, environment, ground, images, paths, plots, widget

environment.check()
cache = paths.cache(profile)
model = model or ("grid" if (cache / "models" / "grid").is_dir() else "seed")
localizer = ground.load_model(cache / "models" / model)
backbone = ground.backbone_of(localizer, weights or None)

# %%
phrases = pd.read_parquet(cache / "phrases.parquet")
test = phrases[(phrases.split == "test") & (phrases.n_boxes > 0)]
folder = entities.image_folder(paths.data_root(profile, data))
pictures = {path.stem: path for path in sorted(paths.PHOTOS.glob("*.jpg"))}
examples = {"astronaut": "a woman", "chelsea": "the cat", "coffee": "a cup", "rocket": "the rocket"}
for row in test.drop_duplicates("image_id").itertuples():
    if (folder / f"{row.image_id}.jpg").is_file():
        pictures[row.image_id], examples[row.image_id] = folder / f"{row.image_id}.jpg", row.phrase
    if len(pictures) == 16:
        break

# %%
widget.query_widget(localizer, backbone, pictures, examples)

# %% [markdown]
# The same from code:

# %%
picture = images.open_image(pictures["astronaut"])
asked = ["a woman", "an orange suit", "the flag"]
answered = ground.first_boxes(localizer, picture, asked, backbone)
items = [
    (np.asarray(picture), [box], [phrase]) for phrase, box in zip(asked, answered, strict=True)
]
figure = plots.picture_grid(items, f"{model} trained on {profile}, {localizer.settings['label']}")
plots.save(figure, paths.figures(profile) / "query.png")
