"""The query widget: choose a picture, type a phrase, see the box; compare models; play.

`query_widget` is all that a notebook needs. Whatever a user gives that cannot be answered (a file
that is no picture, a phrase without words) becomes a message beside the field.
"""

import functools
import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path

import ipywidgets

from scene_utils.images import ImageError
from scene_utils.widget import draw, suggest
from scene_utils.widget.catalogue import OWN, Picture
from scene_utils.widget.gallery import Gallery
from scene_utils.widget.models import COMPARED, Answer, Models, View, open_view
from scene_utils.widget.parts import COMPARE, HISTORY, PHRASE, PLAY, SENTENCE, Bridge, Parts, label
from scene_utils.widget.play import Drawing, Play


def guarded(call: Callable) -> Callable:
    """Show an error as a message: in a page, what a callback raises would be seen nowhere."""

    @functools.wraps(call)
    def inside(self, *args):
        try:
            call(self, *args)
        except (ValueError, FileNotFoundError) as error:
            self.parts.say(str(error), "error")
        except Exception as error:
            self.parts.say(f"This did not work: {type(error).__name__}: {error}", "error")

    return inside


class QueryWidget:
    """State and callbacks behind `query_widget`; `parts.root` is the widget to show."""

    def __init__(self, pictures: Sequence[Picture], models: Models, seed: int | None = None):
        self.models = models
        self.view: View | None = None
        self.answers: list[Answer] = []
        self.shown = draw.Shown()
        self.history: list[tuple[Picture, str, bool]] = []
        self._quiet = False
        self.gallery = Gallery(list(pictures), self.choose, seed)
        self.bridge, drawing = Bridge(self.take), Drawing()
        self.parts = Parts(self.gallery, self.bridge, drawing)
        self.play = Play(self.parts, drawing, self.gallery.random)
        self._connect(drawing)
        first = self.gallery.pictures[0]
        # The first questions, of one and of several phrases, set a model up: better now than later.
        for phrases in (["a man"], ["a man", "a cup"]):
            models.ask("grid", open_view(first), phrases)
        self.choose(first)

    def _connect(self, drawing: Drawing) -> None:
        parts, gallery = self.parts, self.gallery
        parts.mode.observe(self.turn, "value")
        parts.field.observe(lambda _: None if self._quiet else self.ask(), "value")
        for control in (parts.count, parts.heat, parts.truth):
            control.observe(self.redraw, "value")
        parts.things.observe(lambda _: self.ask(), "value")
        parts.zoom.observe(lambda _: self._fit(), "value")
        calls = {parts.find: self.ask, parts.check: self.check, gallery.surprise: self.surprise}
        calls |= {parts.png: self.save_png, parts.json: self.save_json, parts.other: self.surprise}
        for button, call in calls.items():
            button.on_click(lambda _, call=call: call())
        for button in (*parts.meant, *parts.chips):
            button.on_click(lambda button: self.ask(button.tooltip))
        for place, button in enumerate(parts.past):
            button.on_click(lambda _, place=place: self.recall(place))
        parts.again.on_click(lambda _: self.play.start(self.view))
        drawing.canvas.on_submit(self.check)

    # Pictures

    @guarded
    def choose(self, picture: Picture) -> None:
        """Open a picture and ask it for its first phrase, or for what stands in the field."""
        self._open(picture)
        known = self._known(self.parts.mode.value)
        self.ask(known[0] if known else None)

    def _open(self, picture: Picture) -> None:
        self.view = view = open_view(picture)
        self.gallery.select(picture)
        self.answers = []
        self.parts.overlay.value = ""
        self.parts.picture.value = draw.HTML.picture(view, draw.data_url(view.data))
        self.parts.caption.value = f"{picture.kind}, {view.width} x {view.height} pixels"
        self.parts.truth.disabled = not picture.truth
        self.bridge.alt = picture.alt
        self._fit()

    def _fit(self) -> None:
        fit = f"min(100%, 66vh * {self.view.width / self.view.height:.4f})"
        self.parts.sheet.layout.width = f"calc({fit} * {self.parts.zoom.value / 100})"
        self.play.drawing.canvas.layout.width = fit

    @guarded
    def take(self, name: str, data: bytes, size: list[int] | None, count: int) -> None:
        """Take a photo that the user opened, pasted or dropped."""
        if not count:
            raise ImageError(f"{name}: expected a picture, got an empty file")
        if not data:
            raise ImageError(
                f"{name}: expected a picture that the browser can read, got one of "
                f"{count / 1e6:.0f} MB that it cannot. Save it as JPEG or PNG"
            )
        picture = Picture(name, OWN, data, size=size)
        open_view(picture)  # refuses what is no picture before anything has changed
        self.gallery.add(picture)
        if self.parts.mode.value == PLAY:
            self.parts.mode.value = PHRASE
        self.choose(picture)

    @guarded
    def surprise(self) -> None:
        """A random picture and a random phrase or sentence of it."""
        mode, choices = self.parts.mode.value, self.gallery.random
        others = [p for p in self.gallery.pictures if p is not self.view.picture]
        others = [p for p in others if (p.truth if mode == PLAY else p.phrases)]
        if not others:
            raise ValueError("There is no other picture to choose from.")
        self._open(choices.choice(others))
        self.ask(choices.choice(self._known(mode)))

    # Questions

    def _known(self, mode: str) -> list[str]:
        """The picture's own sentences or phrases."""
        picture = self.view.picture
        return [text for text, _ in picture.sentences] if mode == SENTENCE else [*picture.phrases]

    def _set(self, text: str) -> None:
        self._quiet = True
        self.parts.field.value = text
        self._quiet = False

    @guarded
    def turn(self, change: dict) -> None:
        """Another mode: a phrase gives way to a sentence where one is asked for, and back."""
        text = self.parts.field.value
        before, now = self._known(change["old"]), self._known(change["new"])
        if before != now and text in before and now:
            text = now[0]
        self.ask(text)

    @guarded
    def ask(self, text: str | None = None) -> None:
        """Answer what stands in the field, or `text`, in the present mode."""
        if text is not None:
            self._set(text)
        mode = self.parts.mode.value
        self.parts.arrange(mode)
        if mode == PLAY:
            self.play.start(self.view)
            return
        self._suggest()
        label(self.parts.meant, [])
        self.answers, kind = [], self.view.picture.kind
        names = self.models.there(kind) if mode == COMPARE else ["grid"]
        if not all(self.models.ready(name, kind) for name in names):
            self._show()
            self.parts.say("Loading a model for this picture: some seconds, once.")
        started = time.perf_counter()
        try:
            self.answers = self._answers(mode, names)
        finally:
            self._show()
        self._tell(1000 * (time.perf_counter() - started))
        self._remember()

    def _suggest(self) -> None:
        sentence = self.parts.mode.value == SENTENCE
        self.parts.field.options = texts = self._known(self.parts.mode.value)
        hint = f"{'Sentences' if sentence else 'Phrases'} of this picture:" * bool(texts)
        self.parts.hint.value = "Commas or [brackets] part phrases. " * sentence + hint
        label(self.parts.chips, texts)

    def _answers(self, mode: str, names: Sequence[str]) -> list[Answer]:
        picture, text = self.view.picture, self.parts.field.value
        phrases, sentence = [text], ""
        if mode == SENTENCE:
            phrases = dict(picture.sentences).get(text) or suggest.split_sentence(text) or phrases
            sentence = suggest.whole_sentence(text)
        vocabulary = self.models.get("grid", picture.kind).vocabulary
        phrases = [suggest.check_phrase(phrase, vocabulary) for phrase in phrases]
        given = self.view, phrases, sentence, mode == PHRASE and self.parts.things.value
        asked = (self.models.ask(name, *given) for name in names)
        return list(chain.from_iterable(asked))

    def _tell(self, took: float) -> None:
        kind = self.view.picture.kind
        read = [answer for answer in self.answers if answer.words]
        told, meant = suggest.notices(read, self.models.get("grid", kind).vocabulary)
        text = self.parts.field.value
        label(self.parts.meant, [suggest.replace_word(text, *pair) for pair in meant])
        done = f"Answered by {self.answers[-1].model}, in {took:.0f} ms."
        if self.parts.mode.value == COMPARE:
            done = draw.closest(self.view, self.answers)
            there = self.models.there(kind)
            if missing := ", ".join(name for name in COMPARED if name not in there):
                told.append(
                    f"Not trained on this machine: {missing}. "
                    f"`make reproduce PROFILE={self.models.profile}` trains all models."
                )
        self.parts.say(" ".join(told) or done, "warning" if told else "info")

    # Answers

    def _show(self, _change: dict | None = None) -> None:
        """Draw the answers at hand with the settings as they are now; no model is asked."""
        parts, truth = self.parts, self.parts.truth.value
        parts.png.disabled = parts.json.disabled = not self.answers
        if not self.answers:
            shown = draw.Shown()
        elif parts.mode.value == COMPARE:
            shown = draw.show_compared(self.view, self.answers, truth)
        elif parts.mode.value == SENTENCE:
            shown = draw.show_sentence(self.view, self.answers, truth)
        elif parts.things.value:
            shown = draw.show_things(self.view, self.answers[0], truth)
        else:
            shown = draw.show_phrase(self.view, self.answers[0], parts.count.value, truth)
        self.shown, glow = shown, parts.heat.value / 100
        parts.panels.value, parts.result.value = shown.panels, shown.text
        parts.overlay.value = draw.overlay_html(self.view, shown.marks, shown.heat, glow)

    redraw = guarded(_show)

    def _remember(self) -> None:
        entry = (self.view.picture, self.parts.field.value, self.parts.mode.value == SENTENCE)
        self.history = [entry, *(old for old in self.history if old != entry)][:HISTORY]
        texts = [f"{picture.name}: {text}" for picture, text, _ in self.history]
        label(self.parts.past, texts, longest=46)

    @guarded
    def recall(self, place: int) -> None:
        picture, text, sentence = self.history[place]
        self._open(picture)
        self._set(text)
        if sentence != (self.parts.mode.value == SENTENCE):
            self.parts.mode.value = SENTENCE if sentence else PHRASE  # asks
        else:
            self.ask()

    def _save(self, kind: str, data: bytes) -> None:
        words = "_".join([Path(self.view.picture.name).stem, *self.parts.field.value.split()])
        words = unicodedata.normalize("NFC", words)  # else the dots of an umlaut stand alone
        name = re.sub(r"[^\w-]", "_", words)[:80]
        self.bridge.save(f"{name}.{kind.partition('/')[2]}", kind, data)

    @guarded
    def save_png(self) -> None:
        shown, glow = self.shown, self.parts.heat.value / 100
        self._save("image/png", draw.png_bytes(self.view, shown.marks, shown.heat, glow))

    @guarded
    def save_json(self) -> None:
        self._save("application/json", draw.json_bytes(self.view, self.answers))

    @guarded
    def check(self) -> None:
        """In play: show truth and the model's box beside the user's, and count the round."""
        if self.play.drawing.box is not None:
            (answer,) = self.models.ask("grid", self.view, [self.play.asked])
            self.play.check(answer.boxes[0])


def query_widget(pictures: Sequence[Picture], models: Models) -> ipywidgets.Widget:
    """The widget over pictures of `catalogue.catalogue` and the user's own."""
    return QueryWidget(pictures, models).parts.root
