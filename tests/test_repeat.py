"""The same seed on the same machine gives the same figures, to the last bit."""

import os
import shutil
import subprocess

import pytest

from scene_utils import paths

SMALL = ("PROFILE=smoke", "PICTURES=48", "EPOCHS=2", "GRID_EPOCHS=1", "GRID_SIZE=96")


@pytest.mark.slow
def test_two_studies_give_the_same_metrics(tmp_path):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        **{"cwd": paths.ROOT, "capture_output": True, "text": True},
    )
    if listed.returncode or not (paths.ROOT / ".venv/.done").exists():
        pytest.skip("needs a clone of the repository with its environment: `make env`")
    for name in listed.stdout.splitlines():
        target = tmp_path / name
        if (paths.ROOT / name).is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths.ROOT / name, target)
    (tmp_path / ".venv").symlink_to(paths.ROOT / ".venv")
    found = []
    for _ in range(2):
        answer = subprocess.run(
            ["make", "-o", ".venv/.done", *SMALL, "build/smoke/05_iou_analysis.ipynb"],
            **{"cwd": tmp_path, "capture_output": True, "text": True},
            env=os.environ | {"SCENE_ROOT": str(tmp_path)},
        )
        assert answer.returncode == 0, answer.stderr[-3000:]
        metrics = tmp_path / "figures/smoke/metrics.json"
        found.append(metrics.read_bytes())
        metrics.unlink()
        for folder in ("build/smoke", "data/cache/smoke"):
            shutil.rmtree(tmp_path / folder)
    assert b'"grid"' in found[0]
    assert found[0] == found[1]
