"""Every trained model behind one face: load it by name or folder, ask it about a photo or a split.

A model has `settings`, `vocabulary`, `sees`, `size`, `from_pixels` and `reads_sentences`;
it answers a photo (`ground`), rows of a phrase table (`predict`) and phrases of pictures that it
has seen (`look`); see `source.answer.SourceModel` and `grid.localizer.GridLocalizer`.
"""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from scene_utils.images import ImageError, open_image, picture_file
from scene_utils.paths import PRETRAINED

if TYPE_CHECKING:
    from scene_utils.grid.localizer import GridLocalizer
    from scene_utils.source.answer import SourceModel

SHIPPED = {"grid": PRETRAINED / "grid", "source": PRETRAINED / "source"}


def load_model(
    name: Path | str = "grid", weights: str | Path | None = None
) -> "SourceModel | GridLocalizer":
    """A model that ships, `grid` or `source`, or that of a folder of a finished training.

    `weights` are those of the source system's backbone, if they lie elsewhere. Raises
    FileNotFoundError for what is neither.
    """
    folder = SHIPPED.get(str(name), Path(name))
    if not (folder / "settings.json").is_file():
        raise FileNotFoundError(
            f"{folder}: expected {' or '.join(SHIPPED)}, or a folder of a finished training with "
            "settings.json, found none. Notebook 04 makes them in data/cache/<profile>/models/"
        )
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    # Who asks one model needs not the other.
    if settings["model"] == "grid":
        from scene_utils.grid.localizer import load_grid_localizer

        return load_grid_localizer(folder)
    from scene_utils.source.answer import load_source

    return load_source(folder, weights)


def predict_split(
    model: "SourceModel | GridLocalizer", root: Path | str, split: str
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions for every phrase of the ids in `<root>/<split>.txt`, and a table of problems.

    No annotation box is read: phrases come from the sentence files, a picture's original size from
    the `<size>` of its XML where there is one (it may be stored squeezed), else from the picture.
    """
    from scene_utils.dataset import entities

    root = Path(root)
    ids = entities.read_ids(root, split)
    found = entities.read_entities(root, dict.fromkeys(ids, split), boxes=False)
    phrases, problems = found.phrases, found.problems.to_dict("records")
    folder = entities.image_folder(root)
    unknown = phrases[phrases.width == 0].groupby("image_id", sort=False).groups
    for image_id, rows in unknown.items():
        try:
            phrases.loc[rows, ["width", "height"]] = open_image(picture_file(folder, image_id)).size
        except ImageError as error:
            problems.append({"file": f"{image_id}.jpg", "reason": f"no size known: {error}"})
    phrases = phrases[phrases.width > 0]
    with tempfile.TemporaryDirectory() as scratch:
        store = model.pictures(folder, phrases.image_id.unique(), Path(scratch))
        if store is not None:
            problems += store.unreadable.rename(columns={"image_id": "file"}).to_dict("records")
        table = model.predict(phrases, store)
    return table, pd.DataFrame(problems, columns=["file", "reason"], dtype="str")
