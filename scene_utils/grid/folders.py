"""Folders of finished grid models: settings, members, and what is fitted to them."""

import json
from pathlib import Path

import numpy as np

STRIDE = 16
PARTS = ("visual", "text", "head")
# In what members may differ.
OWN = ("seed", "epochs", "teachers", "taught_by", "views", "fingerprint")


def read_settings(folder: Path) -> dict:
    """Settings of one finished model. FileNotFoundError for a folder that is no such."""
    needed = ("settings.json", *(f"{part}.weights.h5" for part in PARTS))
    if missing := ", ".join(name for name in needed if not (folder / name).is_file()):
        raise FileNotFoundError(f"{folder}: expected a finished grid model, found no {missing}")
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def read_fitted(folder: Path, name: str) -> dict | None:
    """What was fitted to a model, `presence`, `context` or `instances`, or None where it was not.

    The first two have the curve `hit` of `ranking.hit_probability`; `presence` has that of the mean
    logit of the networks of `train_presence`, `context` the `weight` of what phrases of a sentence
    say of each other. `instances` has its own curve `hit` of how likely a cell's thing is one, and
    from how likely on it is told, `least`.
    """
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def blank_vectors(folder: Path) -> np.ndarray:
    """Zeros `(words, d)`, of the shape of the word vectors that a model was built with."""
    words = (folder / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    return np.zeros((len(words), read_settings(folder)["word_dim"]), np.float32)


def member_folder(folder: Path, number: int) -> Path:
    """Where member `number`, from 0, of a grid model lies: the first in the model's own folder."""
    return folder / f"member{number + 1}" if number else folder


def member_folders(folder: Path) -> list[Path]:
    """Folders of all members of a finished grid model.

    Raises FileNotFoundError where one is no finished training, ValueError where one differs from
    the first in more than `OWN`.
    """
    first = read_settings(folder)
    found = [member_folder(folder, number) for number in range(first["members"])]
    for member in found:
        settings = read_settings(member)
        for name, value in first.items():
            if name not in OWN and settings[name] != value:
                raise ValueError(
                    f"{member}: expected {name} {value!r} as of the first member, got "
                    f"{settings[name]!r}; train the members anew"
                )
    return found


def record(folder: Path) -> bytes:
    """Settings and histories of all members: what is fitted to a model holds for this one alone."""
    files = ("settings.json", "history.csv")
    return b"".join((member / f).read_bytes() for member in member_folders(folder) for f in files)
