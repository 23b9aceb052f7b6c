"""The house of rooms: a room imports lower floors alone (the flat modules of the ground
floor each other, too), and answering imports no training."""

import re

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
    # What answers a phrase is imported by the function that is asked.
    roots = ("models.py", "grid/localizer.py", "source/answer.py", "widget/page.py", "images.py")
    roots += ("widget/suggest.py",)
    roots += ("analysis/metrics.py", "analysis/figures.py")  # scoring and drawing do without, too
    for path in closure((PACKAGE / name for name in roots), lazily=False):
        name = str(path.relative_to(PACKAGE))
        assert not re.match(r"grid/train|grid/batches|source/train", name), name
        heavy = re.search(r"^(import|from) (tensorflow|keras)", path.read_text(), re.MULTILINE)
        assert not heavy, f"{name}: {heavy}"
