"""Serve the query widget as a page: Voila, on this machine alone, without anything from outside.

Photos are answered at once by the model that ships; scenes are there where the notebooks of their
profile have run.
"""

import os
import sys
from pathlib import Path

import jupytext

from scene_utils import paths

SCRIPT = paths.ROOT / "notebooks" / "06_query_widget.py"
TEMPLATES = Path(__file__).parent / "template"
# Other installed extensions of JupyterLab do nothing on a page, and some fail there.
EXTENSIONS = (
    "@voila-dashboards/widgets-manager8",
    "@jupyter-widgets/jupyterlab-manager",
    "anywidget",
)


def command(notebook: Path, *more: str) -> tuple[list[str], dict[str, str]]:
    """Voila's command line for a notebook, and its environment.

    It listens on the loopback address, and asks for a token, which the page that it opens has.
    """
    words = [sys.executable, "-m", "voila", str(notebook), "--Voila.ip=127.0.0.1"]
    words += ["--Voila.auto_token=True", "--template=ask"]
    # The next visitor's kernel has run the notebook before the page is opened.
    words += ["--preheat_kernel=True", "--pool_size=1"]
    # Of a tab that crashed or was put to sleep, nobody ends the kernel.
    words += ["--MappingKernelManager.cull_idle_timeout=1800"]
    words += [f"--VoilaConfiguration.extension_allowlist={name}" for name in EXTENSIONS]
    search = os.pathsep.join(filter(None, [str(TEMPLATES), os.environ.get("JUPYTER_PATH")]))
    # A kernel of the same name in the user's home would otherwise win over this environment's.
    return [*words, *more], os.environ | {"JUPYTER_PATH": search, "JUPYTER_PREFER_ENV_PATH": "1"}


def write_page(source: Path, target: Path, **parameters: str) -> Path:
    """Write to `target` what a page needs of notebook 06: all but the cells tagged `example`.

    `parameters` take the place of the notebook's own. The page runs the notebook by itself, and
    shows the cell tagged `page`.
    """
    book = jupytext.read(source)
    book.cells = [cell for cell in book.cells if "example" not in cell.metadata.get("tags", [])]
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source += "".join(f"\n{name} = {value!r}" for name, value in parameters.items())
    target.parent.mkdir(parents=True, exist_ok=True)
    jupytext.write(book, target)
    return target


def open_page(profile: str, data: str, changes: str) -> None:
    """Become a server of the page over a profile's scenes, which opens it in the browser."""
    target = paths.build(profile) / "query_widget.ipynb"
    write_page(SCRIPT, target, profile=profile, data=data, changes=changes)
    words, environment = command(target)
    os.execve(words[0], words, environment)
