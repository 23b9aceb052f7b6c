"""How long it takes until something answers, and how much memory that needs: whole processes.

What answers has been exported before, see `scene_utils.exported`. All times are cold but for the
system's cache of files.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from scene_utils import paths
from scene_utils.widget import page as widget_page
from tests.benchmarks import tools
from tests.benchmarks.tools import interleave
from tests.browser import browser, server

GROUND = ["-m", "scene_utils", "ground", str(paths.PHOTOS / "astronaut.jpg"), "a woman"]
PROCESSES = {
    "import tensorflow": ["-c", "import tensorflow"],
    "ground, grid": [*GROUND, "--model", "grid"],
    "ground, source": [*GROUND, "--model", "source"],
}
# A small process starts the one that is measured: what a process uses counts from its parent on.
PARENT = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
done = subprocess.run([sys.executable, *sys.argv[1:]], capture_output=True, text=True)
took = time.perf_counter() - start
if done.returncode:
    sys.exit(done.stderr)
print(json.dumps([took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))
"""


def cold(words: list[str]) -> tuple[float, float]:
    """Seconds and MiB at most of a Python process with these arguments."""
    command = [sys.executable, "-c", PARENT, *words]
    answer = subprocess.run(command, cwd=paths.ROOT, stdout=subprocess.PIPE, check=True)
    return tuple(json.loads(answer.stdout))


def measure_processes(repeats: int) -> dict:
    """Median seconds of each of `PROCESSES`, in turn, and those of TensorFlow's import in it."""
    for words in PROCESSES.values():
        cold(words)  # exports what is not yet
    turns = {name: lambda words=words: cold(words) for name, words in PROCESSES.items()}
    rows = {}
    for name, found in interleave(turns, repeats).items():
        seconds, mebibytes = np.median(found, axis=0)
        rows[name] = {"seconds": seconds, "mebibytes": mebibytes}
    for row in rows.values():
        row["of_tensorflows_import"] = row["seconds"] / rows["import tensorflow"]["seconds"]
    return rows


def memory() -> dict:
    """MiB that the page's server and its kernels hold, see `tools.held`."""
    (server,) = (p for p in psutil.Process().children() if "voila" in p.cmdline())
    kernels = server.children(recursive=True)
    return {"mebibytes": tools.held([server, *kernels]), "kernels": len(kernels)}


def measure_page(repeats: int, reloads: int = 10, closed_seconds: float = 60) -> dict:
    """Seconds from the widget's address to the first box, each time in a new browser session, and
    from a reload to the next box; what server and kernels hold with one page, and after all pages
    have been closed for a while."""
    opened, reloaded = [], []

    def load(page) -> float:
        start = time.perf_counter()
        browser.load(page, url)
        return time.perf_counter() - start

    with tempfile.TemporaryDirectory() as folder:
        notebook = widget_page.write_page(widget_page.SCRIPT, Path(folder) / "widget.ipynb")
        with browser.launched() as chromium, server.served(notebook) as url:
            for number in range(repeats):
                session = chromium.new_context()
                page = session.new_page()
                opened.append(load(page))
                if number == 0:
                    one_page = memory()
                    reloaded = [load(page) for _ in range(reloads)]
                with page.expect_event("close"):  # as a user closes a tab: its kernel is ended
                    page.close(run_before_unload=True)
                session.close()
            time.sleep(closed_seconds)
            afterwards = memory()
    return {
        "opened_seconds": float(np.median(opened)),
        "reloaded_seconds": float(np.median(reloaded)),
        "reloads": reloads,
        "one_page": one_page,
        "all_closed": afterwards | {"seconds": closed_seconds},
    }


def measure(repeats: int = 3) -> dict:
    """Both of the above. RuntimeError that says what to install where a browser is missing."""
    processes = measure_processes(repeats)
    return {"repeats": repeats, "processes": processes, "page": measure_page(repeats)}
