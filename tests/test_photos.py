"""The photos that ship, and the boxes drawn on them."""

import json

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops, images, paths

TABLE = pd.read_csv(paths.PHOTOS / "boxes.csv", keep_default_na=False)
FILES = sorted(paths.PHOTOS.glob("*.jpg"))


@pytest.mark.parametrize("photo", sorted(set(TABLE.photo)))
def test_boxes_lie_in_the_photo_around_all_that_is_named(photo):
    size = images.open_image(paths.PHOTOS / f"{photo}.jpg").size
    rows = TABLE[TABLE.photo == photo]
    assert rows.phrase.is_unique
    assert set(rows.split) in ({"look"}, {"score"})
    assert (rows.kind == "absent").sum() == 3
    for row in rows.itertuples():
        box = [getattr(row, side) for side in box_ops.COLUMNS]
        if row.kind == "absent":
            assert [*box, row.instances] == [""] * 5, row.phrase
            continue
        box = np.array(box, int)
        singles = np.array(json.loads(row.instances) if row.instances else [box])
        assert (len(singles) > 1) == bool(row.instances), row.phrase
        assert (np.clip(singles, 0, [*size, *size]) == singles).all(), row.phrase
        assert (singles[:, :2] < singles[:, 2:]).all(), row.phrase
        assert [*singles[:, :2].min(0), *singles[:, 2:].max(0)] == [*box], row.phrase


def test_the_photos_are_many_small_and_documented():
    assert [path.stem for path in FILES] == sorted(set(TABLE.photo))
    assert (TABLE.kind != "absent").sum() >= 100
    assert sum(path.stat().st_size for path in FILES) <= 2_000_000
    text = (paths.PHOTOS / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{path.name}` |" in text for path in FILES)
