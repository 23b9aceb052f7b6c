"""Files of pretrained weights: which the study knows, where they lie, whether they are whole."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from scene_utils.paths import DATA, PRETRAINED, file_hash

SIZE = 224
CHANNELS = {"resnet50": 2048, "efficientnet_lite0": 1280, "efficientnet_lite2": 1280}


@dataclass(frozen=True)
class WeightsFile:
    """A published weights file: name, size in bytes, hash, and the way to get it."""

    name: str
    size: int
    algorithm: str
    digest: str
    remedy: str


_WAYS = "restore it from the repository, where it is committed", "run `make data` to download it"
WEIGHTS_FILES = {  # by backbone
    entry["backbone"]: WeightsFile(
        entry["name"], entry["bytes"], *entry["known_hash"].split(":"), _WAYS["url" in entry]
    )
    for entry in json.loads((DATA / "registry.json").read_text(encoding="utf-8"))
    if "backbone" in entry
}


@dataclass(frozen=True, eq=False)
class Weights:
    """The weights of a backbone from pixels (n, size, size, 3) to pooled features (n, channels):
    their file and its SHA-256, or for an untrained one None and that of its arrays."""

    name: str
    size: int
    channels: int
    untrained: bool
    file: Path | None
    sha256: str

    @property
    def label(self) -> str:
        """Name for tables and figures; it says so when the weights are random."""
        return f"{self.name} (untrained)" if self.untrained else self.name


def find_weights(path: str | Path | None, name: str, untrained: bool, sha256: str) -> Weights:
    """The weights that a model was trained with. Raises as `find`, and ValueError for a file of
    another `sha256`."""
    file, found = (None, sha256) if untrained else find(name, path)
    if found != sha256:
        wanted = f"the weights that the model was trained with, sha256 {sha256}"
        raise ValueError(f"{name}: expected {wanted}, got {found}")
    return Weights(name, SIZE, CHANNELS[name], untrained, file, sha256)


def find(name: str, weights: str | Path | None) -> tuple[Path, str]:
    """The weights file, `weights` or one of those places that are usual, and its SHA-256.
    FileNotFoundError when there is none, ValueError unless it is the published one."""
    file = WEIGHTS_FILES[name]
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    usual = [PRETRAINED / file.name, keras_home / "models" / file.name]
    places = usual if weights is None else [Path(weights)]
    path = next(filter(Path.is_file, places), None)
    if path is None:
        looked = "\n".join(f"  {place}" for place in places)
        raise FileNotFoundError(
            f"the ImageNet weights of {name} are missing: {file.name} "
            f"({file.size:,} bytes, {file.algorithm} {file.digest}). Looked in\n{looked}\n"
            f"To go on, {file.remedy}; or give weights=PATH; or ask for random weights with "
            "untrained=True, and the results are then called untrained."
        )
    size, digest = path.stat().st_size, file_hash(path, file.algorithm)
    if (size, digest) != (file.size, file.digest):
        raise ValueError(
            f"{path} is not the published {file.name}: expected {file.size:,} bytes, "
            f"{file.algorithm} {file.digest}; got {size:,} bytes, {file.algorithm} {digest}. "
            f"Remove it, then {file.remedy}."
        )
    return path, digest if file.algorithm == "sha256" else file_hash(path)
