"""What stands in the embedded sample's pictures, and what its sentences say of it.

Every boxed phrase is true of its boxes alone, and the picture holds objects that miss it by a
single word, so that neither the words nor the picture can be ignored. Relations come in pairs which
mean two things, "the cup above the star" and "the cup above the hat" or "the cup left of the star",
so that no part of them can be ignored. `scenes` draws and writes what `describe` describes.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

SPLITS = ("train", "val", "test")
COLOURS = {
    "red": (205, 35, 40),
    "green": (35, 150, 55),
    "blue": (35, 80, 205),
    "yellow": (245, 215, 45),
    "purple": (130, 50, 165),
    "orange": (245, 130, 20),
    "white": (242, 242, 242),
}
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = ("small", "big")
KINDS = ("ball", "box", "star", "kite", "cup", "fish", "car", "hat")
PLURALS = {kind: {"box": "boxes", "fish": "fish"}.get(kind, f"{kind}s") for kind in KINDS}
CATEGORIES = {"fish": "animals", "car": "vehicles", "hat": "clothing"}
# Unit step (x, y), y downwards, from the anchor towards the target.
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
# A phrase's target stands clearly in the relation, its other objects not even loosely: what lies
# between is too doubtful for a phrase. See `_stands`.
CLEAR, LOOSE = (0.12, 1.5), (0.02, 0.5)
BACKGROUNDS = {
    "plain": ("on", ("a plain wall", "the wall")),
    "gradient": ("against", ("a hazy sky", "the sky")),
    "grain": ("on", ("a sandy beach", "the sand")),
    "planks": ("on", ("a wooden floor", "the floor")),
    "grass": ("on", ("a grassy field", "the grass")),
}
BIG = 1.6  # a big object's side over a small one's, in one picture
UNRELATED = 0.04  # share of pictures with a caption of another picture
NEW_ID = 0.15  # share of repeated mentions that get an id of their own

# {A}, {B}: boxed mentions; {S}: preposition and scene; {N}: the picture itself; [x_y]: not visual.
TEMPLATES = {
    1: (
        "{A} {is} {S} .",
        "{A} {S} in {N} .",
        "{N} shows {A} {S} .",
        "We can see {A} in {N} .",
        "[Somebody] put {A} {S} .",
        "{A} {has} been {S} for [a_while] .",
        "Most people look at {A} at [first] .",
        "This is a view of {A} .",
    ),
    2: (
        "{A} and {B} {S} .",
        "{A} {is} shown together with {B} {S} .",
        "{N} shows {A} as well as {B} .",
        "A view of {A} and {B} {S} .",
        "{A} {has} been put {S} along with {B} .",
        "{A} {is} part of [the_same] scene as {B} .",
        "Besides {A} there is room for {B} {S} .",
        "It is easy to tell {A} from {B} .",
    ),
}

# Singular and plural, to agree with {A}.
VERBS = {"{is}": ("is", "are"), "{has}": ("has", "have")}

Words = tuple[str | None, str | None, str | None, str | None]  # size, texture, colour, kind
Index = dict[Words, tuple[int, ...]]


@dataclass(frozen=True)
class Thing:
    """One drawn object. `frame`: (left, top, width, height) in pixels, 0-based, may leave the
    picture; `box`: its part in the picture, (xmin, ymin, xmax, ymax), 1-based and inclusive."""

    size: str
    texture: str
    colour: str
    kind: str
    frame: tuple[int, int, int, int]
    box: tuple[int, int, int, int]
    rgb: tuple[int, int, int]
    turn: float
    flip: bool

    @property
    def words(self) -> Words:
        """(size, texture, colour, kind)."""
        return self.size, self.texture, self.colour, self.kind

    @property
    def center(self) -> tuple[float, float]:
        """Middle of the box, (x, y) in pixels, 1-based."""
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Mention:
    """One bracketed phrase. `sentence`: 0..4; `targets`: indices into `Scene.things`; `mark`:
    "box", "scene", "nobndbox", or "absent" for an id that has no object in the XML."""

    sentence: int
    phrase_id: str
    category: str
    phrase: str
    targets: tuple[int, ...]
    mark: str


@dataclass(frozen=True)
class Scene:
    """All that is in one picture and is said of it. `things` lie in drawing order; `unrelated`
    holds the 0-based numbers of sentences which describe another picture."""

    image_id: str
    width: int
    height: int
    background: str
    grain_seed: tuple[int, ...]
    things: tuple[Thing, ...]
    mentions: tuple[Mention, ...]
    sentences: tuple[str, ...]
    unrelated: tuple[int, ...]


class _Said(NamedTuple):
    text: str
    kind: str
    targets: tuple[int, ...]


def scene_phrase_kind(phrase: str) -> str:
    """'relation', 'plural' or 'attribute', from the wording alone; 'other' if no kind is named."""
    words = phrase.lower().split()
    text = f" {' '.join(words)} "
    if any(f" {relation} " in text for relation in RELATIONS):
        return "relation"
    if not words or (words[-1] not in PLURALS and words[-1] not in PLURALS.values()):
        return "other"
    return "plural" if words[0] in ("two", "three") or words[-1] not in PLURALS else "attribute"


def _pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def _some(rng: np.random.Generator, options: Sequence, count: int) -> list:
    return [options[int(i)] for i in rng.permutation(len(options))[:count]]


def _stands(a: tuple, b: tuple, relation: str, short: int, rule: tuple[float, float]) -> bool:
    """Whether point a stands in the relation to point b: along its axis farther than rule[0]
    times the picture's shorter side, and farther than rule[1] times the way across it."""
    step = RELATIONS[relation]
    along = (a[0] - b[0]) * step[0] + (a[1] - b[1]) * step[1]
    across = abs((a[0] - b[0]) * step[1] + (a[1] - b[1]) * step[0])
    return along > rule[0] * short and along > rule[1] * across


def _told_apart(a: tuple, b: tuple, anchor: tuple, short: int) -> bool:
    """Whether a and b each stand to the anchor in a relation in which the other does not."""
    clear, loose = (
        [{r for r in RELATIONS if _stands(one, anchor, r, short, rule)} for one in (a, b)]
        for rule in (CLEAR, LOOSE)
    )
    return bool(clear[0] - loose[1] and clear[1] - loose[0])


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(across, 0) * max(down, 0)


def _layout(
    rng: np.random.Generator, width: int, height: int, relations: Sequence[str]
) -> list[Thing] | None:
    """Objects at most a tenth out of the picture and at most a quarter under later ones, in
    fives: one at a uniform place, one that anchors the next of the relations to it, one more of its
    kind, not so related to the anchor, an anchor of its own for that, to which the first is not so
    related, and one that anchors other relations to each of the two. None if there is no room."""
    # Few values of each property in one picture: this is what makes near misses common.
    kinds, colours, textures = (
        _some(rng, tuple(words), int(rng.integers(2, 4))) for words in (KINDS, COLOURS, TEXTURES)
    )
    short = min(width, height)
    unit = short * 0.15 * 1.9 ** rng.random()
    things: list[Thing] = []
    hidden: list[float] = []
    for i in range(int(rng.integers(5, 10))):
        turn = i % 5
        if turn == 0:
            relation, like = relations[i // 5], _pick(rng, kinds)
        kind = like if turn in (0, 2) else _pick(rng, [other for other in kinds if other != like])
        size, texture, colour = (_pick(rng, words) for words in (SIZES, textures, colours))
        side = unit * (BIG if size == "big" else 1) * rng.uniform(0.95, 1.05)
        stretch = 1.25 ** rng.uniform(-0.5, 0.5)
        w, h = round(side * stretch), round(side / stretch)
        for x, y in rng.random((40, 2)):
            center = (0.4 * w + x * (width - 0.8 * w), 0.4 * h + y * (height - 0.8 * h))
            if turn in (1, 3):
                step, along = RELATIONS[relation], (0.13 + 0.4 * x) * short
                across = (2 * y - 1) * along / 1.6
                last = things[-1].center
                center = (
                    last[0] - step[0] * along + step[1] * across,
                    last[1] - step[1] * along + step[0] * across,
                )
                if abs(2 * center[0] - width) > width - 0.8 * w or (
                    abs(2 * center[1] - height) > height - 0.8 * h
                ):
                    continue
            if turn == 2 and _stands(center, things[-1].center, relation, short, LOOSE):
                continue
            if turn == 3 and _stands(things[-3].center, center, relation, short, LOOSE):
                continue
            if turn == 4 and not _told_apart(things[-4].center, things[-2].center, center, short):
                continue
            frame = (round(center[0] - w / 2), round(center[1] - h / 2), w, h)
            cover = [
                old + _overlap(frame, thing.frame) / (thing.frame[2] * thing.frame[3])
                for old, thing in zip(hidden, things, strict=True)
            ]
            if max(cover, default=0) <= 0.25:
                break
        else:
            return None
        hidden = [*cover, 0.0]
        x, y = frame[:2]
        box = (max(x, 0) + 1, max(y, 0) + 1, min(x + w, width), min(y + h, height))
        rgb = tuple(int(np.clip(c + rng.integers(-12, 13), 0, 255)) for c in COLOURS[colour])
        angle, flip = float(rng.uniform(-20, 20)), bool(rng.integers(2))
        things.append(Thing(size, texture, colour, kind, frame, box, rgb, angle, flip))
    return things


def _index(things: Sequence[Thing]) -> Index:
    """Every choice of properties that is true of an object -> all objects it is true of."""
    found: dict[Words, list[int]] = {}
    for i, thing in enumerate(things):
        for words in itertools.product(*((None, word) for word in thing.words)):
            found.setdefault(words, []).append(i)
    return {words: tuple(indices) for words, indices in found.items()}


def _needed(index: Index, words: Words, place: int) -> bool:
    """Whether the words are true of more objects without the one at `place`."""
    return len(index[(*words[:place], None, *words[place + 1 :])]) > len(index[words])


def _noun(words: Words, plural: bool = False) -> str:
    kind = PLURALS[words[3]] if plural else words[3]
    return " ".join([*(word for word in words[:3] if word), kind])


def _article(rng: np.random.Generator, noun: str) -> str:
    if rng.random() < 0.6:
        return f"the {noun}"
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _related(
    things: Sequence[Thing], index: Index, relation: str, short: int
) -> list[tuple[Words, Words, int]]:
    """All (target's words, anchor's words, target) for which the relation, and it alone, tells
    the target from the other objects of those words."""
    # At most one adjective; a size only where the noun comes in both sizes.
    names = [
        words
        for words in index
        if words[3] and words.count(None) >= 2 and (not words[0] or _needed(index, words, 0))
    ]
    anchors: dict[int, list[Words]] = {}
    for words in sorted(names, key=lambda words: -words.count(None)):
        if len(index[words]) == 1:
            known = anchors.setdefault(index[words][0], [])
            # "the fish" rather than "the red fish" where there is one fish
            if not known or known[0].count(None) == 2:
                known.append(words)
    found = []
    for words in (words for words in names if len(index[words]) >= 2):
        for anchor, anchor_words in anchors.items():
            if anchor in index[words]:
                continue
            a = things[anchor].center
            near = [i for i in index[words] if _stands(things[i].center, a, relation, short, LOOSE)]
            if len(near) == 1 and _stands(things[near[0]].center, a, relation, short, CLEAR):
                found += [(words, other, near[0]) for other in anchor_words]
    return found


def _say(
    rng: np.random.Generator,
    things: Sequence[Thing],
    short: int,
    relations: Sequence[str],
) -> list[_Said] | None:
    """7 to 10 boxed phrases; None if the objects do not offer enough.

    Among them a pair that differs in the anchor alone, one that differs in the relation alone, or
    both, the first of them with the first of the relations.
    """
    index = _index(things)
    related = [(r, *told) for r in relations for told in _related(things, index, r, short)]
    related = _some(rng, related, len(related))
    told: dict[tuple[str, Words, Words], int] = {}
    # What the two phrases of a pair have in common: all but the anchor, or all but the relation.
    # The second kind is found more often, and so is looked for first less often.
    keys = ((0, 1), (1, 2)) if rng.random() < 0.85 else ((1, 2), (0, 1))
    for number, key in enumerate(keys[: rng.integers(1, 3)]):
        groups: dict[tuple, dict[int, tuple[str, Words, Words]]] = {}
        for *phrase, target in related:
            alike = groups.setdefault(tuple(phrase[place] for place in key), {})
            alike.setdefault(target, tuple(phrase))
        pairs = [
            pair
            for group in groups.values()
            for pair in itertools.combinations(group.items(), 2)
            if number or relations[0] in (pair[0][1][0], pair[1][1][0])
        ]
        if pairs:
            told |= {phrase: target for target, phrase in _pick(rng, pairs)}
    if not told:
        return None
    said = []
    for (relation, words, anchor), target in told.items():
        aside = "to the " if RELATIONS[relation][0] and rng.random() < 0.3 else ""
        text = f"{_article(rng, _noun(words))} {aside}{relation} the {_noun(anchor)}"
        said.append(_Said(text, words[3], (target,)))
    plurals = int(rng.integers(1, 3))
    singles = int(rng.integers(7, 11)) - len(said) - plurals
    exact = [
        words
        for words in index
        if words[3] and all(_needed(index, words, i) for i in range(4) if words[i])
    ]
    single = [words for words in exact if len(index[words]) == 1 and any(words[:3])]
    several = [words for words in exact if len(index[words]) in (2, 3)]
    if len(several) < plurals or len(single) < singles:
        return None
    for words in _some(rng, single, singles):
        said.append(_Said(_article(rng, _noun(words)), words[3], index[words]))
    for words in _some(rng, several, plurals):
        number = ("two", "three")[len(index[words]) - 2]
        # "the red fish" would not tell one from several
        first = "the" if words[3] != "fish" and rng.random() < 0.4 else number
        said.append(_Said(f"{first} {_noun(words, plural=True)}", words[3], index[words]))
    # Many boxes in a picture; and the same object never stands twice in one sentence.
    times = Counter(one.targets for one in said)
    return said if max(times.values()) <= 3 and len(times) >= 4 else None


def _sentences(
    rng: np.random.Generator, said: list[_Said], background: str, first_id: int
) -> tuple[list[str], list[Mention]]:
    """Five lines and their mentions, one or two boxed ones a line, ids from `first_id` on."""
    shares = [1 + int(i < len(said) - 5) for i in rng.permutation(5)]
    while True:
        order = iter(_some(rng, said, len(said)))
        groups = [list(itertools.islice(order, share)) for share in shares]
        if all(len({s.targets for s in group}) == len(group) for group in groups):
            break
    ids: dict[object, str] = {}
    counter = itertools.count(first_id)
    lines, mentions = [], []
    for number, group in enumerate(groups):
        tokens: list[str] = []
        for token in _pick(rng, TEMPLATES[len(group)]).split():
            targets: tuple[int, ...] = ()
            if token in ("{A}", "{B}"):
                text, kind, targets = group["AB".index(token[1])]
                category, mark = CATEGORIES.get(kind, "other"), "box"
            elif token == "{S}":
                preposition, names = BACKGROUNDS[background]
                tokens.append(preposition)
                text, category, mark = _pick(rng, names), "scene", "scene"
            elif token == "{N}":
                text = _pick(rng, ("the picture", "the photo", "this image"))
                category, mark = "other", "nobndbox"
            elif token[0] == "[":
                text, category, mark = token[1:-1].replace("_", " "), "notvisual", "absent"
            else:
                tokens.append(VERBS.get(token, (token, token))[len(group[0].targets) > 1])
                continue
            key = targets or mark
            if category == "notvisual":
                ids[key] = "0"
            elif key not in ids or (targets and rng.random() < NEW_ID):
                # Some later mentions get another id: Flickr30k, too, has two names on one box.
                ids[key] = str(next(counter))
            text = text if tokens else text[0].upper() + text[1:]
            tokens.append(f"[/EN#{ids[key]}/{category} {text}]")
            mentions.append(Mention(number, ids[key], category, text, targets, mark))
        lines.append(" ".join(tokens))
    return lines, mentions


def _compose(rng: np.random.Generator, width: int, height: int, first_id: int) -> tuple:
    # Drawn before anything is refused, so that what is easier to draw is not drawn more often.
    relations = _some(rng, tuple(RELATIONS), len(RELATIONS))
    while True:
        things = _layout(rng, width, height, relations)
        said = things and _say(rng, things, min(width, height), relations)
        if said:
            background = _pick(rng, tuple(BACKGROUNDS))
            return things, background, *_sentences(rng, said, background, first_id)


def describe(seed: int, split: str, index: int) -> Scene:
    """Picture `index` of a split. It depends on these three alone, not on how many are made.

    Raises ValueError for an unknown split or a negative seed or index.
    """
    if split not in SPLITS or seed < 0 or index < 0:
        raise ValueError(
            f"expected a split of {SPLITS}, seed >= 0, index >= 0, got {split!r}, {seed}, {index}"
        )
    part = SPLITS.index(split)
    rng = np.random.default_rng([seed, part, index])
    longer = int(rng.integers(280, 501))
    shorter = round(longer / _pick(rng, (3 / 2, 3 / 2, 4 / 3, 4 / 3, 5 / 4)))
    width, height = (longer, shorter) if rng.random() < 0.6 else (shorter, longer)
    number = index * len(SPLITS) + part
    first_id = number * 64 + 1
    things, background, lines, mentions = _compose(rng, width, height, first_id)
    unrelated: tuple[int, ...] = ()
    if rng.random() < UNRELATED:
        unrelated = (int(rng.integers(5)),)
        *_, other_lines, other_mentions = _compose(rng, width, height, first_id + 32)
        lines[unrelated[0]] = other_lines[unrelated[0]]
        mentions = [m for m in mentions if m.sentence not in unrelated] + [
            replace(m, targets=(), mark="absent" if m.mark == "box" else m.mark)
            for m in other_mentions
            if m.sentence in unrelated
        ]
        mentions.sort(key=lambda m: m.sentence)
    return Scene(
        image_id=image_id(seed, number),
        width=width,
        height=height,
        background=background,
        grain_seed=(seed, part, index, 1),
        things=tuple(things),
        mentions=tuple(mentions),
        sentences=tuple(lines),
        unrelated=unrelated,
    )


def image_id(seed: int, number: int) -> str:
    # An odd factor modulo a power of two never gives two numbers the same id.
    return str(1_000_000_000 + (number * 2_654_435_761 + seed * 40_503) % 2**32)
