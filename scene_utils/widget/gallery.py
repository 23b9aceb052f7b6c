"""The strip of pictures to choose from: small copies, a search, pages, and one at random."""

import functools
import random
from collections.abc import Callable
from itertools import zip_longest

import ipywidgets
from PIL import ImageOps

from scene_utils.images import ImageError, open_image
from scene_utils.widget.catalogue import Picture
from scene_utils.widget.draw import data_url
from scene_utils.widget.models import encode

PAGE, THUMB = 8, 96


@functools.lru_cache(maxsize=512)
def thumbnail(picture: Picture) -> str:
    """A small square copy as a data URL; none of a damaged file, which says so when chosen."""
    try:
        image = open_image(picture.image, picture.name)
    except ImageError:
        return "data:,"
    return data_url(encode(ImageOps.fit(image, (THUMB, THUMB)), quality=80))


class Gallery:
    """`widget` shows a page of `pictures`; `chosen(picture)` is called when the user picks one."""

    def __init__(self, pictures: list[Picture], chosen: Callable[[Picture], None], seed=None):
        self.pictures, self.chosen, self.current = pictures, chosen, None
        self.page, self.random = 0, random.Random(seed)
        self.query = ipywidgets.Text(description="Search", placeholder="name or phrase")
        self.surprise = ipywidgets.Button(description="Surprise me")
        self.back = ipywidgets.Button(description="<", tooltip="pictures before")
        self.more = ipywidgets.Button(description=">", tooltip="more pictures")
        self.count = ipywidgets.HTML().add_class("sq-hint")
        self.style = ipywidgets.HTML(layout={"display": "none"})
        self.buttons = [ipywidgets.Button().add_class("sq-thumb") for _ in range(PAGE)]
        for place, button in enumerate(self.buttons):
            button.add_class(f"sq-thumb-{place}")
            button.on_click(lambda _, place=place: self.chosen(self.shown()[place]))
        self.back.on_click(lambda _: self.turn(-1))
        self.more.on_click(lambda _: self.turn(1))
        self.query.observe(lambda _: self.turn(-self.page), "value")
        strip = ipywidgets.HBox([self.back, *self.buttons, self.more]).add_class("sq-strip")
        self.widget = ipywidgets.VBox([strip, self.style])
        self.draw()

    def found(self) -> list[Picture]:
        """Pictures whose name, kind and phrases have every word that is searched for."""
        words = self.query.value.lower().split()
        texts = (" | ".join((p.name, p.kind, *p.phrases)).lower() for p in self.pictures)
        known = zip(self.pictures, texts, strict=True)
        return [picture for picture, text in known if all(word in text for word in words)]

    def shown(self) -> list[Picture]:
        return self.found()[self.page * PAGE : (self.page + 1) * PAGE]

    def add(self, picture: Picture) -> None:
        """Put the user's own picture in front, in place of one of the same name."""
        others = [other for other in self.pictures if other.name != picture.name]
        self.pictures = [picture, *others]
        self.page, self.query.value = 0, ""
        self.draw()

    def select(self, picture: Picture) -> None:
        """Mark a picture as the one in use, and turn to its page."""
        self.current = picture
        found = self.found()
        if picture in found and picture not in self.shown():
            self.page = found.index(picture) // PAGE
        self.draw()

    def turn(self, pages: int) -> None:
        last = max(0, (len(self.found()) - 1) // PAGE)
        self.page = min(max(0, self.page + pages), last)
        self.draw()

    def draw(self) -> None:
        found, rules = len(self.found()), ""
        for place, (button, picture) in enumerate(zip_longest(self.buttons, self.shown())):
            button.layout.display = "none" if picture is None else ""
            button.disabled = picture is None
            if picture:
                button.description, button.tooltip = picture.name, picture.alt
                rules += f".sq-thumb-{place}{{background-image:url({thumbnail(picture)})}}"
            chosen = picture and picture is self.current
            (button.add_class if chosen else button.remove_class)("sq-chosen")
        self.style.value = f"<style>{rules}</style>"
        first, last = self.page * PAGE, min((self.page + 1) * PAGE, found)
        self.back.disabled, self.more.disabled = first == 0, last == found
        self.count.value = f"{first + 1}-{last} of {found}" if found else "no picture found"
