"""The study's embedded sample: drawn pictures with phrases, in Flickr30k Entities' own files.

`sample_phrases.describe` says what a picture holds; `render` draws it, and `generate` writes a
whole data set that goes through the same reader as the real one.
"""

import contextlib
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from scene_utils.dataset.entities import SPLITS
from scene_utils.dataset.sample_layout import Thing
from scene_utils.dataset.sample_phrases import Scene, describe, image_id
from scene_utils.paths import new_folder
from scene_utils.runtime import progress_bar

# Raised whenever the same arguments give other files, so that old samples are made anew.
VERSION = 5
FEW = 500  # pictures
# Of each picture, by its id.
FILES = ("Annotations/{}.xml", "Sentences/{}.txt", "flickr30k-images/{}.jpg")


def _background(rng: np.random.Generator, kind: str, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float32 in 0..255, muted and of middle brightness."""

    def muted() -> np.ndarray:
        return (rng.uniform(90, 165) + rng.uniform(-16, 16, 3)).astype(np.float32)

    def noise(down: int, across: int, spread: float) -> np.ndarray:
        """Grain whose grains are `down` by `across` pixels."""
        small = rng.standard_normal((-(-height // down), -(-width // across)), np.float32) * spread
        return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))

    shade = noise(1, 1, 3)
    colour = muted()
    if kind == "gradient":
        angle = rng.uniform(0, 2 * math.pi)
        x = np.linspace(-0.5, 0.5, width, dtype=np.float32) * math.cos(angle)
        y = np.linspace(-0.5, 0.5, height, dtype=np.float32) * math.sin(angle)
        share = np.clip(0.5 + x[None, :] + y[:, None], 0, 1)[..., None]
        colour = colour * (1 - share) + muted() * share
    elif kind == "grain":
        shade = noise(1, 1, 13) + noise(24, 24, 7)
    elif kind == "planks":
        along = int(rng.integers(2))
        length = (height, width)[along]
        plank = int(rng.integers(18, 42))
        tone = rng.uniform(-16, 16, length // plank + 1).astype(np.float32)
        band = tone[np.arange(length) // plank] - 35 * (np.arange(length) % plank < 2)
        veins = noise(40, 2, 5) if along else noise(2, 40, 5)
        shade = shade + veins + (band[None, :] if along else band[:, None]).astype(np.float32)
    elif kind == "grass":
        colour = colour * 0.4 + np.array((66, 82, 54), np.float32)
        shade = noise(10, 2, 16) + noise(3, 1, 9)
    return shade[..., None] + colour


def _circle(x: float, y: float, rx: float, ry: float, corners: int = 48) -> np.ndarray:
    """(corners, 2), from the top on."""
    angle = np.arange(corners) * 2 * np.pi / corners
    return np.stack((x + rx * np.sin(angle), y - ry * np.cos(angle)), 1)


def _points(*flat: float) -> np.ndarray:
    return np.array(flat, float).reshape(-1, 2)


# (role, polygon): "body" makes the silhouette, "hole" cuts it, "dark" and "light" lie on it.
SHAPES: dict[str, tuple[tuple[str, np.ndarray], ...]] = {
    "ball": (("body", _circle(0.5, 0.5, 0.5, 0.5)),),
    "box": (
        ("body", _points(0, 0, 1, 0, 1, 0.28, 0.94, 0.28, 0.94, 1, 0.06, 1, 0.06, 0.28, 0, 0.28)),
        ("dark", _points(0.04, 0.26, 0.96, 0.26, 0.96, 0.31, 0.04, 0.31)),
    ),
    "star": (("body", _circle(0, 0, 1, 1, 10) * np.tile((1, 0.45), 5)[:, None]),),
    "kite": (
        ("body", _points(0.5, 0, 0.95, 0.36, 0.5, 1, 0.05, 0.36)),
        ("dark", _points(0.48, 0, 0.52, 0, 0.52, 1, 0.48, 1)),
        ("dark", _points(0.05, 0.34, 0.95, 0.34, 0.95, 0.38, 0.05, 0.38)),
    ),
    "cup": (
        ("body", _circle(0.76, 0.42, 0.24, 0.28)),
        ("hole", _circle(0.76, 0.42, 0.13, 0.17)),
        ("body", _points(0, 0, 0.78, 0, 0.68, 1, 0.1, 1)),
        ("dark", _circle(0.39, 0.05, 0.36, 0.045)),
    ),
    "fish": (
        ("body", _circle(0.4, 0.5, 0.4, 0.36)),
        ("body", _points(0.7, 0.5, 1, 0.12, 0.94, 0.5, 1, 0.88)),
        ("body", _points(0.25, 0.25, 0.42, 0, 0.6, 0.25)),
        ("light", _circle(0.19, 0.42, 0.07, 0.07)),
        ("dark", _circle(0.18, 0.42, 0.035, 0.035)),
    ),
    "car": (
        ("body", _points(0.02, 0.38, 0.16, 0.36, 0.3, 0.02, 0.78, 0.02, 0.92, 0.36, 0.98, 0.38)),
        ("body", _points(0, 0.36, 1, 0.36, 1, 0.84, 0, 0.84)),
        *((role, _circle(x, 0.82, 0.15, 0.17)) for role in ("body", "dark") for x in (0.24, 0.76)),
        ("light", _points(0.28, 0.38, 0.36, 0.12, 0.51, 0.12, 0.51, 0.38)),
        ("light", _points(0.57, 0.38, 0.57, 0.12, 0.72, 0.12, 0.81, 0.38)),
    ),
    "hat": (
        ("body", _circle(0.5, 0.84, 0.5, 0.16)),
        ("body", _points(0.2, 0.86, 0.22, 0.1, 0.36, 0, 0.5, 0.05, 0.64, 0, 0.78, 0.1, 0.8, 0.86)),
        ("dark", _points(0.2, 0.62, 0.8, 0.62, 0.8, 0.76, 0.2, 0.76)),
    ),
}


def _texture(thing: Thing, width: int, height: int) -> np.ndarray:
    """(height, width) bool: where the second colour lies."""
    turn = math.radians(3 * thing.turn)
    x = np.arange(width, dtype=np.float32)[None, :] - width / 2
    y = np.arange(height, dtype=np.float32)[:, None] - height / 2
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    period = min(width, height) / 4
    if thing.texture == "striped":
        return (u / period) % 1 < 0.5
    if thing.texture == "checked":
        return ((u / period) % 1 < 0.5) != ((v / period) % 1 < 0.5)
    return ((u / period) % 1 - 0.5) ** 2 + ((v / period) % 1 - 0.5) ** 2 < 0.09


def _draw(thing: Thing) -> tuple[Image.Image, Image.Image]:
    """The object's pixels (RGB) and its coverage (L), both of its frame's size."""
    fine = 2  # drawn twice as large, then shrunk: smooth edges
    width, height = thing.frame[2] * fine, thing.frame[3] * fine
    turn = math.radians(thing.turn)
    spin = np.array(((math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))))
    shape = [(role, (p * ((-1, 1) if thing.flip else 1)) @ spin) for role, p in SHAPES[thing.kind]]
    body = np.concatenate([p for role, p in shape if role == "body"])
    # The turned silhouette is stretched over its whole frame, so that the box is tight.
    low, high = body.min(0), body.max(0)
    scale = np.array((width - 1, height - 1)) / (high - low)

    rgb = np.array(thing.rgb)
    # Bright colours get dark marks, dark ones light marks.
    second = rgb * 0.4 if rgb @ (0.3, 0.6, 0.1) > 135 else rgb * 0.25 + 185
    tile, mask = Image.new("RGB", (width, height), thing.rgb), Image.new("L", (width, height))
    if thing.texture != "plain":
        marks = Image.fromarray(_texture(thing, width, height))
        tile.paste(tuple(int(c) for c in second), None, marks)
    on_tile, on_mask = ImageDraw.Draw(tile), ImageDraw.Draw(mask)
    edge = tuple(int(c) for c in rgb * 0.45)
    for role, polygon in shape:
        corners = [tuple(p) for p in (polygon - low) * scale]
        if role in ("body", "hole"):
            on_mask.polygon(corners, fill=255 * (role == "body"))
        else:
            on_tile.polygon(corners, fill=(225, 232, 240) if role == "light" else edge)
    tile, mask = tile.reduce(fine), mask.reduce(fine)
    # A dark rim keeps overlapping objects of one colour apart.
    rim = Image.new("RGB", tile.size, edge)
    return Image.composite(tile, rim, mask.filter(ImageFilter.MinFilter(3))), mask


def render(scene: Scene) -> Image.Image:
    """The picture, RGB, of the scene's width and height in pixels."""
    rng = np.random.default_rng(scene.grain_seed)
    base = _background(rng, scene.background, scene.width, scene.height)
    image = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8))
    for thing in scene.things:
        tile, mask = _draw(thing)
        image.paste(tile, thing.frame[:2], mask)
    return image


def annotation_xml(scene: Scene) -> str:
    """The text of the picture's Annotations file: one object a box, and one an id without."""
    size = ("width", scene.width), ("height", scene.height), ("depth", 3)
    names: dict[int, dict[str, None]] = defaultdict(dict)
    for mention in scene.mentions:
        for target in mention.targets:
            names[target][mention.phrase_id] = None
    marks = {m.phrase_id: m.mark for m in scene.mentions if m.mark in ("scene", "nobndbox")}
    lines = ["<annotation>", f"\t<filename>{scene.image_id}.jpg</filename>", "\t<size>"]
    lines += [*(f"\t\t<{tag}>{value}</{tag}>" for tag, value in size), "\t</size>"]
    for target, ids in names.items():
        sides = zip(("xmin", "ymin", "xmax", "ymax"), scene.things[target].box, strict=True)
        lines += ["\t<object>", *(f"\t\t<name>{name}</name>" for name in ids)]
        lines += ["\t\t<bndbox>", *(f"\t\t\t<{tag}>{value}</{tag}>" for tag, value in sides)]
        lines += ["\t\t</bndbox>", "\t</object>"]
    for name, mark in marks.items():
        lines += ["\t<object>", f"\t\t<name>{name}</name>"]
        lines += [f"\t\t<{tag}>{int(mark == tag)}</{tag}>" for tag in ("scene", "nobndbox")]
        lines.append("\t</object>")
    return "\n".join([*lines, "</annotation>", ""])


def _whole(root: Path, arguments: dict[str, int]) -> bool:
    """Whether `root` holds the whole sample of these arguments. Raises FileExistsError if it
    holds anything that `generate` did not write."""
    sizes = {
        path.relative_to(root).as_posix(): path.lstat().st_size
        for path in (root, *root.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    ours: set[str] = set()
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        old = json.loads((root / "sample.json").read_text())
        ids = [image_id(old["seed"], split, i) for split in SPLITS for i in range(old[split])]
        ours = {"sample.json", "UNRELATED_CAPTIONS", *(f"{split}.txt" for split in SPLITS)}
        ours |= {file.format(name) for file in FILES for name in ids}
        # A crash of the machine may leave files without their content; a list may be empty.
        filled = {name for name, size in sizes.items() if size or "/" not in name}
        if old == arguments and ours <= filled:
            return True
    if strange := sorted(sizes.keys() - ours):
        raise FileExistsError(
            f"{root} holds {strange[0]}, which is not of a sample of ours: move it away, or give "
            "another folder; nothing was changed"
        )
    return False


def generate(root: Path, seed: int = 0, train: int = 4000, val: int = 200, test: int = 300) -> None:
    """Write the sample under `root` in Flickr30k Entities' files, all at once.

    The same arguments give the same bytes. A folder that holds this very sample is left alone; an
    older or damaged one of ours is made anew. Raises FileExistsError, and changes nothing, if
    `root` holds anything else; ValueError for a negative count or seed.
    """
    root = Path(root).resolve()  # through a link, so that renaming stays on one disk
    arguments = {"version": VERSION, "seed": seed, "train": train, "val": val, "test": test}
    if min(arguments.values()) < 0:
        raise ValueError(f"expected counts and seed >= 0, got {arguments}")
    if root.exists() and _whole(root, arguments):
        return
    wanted = [(split, index) for split in SPLITS for index in range(arguments[split])]
    unrelated = ["# format: <imageID> <sentence number>"]
    with new_folder(root) as new:
        for file in FILES:
            (new / file).parent.mkdir()
        # Few are drawn before another process has started.
        job = partial(_write_picture, new, seed), wanted
        pool = None if len(wanted) < FEW else ProcessPoolExecutor(mp_context=get_context("spawn"))
        with pool or contextlib.nullcontext():
            made = pool.map(*job, chunksize=32) if pool else map(*job)
            for lines in progress_bar(made, total=len(wanted), desc="pictures"):
                unrelated += lines
        for split in SPLITS:
            listed = [image_id(seed, split, index) for index in range(arguments[split])]
            _write(new / f"{split}.txt", listed)
        _write(new / "UNRELATED_CAPTIONS", unrelated)
        _write(new / "sample.json", [json.dumps(arguments)])


def _write_picture(folder: Path, seed: int, place: tuple[str, int]) -> list[str]:
    """One picture's files, and its lines of UNRELATED_CAPTIONS."""
    scene = describe(seed, *place)
    xml, text, picture = (folder / file.format(scene.image_id) for file in FILES)
    xml.write_text(annotation_xml(scene))
    _write(text, scene.sentences)
    render(scene).save(picture, quality=88)
    return [f"{scene.image_id} {number + 1}" for number in scene.unrelated]


def _write(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
