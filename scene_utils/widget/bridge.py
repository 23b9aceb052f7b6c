"""Two small browser parts for the query widget, by anywidget, for what ipywidgets lacks."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class Bridge(anywidget.AnyWidget):
    """A button to open a photo, paste and drop of one, and downloads to the browser.

    `taken(name, data, size, count)` is called with a file's name, its bytes, width and height in
    pixels where the browser made it smaller (else None), and the number of bytes of the file. Bytes
    are empty where the file is large and the browser cannot read it as a picture.
    """

    _esm = HERE / "bridge.js"
    alt = traitlets.Unicode("").tag(sync=True)

    def __init__(self, taken: Callable[[str, bytes, tuple[int, int] | None, int], None]):
        super().__init__()
        self.on_msg(
            lambda _, message, buffers: taken(
                str(message["name"]),
                bytes(buffers[0]),
                tuple(map(int, message["size"])) if message["size"] else None,
                int(message["bytes"]),
            )
        )

    def save(self, name: str, mime: str, data: bytes) -> None:
        """Have the browser save a file."""
        self.send({"save": {"name": name, "mime": mime}}, [data])


class Status(anywidget.AnyWidget):
    """A message for eyes and screen readers; `kind` is info, warning or error."""

    _esm = HERE / "status.js"
    text = traitlets.Unicode("").tag(sync=True)
    kind = traitlets.Unicode("info").tag(sync=True)
