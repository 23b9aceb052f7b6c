"""How long the study and its tests take in a fresh clone, set-up included, and how much memory."""

import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from scene_utils import paths
from tests.benchmarks import tools

TARGETS = ("env", "reproduce", "smoke", "test")


def made(target: str, clone: Path) -> dict:
    """Seconds and the most MiB of `make TARGET`; its last words where it fails."""
    log, most, start = clone / f"{target}.log", 0, time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.Popen(
            ["make", target], cwd=clone, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            most = max(most, tools.held(psutil.Process().children(recursive=True)))
            time.sleep(0.5)
    found, said = {"seconds": time.perf_counter() - start, "mebibytes": most}, log.read_text()
    failed = {"failed": said[-2000:]} if process.returncode else {}
    told = [line for line in said.splitlines() if line.startswith("seconds: ")]
    return found | failed | ({"notebooks": told[0].removeprefix("seconds: ")} if told else {})


def measure() -> dict:
    """Each of `TARGETS`, one after the other, in a clone of what is committed."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", paths.ROOT, clone], check=True)
        return {"targets": {target: made(target, clone) for target in TARGETS}}
