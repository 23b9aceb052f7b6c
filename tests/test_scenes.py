"""The drawn sample keeps its promises: whole folders, tight boxes, phrases true of one place."""

import dataclasses
import re
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from scene_utils import box_ops
from scene_utils.dataset import sample as scenes
from scene_utils.dataset import sample_layout, sample_phrases

COUNTS = {"train": 50, "val": 3, "test": 4}
NUMBERS = {"two": 2, "three": 3}
SINGULAR = {f"{kind}s": kind for kind in sample_layout.KINDS} | {"boxes": "box"}
PHRASE = re.compile(
    r"(?P<first>a|an|the|two|three) (?P<noun>[a-z ]+?)"
    r"(?: (?:to the )?(?P<relation>left of|right of|above|below) the (?P<landmark>[a-z ]+))?"
)
BRACKET = re.compile(r"\[/EN#(\d+)/(\w+) ([^\]]+)\]")


@pytest.fixture(scope="module")
def described():
    """The pictures of many things alike."""
    return [sample_phrases.describe(0, "train", index) for index in range(0, 600, 2)]


@pytest.fixture(scope="module")
def easy():
    """The pictures of one to three things."""
    return [sample_phrases.describe(0, "train", index) for index in range(1, 600, 2)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    root = tmp_path_factory.mktemp("sample") / "drawn"
    scenes.generate(root, progress=False, **COUNTS)
    return root


def content(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def generate(root, *counts):
    scenes.generate(root, **dict(zip(COUNTS, counts, strict=True)), progress=False)


def boxed(scene):
    return [mention for mention in scene.mentions if mention.targets]


def parse(phrase):
    """(singular noun's words, relation or None, landmark's words) of a boxed phrase."""
    found = PHRASE.fullmatch(phrase.lower())
    assert found, phrase
    noun, landmark = found["noun"].split(), (found["landmark"] or "").split()
    return [SINGULAR.get(word, word) for word in noun], found["relation"], landmark


def matching(scene, words):
    named = [(t.size, t.texture, t.colour, t.kind) for t in scene.things]
    return {i for i, properties in enumerate(named) if set(words) <= set(properties)}


def offset(scene, relation, a, b):
    """How far a lies from b along and across the relation's axis, in shorter sides."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = scene.things[a].box, scene.things[b].box
    dx, dy = (ax0 + ax1 - bx0 - bx1) / 2, (ay0 + ay1 - by0 - by1) / 2
    along = {"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation]
    short = min(scene.width, scene.height)
    return along / short, (abs(dy) if "of" in relation else abs(dx)) / short


def test_same_arguments_give_the_same_bytes(sample, tmp_path):
    scenes.generate(tmp_path / "again", progress=False, **COUNTS)
    assert content(tmp_path / "again") == content(sample)


def test_picture_does_not_depend_on_the_counts(sample, tmp_path):
    generate(tmp_path / "few", 2, 1, 0)
    few, many = content(tmp_path / "few"), content(sample)
    pictures = [path for path in few if len(path.parts) == 2]
    assert len(pictures) == 9
    assert all(few[path] == many[path] for path in pictures)


def test_another_seed_gives_other_pictures():
    first, other = (sample_phrases.describe(seed, "train", 0) for seed in (0, 1))
    assert first.sentences != other.sentences


def test_splits_name_every_picture_once(sample):
    ids = [i for split in COUNTS for i in (sample / f"{split}.txt").read_text().split()]
    assert len(set(ids)) == len(ids) == sum(COUNTS.values())
    assert all(i.isdigit() for i in ids)
    for folder in ("Annotations", "Sentences", "flickr30k-images"):
        assert {path.stem for path in (sample / folder).iterdir()} == set(ids)


def test_whole_sample_is_left_alone(sample, monkeypatch):
    monkeypatch.setattr(scenes, "describe", None)
    scenes.generate(sample, progress=False, **COUNTS)


def test_damaged_or_different_sample_is_made_anew(tmp_path):
    root = tmp_path / "drawn"
    generate(root, 2, 0, 0)
    before = content(root)
    pictures = sorted((root / "flickr30k-images").iterdir())
    pictures[0].unlink()
    pictures[1].write_bytes(b"")
    generate(root, 2, 0, 0)
    assert content(root) == before
    generate(root, 1, 0, 0)
    assert len(list((root / "flickr30k-images").iterdir())) == 1


def test_interrupted_run_leaves_what_was_there(tmp_path, monkeypatch):
    root = tmp_path / "drawn"
    generate(root, 1, 0, 0)
    before = content(tmp_path)
    describe = scenes.describe

    def fails(seed, split, index):
        if index == 2:
            raise KeyboardInterrupt
        return describe(seed, split, index)

    monkeypatch.setattr(scenes, "describe", fails)
    for name in ("drawn", "other"):
        with pytest.raises(KeyboardInterrupt):
            generate(tmp_path / name, 3, 0, 0)
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["drawn"]


@pytest.mark.parametrize("name", ["notes.txt", "sample.json", "flickr30k-images/mine.jpg"])
def test_foreign_folder_is_refused(tmp_path, name):
    if "/" in name:  # a user's file within a sample of other arguments
        generate(tmp_path / "drawn", 1, 0, 0)
    path = tmp_path / "drawn" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("[]")
    before = content(tmp_path)
    with pytest.raises(FileExistsError, match=r"drawn .*move"):
        generate(tmp_path / "drawn", 2, 0, 0)
    assert content(tmp_path) == before


def test_folder_of_links_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "flickr30k-images").symlink_to(tmp_path / "photos")
    with pytest.raises(FileExistsError, match="drawn"):
        generate(tmp_path / "drawn", 1, 0, 0)
    assert (tmp_path / "drawn" / "flickr30k-images").is_symlink()


def test_bad_arguments_are_named(tmp_path):
    with pytest.raises(ValueError, match="-1"):
        scenes.generate(tmp_path / "drawn", train=-1, progress=False)
    with pytest.raises(ValueError, match="dev"):
        sample_phrases.describe(0, "dev", 0)


def test_files_say_what_the_description_says(sample):
    for index in range(COUNTS["train"]):
        scene = sample_phrases.describe(0, "train", index)
        tree = ET.parse(sample / "Annotations" / f"{scene.image_id}.xml").getroot()
        with Image.open(sample / "flickr30k-images" / f"{scene.image_id}.jpg") as picture:
            assert picture.size == (scene.width, scene.height)
        size = [int(tree.findtext(f"size/{tag}")) for tag in ("width", "height", "depth")]
        assert size == [scene.width, scene.height, 3]
        boxes, marks = {}, {}
        for one in tree.iter("object"):
            for name in one.findall("name"):
                if one.find("bndbox") is None:
                    marks[name.text] = (one.findtext("scene"), one.findtext("nobndbox"))
                    continue
                box = tuple(int(side.text) for side in one.find("bndbox"))
                assert [side.tag for side in one.find("bndbox")] == ["xmin", "ymin", "xmax", "ymax"]
                assert 1 <= box[0] < box[2] <= scene.width
                assert 1 <= box[1] < box[3] <= scene.height
                boxes.setdefault(name.text, set()).add(box)
        assert boxes == {
            m.phrase_id: {scene.things[i].box for i in m.targets} for m in boxed(scene)
        }
        assert marks == {
            m.phrase_id: ("1", "0") if m.mark == "scene" else ("0", "1")
            for m in scene.mentions
            if m.mark in ("scene", "nobndbox")
        }
        lines = (sample / "Sentences" / f"{scene.image_id}.txt").read_text().splitlines()
        assert len(lines) == 5
        assert all(line.endswith(" .") and "{" not in line for line in lines)
        assert [found for line in lines for found in BRACKET.findall(line)] == [
            (m.phrase_id, m.category, m.phrase) for m in scene.mentions
        ]


def test_unrelated_captions_have_no_boxes(sample):
    first, *rows = (sample / "UNRELATED_CAPTIONS").read_text().splitlines()
    assert first == "# format: <imageID> <sentence number>"
    assert rows
    for image_id, number in map(str.split, rows):
        line = (sample / "Sentences" / f"{image_id}.txt").read_text().splitlines()[int(number) - 1]
        names = {name for name, *_ in BRACKET.findall(line)}
        with_box = [
            name.text
            for one in ET.parse(sample / "Annotations" / f"{image_id}.xml").iter("object")
            if one.find("bndbox") is not None
            for name in one.findall("name")
        ]
        assert names
        assert not names & set(with_box)


def test_boxes_are_tight_and_objects_stay_visible(described, easy):
    for scene in described[:12] + easy[:12]:
        empty = np.asarray(scenes.render(dataclasses.replace(scene, things=())))
        whole = np.asarray(scenes.render(scene))
        for i, thing in enumerate(scene.things):
            odd = dataclasses.replace(thing, rgb=(255, 0, 255), texture="plain")
            alone = np.asarray(scenes.render(dataclasses.replace(scene, things=(odd,))))
            drawn = (alone != empty).any(2)
            rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
            extent = (columns[0] + 1, rows[0] + 1, columns[-1] + 1, rows[-1] + 1)
            assert np.abs(np.subtract(extent, thing.box)).max() <= 1, thing
            others = (*scene.things[:i], odd, *scene.things[i + 1 :])
            recoloured = np.asarray(scenes.render(dataclasses.replace(scene, things=others)))
            assert (recoloured != whole).any(2).sum() > 0.6 * drawn.sum(), thing


def test_sizes_are_told_apart(described, easy):
    for scene in described + easy:
        sides = {"small": [], "big": []}
        for thing in scene.things:
            sides[thing.size].append((thing.frame[2] * thing.frame[3]) ** 0.5)
        assert min(sides["big"], default=1e9) > 1.3 * max(sides["small"], default=0)


def test_every_phrase_is_true_of_its_boxes_alone(described, easy):
    for scene in described + easy:
        for mention in boxed(scene):
            words, relation, landmark = parse(mention.phrase)
            found = matching(scene, words)
            if relation:
                (mark,) = matching(scene, landmark)
                assert mark not in found
                (target,) = mention.targets
                along, across = offset(scene, relation, target, mark)
                assert along > max(0.11, 1.4 * across), mention
                for other in found - {target}:
                    along, across = offset(scene, relation, other, mark)
                    assert along < max(0.03, 0.6 * across), mention
                found = {target}
            assert found == set(mention.targets), mention
            first = mention.phrase.lower().split()[0]
            count = len(mention.targets)
            assert count == NUMBERS[first] if first in NUMBERS else (count == 1) or first == "the"


def test_every_other_picture_shows_one_salient_thing_whose_noun_is_its_own(easy):
    named = [0, 0]
    for scene in easy:
        kinds = [thing.kind for thing in scene.things]
        assert 1 <= len(set(kinds)) == len(kinds) <= 3
        sides = [min(thing.frame[2:]) / min(scene.width, scene.height) for thing in scene.things]
        assert sides[0] > 0.38
        assert max(sides[1:], default=0) < 0.3
        assert scene.unrelated or 5 <= len(boxed(scene)) <= 8
        for mention in boxed(scene):
            named[mention.targets != (0,)] += len(kinds) > 1
    assert 0.8 < named[0] / named[1] < 1.6


def test_a_single_word_away_lies_another_object(described):
    for scene in described:
        for mention in boxed(scene):
            words, relation, _ = parse(mention.phrase)
            if relation:
                assert matching(scene, words) > set(mention.targets)
            else:
                for word in words:
                    others = [other for other in words if other != word]
                    assert matching(scene, others) > set(mention.targets), (word, mention)


def test_phrase_kind_is_read_from_the_wording(described):
    kind = sample_phrases.scene_phrase_kind
    assert kind("The ball to the left of the red cup") == "relation"
    assert kind("Two fish") == kind("the striped boxes") == "plural"
    assert kind("the small striped fish") == "attribute"
    assert kind("a sandy beach") == kind("the top left corner") == kind("") == "other"
    for scene in described:
        for mention in scene.mentions:
            if mention.targets:
                relation = parse(mention.phrase)[1]
                plural = len(mention.targets) > 1
                expected = "relation" if relation else "plural" if plural else "attribute"
                assert kind(mention.phrase) == expected
            elif mention.category in ("scene", "notvisual"):
                assert kind(mention.phrase) == "other"


def test_each_sort_of_mention_occurs(described):
    related = [scene for scene in described if not scene.unrelated]
    assert 0.01 < 1 - len(related) / len(described) < 0.1
    for scene in related:
        sorts = Counter(sample_phrases.scene_phrase_kind(m.phrase) for m in boxed(scene))
        assert 7 <= sorts.total() <= 10
        assert sorts["relation"] >= 2
        assert sorts["plural"] >= 1
        assert len({m.targets for m in boxed(scene)}) >= 4
    said = Counter(w for scene in related for m in boxed(scene) for w in parse(m.phrase)[0])
    properties = (sample_layout.SIZES, sample_layout.TEXTURES, sample_layout.COLOURS)
    assert set(said) == {*sample_layout.KINDS, *(word for words in properties for word in words)}
    assert min(said.values()) > 40
    ids = [{(m.targets, m.phrase_id) for m in boxed(scene)} for scene in related]
    twins = [len(pairs) > len({targets for targets, _ in pairs}) for pairs in ids]
    assert 0.1 < np.mean(twins) < 0.6  # one box under two ids
    again = [Counter(m.phrase_id for m in boxed(scene)).most_common(1)[0][1] for scene in related]
    assert np.mean(np.array(again) > 1) > 0.5  # one id in several sentences
    marks = Counter(m.category if not m.targets else "box" for s in related for m in s.mentions)
    assert min(marks[sort] for sort in ("scene", "other", "notvisual")) > 100


def test_relation_words_are_balanced(described):
    words = Counter(parse(m.phrase)[1] for scene in described for m in boxed(scene))
    counts = [words[relation] for relation in sample_layout.RELATIONS]
    assert min(counts) > 0.75 * max(counts) > 100


def test_no_part_of_a_relation_can_be_left_unread(described):
    """A phrase has a twin in its picture that means another, alike but for landmark or relation."""
    twins, nearest = {"landmark": 0, "relation": 0}, []
    for scene in described:
        said = [(m.targets, *parse(m.phrase)) for m in boxed(scene) if parse(m.phrase)[1]]
        for targets, noun, relation, landmark in said:
            others = [one[2:] for one in said if one[0] != targets and one[1] == noun]
            by_landmark = any(one[0] == relation and one[1] != landmark for one in others)
            by_relation = any(one[0] != relation and one[1] == landmark for one in others)
            # A caption of another picture may have taken the twin.
            assert by_landmark or by_relation or scene.unrelated
            twins["landmark"] += by_landmark
            twins["relation"] += by_relation
            (mark,) = matching(scene, landmark)
            like = sorted(matching(scene, noun))
            offsets = [offset(scene, relation, i, mark) for i in like]
            nearest.append(like[int(np.argmin(np.linalg.norm(offsets, axis=1)))] in targets)
    assert min(twins.values()) > 0.4 * len(nearest) > 200
    assert np.mean(nearest) < 0.8


def test_words_alone_do_not_tell_the_place(described):
    boxes, words = [], []
    for scene in described:
        for mention in boxed(scene):
            if len(mention.targets) == 1:
                box = box_ops.from_inclusive([scene.things[mention.targets[0]].box])
                boxes.append(box_ops.to_relative(box, scene.width, scene.height)[0])
                noun, relation, _ = parse(mention.phrase)
                size = next((word for word in noun if word in sample_layout.SIZES), None)
                words.append({"relation": relation, "size": size, "kind": noun[-1]})
    boxes = np.array(boxes)
    fitted = np.arange(len(boxes)) < len(boxes) // 2

    def told(guess, groups):
        """Mean IoU of the later half, where each group of words has a box of its own."""
        found = np.zeros(len(boxes))
        for group in set(groups):
            chosen = groups == group
            best = guess(boxes[fitted & chosen])
            found[chosen] = box_ops.iou(np.broadcast_to(best, (chosen.sum(), 4)), boxes[chosen])
        return found[~fitted].mean()

    blind = told(box_ops.best_constant, np.zeros(len(boxes)))
    for sort in ("relation", "size", "kind"):
        groups = np.array([str(word[sort]) for word in words])
        for guess in (box_ops.best_constant, lambda some: some.mean(0)):
            assert told(guess, groups) < blind + 0.03, sort
