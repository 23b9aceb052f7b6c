"""Copy a finished source system into `data/pretrained/source`, its weights as float16.

    .venv/bin/python data/pretrained/ship_source.py data/cache/flickr30k/models/source

Score the copy before it is committed: `python -m scene_utils predict --model source`.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import keras
from ship_grid import halve

from scene_utils.paths import PRETRAINED, atomic, write_text
from scene_utils.source.train import load_regressor

LIMIT = 8_000_000


def main() -> None:
    folder, target = Path(sys.argv[1]), PRETRAINED / "source"
    network = load_regressor(folder)
    with tempfile.TemporaryDirectory() as scratch:
        whole, weights = Path(scratch, "whole.keras"), Path(scratch, "model.weights.h5")
        # Loaded without its optimiser, which is most of the file that training leaves.
        keras.saving.save_model(network, whole)
        with zipfile.ZipFile(whole) as archive:
            archive.extract(weights.name, scratch)
            others = {n: archive.read(n) for n in archive.namelist() if n != weights.name}
        halve(weights, Path(scratch, "half.h5"))
        with (
            atomic(target / "model.keras") as temporary,
            zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
        ):
            for name, data in others.items():
                archive.writestr(name, data)
            archive.write(Path(scratch, "half.h5"), weights.name)
    for name in ("vocabulary.txt", "history.csv"):
        shutil.copyfile(folder / name, target / name)
    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    write_text(target / "settings.json", json.dumps(settings, indent=1) + "\n")
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"{target.name}: {size:,} bytes")
    if size > LIMIT:
        sys.exit(f"expected at most {LIMIT:,} bytes")


if __name__ == "__main__":
    main()
