"""Which modules of the package a script or module needs, read off its imports.

make asks it what a notebook depends on (`python scene_utils/imports.py notebooks/04_train.py`),
before there is an environment; and what is kept of a run carries the hash of the code that made it.
"""

import ast
import hashlib
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def _file(dotted: str) -> Path | None:
    """The file of a module such as `scene_utils.grid.network`, or None where there is none."""
    path = PACKAGE.parent.joinpath(*dotted.split("."))
    if not path.is_relative_to(PACKAGE):
        return None
    found = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return found if found.is_file() else None


@cache
def imported(path: Path, lazily: bool = True) -> frozenset[Path]:
    """Files of the package that a file imports itself; without `lazily` not those that it imports
    inside a function, when it needs them."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree) if lazily else tree.body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            # `from package import module` needs the module, not what the package offers beside it.
            names |= {name if _file(name) else node.module for name in modules}
    return frozenset(filter(None, map(_file, names))) - {path}


def closure(paths: Iterable[Path], lazily: bool = True) -> list[Path]:
    """The given files and all of the package that they need, sorted."""
    found, left = set(), [Path(path).resolve() for path in paths]
    while left:
        path = left.pop()
        if path not in found:
            found.add(path)
            left += imported(path, lazily)
    return sorted(found)


@cache
def code_hash(*paths: str | Path) -> str:
    """SHA-256 over the text of the files and of all of the package that they import."""
    digest = hashlib.sha256()
    for path in closure(map(Path, paths)):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    print(*(path.relative_to(PACKAGE.parent) for path in closure(map(Path, sys.argv[1:]))))
