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

# %%
from scene_utils.widget import app, catalogue, models

# %% tags=["page"]
# No profile has this name, so there are no scenes beside the photos.
app.query_widget(catalogue.catalogue("photos"), models.Models("photos"))
