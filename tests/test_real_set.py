"""The real Flickr30k Entities: published counts, and second readings of the official files."""

import re
import zipfile
from collections import Counter

import pytest

from scene_utils import box_ops
from scene_utils.analysis import metrics
from scene_utils.dataset import entities
from scene_utils.models import load_model

# Images in train.txt to boxed mentions: the whole set as published, and the part without the 999
# images that the archive at hand lacks.
TRAIN_MENTIONS = {29_783: 427_226, 28_784: 414_333}


def test_real_counts(real_entities):
    boxed = real_entities.phrases.query("n_boxes > 0")
    assert real_entities.problems.empty
    images = real_entities.phrases.groupby("split").image_id.nunique()
    mentions = boxed.groupby("split").size()
    assert images[["val", "test"]].tolist() == [1_000, 1_000]
    assert mentions[["val", "test"]].tolist() == [14_433, 14_481]
    assert images["train"] in TRAIN_MENTIONS
    assert mentions["train"] == TRAIN_MENTIONS[images["train"]]


def test_real_boxes_equal_a_count_by_regular_expressions(real_data, real_entities):
    if not (real_data / "annotations.zip").is_file():
        pytest.skip("needs annotations.zip")
    listed = set(real_entities.phrases.image_id)
    elements, unique, named, scenes = 0, 0, Counter(), set()
    with zipfile.ZipFile(real_data / "annotations.zip") as archive:
        for name in archive.namelist():
            image_id = name.removeprefix("Annotations/").removesuffix(".xml")
            if image_id not in listed:
                continue
            xml = archive.read(name).decode()
            elements += xml.count("<bndbox>")
            boxes = set()
            for part in xml.split("<object>")[1:]:
                names = re.findall(r"<name>(\d+)</name>", part)
                if "<scene>1</scene>" in part:
                    scenes.update((image_id, int(name)) for name in names)
                if "<bndbox>" in part:
                    boxes.add(tuple(re.findall(r"<[xy]m(?:in|ax)>(\d+)<", part)))
                    named[image_id] += len(names)
            unique += len(boxes)
    assert real_entities.boxes.groupby("image_id").size().to_dict() == named
    # An object with two names has two rows: rows past the elements are the further names.
    assert len(real_entities.boxes) == named.total() > elements
    corners = real_entities.boxes.drop_duplicates(["image_id", *box_ops.COLUMNS])
    assert len(corners) == unique <= elements
    phrases = real_entities.phrases
    ids = list(zip(phrases.image_id, phrases.phrase_id, strict=True))
    assert {one for one, scene in zip(ids, phrases.scene, strict=True) if scene} == scenes & {*ids}
    if len(listed) == 31_783:
        assert elements == 275_775


def test_real_tables_fit_together(real_entities):
    boxed = real_entities.phrases.query("n_boxes > 0")
    phrases, boxes = real_entities.phrases, real_entities.boxes
    key = ["image_id", "sentence_id", "phrase_id", "first_word_index"]
    assert not phrases.duplicated(key).any()
    assert set(phrases.sentence_id) == set(range(5))
    assert phrases.phrase_id.min() > 0
    assert (phrases[["width", "height"]].max(axis=1) == 500).mean() > 0.99
    box_ops.check(boxes[box_ops.COLUMNS].to_numpy())
    assert ((box_ops.relative(boxed) >= 0) & (box_ops.relative(boxed) <= 1)).all()
    unboxed = phrases[phrases.n_boxes == 0]
    assert unboxed[box_ops.COLUMNS].isna().all(axis=None)


def test_perfect_predictions_on_the_real_test_split(real_entities):
    phrases = real_entities.phrases[real_entities.phrases.split == "test"]
    boxed = phrases[phrases.n_boxes > 0]
    perfect = metrics.check_predictions(boxed.assign(rank=1, score=1.0))
    result = metrics.evaluate(perfect, phrases, real_entities.boxes)
    counts = [result[name] for name in ("images", "mentions", "answered")]
    # One picture of the thousand, 4797050581, shows a crowd and has no box at all.
    assert counts == [999, 14_481, 14_481]
    assert result["predictions_not_asked_for"] == 0
    perfect = {"value": 1, "low": 1, "high": 1}
    assert all(result["merged"][metric] == perfect for metric in metrics.METRICS)
    # The merged box is right under `any` where a phrase has one box.
    assert (boxed.n_boxes == 1).mean() < result["any"]["mean_iou"]["value"] < 1


@pytest.mark.slow
def test_the_shipped_model_finds_three_quarters_of_val(real_data, real_entities, tmp_path):
    held = entities.image_ids(real_data)
    phrases, boxes = (
        table[table.image_id.isin(held)] for table in (real_entities.phrases, real_entities.boxes)
    )
    val = phrases[(phrases.split == "val") & (phrases.n_boxes > 0)]
    model = load_model("grid")
    folder = entities.image_folder(real_data)
    store = model.pictures(folder, val.image_id.unique(), tmp_path)
    scored = metrics.score_mentions(model.predict(val, store), val, boxes)
    assert len(scored) == len(val) > 0
    assert (scored.iou_merged >= 0.5).mean() >= 0.75
