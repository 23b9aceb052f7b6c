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
# A phrase becomes tokens as GloVe writes them, tokens become ids of a vocabulary of the train
# split, ids become GloVe vectors, and their mean stands for the phrase. Writes `vocabulary.txt` and
# `embeddings.npy`.

# %% tags=["parameters"]
profile = "sample"  # one of profiles.toml, where all settings stand
data = ""  # folder of Flickr30k Entities; empty: the variable FLICKR30K's, or the embedded sample
changes = ""  # settings that differ this time, in the words that profiles.toml explains

# %%
import json
from collections import Counter

import numpy as np
import pandas as pd

from scene_utils import paths, plots, runtime, words
from scene_utils.study import settings as profiles

runtime.check()
# %matplotlib inline
plots.plt.style.use(plots.STYLE)
settings = profiles.load(profile, data, changes)
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
# A word that GloVe lacks is looked for by its parts, as a number, or one edit away. What still has
# no vector becomes `<unk>`.

# %%
glove = words.load_vectors(settings.vocabulary.vectors)
vocabulary, embeddings, table = words.build_vocabulary(train.phrase, glove)
vocabulary.save(cache / "vocabulary.txt")
paths.write_array(cache / "embeddings.npy", embeddings)
paths.write_text(cache / "vectors.json", json.dumps({"vectors": glove.name}) + "\n")
print(f"{glove.name}: {len(glove.index):,} words of {glove.dim} numbers")
print(f"vocabulary: {len(vocabulary.words):,} entries")

# %%
# NBVAL_CHECK_OUTPUT
table.groupby("found")["count"].agg(["size", "sum"]).rename(
    columns={"size": "words", "sum": "tokens in train"}
).sort_values("tokens in train", ascending=False)

# %% [markdown]
# ## One phrase, step by step
#
# The source system reads a phrase as the mean of its word vectors.

# %%
phrase = "the red ball"
ids = vocabulary.encode([phrase])  # (1, 12), padded with 0
vectors = embeddings[ids[0][ids[0] > 0]]  # (3, d)
mean = vectors.mean(axis=0)  # (d,)
print("tokens", words.tokenize(phrase))
print("ids", ids[0].tolist())
print("vectors", vectors.shape, "mean", mean.shape)

# %%
rows = [*words.tokenize(phrase), "mean"]
first = np.vstack([vectors, mean])[:, :8]
pd.DataFrame(first, rows, [f"number {place}" for place in range(8)]).round(2)

# %% [markdown]
# Which phrases of the train split are nearest to it, by cosine? The mean does not know the order of
# words, and hardly which of them matters.

# %%
others = train.phrase.str.lower().drop_duplicates().to_numpy()
tokens = vocabulary.encode(others)
means = embeddings[tokens].sum(axis=1) / (tokens > 0).sum(axis=1, keepdims=True)
cosine = means @ mean / np.linalg.norm(means, axis=1) / np.linalg.norm(mean)
nearest = np.argsort(-cosine, kind="stable")[:12]
pd.DataFrame({"phrase": others[nearest], "cosine": cosine[nearest].round(3)})

# %% [markdown]
# ## Which words does GloVe keep apart?
#
# Words that stand in the same places get nearly the same vector, and those are the words by which
# phrases differ: red and blue, above and below, boy and girl. A model must see the small rest
# between them. The grid model learns a vector of each frequent word's own beside GloVe's.

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
# ## Coverage
#
# How much of each split's language the vocabulary knows, and which words it misses most.

# %%
# NBVAL_CHECK_OUTPUT
rows = {}
for split, group in phrases.groupby("split", sort=False):
    tokens = Counter(token for phrase in group.phrase for token in words.tokenize(phrase))
    unknown = Counter({token: n for token, n in tokens.items() if token not in vocabulary.index})
    share = 1 - unknown.total() / tokens.total()
    common = ", ".join(f"{word} ({count})" for word, count in unknown.most_common(6))
    rows[split] = {"tokens known (%)": round(100 * share, 2), "most frequent unknown": common}
pd.DataFrame.from_dict(rows, orient="index")

# %%
figure, axes = plots.new_figure(7.5, 3.2)
share = 100 * table["count"].cumsum() / table["count"].sum()
axes[0, 0].plot(np.arange(1, len(share) + 1), share, lw=1.8)
axes[0, 0].set(xscale="log", xlabel="most frequent words kept (number, log scale)")
axes[0, 0].set(ylabel="running words (%)", ylim=(0, 100))
axes[0, 0].set_title(f"train phrases, {profile}, {glove.name}")
plots.save(figure, paths.figures(profile) / "token_coverage.png")

# %% [markdown]
# Next: `03_features` turns pictures into vectors.
