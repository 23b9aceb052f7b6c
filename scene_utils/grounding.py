"""What an answer is, whichever model gave it, and how a model is named after its inputs."""

from dataclasses import dataclass, field

import numpy as np

NAMES = {
    "efficientnet_lite0": "EfficientNet-Lite0",
    "efficientnet_lite2": "EfficientNet-Lite2",
    "resnet50": "ResNet50",
    "glove50": "GloVe 50",
    "glove300": "GloVe 300",
}


# With a lower `present` a phrase counts as not in the picture: so nine in ten of the own phrases of
# the photos to look at are kept, of which .5 would lose four in ten.
ABSENT = 0.1


@dataclass(frozen=True)
class Grounding:
    """The answer to one phrase; what a model does not say is None or empty.

    `boxes (k, 4)`, best first and no copies, in pixels of the picture as given; `scores (k,)`, the
    probability that the box has an IoU of .5 with the right one (a grid model without
    `presence.json` gives expected IoUs); `present`, the probability that the phrase is about this
    picture at all, if that is as likely as not; where the model looks, `heat (cells, cells)`,
    summing to 1, and the same for what the phrase tells the thing by, `landmark`; each word's
    weight; the words that the model does not know, those that it has seldom seen in training, and
    those behind as many as it reads.
    """

    phrase: str
    boxes: np.ndarray
    scores: np.ndarray | None = None
    present: float | None = None
    heat: np.ndarray | None = field(default=None, repr=False)
    landmark: np.ndarray | None = field(default=None, repr=False)
    words: tuple[tuple[str, float], ...] = ()
    unknown: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()


def check_top_k(top_k: int) -> None:
    """ValueError for another number of boxes than a model of either kind may be asked for."""
    if not 1 <= top_k <= 30:
        raise ValueError(f"top_k: expected 1 to 30, got {top_k}")


def label(settings: dict, name: str) -> str:
    """A model's name with the inputs that made it, as its settings tell them.

    >>> label({"backbone": "resnet50", "untrained": False, "vectors": "glove300"}, "source")
    'source (ResNet50, GloVe 300)'
    """
    inputs = []
    if "backbone" in settings and name != "text-only":
        count = f"{settings['members']} x " if settings.get("members", 1) > 1 else ""
        inputs.append(count + NAMES.get(settings["backbone"], settings["backbone"]))
        inputs += ["untrained"] * bool(settings["untrained"])
    if "vectors" in settings and name != "image-only":
        inputs.append(NAMES.get(settings["vectors"], settings["vectors"]))
    return f"{name} ({', '.join(inputs)})" if inputs else name
