"""What the sections of the benchmark share: fair order, the machine, and pictures to measure on."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import psutil

from scene_utils import images, paths

PACKAGES = ("tensorflow-cpu", "tensorflow", "keras", "numpy", "pillow", "openvino", "ray")


def interleave(measure: dict[str, Callable[[], float]], repeats: int, seed: int = 0) -> dict:
    """Call every contender `repeats` times, each round in another order, so that whatever else the
    machine does meets all alike; the seconds of each."""
    order, found = np.random.default_rng(seed), {name: [] for name in measure}
    for _ in range(repeats):
        for number in order.permutation(len(measure)):
            name = list(measure)[number]
            found[name].append(measure[name]())
    return found


@contextmanager
def started(module: str, words: list, log: Path) -> Iterator[subprocess.Popen]:
    """A contender's process, `python -m tests.benchmarks.MODULE WORDS`, that has said `ready`.

    RuntimeError that says why it is missing.
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": paths.ROOT}
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *map(str, words)]
    with open(log, "w+") as errors:
        process = subprocess.Popen(command, stderr=errors, text=True, **pipes)
        try:
            # A runtime may print on its own while it compiles.
            while (line := process.stdout.readline()) not in ("ready\n", ""):
                pass
            if not line:
                errors.seek(0)
                raise RuntimeError((errors.read().strip().splitlines() or ["no reason given"])[-1])
            yield process
        finally:
            process.kill()
            process.wait()


def ask(process: subprocess.Popen) -> float:
    """Seconds that a started contender took for one turn."""
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def answer(turn: Callable[[], object]) -> None:
    """A contender's side: say `ready`, then time a turn for each line on standard input."""
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        turn()
        print(time.perf_counter() - start, flush=True)


def race(
    module: str, contenders: dict[str, list], folder: Path, repeats: int
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """The seconds of each contender's turns, interleaved, and why others are missing.

    `contenders` has the words for each, see `started`.
    """
    turns, missing = {}, {}
    with ExitStack() as stack:
        for name, words in contenders.items():
            try:
                process = stack.enter_context(started(module, words, folder / f"{name}.log"))
                turns[name] = partial(ask, process)
            except RuntimeError as error:
                missing[name] = f"{error}; `make bench` installs it"
        return interleave(turns, repeats), missing


def held(processes: Iterable[psutil.Process]) -> float:
    """MiB that processes hold; what they share counts once, what has ended meanwhile nothing."""
    total = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 2**20


def machine() -> dict:
    """Processor, cores, memory, versions and time: what a figure of speed depends on."""
    lines = (
        Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    )
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": facts.get("model name", platform.processor()),
        "matrix_extensions": [flag for flag in flags if flag.startswith(("amx", "avx512_bf16"))],
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(terse=True),
        "versions": versions,
        "date": datetime.now().astimezone().date().isoformat(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def cosines(features: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Cosine of each row of two arrays `(n, channels)`, `(n,)`."""
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(expected, axis=1)
    return (features * expected).sum(axis=1) / lengths


def make_pictures(folder: Path, number: int, size: tuple[int, int], seed: int = 0) -> list[str]:
    """Write JPEGs of `size` px, crops of the photos of the gallery, and give their ids.

    At most 256 are encoded; more are further names of the same files.
    """
    from tests.makers import PHOTOS

    folder.mkdir(parents=True, exist_ok=True)
    photos = [images.open_image(path) for path in PHOTOS]
    rng, ids = np.random.default_rng(seed), [f"{i:07d}" for i in range(number)]
    for position, image_id in enumerate(ids):
        target = folder / f"{image_id}.jpg"
        if position >= 256:
            os.link(folder / f"{ids[position % 256]}.jpg", target)
            continue
        photo = photos[position % len(photos)]
        scale = rng.uniform(0.6, 0.95)
        width, height = int(photo.width * scale), int(photo.height * scale)
        left, top = rng.integers(photo.width - width), rng.integers(photo.height - height)
        part = photo.crop((left, top, left + width, top + height)).resize(size)
        part.save(target, "JPEG", quality=90)
    return ids
