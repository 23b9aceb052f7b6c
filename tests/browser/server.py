"""A server on a free loopback port for as long as a test or a screenshot needs it."""

import contextlib
import secrets
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from scene_utils.widget import page


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True  # it refuses, so it is there
    except OSError:
        return False
    return True


@contextlib.contextmanager
def running(words: list[str], environment: dict[str, str], url: str) -> Iterator[None]:
    """A server as a process that ends with the block, which starts when `url` answers.

    Raises RuntimeError with the server's last lines where it does not within five minutes.
    """
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                if _answers(url) or server.poll() is not None:
                    break
                time.sleep(0.25)
            else:
                server.terminate()
                server.wait(30)
            if server.poll() is not None:
                log.seek(0)
                said = log.read().decode(errors="replace")[-2000:]
                raise RuntimeError(f"{' '.join(words[:4])}: expected a server, got:\n{said}")
            yield
        finally:
            server.terminate()
            server.wait(30)


@contextlib.contextmanager
def served(notebook: Path) -> Iterator[str]:
    """Serve a notebook on a free port; yields its address with the token."""
    port, token = free_port(), secrets.token_hex(16)
    words, environment = page.command(
        notebook, "--no-browser", f"--port={port}", f"--Voila.token={token}"
    )
    address = f"http://127.0.0.1:{port}/"
    with running(words, environment, f"{address}voila/static/"):
        yield f"{address}?token={token}"
