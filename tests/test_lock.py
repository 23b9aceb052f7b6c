"""The lock: every package pinned and with hashes, and nothing in it that only an extra needs."""

import re
import tomllib

from scene_utils import paths

LOCK = (paths.ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements() -> dict[str, str]:
    """Each requirement of the lock and all that belongs to it."""
    lines = [line for line in LOCK.splitlines() if not line.lstrip().startswith("#")]
    blocks = re.split(r"(?m)^(?=\S)", "\n".join(lines))
    return {block.split()[0]: block for block in blocks if block.strip()}


def test_every_requirement_is_pinned_and_has_hashes():
    found = requirements()
    assert len(found) > 80
    for name, block in found.items():
        assert re.match(r"[a-z0-9._-]+==[\w.+]+$", name), f"{name}: expected name==version"
        hashes = re.findall(r"--hash=(\S+)", block)
        assert hashes, f"{name}: no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), name
        assert "://" not in block, f"{name}: expected no address"


def test_what_the_study_asks_for_is_locked_and_extras_are_not():
    locked = {name.split("==")[0] for name in requirements()}

    def names(listed):
        return {re.split(r"[\s\[=<>;]", one, maxsplit=1)[0] for one in listed}

    extras = PROJECT["optional-dependencies"]
    assert names(PROJECT["dependencies"]) | names(extras["study"]) | names(extras["test"]) <= locked
    wanted = names(PROJECT["dependencies"])
    for extra in ("ray", "jax", "bench"):
        assert not (names(extras[extra]) - wanted) & locked
