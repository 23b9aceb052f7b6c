"""How long the study and its tests take in a fresh clone, set-up included, and how much memory."""

import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from scene_utils import paths

TARGETS = ("env", "reproduce", "smoke", "test")


def held() -> int:
    """Bytes that all processes started by this one hold; what they share counts once."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            total += process.memory_full_info().pss
    return total


def made(target: str, clone: Path) -> dict:
    """Seconds and the most MiB of `make TARGET`; its last words where it fails."""
    log, most, start = clone / f"{target}.log", 0, time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.Popen(
            ["make", target], cwd=clone, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            most = max(most, held())
            time.sleep(0.5)
    failed = {"failed": log.read_text()[-2000:]} if process.returncode else {}
    found = {"seconds": time.perf_counter() - start, "mebibytes": most / 2**20}
    told = [line for line in log.read_text().splitlines() if line.startswith("seconds: ")]
    return found | failed | ({"notebooks": told[0].removeprefix("seconds: ")} if told else {})


def measure() -> dict:
    """Each of `TARGETS`, one after the other, in a clone of what is committed."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", paths.ROOT, clone], check=True)
        return {"targets": {target: made(target, clone) for target in TARGETS}}
