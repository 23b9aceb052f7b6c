"""`make data`: fetch what may be fetched, and check what the user must obtain.

Downloads come from `data/registry.json` (address, size, hash). They are resumable, hashed, and
moved into place only when whole.
"""

import json
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests

from scene_utils.dataset import entities
from scene_utils.paths import DATA, atomic, file_hash
from scene_utils.runtime import progress_bar

FLICKR30K_STEPS = """\
How to obtain Flickr30k Entities (pictures may be used for non-commercial research and education):
  1. Pictures: fill in the form at https://shannon.cs.illinois.edu/DenotationGraph/ and unpack
     flickr30k-images.tar.gz, so that <folder>/flickr30k-images/<id>.jpg holds 31,783 pictures.
  2. Annotations: annotations.zip, train.txt, val.txt, test.txt and UNRELATED_CAPTIONS from
     https://github.com/BryanPlummer/flickr30k_entities, into the same <folder>.
  3. make data DATA=<folder>          checks what lies there
     make reproduce PROFILE=flickr30k DATA=<folder>
"""

# Of the whole set, by the papers and by count: pictures, and boxed phrase mentions a split.
WHOLE_SET = {"pictures": 31783, "train": 427226, "val": 14433, "test": 14481}


@dataclass(frozen=True)
class Download:
    """A registry entry: `known_hash` is `algorithm:hex`, `member` is unpacked from a zip."""

    name: str
    url: str
    bytes: int
    known_hash: str
    folder: str
    member: str = ""
    backbone: str = ""  # whose weights these are


def registry() -> list[Download]:
    """What is downloaded; entries without an address are committed."""
    entries = json.loads((DATA / "registry.json").read_text(encoding="utf-8"))
    return [Download(**entry) for entry in entries if "url" in entry]


def _resume(item: Download, part: Path) -> None:
    """Download `item` to `part`, from where an interrupted transfer stopped."""
    done = part.stat().st_size if part.is_file() else 0
    if done >= item.bytes:
        return
    headers = {"Range": f"bytes={done}-"} if done else {}
    with requests.get(item.url, headers=headers, stream=True, timeout=60) as answer:
        answer.raise_for_status()
        if answer.status_code != 206:
            done = 0  # the server cannot resume, so the whole file is on its way
        how = {"total": item.bytes, "initial": done, "unit": "B", "unit_scale": True}
        with open(part, "ab" if done else "wb") as file, progress_bar(desc=item.name, **how) as bar:
            for block in answer.iter_content(1 << 20):
                bar.update(file.write(block))
                if file.tell() > item.bytes:
                    break


def fetch(item: Download, root: Path = DATA) -> Path:
    """The file of `item`, downloaded unless it lies there already with the right hash.

    An interrupted transfer is kept as `<name>.part` and resumed by the next call. Raises ValueError
    where the hash differs: the wrong file is removed, nothing is put in its place.
    """
    folder = root / item.folder
    target = folder / (item.member or item.name)
    if item.member and target.is_file():
        return target

    def download(url: str, output_file: str, _) -> None:
        part = folder / f"{item.name}.part"
        _resume(item, part)
        shutil.move(part, output_file)

    how = {"fname": item.name, "path": folder, "downloader": download}
    try:
        path = Path(pooch.retrieve(item.url, item.known_hash, **how))
    except ValueError as error:
        raise ValueError(
            f"{target}: expected {item.bytes:,} bytes with {item.known_hash} from {item.url}; "
            f"what came was something else and has been removed: {error}"
        ) from error
    if item.member:
        with (
            zipfile.ZipFile(path) as archive,
            archive.open(item.member) as packed,
            atomic(target) as temporary,
            open(temporary, "wb") as file,
        ):
            shutil.copyfileobj(packed, file, 1 << 20)
        path.unlink()
    return target


def check_flickr30k(root: Path) -> str:
    """A report of what a data root holds, against the counts of the whole set and SHA256SUMS."""
    lines = [f"Flickr30k Entities in {root}:"]
    sums = root / "SHA256SUMS"
    if sums.is_file():
        for line in sums.read_text(encoding="utf-8").splitlines():
            expected, name = line.split(maxsplit=1)
            path = root / Path(name.strip("* ")).name
            state = "ok     " if path.is_file() else "MISSING"
            if path.is_file() and file_hash(path) != expected:
                state = "CHANGED"
            lines.append(f"  {state} {path.name}, by SHA256SUMS")
    found = entities.read_entities(root)
    at_hand = entities.image_ids(root)
    counts = entities.count(found.phrases, at_hand)
    lines.append(f"  pictures at hand: {len(at_hand):,} of {WHOLE_SET['pictures']:,}")
    for split, row in counts.iterrows():
        of = f" of {WHOLE_SET[split]:,} in the whole set" if split in WHOLE_SET else ""
        lines.append(
            f"  {split:5} {row['images']:>6,} images listed, {row['boxed mentions']:>7,} boxed "
            f"mentions{of}; {row['boxed mentions at hand']:,} with a picture at hand"
        )
    lines.append(f"  annotation files that could not be read: {len(found.problems)}")
    lines += [f"    {row.file}: {row.reason}" for row in found.problems.head(9).itertuples()]
    return "\n".join(lines)
