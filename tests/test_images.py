"""Pictures of every kind come out as the RGB that a viewer shows, or as an error with a name."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from scene_utils import images
from scene_utils.images import ImageError, open_image, read_squeezed

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS = np.uint8([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (255, 255, 0)]])


def encoded(image, kind="PNG", **options):
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def shown(source):
    image = open_image(source)
    assert image.mode == "RGB"
    return np.asarray(image)


def chunk(kind, content):
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_that_claims(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.fixture
def noise():
    """A picture whose JPEG is long enough to be cut in the middle."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def test_transparency_lies_on_white():
    rgba = np.uint8([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]])
    expected = [[RED, WHITE, (204, 204, 204)]]
    for source in (rgba, encoded(Image.fromarray(rgba))):
        np.testing.assert_allclose(shown(source), expected, atol=1)
    image = Image.fromarray(np.uint8([[[0, 255], [0, 0], [100, 255]]]), "LA")
    np.testing.assert_array_equal(shown(encoded(image)), [[(0, 0, 0), WHITE, (100, 100, 100)]])


def test_palette_with_transparency_lies_on_white():
    image = Image.fromarray(np.uint8([[0, 1, 2]]), "P")
    image.putpalette([*RED, *GREEN, *BLUE])
    expected = [[WHITE, GREEN, BLUE]]
    np.testing.assert_array_equal(shown(encoded(image, transparency=0)), expected)
    np.testing.assert_array_equal(shown(encoded(image, "GIF", transparency=0)), expected)
    half = shown(encoded(image, transparency=bytes([51, 255, 255])))
    np.testing.assert_allclose(half, [[(255, 204, 204), GREEN, BLUE]], atol=1)


def test_a_colour_named_transparent_becomes_white():
    image = Image.fromarray(np.uint8([[RED, GREEN]]))
    np.testing.assert_array_equal(shown(encoded(image, transparency=RED)), [[WHITE, GREEN]])


def test_grey_and_black_and_white():
    grey = np.uint8([[0, 100, 255]])
    expected = np.repeat(grey[..., None], 3, axis=2)
    for source in (grey, encoded(Image.fromarray(grey))):
        np.testing.assert_array_equal(shown(source), expected)
    bitmap = Image.fromarray(np.uint8([[0, 255, 255]])).convert("1")
    np.testing.assert_array_equal(shown(encoded(bitmap)), [[(0, 0, 0), WHITE, WHITE]])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 13107, 32768, 65535], [0, 51, 127.5, 255]), ([0, 10, 200, 255], [0, 0, 1, 1])],
    ids=["whole range", "all but black"],
)
def test_16_bit_grey_keeps_its_brightness(values, expected):
    png = encoded(Image.fromarray(np.uint16([values])))
    assert png[24] == 16, "the file should have 16 bits a sample"
    for channel in range(3):
        np.testing.assert_allclose(shown(png)[0, :, channel], expected, atol=1)


def test_cmyk_jpeg():
    inks = {(0, 0, 0, 0): WHITE, (255, 0, 0, 0): (0, 255, 255), (0, 255, 255, 0): RED}
    for ink, expected in inks.items():
        jpeg = encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95)
        np.testing.assert_allclose(shown(jpeg)[8, 8], expected, atol=6)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 6), colour) for colour in (RED, GREEN, BLUE)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    assert Image.open(io.BytesIO(gif)).n_frames == 3
    np.testing.assert_array_equal(shown(gif), np.broadcast_to(np.uint8(RED), (6, 8, 3)))


# How a camera held in each way stores an upright picture, from the EXIF standard's text: which side
# of the scene the stored first row and first column are.
STORED = {
    1: lambda up: up,
    2: lambda up: up[:, ::-1],
    3: lambda up: up[::-1, ::-1],
    4: lambda up: up[::-1],
    5: lambda up: up.transpose(1, 0, 2),
    6: lambda up: up.transpose(1, 0, 2)[::-1],
    7: lambda up: up.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda up: up.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(orientation, kind):
    upright = np.kron(COLOURS, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    source = encoded(stored, kind, exif=exif, **options)
    assert shown(source).shape == (32, 48, 3)
    np.testing.assert_allclose(shown(source)[8::16, 8::16], COLOURS, atol=6)
    assert read_squeezed(source, 20)[1:] == (48, 32)


def test_a_picture_of_one_pixel():
    squeezed, width, height = read_squeezed(encoded(Image.new("RGB", (1, 1), (7, 80, 200))), 5)
    assert (width, height) == (1, 1)
    np.testing.assert_array_equal(squeezed, np.broadcast_to(np.uint8([7, 80, 200]), (5, 5, 3)))


def test_squeezing_keeps_fractions_of_the_frame():
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, 100:] = BLUE  # a quarter of the width
    wide[75:] = GREEN  # the last quarter of the height
    squeezed, width, height = read_squeezed(wide, 64)
    assert squeezed.shape == (64, 64, 3)
    assert squeezed.dtype == np.uint8
    assert (width, height) == (400, 100)
    np.testing.assert_allclose(squeezed[:46, :14], 0, atol=1)
    np.testing.assert_allclose(squeezed[:46, 18:], np.broadcast_to(BLUE, (46, 46, 3)), atol=1)
    np.testing.assert_allclose(squeezed[50:], np.broadcast_to(GREEN, (14, 64, 3)), atol=1)


def test_squeezing_averages_what_is_finer_than_a_pixel():
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(read_squeezed(stripes, 32)[0].astype(int) - 127).max() <= 3


def test_a_picture_of_the_asked_size_is_not_touched(noise):
    squeezed, width, height = read_squeezed(encoded(noise), 64)
    np.testing.assert_array_equal(squeezed, np.asarray(noise))
    assert (width, height) == (64, 64)


@pytest.mark.parametrize(
    "damage", ["cut", "cut png", "text", "empty", "header only", "missing", "folder"]
)
def test_what_cannot_be_read_is_named(damage, noise, tmp_path):
    path = tmp_path / "holiday.jpg"
    jpeg = encoded(noise, "JPEG", quality=90)
    content = {
        "cut": jpeg[: len(jpeg) // 2],
        "cut png": encoded(noise)[:6000],
        "text": b"This is not a picture.\n" * 20,
        "empty": b"",
        "header only": jpeg[:200],
    }
    if damage in content:
        path.write_bytes(content[damage])
    elif damage == "folder":
        path.mkdir()
    for source in (path, str(path)):
        with pytest.raises(ImageError) as caught:
            open_image(source)
        assert str(caught.value).startswith(f"{path}: expected a ")
    assert ("found no such file" in str(caught.value)) == (damage == "missing")
    if damage in content:
        with pytest.raises(ImageError, match=r"^upload 3: expected a whole picture"):
            open_image(content[damage], "upload 3")


@pytest.mark.parametrize("side", [12_000, 60_000, 2**31 - 1])
def test_a_small_file_that_claims_a_huge_picture_is_refused(side, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_that_claims(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with pytest.raises(ImageError) as caught:
            open_image(path)
    assert str(caught.value).startswith(f"{path}: expected ")
    if side == 12_000:
        assert "at most 100 megapixels, got 12000 x 12000" in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 5, 2), (4, 5, 5), (2, 4, 5, 3), (5,), (0, 5, 3), (4, 0)])
def test_an_array_that_is_no_picture_is_shown(shape):
    with pytest.raises(ImageError) as caught:
        open_image(np.zeros(shape, np.uint8), "frame")
    wanted = "frame: expected an array (height, width[, 1, 3 or 4]), got"
    assert str(caught.value) == f"{wanted} uint8 {shape}"


class Tensor:
    """As much of a tensor of any framework as NumPy asks for."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


FORMS = {
    "path": lambda array, path: path,
    "text": lambda array, path: str(path),
    "bytes": lambda array, path: path.read_bytes(),
    "bytearray": lambda array, path: bytearray(path.read_bytes()),
    "memoryview": lambda array, path: memoryview(path.read_bytes()),
    "BytesIO": lambda array, path: io.BytesIO(path.read_bytes()),
    "opened file": lambda array, path: open(path, "rb"),  # noqa: SIM115 it is read at once
    "PIL": lambda array, path: Image.fromarray(array),
    "array": lambda array, path: array,
    "tensor": lambda array, path: Tensor(array),
    "int64": lambda array, path: array.astype(np.int64),
    "to 255": lambda array, path: array.astype(np.float32),
    "to 1": lambda array, path: array / 255,
    "uint16": lambda array, path: array.astype(np.uint16) * 257,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_picture_gives_the_same_pixels(form, noise, tmp_path):
    path = tmp_path / "noise.png"
    noise.save(path)
    np.testing.assert_array_equal(shown(FORMS[form](np.asarray(noise), path)), np.asarray(noise))


@pytest.mark.parametrize(("top", "kind"), [(1, "F"), (255, "F"), (65535, "F"), (65535, "I")])
def test_a_picture_of_other_numbers_is_scaled_by_what_they_say(top, kind, tmp_path):
    ramp = np.tile(np.linspace(0, top, 32), (8, 1)).astype("f4" if kind == "F" else "i4")
    path = tmp_path / "a.tiff"
    Image.fromarray(ramp).save(path)
    found = np.asarray(open_image(path))[0, :, 0]
    np.testing.assert_allclose(found, np.linspace(0, 255, 32), atol=1)


@pytest.mark.parametrize("value", [-1, np.nan, np.inf, 1e9])
def test_numbers_that_are_no_brightness_are_refused(value):
    array = np.full((4, 5, 3), value, np.float32)
    with pytest.raises(ImageError, match="expected values from 0 to 1, 255 or 65,535, got"):
        open_image(array)


@pytest.mark.parametrize("thing", [None, 7, {"a": 1}, io.StringIO("text")])
def test_what_is_no_picture_at_all_is_named(thing):
    with pytest.raises(ImageError, match=r"expected a path, bytes, an opened file, a PIL image or"):
        open_image(thing)


@pytest.mark.parametrize("name", ["1.JPG", "1.jpeg", "1.PNG"])
def test_pictures_with_other_usual_endings_are_found(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert images.picture_file(tmp_path, "1").name == name
    assert images.picture_files(tmp_path) == {"1": tmp_path / name}
    images.check_folder(tmp_path, ["0", "1"])


def test_a_folder_without_any_of_the_pictures_says_what_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"pictures of 2 ids, such as 1.jpg, .* is empty"):
        images.check_folder(tmp_path / "none", ["1", "2"])
    (tmp_path / "one.bmp").write_bytes(b"x")
    with pytest.raises(FileNotFoundError, match=r"there is one\.bmp instead"):
        images.check_folder(tmp_path, ["1"])
