"""Progress bars with rate and time left, in whichever place the user looks."""

import os

from tqdm.auto import tqdm as at_home
from tqdm.std import tqdm

# Set by the notebook runner: the terminal that it was started from, or the null device.
TERMINAL = "SCENE_TERMINAL"


def progress_bar(*args, **kwargs) -> tqdm:
    """tqdm on the terminal of the notebook runner, else where tqdm itself thinks fit.

    A notebook that is executed by `make` has its own output; bars there would be left over in the
    result, and nobody would see them while they move.
    """
    terminal = os.environ.get(TERMINAL)
    if not terminal:
        return at_home(*args, **kwargs)
    return tqdm(*args, file=open(terminal, "w"), dynamic_ncols=True, **kwargs)
