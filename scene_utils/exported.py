"""Trained networks as OpenVINO runs them: an answer a second after a start, without TensorFlow.

What answers is not what trains. When a model is asked for the first time, `export` writes its
networks to `data/cache/exported`, in a process of its own; from then on they are read from there.
A folder is named by a hash of all that its networks were made of, and lists the hash of each file.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import numpy as np

from scene_utils import paths, runtime

LISTING = "networks.json"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
KEPT = 24  # folders; those that were not used for longest go


class Network:
    """A network compiled for this CPU: arrays in, a list of arrays out. Safe among threads."""

    def __init__(self, path: Path, precision: str = "float32", hint: str = "LATENCY"):
        import openvino as ov

        # Its link to NumPy is made by the first call: two threads at once would wait for ever.
        ov.Type.f32.to_dtype()
        hints = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision], "PERFORMANCE_HINT": hint}
        if os.access(path.parent, os.W_OK):
            # Compiled once, it is ready in a fifth of the time; weights stay in the checked file.
            hints |= {"CACHE_DIR": str(path.parent / "compiled"), "CACHE_MODE": "OPTIMIZE_SIZE"}
        self._compiled = ov.Core().compile_model(path, "CPU", hints)
        self._own = threading.local()

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        self._own.request.infer(list(arrays), share_inputs=True)
        return [output.data.copy() for output in self._own.request.output_tensors]


def load(
    kind: str, *arguments: str | Path, files: Iterable[Path], **how: str
) -> dict[str, Network]:
    """Networks by name that `export.KINDS[kind](*arguments)` makes of `files`; `how` as `Network`.

    They are made anew where the files or the code differ, or where a network is damaged; where
    nothing may be written, for this process alone. RuntimeError with the reason where they cannot
    be made.
    """
    # Where the files lie is no matter.
    said = json.dumps([kind, *(part for part in arguments if isinstance(part, str))])
    made_by = str(Path(__file__).with_name("export.py")), version("openvino")
    digest = runtime.fingerprint(*made_by, said, *map(paths.file_hash, files))
    folder = paths.DATA / "cache" / "exported" / f"{kind}-{digest[:16]}"
    if not _whole(folder):
        with tempfile.TemporaryDirectory(prefix="exported.") as scratch:
            made = Path(scratch)
            _export(kind, arguments, made)
            hashes = {path.name: paths.file_hash(path) for path in sorted(made.iterdir())}
            paths.write_text(made / LISTING, json.dumps(hashes, indent=1) + "\n")
            try:
                paths.replace_folder(made, folder)
                _forget(folder.parent)
            except OSError:  # nothing may be written there, or another process was quicker
                return _open(folder if _whole(folder) else made, **how)
    return _open(folder, **how)


def _open(folder: Path, **how: str) -> dict[str, Network]:
    return {path.stem: Network(path, **how) for path in sorted(folder.glob("*.xml"))}


def _whole(folder: Path) -> bool:
    try:
        known = json.loads((folder / LISTING).read_text(encoding="utf-8"))
        return all(paths.file_hash(folder / name) == digest for name, digest in known.items())
    except (OSError, ValueError):
        return False


def _forget(folder: Path) -> None:
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_atime)[:-KEPT]:
        shutil.rmtree(path, ignore_errors=True)


def _export(kind: str, arguments: tuple, target: Path) -> None:
    if "tensorflow" in sys.modules:
        from scene_utils import export

        export.write(kind, *map(str, arguments), target)
        return
    print(f"{kind}: preparing what answers, once (half a minute)", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "scene_utils.export", kind, *map(str, arguments), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"{kind}: expected to prepare what answers, got {reason}")
