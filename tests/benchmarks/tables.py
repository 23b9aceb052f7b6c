"""The tables of figures/bench.md, from figures/bench.json: `python -m tests.benchmarks.tables`.

`<!-- table:bench/NAME -->` to `<!-- /table -->` holds one of `TABLES`.
"""

import json
import sys

import pandas as pd

from scene_utils import paths
from tests.benchmarks import pages

PAGE, RESULT = paths.ROOT / "figures" / "bench.md", paths.ROOT / "figures" / "bench.json"


def _caching(section: dict) -> pd.DataFrame:
    rows = pd.DataFrame(section["rows"]).set_index("backbone")
    speeds = ["pass", "reading", "caching"]
    rows = rows.rename(columns={f"{name}_per_second": name for name in speeds})
    shares = 100 * rows[["share", "ceiling"]].set_axis(["of the pass (%)", "at most (%)"], axis=1)
    return pd.concat([rows[["precision", "pictures are", *speeds]], shares], axis=1)


def _pass(section: dict) -> pd.DataFrame:
    rates = {name: of["pictures_per_second"] for name, of in section["backbones"].items()}
    return pd.DataFrame(rates).rename_axis("runtime")


def _training(section: dict) -> pd.DataFrame:
    sizes = {f"{size} px": of["step_seconds"] for size, of in section["sizes"].items()}
    return pd.DataFrame(sizes).rename_axis("runtime")


TABLES = {
    "pass": (_pass, "pictures of 224 x 224 px a second"),
    "caching": (_caching, "pass, reading and caching: pictures a second"),
    "training": (_training, "seconds a step of 16 pictures"),
}


def _digits(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(_: str, name: str) -> str:
    """One of `TABLES`. ValueError for a name that is not among them."""
    if name not in TABLES:
        raise ValueError(f"expected a table of {sorted(TABLES)}, got 'bench/{name}'")
    section = json.loads(RESULT.read_bytes())[name]
    make, note = TABLES[name]
    made_on = "{processor}, {cores} cores; {date}".format(**section["machine"])
    return pages.markdown(make(section).map(_digits), f"{note}; {made_on}")


if __name__ == "__main__":
    same = pages.update(PAGE, check="--check" in sys.argv, table=table)
    if "--check" in sys.argv and not same:
        sys.exit(f"{PAGE}: tables differ from bench.json. Run `make readme` and commit it")
