"""The query widget: choose a picture, type a phrase, see the box."""

import io
from collections.abc import Mapping
from html import escape

import ipywidgets
import numpy as np
from PIL import Image

from scene_utils.backbones import Backbone
from scene_utils.ground import Localizer, first_boxes
from scene_utils.images import ImageError, ImageSource, open_image, with_box
from scene_utils.localizer import GridLocalizer

LONGEST_PHRASE = 200
SHOWN = 640


def png_with_box(image: Image.Image, box: np.ndarray | None) -> bytes:
    """PNG bytes of a picture at no more than 640 px, with the box `(4,)` in its own pixels."""
    scale = min(1.0, SHOWN / max(image.size))
    shown = image.resize([max(1, round(side * scale)) for side in image.size])
    if box is not None:
        shown = with_box(shown, np.asarray(box) * scale)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return buffer.getvalue()


def query_widget(
    localizer: Localizer | GridLocalizer,
    backbone: Backbone | None,
    pictures: Mapping[str, ImageSource],
    examples: Mapping[str, str] | None = None,
) -> ipywidgets.Widget:
    """A widget over named pictures and the user's own; `examples` maps a name to a first phrase.

    Every fault of input (a file that is no picture, a phrase without words) becomes a message
    beside the field and leaves the kernel as it was.
    """
    examples = examples or {}
    names = list(pictures)
    picker = ipywidgets.Dropdown(options=names, description="Picture")
    upload = ipywidgets.FileUpload(accept="image/*", description="Own photo")
    phrase = ipywidgets.Text(
        value=examples.get(names[0], ""),
        description="Phrase",
        placeholder="the man in the red hat",
        continuous_update=False,
    )
    message = ipywidgets.HTML()
    view = ipywidgets.Image(format="png")
    state: dict = {}

    def say(text: str) -> None:
        message.value = f'<span role="status">{escape(text)}</span>'

    def show(source: ImageSource, name: str) -> None:
        try:
            state["image"] = open_image(source, name)
        except ImageError as error:
            say(str(error))
            return
        view.value = png_with_box(state["image"], None)
        answer()

    def answer(_=None) -> None:
        words = phrase.value.strip()
        if not words or "image" not in state:
            say("Type a phrase and press Enter.")
            return
        if len(words) > LONGEST_PHRASE:
            say(f"A phrase may have at most {LONGEST_PHRASE} characters, got {len(words)}.")
            return
        box = first_boxes(localizer, state["image"], [words], backbone)[0]
        view.value = png_with_box(state["image"], box)
        unknown = localizer.vocabulary.unknown(words)
        text = "Box: " + ", ".join(f"{side:.0f}" for side in box) + " px."
        if localizer.settings["untrained"]:
            text += " The backbone is untrained."
        if unknown:
            text += " Words the model does not know: " + ", ".join(unknown) + "."
        say(text)

    def pick(change: dict) -> None:
        phrase.unobserve(answer, "value")
        phrase.value = examples.get(change["new"], phrase.value)
        phrase.observe(answer, "value")
        show(pictures[change["new"]], change["new"])

    def uploaded(change: dict) -> None:
        if change["new"]:
            show(bytes(change["new"][0]["content"]), change["new"][0]["name"])

    picker.observe(pick, "value")
    upload.observe(uploaded, "value")
    phrase.observe(answer, "value")
    show(pictures[names[0]], names[0])
    controls = ipywidgets.HBox([picker, upload], layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([controls, phrase, message, view])
