"""Pictures to arrays: out comes RGB of known range, or an error that names the file."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

# Twice a 50-megapixel camera; past it a small file can unpack to gigabytes.
LARGEST_PIXELS = 100_000_000

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
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
        if image.width * image.height > LARGEST_PIXELS:
            raise ImageError(
                f"{name}: expected at most {LARGEST_PIXELS // 1_000_000} megapixels, got "
                f"{image.width} x {image.height}"
            )
        return _to_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: expected a picture, found no such file") from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name}: expected a whole picture (JPEG, PNG, ...), got a file of another kind"
        ) from None
    except Exception as error:  # Pillow's decoders raise many types on damaged data
        raise ImageError(
            f"{name}: expected a whole picture (JPEG, PNG, ...), got one that cannot be decoded: "
            f"{error}"
        ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535 if image.mode.startswith("I;16") or values.max() > 255 else 255
        image = Image.fromarray(np.uint8(np.clip(values / top * 255, 0, 255)))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image)
    return image.convert("RGB")


def with_box(image: Image.Image, box: np.ndarray) -> Image.Image:
    """A copy of the picture with the box `(4,)`, in its own pixels, drawn on it."""
    shown = image.copy()
    draw = ImageDraw.Draw(shown)
    thin = max(2, round(max(image.size) / 220))
    corners = [float(side) for side in box]
    draw.rectangle(corners, outline="white", width=2 * thin)
    draw.rectangle(corners, outline="#D55E00", width=thin)
    return shown


def read_squeezed(source: ImageSource, size: int) -> tuple[np.ndarray, int, int]:
    """The whole frame squeezed to (size, size, 3) uint8 RGB, with the original width and height.

    Both sides are scaled on their own, so fractions of the picture stay what they were; a picture
    stored at (size, size) already comes back unchanged. Bicubic with antialiasing.
    """
    image = open_image(source)
    width, height = image.size
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image), width, height
