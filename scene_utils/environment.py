"""Is this the environment that the lock describes? Asked by the first cell of each notebook."""

import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version

from scene_utils.paths import ROOT

PACKAGES = ("keras", "numpy", "pandas", "pillow", "matplotlib", "tensorflow-cpu", "tensorflow")


def versions() -> dict[str, str]:
    """Python and the packages that figures depend on, those of them that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check() -> dict[str, str]:
    """`versions()`, or RuntimeError that names the first package which is not as locked."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock, re.MULTILINE))
    found = versions()
    for name, number in found.items():
        if name != "python" and locked.get(name) != number:
            raise RuntimeError(
                f"{name}: expected {locked.get(name)} as in requirements.lock, got {number} in "
                f"{sys.prefix}. Run `make env`, then choose the kernel of .venv"
            )
    return found
