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
# Choose a picture or bring your own, type a phrase, press Enter. **Phrase** shows the box, the
# model's second thoughts, where it looked and which words counted. **Sentence** finds all phrases
# of a sentence, each in its colour. **Compare** sets the model beside the source system and a box
# that looks at nothing. **Play** asks you for a box first. `05_iou_analysis` says how far to trust
# them.
#
# Scenes are answered by the model of this profile, photos by the one that ships.

# %% tags=["parameters"]
profile = "sample"
data = ""
weights = ""

# %%
import numpy as np

from scene_utils import images, paths, plots, runtime
from scene_utils.widget import app, catalogue
from scene_utils.widget import models as widget_models

runtime.check()
pictures = catalogue.catalogue(profile, data)
models = widget_models.Models(profile, weights)

# %% tags=["page"]
app.query_widget(pictures, models)

# %% [markdown]
# The same from code:

# %%
from scene_utils import load_localizer

picture = images.open_image(paths.PHOTOS / "astronaut.jpg")
asked = ["a woman", "an orange suit", "the flag"]
answers = load_localizer().ground(picture, asked)
items = [(np.asarray(picture), answer.boxes[:1], [answer.phrase]) for answer in answers]
figure = plots.picture_grid(items, "the shipped model")
plots.save(figure, paths.figures(profile) / "query.png")
