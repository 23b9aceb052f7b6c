"""`make bench`: how fast everything is on this machine, as figures/bench.json and a plot.

Each section is a function that returns a dict; it can run alone and is merged into what is there.
A section's own `machine` says when and where it ran.
"""

import argparse
import importlib
import json
import time
from pathlib import Path

from scene_utils import paths, plots
from scene_utils.paths import write_text
from tests.benchmarks import plot, tools

RESULT = paths.ROOT / "figures/bench.json"
# Section to (module, function).
SECTIONS = {
    "start": ("start", "measure"),
    "pass": ("passes", "measure"),
    "caching": ("features", "measure_caching"),
    "reading": ("features", "measure_reading"),
    "cost": ("features", "measure_cost"),
    "engines": ("engines", "measure"),
    "training": ("training", "measure"),
    "query": ("__main__", "measure_query"),
    "widget": ("widget", "measure"),
    "ray": ("ray", "measure"),
    "study": ("study", "measure"),
}


def measure_query(repeats: int = 30) -> dict:
    """Milliseconds from a photo and a phrase to boxes with the shipped model: a picture that it has
    not seen, one that it has, and a photo of more pixels, which it has not seen and in which it
    looks twice."""
    import numpy as np

    from scene_utils import images, load_model
    from tests.makers import PHOTOS

    localizer = load_model()
    photos = [images.open_image(path) for path in PHOTOS]
    phrases = ["the man in the red hat", "a dog", "two people on the left", "the water"]
    rocket = images.open_image(paths.PHOTOS / "rocket.jpg")
    found: dict[str, list[float]] = {"fresh": [], "seen": [], "twice": []}
    for turn in range(-3, repeats):  # the first ones build the graphs
        photo = photos[turn % len(photos)]
        # Cut differently each time, so that it is another picture.
        box = (0, 0, photo.width - turn - 4, photo.height - turn - 4)
        part = photo.crop(box).resize((500, 375))
        asked = dict.fromkeys(found, (part, phrases[turn % len(phrases)]))
        asked["twice"] = rocket.crop((0, 0, rocket.width - turn - 4, rocket.height)), "a rocket"
        for name, question in asked.items():
            start = time.perf_counter()
            localizer.ground(*question)
            if turn >= 0:
                found[name].append(1000 * (time.perf_counter() - start))
    result = {"picture": "500 x 375 px", "repeats": repeats}
    for name, times in found.items():
        result[f"{name}_ms"] = float(np.median(times))
        result[f"{name}_ms_9_of_10"] = float(np.quantile(times, 0.9))
    return result


def read(path: Path = RESULT) -> dict:
    """What has been measured so far; empty where nothing has."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def run(only: list[str], path: Path = RESULT, profile: str = "sample", data_root: str = "") -> dict:
    """Run sections and merge each into the file at `path` as soon as it is done.

    Without `only` all sections run; one whose package or input is missing says so. `engines` takes
    the model that the profile's last `make reproduce` trained. Raises ValueError for an unknown
    section.
    """
    unknown = [name for name in only if name not in SECTIONS]
    if unknown:
        raise ValueError(f"only: expected sections of {', '.join(SECTIONS)}, got {unknown[0]!r}")
    for name in only or SECTIONS:
        module, function = SECTIONS[name]
        machine, start = tools.machine(), time.perf_counter()
        print(f"{name}: running", flush=True)
        try:
            given = (profile, data_root) if name == "engines" else ()
            found = importlib.import_module(f"tests.benchmarks.{module}")
            section = getattr(found, function)(*given)
        except (ImportError, FileNotFoundError) as error:
            print(f"{name}: not measured, {error}", flush=True)
            continue
        section["machine"] = machine | {"seconds": round(time.perf_counter() - start, 1)}
        # Read again: another section may have been written meanwhile.
        merged = read(path) | {name: rounded(section)}
        write_text(path, json.dumps(merged, indent=1) + "\n")
        print(f"{name}: {section['machine']['seconds']} s", flush=True)
    return read(path)


def rounded(value):
    """Numbers with four digits that count, so that a diff of the file can be read."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, bool | int | str) or value is None:
        return value
    return float(f"{float(value):.4g}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--only", default="", help=f"with , between them: {', '.join(SECTIONS)}")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--profile", default="sample", help="whose models `engines` takes")
    parser.add_argument("--data-root", default="", help="folder of Flickr30k Entities")
    given = parser.parse_args()
    only = [name for name in given.only.split(",") if name]
    result = run(only, given.out, given.profile, given.data_root)
    plots.save(plot.speed(result), given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
