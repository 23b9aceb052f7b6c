"""The study's parts together, as commands on a small sample: predict, evaluate, table."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from scene_utils import images
from scene_utils import models as ground
from scene_utils import words as text
from scene_utils.analysis import metrics_file, perturbations
from scene_utils.analysis import predictions as answers
from scene_utils.dataset import entities, sample
from scene_utils.features import encode
from scene_utils.features.backbones import load_backbone
from scene_utils.source import train
from scene_utils.study import readme_tables


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    sample.generate(root, train=24, val=6, test=8, progress=False)
    return root


@pytest.fixture(scope="module")
def models(root, tmp_path_factory):
    """Models trained for an epoch on the sample, in the folders that notebook 04 would make."""
    folder = tmp_path_factory.mktemp("models")
    phrases = entities.read_entities(root, progress=False).phrases
    vectors = text.load_vectors("glove50")
    vocabulary, embeddings, _ = text.build_vocabulary(
        phrases.phrase[phrases.split == "train"], vectors
    )
    ids = entities.image_ids(root)
    store = encode.cache_features(
        entities.image_folder(root),
        ids,
        load_backbone("efficientnet_lite0"),
        folder / "features",
        progress=False,
    )
    sets = [train.make_examples(phrases, name, store, vocabulary) for name in ("train", "val")]
    made_with = encode.origin(store) | {"vectors": "glove50"}
    for model in ("source", "text-only"):
        settings = train.Settings(model=model, epochs=8, widths=(64,), learning_rate=3e-3)
        train.train(
            settings, *sets, embeddings, vocabulary, made_with, folder / model, progress=False
        )
    return folder


def run(*words):
    return subprocess.run(
        [sys.executable, "-m", "scene_utils", *map(str, words)], capture_output=True, text=True
    )


def predicted(root, models, model="source", split="test"):
    return ground.predict_split(ground.load_model(models / model), root, split, progress=False)


def test_predict_and_evaluate_as_commands(root, models, tmp_path):
    out, metrics = tmp_path / "p.parquet", tmp_path / "m.json"
    given = ["--data-root", root, "--split", "test"]
    answer = run("predict", *given, "--model", models / "source", "--out", out)
    assert answer.returncode == 0, answer.stderr
    answer = run("evaluate", *given, "--predictions", out, "--out", metrics, "--resamples", 50)
    assert answer.returncode == 0, answer.stderr
    result = json.loads(metrics.read_text())
    phrases = entities.read_entities(root, progress=False).phrases
    boxed = phrases[(phrases.split == "test") & (phrases.n_boxes > 0)]
    assert result["mentions"] == result["answered"] == len(boxed)
    assert f"mean iou      {result['merged']['mean_iou']['value']:.3f}"[-4:] in answer.stdout
    table = pd.read_parquet(out)
    assert list(table) == [
        *("image_id", "sentence_id", "phrase_id", "first_word_index", "phrase"),
        *("rank", "score", "x_min", "y_min", "x_max", "y_max"),
    ]


def test_predict_uses_no_annotation_box(root, models, tmp_path):
    blind = tmp_path / "blind"
    shutil.copytree(root, blind)
    for path in (blind / "Annotations").glob("*.xml"):
        path.write_text(re.sub(r"<bndbox>.*?</bndbox>", "", path.read_text(), flags=re.DOTALL))
    expected, _ = predicted(root, models)
    without_boxes, _ = predicted(blind, models)
    pd.testing.assert_frame_equal(without_boxes, expected)
    shutil.rmtree(blind / "Annotations")
    for name in ("train.txt", "val.txt", "UNRELATED_CAPTIONS"):
        (blind / name).unlink()
    without_xml, _ = predicted(blind, models)
    pd.testing.assert_frame_equal(without_xml, expected)


def test_any_list_of_ids_can_be_asked_for(root, models, tmp_path):
    mixed = tmp_path / "mixed"
    shutil.copytree(root, mixed)
    ids = (root / "val.txt").read_text().split()[:2] + (root / "test.txt").read_text().split()[:1]
    (mixed / "mine.txt").write_text("\n".join(ids))
    table, problems = predicted(mixed, models, split="mine")
    assert set(table.image_id) == set(ids)
    assert problems.empty
    whole, _ = predicted(root, models)
    same = whole[whole.image_id == ids[2]].reset_index(drop=True)
    again = table[table.image_id == ids[2]].reset_index(drop=True)
    np.testing.assert_allclose(again.x_max, same.x_max, atol=0.3)


def test_a_squeezed_picture_gives_boxes_of_the_original(root, models, tmp_path):
    squeezed = tmp_path / "squeezed"
    shutil.copytree(root, squeezed)
    for path in (squeezed / "flickr30k-images").glob("*.jpg"):
        pixels, *_ = images.read_squeezed(path, 224)
        Image.fromarray(pixels).save(path, quality=100, subsampling=0)
    expected, _ = predicted(root, models)
    table, _ = predicted(squeezed, models)
    sides = ["x_min", "y_min", "x_max", "y_max"]
    assert np.abs(table[sides] - expected[sides]).to_numpy().mean() < 3
    size = Image.open(next((root / "flickr30k-images").glob("*.jpg"))).size
    assert max(size) > 224
    assert table.x_max.max() > 224


def test_a_damaged_or_missing_picture_is_listed_and_the_rest_answered(root, models, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(root, damaged)
    first, second, *others = (root / "test.txt").read_text().split()
    picture = damaged / "flickr30k-images" / f"{first}.jpg"
    picture.write_bytes(picture.read_bytes()[:2000])
    (damaged / "flickr30k-images" / f"{second}.jpg").unlink()
    table, problems = predicted(damaged, models)
    assert set(table.image_id) == set(others)
    assert set(problems.file) == {first, second}
    out = tmp_path / "p.parquet"
    table.to_parquet(out)
    given = ["--predictions", out, "--data-root", root, "--split", "test", "--resamples", 10]
    whole, part = tmp_path / "whole.json", tmp_path / "part.json"
    assert run("evaluate", *given, "--out", whole).returncode == 0
    assert run("evaluate", *given, "--out", part, "--only-answered").returncode == 0
    whole, part = json.loads(whole.read_text()), json.loads(part.read_text())
    assert whole["answered"] == part["answered"] == part["mentions"] < whole["mentions"]
    assert whole["merged"]["mean_iou"]["value"] == pytest.approx(
        part["merged"]["mean_iou"]["value"] * part["mentions"] / whole["mentions"], abs=1e-5
    )


def test_a_model_that_does_not_see_needs_no_picture(root, models, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(root, bare)
    shutil.rmtree(bare / "flickr30k-images")
    table, problems = predicted(bare, models, "text-only")
    sizes = entities.read_entities(root, progress=False).phrases.drop_duplicates("image_id")
    table = table.merge(sizes[["image_id", "width", "height"]])
    assert problems.empty
    share = (table.x_max / table.width).round(4).groupby(table.phrase.str.lower())
    assert share.nunique().eq(1).all()
    assert len(table) == len(
        entities.read_entities(root, progress=False).phrases.query("split=='test'")
    )


def test_a_phrase_of_unknown_words_only_gets_a_box_and_its_words_named(root, models):
    model = ground.load_model(models / "source")
    picture = next((root / "flickr30k-images").glob("*.jpg"))
    answers = model.ground(picture, ["zxqv wqxz", "wqxz"])
    boxes = np.concatenate([answer.boxes for answer in answers])
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    np.testing.assert_array_equal(boxes[0], boxes[1])
    assert answers[0].unknown == ("zxqv", "wqxz")


def test_ground_gives_what_predict_gives(root, models):
    table, _ = predicted(root, models)
    model = ground.load_model(models / "source")
    row = table.iloc[5]
    picture = root / "flickr30k-images" / f"{row.image_id}.jpg"
    box = model.ground(picture, row.phrase).boxes[0]
    np.testing.assert_allclose(box, row[["x_min", "y_min", "x_max", "y_max"]].tolist(), atol=0.5)


def test_answers_for_the_analysis_are_those_of_predict_and_are_made_once(root, models, tmp_path):
    cache = tmp_path / "cache"
    entities.load_entities(root, cache, progress=False)
    for model in ("source", "text-only"):
        shutil.copytree(models / model, cache / "models" / model)
    shutil.copytree(models / "features", cache / "features/efficientnet_lite0")
    (cache / "features/chosen.txt").write_text("efficientnet_lite0")
    answers.make(cache, root, answers.stale(cache))
    assert answers.stale(cache) == []
    found = answers.load(cache)
    assert list(found) == ["text-only", "source"]
    expected, _ = predicted(root, models)
    key, sides = entities.MENTION_KEY, ["x_min", "y_min", "x_max", "y_max"]
    pd.testing.assert_frame_equal(
        found["source"].sort_values(key, ignore_index=True)[sides],
        expected.sort_values(key, ignore_index=True)[sides],
        atol=0.5,
    )
    asked = answers.load_beside(cache, "perturbations", ["source", "text-only"])
    phrases = pd.read_parquet(cache / "phrases.parquet")
    test = answers.test_mentions(phrases, root)
    falls = perturbations.falls(asked["source"], test, resamples=20).set_index("change")
    table = ground_truth_accuracy(found["source"], test)
    assert falls.asked["blank picture"] == pytest.approx(table, abs=1e-6)
    # The grey picture is one picture: the same words get the same box wherever they stand.
    blank = asked["source"][asked["source"].change == "blank picture"].merge(test[[*key, "phrase"]])
    blank = blank.assign(phrase=blank.phrase.str.lower())
    assert blank.groupby("phrase")[sides].agg(np.ptp).to_numpy().max() < 1e-4
    assert blank[sides].round(4).drop_duplicates().shape[0] > 1
    seen = asked["source"][asked["source"].change == perturbations.ASKED]
    assert falls.same["blank picture"] < 1
    assert len(seen) == len(blank)
    photos = answers.load_beside(cache, "photos", ["source", "text-only"])
    assert list(photos) == ["source"], "a model that sees nothing has nothing to say of photos"
    assert len(photos["source"]) == len(pd.read_csv(answers.PHOTO_PHRASES))


def ground_truth_accuracy(predictions, phrases):
    from scene_utils import box_ops

    sides = ["x_min", "y_min", "x_max", "y_max"]
    both = phrases[phrases.n_boxes > 0].merge(
        predictions, on=entities.MENTION_KEY, suffixes=("", "_guess")
    )
    iou = box_ops.iou(both[sides].to_numpy(), both[[f"{side}_guess" for side in sides]].to_numpy())
    return (iou >= 0.5).mean()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "--model", "nowhere"], "finished training"),
        (["evaluate", "--predictions", "nowhere.parquet"], "found no file"),
    ],
)
def test_faults_are_one_line_and_say_what_was_expected(root, words, message, tmp_path):
    out = ["--out", tmp_path / "x.parquet"] if words[0] == "predict" else []
    answer = run(*words, *out, "--data-root", root, "--split", "test")
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("error: ")
    assert message in answer.stderr
    assert "Traceback" not in answer.stderr


def test_an_untrained_backbone_is_called_so_in_the_caption_and_the_table(tmp_path):
    one = {"value": 0.5, "low": 0.4, "high": 0.6}
    metrics_of = dict.fromkeys(
        ["mean_iou", "accuracy_0.3", "accuracy_0.5", "accuracy_0.7", "pointing"], one
    )
    label = load_backbone("efficientnet_lite0", untrained=True).label
    described = {"name": "x", "split": "test", "images": 1, "mentions": 2, "train_images": 3}
    made_with = {"backbone": label, "vectors": "glove50", "seed": 0}
    path = tmp_path / "metrics.json"
    labels = {"source": "source (EfficientNet-Lite0, untrained)"}
    models = {"source": {"merged": metrics_of}}
    metrics_file.write_metrics(path, described, made_with, labels, models)
    printed = readme_tables.markdown(metrics_file.read_metrics(path))
    assert "efficientnet_lite0 (untrained)" in printed
    assert (
        "| source (EfficientNet-Lite0, untrained) | .500 [.400, .600] | 50.0 [40.0, 60.0] |"
        in printed
    )
