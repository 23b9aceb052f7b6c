"""Run a notebook's percent script to an executed .ipynb, in a way that leaves no half result."""

import os
import sys
from pathlib import Path

import jupytext
import papermill

from scene_utils.runtime import TERMINAL


def run_notebook(script: Path, target: Path, parameters: dict) -> None:
    """Execute `script` with `parameters` and move the result to `target` when it succeeded.

    A parameter that the notebook does not declare is an error (papermill only warns). On failure
    the old `target` is removed, the broken run is kept as `<name>.failed.ipynb`, and the exception
    of the failing cell is raised.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    failed = target.with_suffix(".failed.ipynb")
    running = target.with_name(f".{target.stem}.running.ipynb")
    # A kernel of the same name in the user's home would otherwise win over this environment's.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ[TERMINAL] = os.ttyname(2) if sys.stderr.isatty() else os.devnull
    source = target.with_name(f".{script.stem}.{os.getpid()}.input.ipynb")
    jupytext.write(jupytext.read(script), source)
    try:
        if unknown := set(parameters) - set(papermill.inspect_notebook(source)):
            raise ValueError(
                f"{script}: expected parameters among those of its cell tagged "
                f"'parameters', got {sorted(unknown)} beside them"
            )
        target.unlink(missing_ok=True)
        failed.unlink(missing_ok=True)
        # ipykernel logs its own shutdown as an error; what fails in a cell is raised anyway.
        quiet = {"extra_arguments": ["--IPKernelApp.log_level=CRITICAL"], "progress_bar": False}
        papermill.execute_notebook(source, running, parameters, kernel_name="python3", **quiet)
        os.replace(running, target)
    except papermill.PapermillExecutionError as error:
        raise RuntimeError(
            f"{script}: cell {error.exec_count} failed: {error.ename}: {error.evalue}\n"
            f"The broken run, with the whole traceback, is {failed}"
        ) from error
    finally:
        source.unlink(missing_ok=True)
        if running.exists():
            os.replace(running, failed)
