"""Pictures of every kind come out as the RGB that a viewer shows, or as an error with a name."""

import io

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


@pytest.fixture
def noise():
    """A picture whose JPEG is long enough to be cut in the middle."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


PALETTE = Image.fromarray(np.uint8([[0, 1, 2]]), "P")
PALETTE.putpalette([*RED, *GREEN, *BLUE])
ALPHA, TWO = bytes([51, 255, 255]), Image.fromarray(np.uint8([[RED, GREEN]]))
FRAMES = [Image.new("RGB", (2, 1), colour) for colour in (RED, GREEN, BLUE)]
ANIMATION = encoded(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:], duration=50)
RGBA = np.uint8([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]])
GREY = np.uint8([[0, 100, 255]])
LA = Image.fromarray(np.uint8([[[0, 255], [0, 0], [100, 255]]]), "LA")
GREYS = [(0, 0, 0), (100, 100, 100), WHITE]
BITMAP = Image.fromarray(np.uint8([[0, 255, 255]])).convert("1")
KINDS = {  # what is transparent lies on white
    "RGBA array": (RGBA, [RED, WHITE, (204, 204, 204)]),
    "RGBA": (encoded(Image.fromarray(RGBA)), [RED, WHITE, (204, 204, 204)]),
    "grey with alpha": (encoded(LA), [(0, 0, 0), WHITE, (100, 100, 100)]),
    "palette": (encoded(PALETTE, transparency=0), [WHITE, GREEN, BLUE]),
    "GIF": (encoded(PALETTE, "GIF", transparency=0), [WHITE, GREEN, BLUE]),
    "half transparent": (encoded(PALETTE, transparency=ALPHA), [(255, 204, 204), GREEN, BLUE]),
    "a colour named transparent": (encoded(TWO, transparency=RED), [WHITE, GREEN]),
    "grey array": (GREY, GREYS),
    "grey": (encoded(Image.fromarray(GREY)), GREYS),
    "black and white": (encoded(BITMAP), [(0, 0, 0), WHITE, WHITE]),
    "first of several frames": (ANIMATION, [RED, RED]),
    "no ink": (encoded(Image.new("CMYK", (2, 1)), "JPEG"), [WHITE, WHITE]),
    "red inks": (encoded(Image.new("CMYK", (1, 1), (0, 255, 255, 0)), "JPEG"), [RED]),
    "cyan ink": (encoded(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "JPEG"), [(0, 255, 255)]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_looks_as_in_a_viewer(kind):
    source, expected = KINDS[kind]
    np.testing.assert_allclose(shown(source), [expected], atol=6 if "ink" in kind else 1)


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


def test_squeezing_keeps_fractions_of_the_frame_and_averages_what_is_finer(noise):
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
    stripes = np.zeros((512, 512), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(read_squeezed(stripes, 32)[0].astype(int) - 127).max() <= 3
    np.testing.assert_array_equal(read_squeezed(noise, 64)[0], noise, "nothing to squeeze")


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


SHAPE = r"^frame: expected an array \(height, width\[, 1, 3 or 4\]\), got uint8 \("
VALUES = "^frame: expected values from 0 to 1, 255 or 65,535, got"
THING = r"^frame: expected a path, bytes, an opened file, a PIL image or"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        *[(np.zeros(shape, np.uint8), SHAPE) for shape in ((4, 5, 2), (2, 4, 5, 3), (0, 5, 3))],
        *[(np.full((4, 5, 3), value, np.float32), VALUES) for value in (-1, np.nan, np.inf, 1e9)],
        *[
            pytest.param(thing, THING, id=type(thing).__name__)
            for thing in (None, 7, {"a": 1}, io.StringIO("text"))
        ],
    ],
    ids=str,
)
def test_what_holds_no_picture_is_refused(source, message):
    with pytest.raises(ImageError, match=message):
        open_image(source, "frame")


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


@pytest.mark.parametrize("name", ["1.JPG", "1.jpeg", "1.PNG"])
def test_pictures_with_other_usual_endings_are_found_and_none_is_an_error(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    assert images.picture_file(tmp_path, "1").name == name
    assert images.picture_files(tmp_path) == {"1": tmp_path / name}
    images.check_folder(tmp_path, ["0", "1"])
    with pytest.raises(FileNotFoundError, match=rf"pictures of 1 ids, .*there is {name} instead"):
        images.check_folder(tmp_path, ["2"])
    with pytest.raises(FileNotFoundError, match=r"pictures of 2 ids, such as 1.jpg, .* is empty"):
        images.check_folder(tmp_path / "none", ["1", "2"])
