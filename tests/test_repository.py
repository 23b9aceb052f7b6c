"""What the repository promises: a lock with hashes, a house of rooms, and pages that name what is.

A room of the package imports lower floors alone (the flat modules of the ground floor each other,
too), and answering imports no training.
"""

import re
import tomllib
from urllib.parse import unquote

import pytest

from scene_utils import paths
from scene_utils.imports import PACKAGE, closure, imported
from scene_utils.study import settings

LOCK = (paths.ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> dict[str, str]:
    """Each requirement of the lock and all that belongs to it."""
    lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    blocks = re.split(r"(?m)^(?=\S)", "\n".join(lines))
    return {block.split()[0]: block for block in blocks if block.strip()}


def test_every_requirement_is_pinned_and_has_hashes():
    found = requirements()
    assert len(found) > 80
    for name, block in found.items():
        assert re.match(r"[a-z0-9._-]+==[\w.+]+$", name), f"{name}: expected name==version"
        hashes = re.findall(r"--hash=(\S+)", block)
        assert hashes, f"{name}: no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), name
        assert "://" not in block, f"{name}: expected no address"


def test_what_the_study_asks_for_is_locked_and_extras_are_not():
    locked = {name.split("==")[0] for name in requirements()}

    def names(listed):
        return {re.split(r"[\s\[=<>;]", one, maxsplit=1)[0] for one in listed}

    extras = PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"]) | names(extras["study"]) | names(extras["test"]) <= locked
    wanted = names(PROJECT["dependencies"])
    for extra in ("ray", "jax", "bench"):
        assert not (names(extras[extra]) - wanted) & locked


# The house.

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
    roots += ("analysis/metrics.py", "plots.py")  # scoring and drawing do without, too
    for path in closure((PACKAGE / name for name in roots), lazily=False):
        name = str(path.relative_to(PACKAGE))
        assert not re.match(r"grid/train|grid/batches|source/train", name), name
        heavy = re.search(r"^(import|from) (tensorflow|keras)", path.read_text(), re.MULTILINE)
        assert not heavy, f"{name}: {heavy}"


# README and the pages of results.

ROOMS = ("*.md", "notebooks/*.md", "figures/**/*.md", "data/*.md", "data/p*/**/*.md")
PAGES = sorted(
    {str(page.relative_to(paths.ROOT)) for room in ROOMS for page in paths.ROOT.glob(room)}
)


def read(page: str) -> str:
    return (paths.ROOT / page).read_text(encoding="utf-8")


def headings(text: str) -> set[str]:
    """Names by which a forge links the headings of a page."""
    lines = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("page", PAGES)
def test_every_link_and_picture_is_there(page):
    found = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", read(page))
    for link in map("".join, found):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = unquote(link).partition("#")
        target = (paths.ROOT / page).parent / name if name else paths.ROOT / page
        assert target.exists(), f"{page}: {link}"
        if heading:
            assert heading in headings(target.read_text(encoding="utf-8")), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_is_named_exists(page):
    text = read(page)
    rules = (paths.ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", rules, re.MULTILINE))
    named = re.findall(r"(?:`|^ {4})(?:[A-Z_]+=\S+ )?make\s+([a-z-]+)(?=[`\s])", text, re.MULTILINE)
    assert set(named) <= targets, page
    source = (paths.ROOT / "scene_utils/__main__.py").read_text(encoding="utf-8")
    commands = set(re.findall(r"command\(([a-z]+)", source))
    assert set(re.findall(r"python -m scene_utils\s+([a-z]+)", text)) <= commands, page


@pytest.mark.parametrize("page", PAGES)
def test_every_setting_that_is_named_exists(page):
    for words in re.findall(r"SET=\"([^\"]*)\"", read(page)):
        settings.read("flickr30k", words)
