"""What answers is made of what was trained, once: kept, checked, and made anew where it must be."""

import json
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest

from scene_utils import exported, models, paths
from scene_utils.source import train
from tests.makers import files_of

SHIPPED = models.SHIPPED["source"]
FEATURE = np.random.default_rng(0).random((2, 1280), np.float32)
TOKENS = np.int32([[5, 9, *[0] * 10], [7, *[0] * 11]])


def load(model, data):
    """The answer of a model whose networks are kept in the folder `data`."""
    with mock.patch.object(paths, "DATA", data):
        found = exported.load("source", model, files=[model / "model.keras"])
    return found["regress"](FEATURE, TOKENS)[0]


def networks_in(data):
    (folder,) = (data / "cache" / "exported").iterdir()
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Exported networks of the shipped source system, and what they answer."""
    data = tmp_path_factory.mktemp("made")
    return data, load(SHIPPED, data)


@pytest.fixture
def kept(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "data")


@pytest.fixture
def exports(monkeypatch):
    """Which kinds are exported from here on."""
    seen, export = [], exported._export
    monkeypatch.setattr(exported, "_export", lambda *job: seen.append(job[0]) or export(*job))
    return seen


def test_it_answers_as_the_trained_network(made):
    expected = np.asarray(train.load_regressor(SHIPPED)([FEATURE, TOKENS], training=False))
    np.testing.assert_allclose(made[1], expected, rtol=0, atol=1e-5)


def test_what_is_whole_is_kept_and_what_cannot_be_kept_answers_all_the_same(
    made, kept, exports, tmp_path
):
    folder = networks_in(kept)
    before = files_of(folder)
    np.testing.assert_array_equal(load(SHIPPED, kept), made[1])
    assert (exports, files_of(folder)) == ([], before)
    (tmp_path / "file").write_text("no folder")
    np.testing.assert_array_equal(load(SHIPPED, tmp_path / "file"), made[1])


@pytest.mark.parametrize("damage", ["a changed bit", "half a file", "no weights", "no listing"])
def test_what_is_damaged_is_made_anew(made, kept, exports, damage):
    folder = networks_in(kept)
    before, file = files_of(folder), folder / "regress.bin"
    content = bytearray(file.read_bytes())
    if damage == "a changed bit":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "half a file":
        file.write_bytes(content[: len(content) // 2])
    else:
        (file if damage == "no weights" else folder / exported.LISTING).unlink()
    np.testing.assert_array_equal(load(SHIPPED, kept), made[1])
    assert exports == ["source"]
    listed = json.loads((folder / exported.LISTING).read_text())
    assert sorted(listed) == ["regress.bin", "regress.xml"]
    assert files_of(folder)["regress.bin"] == before["regress.bin"]


@pytest.mark.parametrize("share", [0, 0.5, 0.9])
def test_what_is_compiled_is_kept_and_damaged_it_is_compiled_anew(made, kept, exports, share):
    np.testing.assert_array_equal(load(SHIPPED, kept), made[1])
    blobs = {path: path.read_bytes() for path in networks_in(kept).glob("compiled/*")}
    place = int(share * min(map(len, blobs.values())))
    for half in (False, True):
        for path, content in blobs.items():
            path.chmod(0o644)
            rest = b"" if half else bytes(64) + content[place + 64 :]
            path.write_bytes(content[:place] + rest)
        np.testing.assert_array_equal(load(SHIPPED, kept), made[1])
    assert exports == []


def test_other_weights_are_exported_again(made, kept, exports, tmp_path):
    network = train.load_regressor(SHIPPED)
    last = [layer for layer in network.layers if layer.weights][-1]
    last.set_weights([0.5 * array for array in last.get_weights()])
    changed = tmp_path / "model"
    changed.mkdir()
    network.save(changed / "model.keras")
    found = load(changed, kept)
    assert exports == ["source"]
    assert np.abs(found - made[1]).max() > 1e-3
    np.testing.assert_array_equal(load(changed, kept), found)
    assert exports == ["source"]


def test_it_answers_without_tensorflow_from_what_is_kept():
    models.load_model("source").ground(paths.PHOTOS / "astronaut.jpg", "a woman")
    program = (
        "import sys; from scene_utils import load_model, paths\n"
        "model = load_model('source')\n"
        "print(model.ground(paths.PHOTOS / 'astronaut.jpg', 'a woman').boxes.shape)\n"
        "print('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=paths.ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[:2] == ["(1, 4)", "False"]


def test_what_cannot_be_exported_says_why(tmp_path, monkeypatch):
    (tmp_path / "model.keras").write_bytes(b"no model")
    monkeypatch.delitem(sys.modules, "tensorflow")
    with pytest.raises(RuntimeError, match=r"expected to prepare what answers, got .*keras"):
        load(tmp_path, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*.xml"))
