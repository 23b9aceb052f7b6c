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
# # 2 Vocabulary and GloVe vectors
#
# Phrases become tokens as GloVe writes them, tokens become ids of a vocabulary taken from the train
# split alone, and ids become GloVe vectors. Writes `vocabulary.txt` and `embeddings.npy`.

# %% tags=["parameters"]
profile = "sample"
vectors = "glove50"  # glove50 (embedded), glove300 (after `make data`), or a file in GloVe's format

# %%
import json

import numpy as np
import pandas as pd

from scene_utils import paths, plots, runtime, words

runtime.check()
cache = paths.cache(profile)
phrases = pd.read_parquet(cache / "phrases.parquet")
train = phrases[phrases.split == "train"]

# %% [markdown]
# ## From phrases to tokens

# %%
# NBVAL_CHECK_OUTPUT
shown = ["The man's T-shirt", "three café-goers", "A rock 'n' roll band", "the No. 7 jersey"]
pd.DataFrame({"phrase": shown, "tokens": [" ".join(words.tokenize(p)) for p in shown]})

# %% [markdown]
# ## The vocabulary
#
# A word that GloVe lacks is looked for by its parts, as a number, or one edit away; what still has
# no vector becomes `<unk>`.

# %%
glove = words.load_vectors(vectors)
vocabulary, embeddings, table = words.build_vocabulary(train.phrase, glove)
vocabulary.save(cache / "vocabulary.txt")
words.save_embeddings(cache / "embeddings.npy", embeddings)
paths.write_text(cache / "vectors.json", json.dumps({"vectors": glove.name}) + "\n")
print(f"{glove.name}: {len(glove.index):,} words of {glove.dim} numbers")
print(f"vocabulary: {len(vocabulary.words):,} entries")

# %%
# NBVAL_CHECK_OUTPUT
table.groupby("found")["count"].agg(["size", "sum"]).rename(
    columns={"size": "words", "sum": "tokens in train"}
).sort_values("tokens in train", ascending=False)

# %% [markdown]
# ## Coverage
#
# How much of each split's language the vocabulary knows, and which words it misses most.

# %%
# NBVAL_CHECK_OUTPUT
rows = {}
for split, group in phrases.groupby("split", sort=False):
    share, unknown = words.coverage(group.phrase, vocabulary)
    common = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(6))
    rows[split] = {"tokens known (%)": round(100 * share, 2), "most frequent unknown": common}
pd.DataFrame.from_dict(rows, orient="index")

# %%
figure = plots.token_coverage(table["count"].to_numpy(), f"train phrases, {profile}, {glove.name}")
plots.save(figure, paths.figures(profile) / "token_coverage.png")

# %% [markdown]
# ## Which words does GloVe keep apart?
#
# Words that stand in the same places get nearly the same vector, and those are the words by which
# phrases differ: red and blue, above and below, boy and girl. A model must see the small rest
# between them; one that is given a vector of each frequent word's own beside GloVe's need not
# (`grid_model`).

# %%
# NBVAL_CHECK_OUTPUT
pairs = ["red blue", "white yellow", "left right", "above below", "man woman", "boy girl"]
pairs += ["striped dotted", "ball car", "dog street"]
rows = {}
for one, other in (pair.split() for pair in pairs):
    if one in vocabulary.index and other in vocabulary.index:
        first, second = (embeddings[vocabulary.index[word]] for word in (one, other))
        rows[f"{one}, {other}"] = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
pd.DataFrame({"cosine": rows}).round(2)

# %% [markdown]
# Next: `03_features` turns pictures into vectors.
