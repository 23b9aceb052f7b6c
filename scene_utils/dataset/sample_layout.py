"""Where the things of the embedded sample's pictures lie, and what they look like.

Few values of each property stand in one picture, and things stand to a landmark in clear relations:
the ground for phrases that are true of one place alone, see `sample_phrases`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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
HIGH = ("star", "kite", "hat")  # where they are not the salient thing of a picture
# Unit step (x, y), y downwards, from the landmark towards the target.
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
# What stands in a relation loosely but not clearly is too doubtful for a phrase, see `stands`.
CLEAR, LOOSE = (0.12, 1.5), (0.02, 0.5)
BIG = 1.6  # a big object's side over a small one's, in one picture
Words = tuple[str | None, str | None, str | None, str | None]  # size, texture, colour, kind


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


def pick(rng: np.random.Generator, options: Sequence):
    return options[int(rng.integers(len(options)))]


def some(rng: np.random.Generator, options: Sequence, count: int) -> list:
    return [options[int(i)] for i in rng.permutation(len(options))[:count]]


def stands(a: tuple, b: tuple, relation: str, short: int, rule: tuple[float, float]) -> bool:
    """Whether point a stands in the relation to point b: along its axis farther than rule[0]
    times the picture's shorter side, and farther than rule[1] times the way across it."""
    step = RELATIONS[relation]
    along = (a[0] - b[0]) * step[0] + (a[1] - b[1]) * step[1]
    across = abs((a[0] - b[0]) * step[1] + (a[1] - b[1]) * step[0])
    return along > rule[0] * short and along > rule[1] * across


def alone(points: Sequence[tuple], landmark: tuple, relation: str, short: int) -> int | None:
    """Which of the points stands clearly in the relation to the landmark, if no other does even
    loosely; else None."""
    near = [i for i, a in enumerate(points) if stands(a, landmark, relation, short, LOOSE)]
    if len(near) == 1 and stands(points[near[0]], landmark, relation, short, CLEAR):
        return near[0]
    return None


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> int:
    across = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    down = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    return max(across, 0) * max(down, 0)


def layout(
    rng: np.random.Generator, width: int, height: int, relations: Sequence[str]
) -> list[Thing] | None:
    """Objects in fives, None if there is no room: one at a uniform place; a landmark, to which that
    stands in the next of the relations; one more of the first's kind, not so related to the
    landmark; a landmark of its own for that, to which the first is not so related; one that tells
    the two of a kind apart by other relations. At most a quarter of each lies under later ones."""
    # Few values of each property in one picture: this is what makes near misses common.
    kinds, colours, textures = (
        some(rng, tuple(words), int(rng.integers(2, 4))) for words in (KINDS, COLOURS, TEXTURES)
    )
    short = min(width, height)
    unit = short * 0.15 * 1.9 ** rng.random()
    things: list[Thing] = []
    hidden: list[float] = []
    for i in range(int(rng.integers(5, 10))):
        turn = i % 5
        if turn == 0:
            relation, like = relations[i // 5], pick(rng, kinds)
        kind = like if turn in (0, 2) else pick(rng, [other for other in kinds if other != like])
        size, texture, colour = (pick(rng, words) for words in (SIZES, textures, colours))
        side = unit * (BIG if size == "big" else 1) * rng.uniform(0.95, 1.05)
        stretch = 1.25 ** rng.uniform(-0.5, 0.5)
        w, h = round(side * stretch), round(side / stretch)
        for x, y in rng.random((40, 2)):
            center = (0.4 * w + x * (width - 0.8 * w), 0.4 * h + y * (height - 0.8 * h))
            if turn in (1, 3):
                step, last = RELATIONS[relation], things[-1].center
                along = (0.13 + 0.4 * x) * short
                across = (2 * y - 1) * along / 1.6
                center = (
                    last[0] - step[0] * along + step[1] * across,
                    last[1] - step[1] * along + step[0] * across,
                )
                out = abs(2 * center[0] - width) > width - 0.8 * w
                if out or abs(2 * center[1] - height) > height - 0.8 * h:
                    continue
            if turn == 2 and stands(center, things[-1].center, relation, short, LOOSE):
                continue
            if turn == 3 and stands(things[-3].center, center, relation, short, LOOSE):
                continue
            if turn == 4:
                both = things[-4].center, things[-2].center
                if not {0, 1} <= {alone(both, center, other, short) for other in RELATIONS}:
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
        things.append(_thing(rng, (size, texture, colour, kind), frame, width, height))
    return things


def _thing(rng: np.random.Generator, words: Words, frame: tuple, width: int, height: int) -> Thing:
    """A thing of the words in its frame, its colour, turn and side drawn at random."""
    x, y, w, h = frame
    box = (max(x, 0) + 1, max(y, 0) + 1, min(x + w, width), min(y + h, height))
    rgb = tuple(int(min(max(c + rng.integers(-12, 13), 0), 255)) for c in COLOURS[words[2]])
    angle, flip = float(rng.uniform(-20, 20)), bool(rng.integers(2))
    return Thing(*words, frame, box, rgb, angle, flip)


def salient_layout(rng: np.random.Generator, width: int, height: int) -> list[Thing] | None:
    """One to three things of different kinds, the first of them salient, as photos mostly show
    them. It is seen from near, large in the middle, or from afar. What is not seen from near stands
    high or low, as its kind does. None if there is no room."""
    short = min(width, height)
    near = rng.random() < 0.4
    things: list[Thing] = []
    for kind in some(rng, KINDS, pick(rng, (1, 1, 2) if near else (2, 2, 3))):
        middle = near and not things
        ends = (0.55, 0.85) if middle else (0.3, 0.35) if things else (0.46, 0.54)
        side = short * rng.uniform(*ends)
        stretch = 1.25 ** rng.uniform(-0.5, 0.5)
        w, h = round(side * stretch), round(side / stretch)
        for across, low in zip(rng.random((40, 3)).mean(axis=1), rng.random(40), strict=True):
            down = 0.25 + low / 2 if middle else low / 8 + (0 if kind in HIGH else 0.875)
            frame = (round(across * (width - w)), round(down * (height - h)), w, h)
            if not any(_overlap(frame, other.frame) > 0.3 * w * h for other in things):
                break
        else:
            return None
        words = ("small" if things else "big", pick(rng, TEXTURES), pick(rng, tuple(COLOURS)), kind)
        things.append(_thing(rng, words, frame, width, height))
    return things
