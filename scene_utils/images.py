"""Pictures to arrays: out comes RGB of known range, or an error that names the file."""

import io
import threading
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

GREY = 128  # of a picture without content, of 0 to 255, in all three channels
LARGEST_PIXELS = 100_000_000  # twice a camera's; past it a small file can unpack to gigabytes
LARGEST_BYTES = 1_000_000_000  # more than such a picture takes with 16 bits a colour
Image.init()
# Pillow knows more kinds; some of them start other programs (EPS) or are no pictures. It may be
# built without some of these.
KINDS = ["JPEG", "PNG", "GIF", "WEBP", "AVIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000"]
KINDS = [kind for kind in KINDS if kind in Image.OPEN]
_opening = threading.Lock()

ENDINGS = (".jpg", ".jpeg", ".JPG", ".JPEG", ".png", ".PNG")

# Or an opened file, or anything that NumPy takes for an array, such as a tensor.
ImageSource = str | Path | bytes | Image.Image | np.ndarray


class ImageError(ValueError):
    """A picture that cannot be read: names the file, what was expected and what was received."""


def open_image(source: ImageSource, name: str = "") -> Image.Image:
    """A path, bytes, opened file, PIL image or array (H, W[, 1, 3 or 4]) to a PIL RGB image.

    EXIF orientation is applied, transparency is laid on white, and of an animation the first frame
    is taken. Values of an array, or of a picture of floats, run to 1 (or true), to 255 or to
    65,535, whichever is the least that holds them. Raises ImageError.
    """
    name = name or (str(source) if isinstance(source, str | Path) else "picture")
    try:
        if isinstance(source, Image.Image):
            image = source
        elif hasattr(source, "__array__"):
            image = Image.fromarray(_eight_bit(np.asarray(source), name))
        else:
            image = _open(_content(source, name))
        if image.width * image.height > LARGEST_PIXELS:
            raise ImageError(
                f"{name}: expected at most {LARGEST_PIXELS // 1_000_000} megapixels, got "
                f"{image.width} x {image.height}"
            )
        return _to_rgb(image, name)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        other = isinstance(error, UnidentifiedImageError)
        found = "a file of another kind" if other else f"one that cannot be decoded: {error}"
        raise ImageError(
            f"{name}: expected a whole picture (JPEG, PNG, ...), got {found}"
        ) from error


def _open(content: bytes) -> Image.Image:
    """`Image.open` without Pillow's bound of pixels, since `open_image` has one of its own; what
    else runs in the process keeps it."""
    with _opening:
        bound, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=KINDS)
        finally:
            Image.MAX_IMAGE_PIXELS = bound


def _content(source, name: str) -> bytes:
    if isinstance(source, str | Path):
        return read_file(Path(source))
    if callable(getattr(source, "read", None)):
        source = source.read(LARGEST_BYTES + 1)
    if not isinstance(source, bytes | bytearray | memoryview):
        raise ImageError(
            f"{name}: expected a path, bytes, an opened file, a PIL image or an array, got "
            f"{type(source).__name__}"
        )
    if len(source) > LARGEST_BYTES:
        raise ImageError(f"{name}: expected at most {LARGEST_BYTES:,} bytes, got more")
    return bytes(source)


def _eight_bit(array: np.ndarray, name: str) -> np.ndarray:
    """An array of numbers as uint8 `(H, W)` or `(H, W, 3 or 4)`; see `open_image`."""
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)) or not array.size:
        found = f"{array.dtype} {array.shape}"
        raise ImageError(f"{name}: expected an array (height, width[, 1, 3 or 4]), got {found}")
    array = array[..., 0] if array.shape[2:] == (1,) else array
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "buif":
        raise ImageError(f"{name}: expected an array of numbers, got {array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not 0 <= low <= high <= 65535:  # what is no number is neither
        found = f"{low:g} to {high:g}"
        raise ImageError(f"{name}: expected values from 0 to 1, 255 or 65,535, got {found}")
    top = 255 if high <= 255 and array.dtype != np.uint16 else 65535
    if array.dtype.kind in "fb" and high <= 1:
        top = 1
    return np.uint8(np.round(array.astype(np.float32) / top * 255))


def picture_file(folder: Path, image_id: str) -> Path:
    """The picture of an id in a folder, under the first of `ENDINGS` that is there; where none is,
    the path that was expected."""
    paths = (Path(folder) / f"{image_id}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), Path(folder) / f"{image_id}.jpg")


def picture_files(folder: Path) -> dict[str, Path]:
    """All pictures of a folder by their ids."""
    files = sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []
    return {path.stem: path for path in files if path.suffix in ENDINGS}


def check_folder(folder: Path, ids: list[str]) -> None:
    """FileNotFoundError where not one of the ids has a picture in the folder."""
    if not len(ids) or any(picture_file(folder, image_id).is_file() for image_id in ids):
        return
    there = sorted(path.name for path in Path(folder).iterdir()) if Path(folder).is_dir() else []
    instead = f"there is {there[0]} instead" if there else "the folder is empty or missing"
    raise FileNotFoundError(
        f"{folder}: expected pictures of {len(ids):,} ids, such as {ids[0]}.jpg, found none of "
        f"them; {instead}"
    )


def read_file(path: Path) -> bytes:
    """The bytes of a picture's file. ImageError where it is none that could be one: a pipe would
    block for ever, a huge file fill the memory."""
    try:
        if not path.is_file():
            found = "got something that is no file" if path.exists() else "found no such file"
            raise ImageError(f"{path}: expected a picture, {found}")
        if path.stat().st_size > LARGEST_BYTES:
            raise ImageError(f"{path}: expected at most {LARGEST_BYTES:,} bytes, got more")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: expected a picture, got {error.strerror}") from error


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_eight_bit(np.asarray(image), name))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
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
    """The whole frame of an RGB picture squeezed to (size, size, 3) uint8, by bicubic resampling
    with antialiasing. Fractions of the picture stay what they were."""
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def read_squeezed(source: ImageSource, size: int) -> tuple[np.ndarray, int, int]:
    """`squeeze` of whatever `open_image` takes, with the original width and height."""
    image = open_image(source)
    return squeeze(image, size), *image.size


def remark(content: bytes, name: str, size: tuple[int, int]) -> str:
    """What is odd about the file `name` of a readable picture of `size` px, or an empty string."""
    kind, found = _open(content).format, []
    usual = (".jpg", ".jpeg") if kind in ("JPEG", "MPO") else (f".{kind.lower()}",)
    if Path(name).suffix.lower() not in usual:
        found.append(f"is a {kind} file")
    if min(size) < 8 or max(size) > 16 * min(size):
        found.append(f"has {size[0]} x {size[1]} pixels")
    return ", ".join(found)
