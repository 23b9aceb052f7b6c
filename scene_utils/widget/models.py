"""The models behind the query widget: which one answers a picture, and all of them in one form."""

import functools
import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from scene_utils import box_ops, paths
from scene_utils.grounding import Grounding
from scene_utils.images import LARGEST_PIXELS, ImageError, open_image
from scene_utils.models import SHIPPED, load_model
from scene_utils.widget.catalogue import OWN, PHOTO, Picture

RANKS = 10
SHOWN = 1600  # longest side, in pixels, of what is sent to the browser
DRAWN = ("sample", "smoke")  # profiles whose pictures the study draws
# And what is loaded for each: the source's settings have the constant box.
COMPARED = {"constant": "source", "source": "source", "grid": "grid"}


def encode(image: Image.Image, kind: str = "JPEG", **how) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)
    return buffer.getvalue()


@dataclass(frozen=True, eq=False)
class View:
    """An opened picture: its size in pixels, and a copy to show and to ask about."""

    picture: Picture
    width: int
    height: int
    shown: Image.Image = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    @functools.cached_property
    def data(self) -> bytes:
        return encode(self.shown, quality=92)


@dataclass(frozen=True, kw_only=True)
class Answer(Grounding):
    """One model's answer to one phrase, boxes in pixels of the original picture."""

    model: str  # and what it was trained on


@functools.lru_cache(maxsize=12)
def open_view(picture: Picture) -> View:
    """Open a picture, for showing and asking. Raises ImageError for what is no picture."""
    image = open_image(picture.image, picture.name)
    width, height = picture.size or image.size
    if width * height > LARGEST_PIXELS:
        raise ImageError(
            f"{picture.name}: expected at most {LARGEST_PIXELS // 1_000_000} megapixels, got "
            f"{width} x {height}"
        )
    scale = min(1.0, SHOWN / max(image.size))
    shown = image.resize([max(1, round(side * scale)) for side in image.size])
    return View(picture, width, height, shown)


@dataclass(frozen=True)
class Models:
    """The models of a profile, and the shipped ones for photos. They are asked by the names in
    `COMPARED`; `constant` is the best box for all phrases that `source` learned from."""

    profile: str
    weights: str = ""
    _loaded: dict[Path, object] = field(default_factory=dict, repr=False)

    def folder(self, name: str, kind: str) -> Path:
        """Where the model for pictures of a kind lies: for photos the one that ships."""
        own = paths.cache(self.profile) / "models" / COMPARED[name]
        return SHIPPED[COMPARED[name]] if kind in (PHOTO, OWN) or not own.is_dir() else own

    def there(self, kind: str) -> list[str]:
        return [name for name in COMPARED if (self.folder(name, kind) / "settings.json").is_file()]

    def ready(self, name: str, kind: str) -> bool:
        """Whether `get` answers at once; the first time it loads for seconds."""
        return self.folder(name, kind) in self._loaded

    def get(self, name: str, kind: str):
        """A model, loaded once. Raises FileNotFoundError that says how to train it."""
        folder = self.folder(name, kind)
        if folder not in self._loaded:
            self._loaded[folder] = load_model(folder, self.weights or None)
        return self._loaded[folder]

    def ask(
        self, name: str, view: View, phrases: list[str], sentence: str = "", instances=False
    ) -> list[Answer]:
        """An answer to each phrase. Phrases of a `sentence` help each other, where the model has
        learned it; with `instances` an answer has each thing that is named."""
        kind = view.picture.kind
        model = self.get(name, kind)
        if name == "constant":
            box = box_ops.to_pixels(np.float32([model.settings["blind_box"]]), *view.size)
            shown = "constant, one box for all pictures"
            return [Answer(phrase, box, model=shown) for phrase in phrases]
        scale = np.float32(view.size * 2) / np.float32(view.shown.size * 2)
        if not model.reads_sentences or len(phrases) < 2:
            sentence = ""
        drawn = self.folder(name, kind) not in SHIPPED.values() and self.profile in DRAWN
        data = f"the {self.profile} scenes" if drawn else "Flickr30k Entities"
        shown = f"{name}, trained on {data}"
        found = model.ground(view.shown, phrases, RANKS, sentence, instances=instances)
        return [Answer(**vars(one) | {"boxes": one.boxes * scale}, model=shown) for one in found]
