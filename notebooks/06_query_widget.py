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
# First ten lines that ask the shipped model, to copy into a notebook of your own. Then the widget.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
from scene_utils import paths, runtime
from scene_utils.study import settings as profiles

runtime.check()
# %matplotlib inline
settings = profiles.load(profile, data, changes)

# %% tags=["example"]
import numpy as np
from ipywidgets import Image, interact

from scene_utils import images, load_model, plots

model = load_model("grid")
photo = images.open_image(paths.PHOTOS / "astronaut.jpg")
shown = Image()  # does not flicker; and nbclient may lose a reply after a large picture in interact


@interact(phrase="an orange suit")
def ask(phrase):
    answer = model.ground(photo, phrase)
    shown.value = images.with_box(photo, answer.boxes[0])._repr_png_()


shown


# %% [markdown]
# ## The widget
#
# Choose a picture or bring your own, type a phrase, press Enter. **Phrase** shows the box, the
# model's second thoughts, where it looked and which words counted. **Sentence** finds all phrases
# of a sentence, each in its colour. **Compare** sets the model beside the source system and a box
# that looks at nothing. **Play** asks you for a box first. `05_iou_analysis` says how far to trust
# them.
#
# Scenes are answered by the model of this profile, photos by the one that ships.

# %%
from scene_utils.widget import app, catalogue
from scene_utils.widget import models as widget_models

pictures = catalogue.catalogue(profile, str(settings.root) if settings.real else "")
models = widget_models.Models(profile, settings.weights)

# %% tags=["page"]
app.query_widget(pictures, models)

# %% [markdown]
# ## From code, several phrases at once
#
# The flag is wrong: it is cut in two by the picture's border and the woman.

# %% tags=["example"]
answers = model.ground(photo, ["a woman", "an orange suit", "the flag"])
items = [(np.asarray(photo), answer.boxes[:1], [answer.phrase]) for answer in answers]
figure = plots.picture_grid(items, "the shipped model")
plots.save(figure, paths.figures(profile) / "query.png")
