"""The store of features: nothing lost, half taken or mixed up, whatever happens to a run.

The encoder here is a small function of the pixels; what is tested is all around it, as it is.
"""

import errno
import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from scene_utils import paths
from scene_utils.features import store as feature_store
from tests.makers import files_of

MADE_WITH = {"backbone": "colours", "size": 32, "channels": 48}
SHARD, BATCH = 4, 2

# One process imports what a run needs, and each run is a copy of it: to import takes seconds.
RUNS = multiprocessing.get_context("forkserver")
RUNS.set_forkserver_preload([__name__])


def encode(pixels):
    """Mean colours of a 4 x 4 grid, `(n, 32, 32, 3)` to `(n, 48)`."""
    blocks = pixels.reshape(len(pixels), 4, 8, 4, 8, 3).astype(np.float32)
    return blocks.mean(axis=(2, 4)).reshape(len(pixels), -1)


def make(images, folder, encode=encode, ids=None):
    ids = [path.stem for path in images.glob("*.jpg")] if ids is None else ids
    with feature_store.writing(folder, MADE_WITH):
        parts = feature_store.missing_parts(folder, images, ids, SHARD, drop=True)
        feature_store.compute(parts, encode, images, MADE_WITH, folder, BATCH)
    return feature_store.open_store(folder)


def make_slowly(images, folder, rest, ready):
    def slow(pixels):
        time.sleep(rest)
        return encode(pixels)

    os.dup2(os.open(log_of(folder), os.O_CREAT | os.O_APPEND | os.O_WRONLY), 2)
    ready.set()
    make(images, folder, slow)


def log_of(folder):
    """What runs into a store say on their standard error."""
    return folder.with_suffix(".log")


def start(images, folder, rest):
    """A run in a process of its own that rests so many seconds after each batch."""
    ready = RUNS.Event()
    running = RUNS.Process(target=make_slowly, args=(images, folder, rest, ready))
    running.start()
    assert ready.wait(60)
    return running


def picture(path, number, size=(40, 30), **options):
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(path, "JPEG", **options)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(18):
        picture(folder / f"{100 + number}.jpg", number)
    return folder


@pytest.fixture
def whole(images, tmp_path):
    make(images, tmp_path / "whole")
    return tmp_path / "whole"


def test_rows_are_what_the_encoder_gave(images, whole):
    store = feature_store.open_store(whole)
    assert len(store.shards) == 5
    for image_id in ("100", "117"):
        pixels = np.asarray(Image.open(images / f"{image_id}.jpg").resize((32, 32), 3))[None]
        np.testing.assert_array_equal(
            store.array([image_id]), encode(pixels).astype(np.float16), strict=True
        )
    ids = ["111", "103", "111"]
    np.testing.assert_array_equal(
        store.array(ids), np.concatenate([store.array([image_id]) for image_id in ids])
    )
    with pytest.raises(KeyError, match="3 pictures, 1 are missing, first 999"):
        store.array(["100", "999", "101"])
    with pytest.raises(FileNotFoundError, match="notebook 03"):
        feature_store.open_store(images)


def test_odd_and_unreadable_pictures_are_listed_and_the_run_goes_on(images, tmp_path):
    jpeg = (images / "100.jpg").read_bytes()
    (images / "200.jpg").write_bytes(b"")
    (images / "201.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (images / "202.jpg").write_bytes(b"no picture")
    Image.new("RGB", (9, 9), "red").save(images / "203.jpg", "PNG")
    picture(images / "204.jpg", 0, (1, 1))
    picture(images / "205.jpg", 0, (30_000, 10))
    Image.new("1", (20_000, 20_000)).save(images / "206.jpg", "PNG")  # 49 kB
    (images / "207.jpg").mkdir()
    os.mkfifo(images / "208.jpg")
    store = make(
        images, tmp_path / "store", ids=[str(n) for n in [*range(100, 118), *range(200, 210)]]
    )
    reasons = dict(store.unreadable.itertuples(index=False))
    assert sorted(reasons) == ["200", "201", "202", "206", "207", "208", "209"]
    for image_id in ("200", "201", "202"):
        assert reasons[image_id].startswith(f"{image_id}.jpg: expected a whole picture")
    assert reasons["206"] == "206.jpg: expected at most 100 megapixels, got 20000 x 20000"
    assert "no file" in reasons["207"]
    assert "no file" in reasons["208"]
    assert reasons["209"] == "209.jpg: expected a picture, found no such file"
    assert dict(store.remarks.itertuples(index=False)) == {
        "203": "is a PNG file",
        "204": "has 1 x 1 pixels",
        "205": "has 30000 x 10 pixels",
    }
    assert len(store.row) == 21
    np.testing.assert_array_equal(store.array(["203"])[0], np.tile([255, 0, 0], 16))


def test_a_file_that_vanishes_while_the_run_goes_on_is_listed(images, tmp_path):
    def unlink_the_last(pixels):
        (images / "117.jpg").unlink(missing_ok=True)
        return encode(pixels)

    store = make(images, tmp_path / "store", unlink_the_last)
    assert dict(store.unreadable.itertuples(index=False)) == {
        "117": "117.jpg: expected a picture, found no such file"
    }
    assert len(store.row) == 17


def test_a_finished_store_and_a_picture_that_is_gone_are_not_computed_again(images, whole):
    before, ids = files_of(whole), [path.stem for path in images.glob("*.jpg")]
    (images / "104.jpg").unlink()
    store = make(images, whole, lambda pixels: pytest.fail("computed again"), ids)
    assert files_of(whole) == before
    assert "104" in store.row


@pytest.mark.parametrize("change", ["other picture", "damaged", "repaired"])
def test_a_changed_picture_is_computed_anew(change, images, tmp_path):
    target = images / "106.jpg"
    whole, store = target.read_bytes(), tmp_path / "store"
    if change == "repaired":
        target.write_bytes(whole[:200])
    make(images, store)
    if change == "other picture":
        picture(target, 500)
    else:
        target.write_bytes(whole if change == "repaired" else whole[:200])
    seen = []
    opened = make(images, store, lambda pixels: seen.append(1) or encode(pixels))
    assert len(seen) == SHARD // BATCH, "one shard should have been computed"
    assert ("106" in opened.row) == (change != "damaged")
    make(images, tmp_path / "anew")
    assert files_of(store) == files_of(tmp_path / "anew")


def test_new_pictures_are_added(images, whole):
    before = files_of(whole)
    for number in range(5):
        picture(images / f"{50 + number}.jpg", 50 + number)
    store = make(images, whole)
    assert len(store.row) == 23
    assert files_of(whole).items() > before.items()
    expected = encode(np.asarray(Image.open(images / "51.jpg").resize((32, 32), 3))[None])
    np.testing.assert_array_equal(store.array(["51"]), expected.astype(np.float16))


def test_a_second_writer_is_refused_and_a_reader_is_not(images, tmp_path):
    folder = tmp_path / "store"
    running = start(images, folder, rest=0.3)
    try:
        until = time.monotonic() + 60
        while not list(folder.glob("0*.json")) and time.monotonic() < until:
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match=rf"process {running.pid} on .* is writing this"):
            make(images, folder)
        assert len(feature_store.open_store(folder).row) >= SHARD
    finally:
        running.kill()
        running.join()
    assert len(make(images, folder).row) == 18


def test_a_store_made_otherwise_or_that_cannot_be_written_is_refused(images, whole):
    with pytest.raises(OSError, match="cannot write to the store: Not a directory"):
        make(images, images / "100.jpg" / "store")
    other = MADE_WITH | {"backbone": "shapes", "size": 64}
    differs = r"made with backbone = 'shapes', got 'colours'; size = 64, got 32\. Delete"
    with pytest.raises(ValueError, match=differs):
        feature_store.read_manifest(whole, other)
    manifest = whole / feature_store.MANIFEST
    manifest.write_text(json.dumps({"made_with": MADE_WITH, "shards": []}))
    with pytest.raises(ValueError, match="format = 2, got None"):
        make(images, whole)
    manifest.write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json: expected a store's manifest"):
        feature_store.open_store(whole)


def test_verify_finds_each_damaged_shard(whole, images, tmp_path):
    assert feature_store.verify(whole) == []
    expected = files_of(whole)
    content = bytearray(expected["00001.npy"])
    content[-7] ^= 4
    (whole / "00001.npy").write_bytes(content)
    os.truncate(whole / "00003.npy", 90)
    (whole / "00004.npy").unlink()
    problems = feature_store.verify(whole)
    assert [line.split(": ")[0][-6:-4] for line in problems] == ["01", "03", "04"]
    assert "expected sha256" in problems[0]
    for line in problems:  # what the message says to do helps
        (whole / line.split("Delete ")[1].split()[0]).unlink()
    make(images, whole)
    assert files_of(whole) == expected


def test_a_damaged_store_is_not_opened(whole):
    shard, content = whole / "00000.npy", (whole / "00000.npy").read_bytes()
    os.truncate(shard, 500)
    with pytest.raises(ValueError, match=r"00000\.npy: expected float16 \(4, 48\)"):
        feature_store.open_store(whole)
    np.save(shard, np.array([{"a": 1}] * 4, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"00000\.npy"):
        feature_store.open_store(whole)
    shard.write_bytes(content)
    os.truncate(whole / "00002.json", 30)
    with pytest.raises(ValueError, match=r"00002\.json: expected a shard's listing"):
        feature_store.open_store(whole)


def test_a_file_limit_names_the_shard_and_keeps_what_was_done(images, whole, tmp_path, monkeypatch):
    folder, write = tmp_path / "store", feature_store.write_shard

    def limit_after_the_first(*given):
        write(*given)
        resource.setrlimit(resource.RLIMIT_FSIZE, (450, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(feature_store, "write_shard", limit_after_the_first)
    try:
        with pytest.raises(OSError, match=r"could not write 00001\.npy.*run again"):
            make(images, folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        monkeypatch.undo()
    assert sorted(files_of(folder)) == ["00000.json", "00000.npy", feature_store.MANIFEST]
    make(images, folder)
    assert files_of(folder) == files_of(whole)


def test_several_batches_in_the_model_at_once_change_no_bit(images, whole, tmp_path):
    inside, most = [], []

    def slow_for_some(pixels):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02 * (pixels.sum() % 3))  # batches end in another order than they began
        inside.pop()
        return encode(pixels)

    make(images, tmp_path / "store", slow_for_some)
    assert max(most) == 2
    assert files_of(tmp_path / "store") == files_of(whole)


def test_a_full_disk_stops_the_squeezing_of_pictures_with_the_name_of_its_file(images, tmp_path):
    program = """
import sys
from pathlib import Path
from scene_utils.features.pixels import squeeze_pictures
images = Path(sys.argv[1])
store = squeeze_pictures(images, [p.stem for p in images.glob("*.jpg")], 64, Path(sys.argv[2]))
print(store.pictures.shape)
    """
    script = """
        mount -t tmpfs -o size=64k none "$3"
        "$1" -c "$4" "$2" "$3" && exit 9
        ls -A "$3"
        mount -o remount,size=1m "$3"
        "$1" -c "$4" "$2" "$3"
    """
    (tmp_path / "store").mkdir()
    # In name spaces of its own it may mount, where that is allowed.
    apart = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    if not shutil.which("unshare") or subprocess.run([*apart, "mount -t tmpfs n /mnt"]).returncode:
        pytest.skip("needs a file system of its own: unshare --user --mount is not allowed here")
    words = [*apart, script, "sh", sys.executable, images, tmp_path / "store", program]
    answer = subprocess.run(words, capture_output=True, text=True, cwd=paths.ROOT)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout == f"({len(list(images.glob('*.jpg')))}, 64, 64, 3)\n"
    assert f"[Errno {errno.ENOSPC}] could not write pictures_64.npy" in answer.stderr


@pytest.mark.slow
def test_fifty_kills_at_random_moments_change_no_bit(tmp_path):
    images, whole, rng = tmp_path / "images", tmp_path / "whole", np.random.default_rng(0)
    images.mkdir()
    for number in range(60):
        picture(images / f"{100 + number}.jpg", number)
    (images / "130.jpg").write_bytes(b"no picture")
    make(images, whole)
    kills, finished, partial = 0, 0, set()
    while kills < 50:
        folder = tmp_path / f"store{finished}"
        running = start(images, folder, rest=0.002)
        # Mostly short ones: creating, renaming and listing are a small share of a run.
        running.join(rng.uniform(0, 0.15))
        running.kill()
        running.join()
        assert running.exitcode in (0, -signal.SIGKILL)
        assert "Error" not in log_of(folder).read_text()
        kills += running.exitcode != 0
        partial.add((finished, len(list(folder.glob("0*.json")))))
        if len(list(folder.glob("0*.json"))) == 15:
            make(images, folder)
            assert files_of(folder) == files_of(whole)
            finished += 1
    make(images, folder)
    assert files_of(folder) == files_of(whole)
    assert len(partial) > 10, "the kills should have hit different moments"
