"""The study's parts together, as commands on a small sample: predict, evaluate, table."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from scene_utils import box_ops
from scene_utils import models as ground
from scene_utils import words as text
from scene_utils.analysis import breakdown
from scene_utils.analysis import predictions as answers
from scene_utils.dataset import entities, sample
from scene_utils.features import encode
from scene_utils.features.backbones import load_backbone
from scene_utils.source import train
from tests.makers import SIDES, command


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    sample.generate(root, train=24, val=6, test=8)
    return root


@pytest.fixture(scope="module")
def models(root, tmp_path_factory):
    """Models trained for an epoch on the sample, in the folders that notebook 04 would make."""
    folder = tmp_path_factory.mktemp("models")
    phrases = entities.read_entities(root).phrases
    vectors = text.load_vectors("glove50")
    vocabulary, embeddings, _ = text.build_vocabulary(
        phrases.phrase[phrases.split == "train"], vectors
    )
    given = entities.image_folder(root), entities.image_ids(root)
    backbone = load_backbone("efficientnet_lite0")
    store = encode.cache_features(*given, backbone, folder / "features")
    sets = [train.make_examples(phrases, name, store, vocabulary) for name in ("train", "val")]
    made_with = encode.origin(store) | {"vectors": "glove50"}
    given = *sets, embeddings, vocabulary, made_with
    for model in ("source", "text-only"):
        settings = train.Settings(model=model, epochs=8, widths=(64,), learning_rate=3e-3)
        train.train(settings, *given, folder / model)
    return folder


@pytest.fixture
def other(root, tmp_path):
    """A copy of the data set that a test may change."""
    return shutil.copytree(root, tmp_path / "other")


def predicted(root, models, model="source", split="test"):
    return ground.predict_split(ground.load_model(models / model), root, split)


def test_predict_and_evaluate_as_commands(root, models, tmp_path):
    out, metrics = tmp_path / "p.parquet", tmp_path / "m.json"
    given = ["--data-root", root, "--split", "test"]
    answer = command("predict", *given, "--model", models / "source", "--out", out)
    assert answer.returncode == 0, answer.stderr
    answer = command("evaluate", *given, "--predictions", out, "--out", metrics, "--resamples", 50)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(metrics.read_text())
    phrases = entities.read_entities(root).phrases
    boxed = phrases[(phrases.split == "test") & (phrases.n_boxes > 0)]
    assert result["mentions"] == result["answered"] == len(boxed)
    assert f"mean iou      {result['merged']['mean_iou']['value']:.3f}"[-4:] in answer.stdout
    table = pd.read_parquet(out)
    assert list(table) == [*entities.MENTION_KEY, "phrase", "rank", "score", *SIDES]
    # A picture asked by hand gives the same, and unknown words are named.
    row, model = table.iloc[5], ground.load_model(models / "source")
    picture = root / "flickr30k-images" / f"{row.image_id}.jpg"
    box, strange = model.ground(picture, [row.phrase, "zxqv wqxz"])
    np.testing.assert_allclose(box.boxes[0], row[SIDES].tolist(), atol=0.5)
    assert strange.unknown == ("zxqv", "wqxz")
    box_ops.check(strange.boxes)


def test_predict_uses_no_annotation_box(root, models, other):
    for path in (other / "Annotations").glob("*.xml"):
        path.write_text(re.sub(r"<bndbox>.*?</bndbox>", "", path.read_text(), flags=re.DOTALL))
    expected, _ = predicted(root, models)
    without_boxes, _ = predicted(other, models)
    pd.testing.assert_frame_equal(without_boxes, expected)
    shutil.rmtree(other / "Annotations")
    for name in ("train.txt", "val.txt", "UNRELATED_CAPTIONS"):
        (other / name).unlink()
    without_xml, _ = predicted(other, models)
    pd.testing.assert_frame_equal(without_xml, expected)


def test_any_list_of_ids_can_be_asked_for(root, models, other):
    ids = (root / "val.txt").read_text().split()[:2] + (root / "test.txt").read_text().split()[:1]
    (other / "mine.txt").write_text("\n".join(ids))
    table, problems = predicted(other, models, split="mine")
    assert set(table.image_id) == set(ids)
    assert problems.empty
    whole, _ = predicted(root, models)
    same = whole[whole.image_id == ids[2]].reset_index(drop=True)
    again = table[table.image_id == ids[2]].reset_index(drop=True)
    np.testing.assert_allclose(again.x_max, same.x_max, atol=0.3)


def test_a_damaged_or_missing_picture_is_listed_and_the_rest_answered(
    root, models, other, tmp_path
):
    first, second, *others = (root / "test.txt").read_text().split()
    picture = other / "flickr30k-images" / f"{first}.jpg"
    picture.write_bytes(picture.read_bytes()[:2000])
    picture.with_stem(second).unlink()
    table, problems = predicted(other, models)
    assert set(table.image_id) == set(others)
    assert set(problems.file) == {first, second}
    out = tmp_path / "p.parquet"
    table.to_parquet(out)
    given = ["--predictions", out, "--data-root", root, "--split", "test", "--resamples", 10]
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    assert command("evaluate", *given, "--out", whole).returncode == 0
    assert command("evaluate", *given, "--out", part, "--only-answered").returncode == 0
    whole, part = json.loads(whole.read_text()), json.loads(part.read_text())
    assert whole["answered"] == part["answered"] == part["mentions"] < whole["mentions"]
    sums = [one["merged"]["mean_iou"]["value"] * one["mentions"] for one in (whole, part)]
    assert sums[0] == pytest.approx(sums[1], abs=1e-3)


def test_a_model_that_does_not_see_needs_no_picture(root, models, other):
    shutil.rmtree(other / "flickr30k-images")
    table, problems = predicted(other, models, "text-only")
    assert problems.empty
    phrases = entities.read_entities(root).phrases.query("split == 'test'")
    assert len(table) == len(phrases)
    table = table.merge(phrases[["image_id", "width"]].drop_duplicates("image_id"))
    share = (table.x_max / table.width).round(4).groupby(table.phrase.str.lower())
    assert share.nunique().eq(1).all()


def test_answers_for_the_analysis_are_those_of_predict_and_are_made_once(root, models, tmp_path):
    cache = tmp_path / "cache"
    entities.write_tables(entities.read_entities(root), cache)
    for model in ("source", "text-only"):
        shutil.copytree(models / model, cache / "models" / model)
    shutil.copytree(models / "features", cache / "features/efficientnet_lite0")
    (cache / "features/chosen.txt").write_text("efficientnet_lite0")
    answers.make(cache, root, answers.stale(cache))
    assert answers.stale(cache) == []
    found = answers.load(cache)
    assert list(found) == ["text-only", "source"]
    expected, _ = predicted(root, models)
    key = entities.MENTION_KEY
    one, same = (table.sort_values(key, ignore_index=True) for table in (found["source"], expected))
    pd.testing.assert_frame_equal(one[SIDES], same[SIDES], atol=0.5)
    asked = answers.load_beside(cache, "perturbations", ["source", "text-only"])
    phrases = pd.read_parquet(cache / "phrases.parquet")
    test = answers.test_phrases(phrases, root)
    falls = breakdown.falls(asked["source"], test, resamples=20).set_index("change")
    both = test[test.n_boxes > 0].merge(found["source"], on=key, suffixes=("", "_guess"))
    iou = box_ops.iou(*(both[[side + end for side in SIDES]].to_numpy() for end in ("", "_guess")))
    assert falls.asked["blank picture"] == pytest.approx((iou >= 0.5).mean(), abs=1e-6)
    # The grey picture is one picture: the same words get the same box wherever they stand.
    blank = asked["source"][asked["source"].change == "blank picture"].merge(test[[*key, "phrase"]])
    blank = blank.assign(phrase=blank.phrase.str.lower())
    assert blank.groupby("phrase")[SIDES].agg(np.ptp).to_numpy().max() < 1e-4
    assert blank[SIDES].round(4).drop_duplicates().shape[0] > 1
    assert falls.same["blank picture"] < 1
    photos = answers.load_beside(cache, "photos", ["source", "text-only"])
    assert list(photos) == ["source"], "a model that sees nothing has nothing to say of photos"
    asked = {tuple(pair) for pair in photos["source"][["photo", "phrase"]].to_numpy()}
    for file in (answers.PHOTO_PHRASES, answers.PHOTO_BOXES):
        assert asked >= {tuple(pair) for pair in pd.read_csv(file)[["photo", "phrase"]].to_numpy()}


def test_faults_are_one_line_and_say_what_was_expected(root, tmp_path):
    predict = ("predict", "--model", "nowhere", "--out", tmp_path / "x.parquet")
    evaluate = ("evaluate", "--predictions", "nowhere.parquet")
    for words, message in ((predict, "finished training"), (evaluate, "found no file")):
        answer = command(*words, "--data-root", root, "--split", "test")
        assert answer.returncode == 1
        assert answer.stderr.splitlines()[-1].startswith("error: ")
        assert message in answer.stderr
        assert "Traceback" not in answer.stderr
