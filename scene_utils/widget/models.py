"""The models behind the query widget: which one answers a picture, and all of them in one form."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from scene_utils import box_ops, models, paths
from scene_utils.features.backbones import Backbone
from scene_utils.grid.localizer import SHIPPED, GridLocalizer, load_localizer
from scene_utils.images import LARGEST_PIXELS, ImageError, open_image
from scene_utils.widget.catalogue import OWN, PHOTO, Picture
from scene_utils.words import Vocabulary

RANKS = 10
SHOWN = 1600  # longest side, in pixels, of what is sent to the browser
COMPARED = ("constant", "seed", "grid")


@dataclass(frozen=True)
class View:
    """An opened picture: its size in pixels, a copy to show, and that copy's bytes and type."""

    picture: Picture
    width: int
    height: int
    shown: Image.Image = field(repr=False)
    data: bytes = field(repr=False)
    mime: str
    squeezed: dict[int, Image.Image] = field(repr=False)

    @property
    def pixels(self) -> int:
        """Pixels that it keeps in memory, but for its small copies."""
        return self.squeezed[0].width * self.squeezed[0].height


@dataclass(frozen=True)
class Answer:
    """One model's answer to one phrase: `boxes (k, 4)` in pixels, best first.

    `scores (k,)`, `heat (cells, cells)`, `words` and `present` are None or empty for models that
    have none; `present` is the probability that the phrase is in the picture at all.
    """

    phrase: str
    model: str
    boxes: np.ndarray
    scores: np.ndarray | None = None
    heat: np.ndarray | None = field(default=None, repr=False)
    words: tuple[tuple[str, float], ...] = ()
    unknown: tuple[str, ...] = ()
    present: float | None = None


@dataclass(frozen=True)
class Answerer:
    """A loaded model and the name to show for it; `backbone` is None for a grid model."""

    name: str
    localizer: models.Localizer | GridLocalizer = field(repr=False)
    backbone: Backbone | None = field(repr=False)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.localizer.vocabulary

    @property
    def length(self) -> int:
        """Words of a phrase that the model reads; it passes over what follows."""
        return self.localizer.settings["length"]

    @property
    def side(self) -> int:
        """Pixels of the square that the model sees."""
        if isinstance(self.localizer, GridLocalizer):
            return self.localizer.size
        return self.backbone.size if self.backbone else 0

    def ask(
        self, view: View, phrases: list[str], ranks: int = RANKS, sentence: str = ""
    ) -> list[Answer]:
        """An answer to each phrase, boxes in pixels of the original picture. Phrases of a
        `sentence` help each other, where the model has learned it."""
        # A picture already squeezed passes the model's reader unchanged; its boxes are scaled.
        seen = squeeze(view, self.side) if self.side else view.shown
        scale = np.float32([view.width / seen.width, view.height / seen.height] * 2)
        if not isinstance(self.localizer, GridLocalizer):
            if self.side:
                found = self.localizer.ground(seen, phrases, self.backbone)
            else:
                found = box_ops.to_pixels(
                    self.localizer.relative_boxes(phrases, [""] * len(phrases), None),
                    seen.width,
                    seen.height,
                )
            return [
                Answer(phrase, self.name, box[None] * scale)
                for phrase, box in zip(phrases, found, strict=True)
            ]
        if self.localizer.context is None or len(phrases) < 2:
            sentence = ""
        return [
            Answer(
                found.phrase,
                self.name,
                found.boxes * scale,
                np.asarray(found.scores),
                found.heat,
                tuple(found.words),
                tuple(found.unknown),
                found.present,
            )
            for found in self.localizer.ground(seen, phrases, ranks, sentence)
        ]


def open_view(picture: Picture) -> View:
    """Open a picture once, for showing and asking. Raises ImageError for what is no picture."""
    image = open_image(picture.image, picture.name)
    width, height = picture.size or image.size
    if width * height > LARGEST_PIXELS:
        raise ImageError(
            f"{picture.name}: expected at most {LARGEST_PIXELS // 1_000_000} megapixels, got "
            f"{width} x {height}"
        )
    scale = min(1.0, SHOWN / max(image.size))
    shown = image.resize([max(1, round(side * scale)) for side in image.size])
    buffer = io.BytesIO()
    # What is small or has few colours stays as it is; a photo is sent as a photo.
    small = shown.width * shown.height <= 40_000
    shown.save(buffer, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 92}))
    return View(
        picture,
        width,
        height,
        shown,
        buffer.getvalue(),
        "image/png" if small else "image/jpeg",
        {0: image},
    )


def squeeze(view: View, side: int) -> Image.Image:
    """The picture squeezed to a square, as the model's reader would, and kept."""
    if side not in view.squeezed:
        whole = view.squeezed[0]
        view.squeezed[side] = whole.resize((side, side), Image.Resampling.BICUBIC)
    return view.squeezed[side]


def load(folder: Path, weights: str, name: str) -> Answerer:
    """Load a model of a folder. Raises FileNotFoundError where it is not finished."""
    if folder == SHIPPED:
        return Answerer(name, load_localizer(), None)
    localizer = models.load_model(folder)
    sees = isinstance(localizer, GridLocalizer) or localizer.sees
    backbone = models.backbone_of(localizer, weights or None) if sees else None
    return Answerer(name, localizer, backbone)


@dataclass(frozen=True)
class Models:
    """The models of a profile, and the shipped one for photos."""

    profile: str
    weights: str = ""
    _loaded: dict[Path, Answerer] = field(default_factory=dict, repr=False)

    def folder(self, model: str, kind: str) -> Path:
        """Where the model lies that fits pictures of a kind, whether it is there or not.

        Photos are asked of what real photos trained: the shipped grid model, and the controls of
        the profile `flickr30k` where they were trained on this machine.
        """
        photo = kind in (PHOTO, OWN)
        own = paths.cache(self.profile) / "models" / model
        if model == "grid" and (photo or not own.is_dir()):
            return SHIPPED
        real = paths.cache("flickr30k") / "models" / model
        return real if photo and real.is_dir() else own

    def trained_on(self, folder: Path) -> str:
        """What a model's folder was trained on, in words."""
        if folder == SHIPPED or folder.parent.parent.name == "flickr30k":
            return "Flickr30k Entities"
        return f"the {folder.parent.parent.name} scenes"

    def get(self, model: str, kind: str) -> Answerer:
        """One of `COMPARED`, loaded once. Raises FileNotFoundError that says how to train it."""
        folder = self.folder(model, kind)
        if folder not in self._loaded:
            name = f"{model}, trained on {self.trained_on(folder)}"
            self._loaded[folder] = load(folder, self.weights, name)
        return self._loaded[folder]

    def ready(self, model: str, kind: str) -> bool:
        """Whether `get` answers at once; the first time it loads for seconds."""
        return self.folder(model, kind) in self._loaded

    def missing(self, kind: str) -> list[str]:
        """Those of `COMPARED` that are not there."""
        return [
            name for name in COMPARED if not (self.folder(name, kind) / "settings.json").is_file()
        ]
