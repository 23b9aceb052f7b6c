"""Where everything lies. Notebooks and commands take every path from here.

papermill runs a notebook in the caller's folder and nbval in the notebook's own, so no path may
depend on the working directory.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(os.environ.get("SCENE_ROOT") or Path(__file__).resolve().parent.parent)
DATA = ROOT / "data"
PRETRAINED = DATA / "pretrained"
PHOTOS = DATA / "photos"
RAW = DATA / "raw"


def cache(profile: str) -> Path:
    """Folder of a profile's artefacts, `data/cache/<profile>`."""
    return DATA / "cache" / profile


def figures(profile: str) -> Path:
    """Folder of a profile's final figures and metrics, `figures/<profile>`."""
    return ROOT / "figures" / profile


def build(profile: str) -> Path:
    """Folder of a profile's executed notebooks, `build/<profile>`."""
    return ROOT / "build" / profile


@contextlib.contextmanager
def atomic(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; move it onto `target` when the block succeeds.

    The file is synced before it is moved, so after a crash `target` is the old or the new file,
    whole. On a failure (a full disk too) the temporary file is removed, and an `OSError` of writing
    is raised again with the target's name in it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:
        reason = f"could not write {target.name}: {error.strerror or error}"
        remedy = "what was written before is kept: free some space or choose another folder and run"
        # NumPy reports a short write without a number.
        raise OSError(error.errno or errno.EIO, f"{reason}; {remedy} again", str(target)) from error
    finally:
        temporary.unlink(missing_ok=True)


def file_hash(path: Path, algorithm: str = "sha256") -> str:
    """Hex digest of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def write_text(target: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically, and only if it differs, so that make sees no change."""
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return
    with atomic(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def decode(content: bytes) -> tuple[str, str]:
    """Text of a file in UTF-8, or in UTF-16 with its mark, else as Windows writes it in western
    languages; and what is odd about it, or an empty string."""
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig"), ""
    except UnicodeDecodeError as error:
        bad = f"byte {content[error.start]:#x} at {error.start:,}"
        read = content.decode("cp1252", "replace")
        return read, f"expected UTF-8, got {bad}: read as Windows-1252"


def read_finished(path: Path, wanted: dict) -> dict | None:
    """What a finished run left in the JSON file `path`, if all that is `wanted` stands in it.
    A file of another run, or a damaged one, is removed, so that nothing counts as finished."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(path.read_text(encoding="utf-8"))
        if {key: known[key] for key in wanted} == wanted:
            return known
    path.unlink(missing_ok=True)
    return None


def write_array(target: Path, array: np.ndarray) -> str:
    """Write `array` as .npy, atomically; gives the SHA-256 of what the file should hold."""
    # `np.save` to a file does not notice when the last bytes find no room on the disk.
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    with atomic(target) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target` that takes its place when the block succeeds. Nothing
    of an older one stays then, and all of it if the block fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        new = Path(scratch, "new")
        new.mkdir()
        yield new
        if target.exists():
            os.replace(target, Path(scratch, "old"))
        os.replace(new, target)


def replace_folder(source: Path, target: Path) -> None:
    """Make `target` a copy of the folder `source`, see `new_folder`."""
    with new_folder(target) as new:
        shutil.copytree(source, new, dirs_exist_ok=True)


def data_root(profile: str, data: str = "") -> Path:
    """The data root `data`, or where it is empty the embedded sample's, in the cache."""
    return Path(data) if data else cache(profile) / "scenes"
