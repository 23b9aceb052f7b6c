"""The house of rooms: a room imports lower floors alone (the flat modules of the ground
floor each other, too), and answering imports no training."""

import re

import pytest

from scene_utils.imports import PACKAGE, closure, imported

FLOORS = (
    "imports paths quiet_tensorflow box_ops box_tensors images stats runtime grounding exported",
    "dataset words features plots",
    "source grid",
    "models export",
    "analysis widget",
    "study",
    "__main__",
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms.split()}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
# What answers a phrase, by the function that imports it when it is asked.
KINDS = {"grid": "grid/localizer.py", "source": "source/answer.py"}


def room(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_a_room_imports_lower_floors_alone_and_no_module_itself():
    for path in FILES:
        rooms = {room(other) for other in imported(path)} - {room(path)}
        if room(path) == "exported":
            rooms -= {"export"}  # runs in a process of its own, and what runs it lies below
        lower = {name for name in rooms if FLOOR_OF[name] < max(FLOOR_OF[room(path)], 1)}
        assert rooms == lower, f"{path}: {rooms - lower}"
        needed = imported(path, lazily=False)
        assert path not in closure(needed, lazily=False), f"{path}: imports itself, by {needed}"


def test_answering_imports_neither_training_nor_tensorflow():
    roots = ("models.py", *KINDS.values(), "widget/page.py", "widget/suggest.py", "images.py")
    roots += ("analysis/metrics.py", "analysis/figures.py")  # scoring and drawing do without, too
    for path in closure((PACKAGE / name for name in roots), lazily=False):
        name = str(path.relative_to(PACKAGE))
        assert not re.match(r"grid/train|grid/batches|source/train", name), name
        heavy = re.search(r"^(import|from) (tensorflow|keras)", path.read_text(), re.MULTILINE)
        assert not heavy, f"{name}: {heavy}"


@pytest.mark.parametrize("kind", KINDS)
def test_what_answers_a_phrase_can_be_read(kind):
    files = closure((PACKAGE / name for name in ("models.py", KINDS[kind])), lazily=False)
    assert sum(len(path.read_text().splitlines()) for path in files) <= 2500
