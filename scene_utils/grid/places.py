"""What a phrase says of where to look: "the man on the left", "the handle of the cup".

No phrase of Flickr30k Entities says where in the picture a thing lies. The networks learn it from
questions made of annotations, see `analysis.alike`; what they find is weighed by where it lies
besides. And a part of a thing is small; it is looked for in the thing.
"""

import re

import numpy as np

# A place in the picture, not one beside another thing: "on the left of the car".
PLACE = re.compile(
    r"\b(?:on|at|in|to) the (?:far |very )?(?:(upper|top|lower|bottom) )?"
    r"(left|right|middle|cent(?:er|re)|top|bottom)\b(?: (?:side|half|part|corner|end|edge)\b)?"
    r"(?! of (?!the (?:picture|photo|image)\b))"
    r"|\b(left|right|top|bottom)most\b",
    re.I,
)
PART = re.compile(
    r"(?P<part>.+?) of (?P<whole>(?:the|an?|his|her|its) .+)|(?P<owner>.+)'s (?P<owned>.+)", re.I
)
MANY = re.compile(
    r"\b(?:two|three|four|five|six|both|several|some|many|couple|group|pair|crowd|bunch|team|family|"
    r"band|others|people|children|(?:wo)?men)\b",
    re.I,
)
PULL = 5.0  # how fast a thing grows less likely with its distance, chosen on val


def names_many(phrase: str) -> bool:
    """Whether a phrase names several things, as far as its words tell.

    >>> [names_many(phrase) for phrase in ("two men", "the horses", "a glass", "his bus")]
    [True, True, False, False]
    """
    return bool(MANY.search(phrase) or re.search(r"[^s'u]s\W*$", phrase))


def sides(phrase: str) -> tuple[str, ...]:
    """Where in the picture a phrase says that its one thing lies; none for one of several things.

    >>> sides("the cow on the right in the background")
    ('right',)
    >>> sides("the lamp in the upper left corner")
    ('upper', 'left')
    >>> sides("the two cows on the right"), sides("the cup to the left of the plate")
    ((), ())
    """
    found = PLACE.search(phrase)
    if not found:
        return ()
    named = re.sub(r"(?: \w+ing)*\s*$", "", phrase[: found.start()])
    if names_many(named):
        return ()
    return tuple(side.lower() for side in found.groups() if side)


def distance(boxes: np.ndarray, side: str) -> np.ndarray:
    """How far the middles of boxes `(..., 4)`, as fractions, lie from a side of the picture or from
    its middle: `(...)` in [0, 1]."""
    x, y = ((boxes[..., low] + boxes[..., low + 2]) / 2 for low in (0, 1))
    if side in ("left", "right"):
        return x if side == "left" else 1 - x
    if side in ("upper", "top", "lower", "bottom"):
        return y if side in ("upper", "top") else 1 - y
    return 2 * np.abs(x - 0.5)


def weighed(boxes: np.ndarray, likely: np.ndarray, named: tuple[str, ...]) -> np.ndarray:
    """Shares `(k,)` of boxes `(k, 4)`, by how likely each is, `(k,)`, and how near it lies to the
    `sides` that are named."""
    weights = likely * np.exp(-PULL * sum(distance(boxes, side) for side in named))
    return weights / weights.sum()


def part_of(phrase: str) -> tuple[str, str] | None:
    """The part and the thing that it is a part of, where a phrase names both.

    >>> part_of("the black nose of the lemur in front"), part_of("the cat's eyes")
    (('the black nose', 'the lemur in front'), ('the eyes', 'the cat'))
    >>> part_of("a group of people")
    """
    found = PART.fullmatch(phrase.strip())
    if not found:
        return None
    if found["part"]:
        return found["part"], found["whole"]
    return f"the {found['owned']}", found["owner"]
