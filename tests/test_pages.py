"""README and the pages of results: links, pictures and commands that they name are there."""

import re
from urllib.parse import unquote

import pytest

from scene_utils import paths
from scene_utils.study import readme_tables

PAGES = sorted(
    {
        *readme_tables.FILES,
        *("figures/README.md", "notebooks/README.md", "data/README.md", "data/photos/README.md"),
        *("data/pretrained/README.md", "data/pretrained/grid/README.md"),
    }
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
    from scene_utils.study import settings

    for words in re.findall(r"SET=\"([^\"]*)\"", read(page)):
        settings.read("flickr30k", words)
