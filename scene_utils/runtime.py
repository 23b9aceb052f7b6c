"""The environment that the study runs in, what a run is known by, and its progress bars."""

import contextlib
import hashlib
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from tqdm.auto import tqdm as at_home
from tqdm.std import tqdm

from scene_utils import imports
from scene_utils.paths import ROOT

# Set by the notebook runner: the terminal that it was started from, or the null device.
TERMINAL = "SCENE_TERMINAL"
PACKAGES = ("keras", "numpy", "pandas", "pillow", "matplotlib", "tensorflow-cpu", "tensorflow")


def versions() -> dict[str, str]:
    """Python and the packages that figures depend on, those of them that are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def check() -> dict[str, str]:
    """`versions()`, or RuntimeError that names the first package which is not as locked."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s;]+)", lock, re.MULTILINE))
    found = versions()
    for name, number in found.items():
        if name != "python" and locked.get(name) != number:
            raise RuntimeError(
                f"{name}: expected {locked.get(name)} as in requirements.lock, got {number} in "
                f"{sys.prefix}. Run `make env`, then choose the kernel of .venv"
            )
    return found


def progress_bar(*args, **kwargs) -> tqdm:
    """tqdm on the terminal of the notebook runner, else where tqdm itself thinks fit.

    A notebook that is executed by `make` has its own output; bars there would be left over in the
    result, and nobody would see them while they move.
    """
    if terminal := os.environ.get(TERMINAL):
        return tqdm(*args, file=open(terminal, "w"), dynamic_ncols=True, **kwargs)
    return at_home(*args, **kwargs)


def fingerprint(module: str, *parts: str | bytes | np.ndarray) -> str:
    """Hash of all code that the file `module` runs, and of the parts that a run depends on beside
    it: arrays with their types and shapes."""
    digest = hashlib.sha256(imports.code_hash(module).encode())
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str((part.dtype, part.shape)).encode())
            part = np.ascontiguousarray(part).tobytes()
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def make_deterministic(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow and ask for bitwise repeatable kernels and graphs."""
    import keras
    import tensorflow as tf
    from tensorflow.python.eager import context

    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    # In a graph of more than 200 MB, TensorFlow's memory optimiser replaces sums of three and more
    # tensors by one that each is added to as it comes, in any order. It has no public switch.
    options = context.context().function_call_options
    config = tf.compat.v1.ConfigProto.FromString(options.config_proto_serialized)
    rewriting = config.graph_options.rewrite_options
    rewriting.memory_optimization = rewriting.NO_MEM_OPT
    options.config_proto_serialized = config
