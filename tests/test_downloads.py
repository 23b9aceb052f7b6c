"""Downloads from a server on this machine: hashed, resumed, unpacked."""

import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from scene_utils.dataset import download, sample

CONTENT = np.random.default_rng(0).bytes(3_000_000)


@pytest.fixture
def server(tmp_path):
    """Serves `files`; breaks off after `limit` bytes of an answer; keeps the ranges asked for."""

    class Handler(BaseHTTPRequestHandler):
        files, ranges, limit, resumes = {}, [], None, True

        def do_GET(self):
            content = self.files[self.path.strip("/")]
            asked = self.headers.get("Range")
            self.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.resumes else 0
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : start + (self.limit or len(content))])

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    Handler.address = f"http://127.0.0.1:{listening.server_address[1]}"
    yield Handler
    listening.shutdown()
    listening.server_close()


def entry(server, content=CONTENT, digest=None, **kwargs):
    server.files["file.bin"] = content
    return download.Download(
        **{"name": "file.bin", "url": f"{server.address}/file.bin", "bytes": len(content)}
        | {"known_hash": f"sha256:{digest or hashlib.sha256(content).hexdigest()}", "folder": "raw"}
        | kwargs
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_once(server, tmp_path):
    item = entry(server)
    path = download.fetch(item, tmp_path)
    assert path == tmp_path / "raw" / "file.bin"
    assert path.read_bytes() == CONTENT
    download.fetch(item, tmp_path)
    assert server.ranges == [None]


@pytest.mark.parametrize("resumes", [True, False])
def test_an_interrupted_transfer_is_resumed_or_sent_again(resumes, server, tmp_path):
    item = entry(server)
    server.limit, server.resumes = 1_300_000, resumes
    with pytest.raises(OSError, match=r"IncompleteRead|broken"):
        download.fetch(item, tmp_path)
    assert names(tmp_path / "raw") == ["file.bin.part"]
    server.limit = None
    assert download.fetch(item, tmp_path).read_bytes() == CONTENT
    assert len(server.ranges) == 2
    assert int(server.ranges[1].removeprefix("bytes=").rstrip("-")) > 1_000_000
    assert names(tmp_path / "raw") == ["file.bin"]


def test_a_wrong_hash_is_named_and_nothing_stays(server, tmp_path):
    with pytest.raises(ValueError, match=r"file\.bin: expected 3,000,000 bytes with sha256:0{64}"):
        download.fetch(entry(server, digest="0" * 64), tmp_path)
    assert names(tmp_path / "raw") == []


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_only_the_named_member_is_unpacked(server, tmp_path):
    archive = zipped(tmp_path / "a.zip", {"wanted.txt": "yes", "other.txt": "no", "big": "x"})
    item = entry(server, archive.read_bytes(), member="wanted.txt")
    path = download.fetch(item, tmp_path / "data")
    assert path.read_text() == "yes"
    assert names(tmp_path / "data" / "raw") == ["wanted.txt"]


def test_the_registry_names_hash_and_size_of_each_file():
    items = {item.name: item for item in download.registry()}
    weights = items["resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"]
    assert weights.known_hash == "md5:4d473c1dd8becc155b73f8504c6f6626"  # as Keras publishes it
    assert all(item.url.startswith("https://") for item in items.values())
    assert items["glove.6B.zip"].member == "glove.6B.300d.txt"


def test_the_check_counts_and_names_what_changed(tmp_path):
    root = tmp_path / "set"
    sample.generate(root, train=4, val=1, test=2)
    listed = (root / "test.txt").read_bytes()
    sums = [f"{hashlib.sha256(listed).hexdigest()}  test.txt", f"{'0' * 64}  train.txt"]
    (root / "SHA256SUMS").write_text("\n".join([*sums, f"{'0' * 64}  annotations.zip"]) + "\n")
    (root / "flickr30k-images" / f"{listed.split()[0].decode()}.jpg").unlink()
    report = download.check_flickr30k(root)
    assert "ok      test.txt" in report
    assert "CHANGED train.txt" in report
    assert "MISSING annotations.zip" in report
    assert "pictures at hand: 6 of 31,783" in report
