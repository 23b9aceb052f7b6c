"""What stands in the embedded sample's pictures, and what its sentences say of it.

Every boxed phrase is true of its boxes alone. Some pictures are easy, see `Scene.easy`. Others
hold objects that miss a phrase by a single word, so that neither words nor picture can be ignored.
Relations come in pairs which mean two things, "the cup above the star" and "the cup above the hat"
or "the cup left of the star", so that no part of them can be ignored.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from scene_utils.dataset import sample_layout
from scene_utils.dataset.entities import SPLITS
from scene_utils.dataset.sample_layout import RELATIONS, Thing, Words, pick, some

PLURALS = {kind: f"{kind}s" for kind in sample_layout.KINDS} | {"box": "boxes", "fish": "fish"}
CATEGORIES = {"fish": "animals", "car": "vehicles", "hat": "clothing"}
BACKGROUNDS = {
    "plain": ("on", ("a plain wall", "the wall")),
    "gradient": ("against", ("a hazy sky", "the sky")),
    "grain": ("on", ("a sandy beach", "the sand")),
    "planks": ("on", ("a wooden floor", "the floor")),
    "grass": ("on", ("a grassy field", "the grass")),
}
UNRELATED = 0.04  # share of pictures with a caption of another picture
EASY = {"train": 4, "val": 2, "test": 2}  # of so many pictures one is easy
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

Index = dict[Words, tuple[int, ...]]


@dataclass(frozen=True)
class Mention:
    """One bracketed phrase of `sentence` 0..4; `targets`: indices into `Scene.things`; `mark`:
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

    @property
    def easy(self) -> bool:
        """Whether it holds one to three things, each alone of its kind; others hold five or more"""
        return len(self.things) <= 3


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
    if not words or words[-1] not in {*PLURALS, *PLURALS.values()}:
        return "other"
    return "plural" if words[0] in ("two", "three") or words[-1] not in PLURALS else "attribute"


def _index(things: Sequence[Thing]) -> Index:
    """Every choice of properties that is true of an object -> all objects it is true of."""
    found: Index = {}
    for i, thing in enumerate(things):
        for words in itertools.product(*((None, word) for word in thing.words)):
            found[words] = (*found.get(words, ()), i)
    return found


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
    """All (target's words, landmark's words, target) for which the relation, and it alone, tells
    the target from the other objects of those words."""
    # At most one adjective; a size only where the noun comes in both sizes.
    names = [
        words
        for words in index
        if words[3] and words.count(None) >= 2 and (not words[0] or _needed(index, words, 0))
    ]
    landmarks: dict[int, list[Words]] = {}
    for words in sorted(names, key=lambda words: -words.count(None)):
        if len(index[words]) == 1:
            known = landmarks.setdefault(index[words][0], [])
            # "the fish" rather than "the red fish" where there is one fish
            if not known or known[0].count(None) == 2:
                known.append(words)
    found = []
    for words in (words for words in names if len(index[words]) >= 2):
        centers = [things[i].center for i in index[words]]
        for landmark, landmark_words in landmarks.items():
            if landmark in index[words]:
                continue
            target = sample_layout.alone(centers, things[landmark].center, relation, short)
            if target is not None:
                found += [(words, other, index[words][target]) for other in landmark_words]
    return found


def _say(
    rng: np.random.Generator, things: Sequence[Thing], short: int, relations: Sequence[str]
) -> list[_Said] | None:
    """7 to 10 boxed phrases, None if the objects do not offer enough. Among them are pairs that
    differ in the landmark alone, at most two, or in the relation alone, at most one; the first with
    the first of the relations."""
    index = _index(things)
    related = [(r, *told) for r in relations for told in _related(things, index, r, short)]
    related = some(rng, related, len(related))
    told: dict[tuple[str, Words, Words], int] = {}
    # What the two phrases of a pair have in common: all but the landmark, or all but the relation.
    # The second kind is found more often, and so is looked for first less often, and taken once.
    keys = [((0, 1), 2), ((1, 2), 1)]
    for number, (key, most) in enumerate(keys if rng.random() < 0.85 else keys[::-1]):
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
        for pair in some(rng, pairs, most):
            told |= {phrase: target for target, phrase in pair}
    if not told:
        return None
    said = []
    for (relation, words, landmark), target in told.items():
        aside = "to the " if RELATIONS[relation][0] and rng.random() < 0.3 else ""
        text = f"{_article(rng, _noun(words))} {aside}{relation} the {_noun(landmark)}"
        said.append(_Said(text, words[3], (target,)))
    plurals = int(rng.integers(1, 3))
    singles = max(1, int(rng.integers(7, 11)) - len(said) - plurals)
    exact = [
        words
        for words in index
        if words[3] and all(_needed(index, words, i) for i in range(4) if words[i])
    ]
    single = [words for words in exact if len(index[words]) == 1 and any(words[:3])]
    several = [words for words in exact if len(index[words]) in (2, 3)]
    if len(several) < plurals or len(single) < singles:
        return None
    for words in some(rng, single, singles):
        said.append(_Said(_article(rng, _noun(words)), words[3], index[words]))
    for words in some(rng, several, plurals):
        number = ("two", "three")[len(index[words]) - 2]
        # "the red fish" would not tell one from several
        first = "the" if words[3] != "fish" and rng.random() < 0.4 else number
        said.append(_Said(f"{first} {_noun(words, plural=True)}", words[3], index[words]))
    # Many boxes in a picture; and the same object never stands twice in one sentence.
    times = Counter(one.targets for one in said)
    return said if max(times.values()) <= 3 and len(times) >= 4 else None


def _say_salient(rng: np.random.Generator, things: Sequence[Thing]) -> list[_Said]:
    """5 to 10 boxed phrases of things that are each the only one of its kind."""
    first, others = {1: (5, 0), 2: (4, 4), 3: (4, 3)}[len(things)]
    said = []
    for target, thing in enumerate(things):
        for _ in range(others if target else first):
            texture = thing.texture if thing.texture != "plain" and rng.random() < 0.3 else None
            colour = thing.colour if rng.random() < 0.4 else None
            noun = _noun((None, texture, colour, thing.kind))
            said.append(_Said(_article(rng, noun), thing.kind, (target,)))
    return said


def _sentences(
    rng: np.random.Generator, said: list[_Said], background: str, first_id: int
) -> tuple[list[str], list[Mention]]:
    """Five lines and their mentions, one or two boxed ones a line, ids from `first_id` on."""
    shares = [1 + int(i < len(said) - 5) for i in rng.permutation(5)]
    while True:
        order = iter(some(rng, said, len(said)))
        groups = [list(itertools.islice(order, share)) for share in shares]
        if all(len({s.targets for s in group}) == len(group) for group in groups):
            break
    ids: dict[object, str] = {}
    counter = itertools.count(first_id)
    lines, mentions = [], []
    for number, group in enumerate(groups):
        tokens: list[str] = []
        for token in pick(rng, TEMPLATES[len(group)]).split():
            targets: tuple[int, ...] = ()
            if token in ("{A}", "{B}"):
                text, kind, targets = group["AB".index(token[1])]
                category, mark = CATEGORIES.get(kind, "other"), "box"
            elif token == "{S}":
                preposition, names = BACKGROUNDS[background]
                tokens.append(preposition)
                text, category, mark = pick(rng, names), "scene", "scene"
            elif token == "{N}":
                text = pick(rng, ("the picture", "the photo", "this image"))
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


def _compose(rng: np.random.Generator, width: int, height: int, first_id: int, easy: bool) -> tuple:
    # Drawn before anything is refused, so that what is easier to draw is not drawn more often.
    relations = some(rng, tuple(RELATIONS), len(RELATIONS))
    while True:
        if easy:
            things = sample_layout.salient_layout(rng, width, height)
            said = things and _say_salient(rng, things)
        else:
            things = sample_layout.layout(rng, width, height, relations)
            said = things and _say(rng, things, min(width, height), relations)
        if said:
            background = pick(rng, tuple(BACKGROUNDS))
            return things, background, *_sentences(rng, said, background, first_id)


def _number(split: str, index: int) -> int:
    """A number of its own for each picture of a sample."""
    return index * len(SPLITS) + SPLITS.index(split)


def image_id(seed: int, split: str, index: int) -> str:
    # An odd factor modulo a power of two never gives two numbers the same id.
    return str(1_000_000_000 + (_number(split, index) * 2_654_435_761 + seed * 40_503) % 2**32)


def describe(seed: int, split: str, index: int) -> Scene:
    """Picture `index` of a split. It depends on these three alone, not on how many are made."""
    part = SPLITS.index(split)
    rng = np.random.default_rng([seed, part, index])
    longer = int(rng.integers(280, 501))
    shorter = round(longer / pick(rng, (3 / 2, 3 / 2, 4 / 3, 4 / 3, 5 / 4)))
    width, height = (longer, shorter) if rng.random() < 0.6 else (shorter, longer)
    first_id = _number(split, index) * 64 + 1
    easy = index % EASY[split] == 1
    things, background, lines, mentions = _compose(rng, width, height, first_id, easy)
    unrelated = (int(rng.integers(5)),) if rng.random() < UNRELATED else ()
    for odd in unrelated:
        *_, other_lines, other_mentions = _compose(rng, width, height, first_id + 32, easy)
        lines[odd] = other_lines[odd]
        mentions = [m for m in mentions if m.sentence != odd] + [
            replace(m, targets=(), mark="absent" if m.mark == "box" else m.mark)
            for m in other_mentions
            if m.sentence == odd
        ]
        mentions.sort(key=lambda m: m.sentence)
    name, grain_seed = image_id(seed, split, index), (seed, part, index, 1)
    said = tuple(mentions), tuple(lines), unrelated
    return Scene(name, width, height, background, grain_seed, tuple(things), *said)
