"""Does a model read the phrase, and does it look at the picture? Take one away and see.

Nothing here knows of models: `predictions.make` asks them.
"""

import numpy as np
import pandas as pd

from scene_utils.dataset.mentions import MENTION_KEY as KEY

BLANK = ""  # the id of a picture that is grey throughout
ASKED = "as asked"
CHANGES = ("another phrase", "shuffled words", "another picture", "blank picture")
# A phrase with the picture it is about, and with another.
PAIRS = (ASKED, CHANGES[2])


def questions(phrases: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """What is asked of each boxed mention: its key, `change`, `text`, `picture`.

    `another phrase`: a random mention of another phrase id of the same picture, boxed or not; left
    out where there is none. `shuffled words`: the same words in another order; left out where
    there is no other. `another picture`: in place of each picture one other of the split is shown,
    each once. `blank picture`: a grey one.
    """
    rng = np.random.default_rng(seed)
    boxed = phrases[phrases.n_boxes > 0].reset_index(drop=True)
    asked = boxed[KEY].assign(change=ASKED, text=boxed.phrase, picture=boxed.image_id)
    others = phrases[["image_id", "phrase_id", "phrase"]]
    pairs = asked.reset_index(names="row").merge(others, on="image_id", suffixes=("", "_other"))
    pairs = pairs[pairs.phrase_id != pairs.phrase_id_other]
    pairs = pairs.iloc[rng.permutation(len(pairs))].drop_duplicates("row")
    another = pairs.set_index("row").phrase.sort_index()
    parts = [asked, asked.loc[another.index].assign(change=CHANGES[0], text=another)]
    mixed = boxed.phrase.map({phrase: _shuffle(phrase, rng) for phrase in boxed.phrase.unique()})
    parts.append(asked.assign(change=CHANGES[1], text=mixed)[mixed != boxed.phrase])
    images = np.asarray(boxed.image_id.unique())
    images = images[rng.permutation(len(images))]
    if len(images) > 1:
        follower = dict(zip(images, np.roll(images, 1), strict=True))
        parts.append(asked.assign(change=CHANGES[2], picture=asked.image_id.map(follower)))
    parts.append(asked.assign(change=CHANGES[3], picture=BLANK))
    return pd.concat(parts, ignore_index=True)


def _shuffle(phrase: str, rng) -> str:
    words = phrase.split()
    if len(set(words)) < 2:
        return phrase
    while True:
        mixed = list(rng.permutation(words))
        if mixed != words:
            return " ".join(mixed)
