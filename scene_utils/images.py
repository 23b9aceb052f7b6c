"""Pictures to arrays: out comes RGB of known range, or an error that names the file."""

import io
import stat
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

# Twice a 50-megapixel camera; past it a small file can unpack to gigabytes.
GREY = 128  # of a picture without content, of 0 to 255, in all three channels
LARGEST_PIXELS = 100_000_000
# More than any such picture takes, uncompressed with 16 bits a colour.
LARGEST_BYTES = 1_000_000_000
# Pillow knows more kinds; some of them start other programs (EPS) or are no pictures.
KINDS = ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000"]
Image.init()
KINDS = [kind for kind in KINDS if kind in Image.OPEN]  # a build may lack some
# Filters of warnings belong to the process, and pictures are read in several threads.
_FILTERS = threading.Lock()
_SUFFIX = {"JPEG": (".jpg", ".jpeg"), "MPO": (".jpg", ".jpeg")}

ImageSource = str | Path | bytes | Image.Image | np.ndarray


class ImageError(ValueError):
    """A picture that cannot be read: names the file, what was expected and what was received."""


def open_image(source: ImageSource, name: str = "") -> Image.Image:
    """A path, bytes, PIL image or array (H, W), (H, W, 3) or (H, W, 4) uint8 to a PIL RGB image.

    EXIF orientation is applied, transparency is laid on white, grey and CMYK become RGB, 16-bit
    grey is scaled to 8, and of an animation the first frame is taken. Raises ImageError.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "picture")
    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, np.ndarray):
            channels = source.shape[2:]
            if (
                source.dtype != np.uint8
                or source.ndim < 2
                or channels not in ((), (3,), (4,))
                or source.size == 0
            ):
                raise ImageError(
                    f"{name}: expected uint8 (height, width[, 3 or 4]), got {source.dtype} "
                    f"{source.shape}"
                )
            image = Image.fromarray(source)
        else:
            content = source if isinstance(source, bytes) else read_file(Path(source))
            with _FILTERS, warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(content), formats=KINDS)
        if image.width * image.height > LARGEST_PIXELS:
            raise ImageError(
                f"{name}: expected at most {LARGEST_PIXELS // 1_000_000} megapixels, got "
                f"{image.width} x {image.height}"
            )
        return _to_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: expected a whole picture (JPEG, PNG, ...), got a file of another kind"
        ) from None
    except Image.DecompressionBombError as error:
        raise ImageError(
            f"{name}: expected at most {LARGEST_PIXELS // 1_000_000} megapixels, got more: {error}"
        ) from error
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise ImageError(
            f"{name}: expected a whole picture (JPEG, PNG, ...), got one that cannot be decoded: "
            f"{error}"
        ) from error


def read_file(path: Path) -> bytes:
    """The bytes of a picture's file. Raises ImageError where it is none that could be one.

    A pipe or a device would block for ever, and a huge file fill the memory.
    """
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ImageError(f"{path}: expected a picture, got something that is no file")
        if state.st_size > LARGEST_BYTES:
            raise ImageError(
                f"{path}: expected at most {LARGEST_BYTES:,} bytes, got {state.st_size:,}"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path}: expected a picture, found no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a path that no file can have
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: expected a picture, could not read it: {reason}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        values = np.asarray(image, np.float32)
        top = 65535 if values.max() > 255 else 255
        image = Image.fromarray(np.uint8(np.clip(values / top * 255, 0, 255)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image if image.mode == "RGB" else image.convert("RGB")  # a copy as it is


def with_box(image: Image.Image, box: np.ndarray) -> Image.Image:
    """A copy of the picture with the box `(4,)`, in its own pixels, drawn on it."""
    shown = image.copy()
    draw = ImageDraw.Draw(shown)
    thin = max(2, round(max(image.size) / 220))
    corners = [float(side) for side in box]
    draw.rectangle(corners, outline="white", width=2 * thin)
    draw.rectangle(corners, outline="#D55E00", width=thin)
    return shown


def squeeze(image: Image.Image, size: int) -> np.ndarray:
    """The whole frame of an RGB picture squeezed to (size, size, 3) uint8.

    Both sides are scaled on their own, so fractions of the picture stay what they were; a picture
    of (size, size) already comes back unchanged. Bicubic with antialiasing.
    """
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def read_squeezed(source: ImageSource, size: int) -> tuple[np.ndarray, int, int]:
    """`squeeze` of whatever `open_image` takes, with the original width and height."""
    image = open_image(source)
    return squeeze(image, size), *image.size


def remark(content: bytes, name: str, size: tuple[int, int]) -> str:
    """What is odd about the file `name` of a readable picture of `size` px, or an empty string."""
    kind = Image.open(io.BytesIO(content), formats=KINDS).format
    found = []
    if Path(name).suffix.lower() not in _SUFFIX.get(kind, (f".{kind.lower()}",)):
        found.append(f"is a {kind} file")
    if min(size) < 8 or max(size) > 16 * min(size):
        found.append(f"has {size[0]} x {size[1]} pixels")
    return ", ".join(found)
