"""The README's pictures, `make screenshots`: answers on photos; the widget in a real browser.

They show the photos of `data/photos` alone, which may be shown anywhere.
"""

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from scene_utils import box_ops, images, models, paths, plots
from scene_utils.paths import atomic
from scene_utils.plots import COLOURS, GUESS, TRUTH
from scene_utils.widget.draw import YOU
from tests.browser import browser

FOLDER = paths.ROOT / "figures" / "widget"
SIZE = {"width": 1180, "height": 850}
WIDTH = 860  # of the animation
LARGEST = 2_000_000
LINES = (*COLOURS, TRUTH, GUESS, YOU)
THREE = {"camera": "a dark coat", "rocket": "a rocket", "astronaut": "an American flag"}
EACH = "horses", "the horses"


@plots.styled
def four_photos():
    """Photos with the box that the shipped model gives a phrase, beside the one by eye; and one
    with a box of each thing."""
    known, drawn = (
        pd.read_csv(paths.PHOTOS / f"{name}.csv").set_index(["photo", "phrase"])
        for name in ("phrases", "boxes")
    )
    model = models.load_model("grid")
    figure, axes = plots.new_figure(8.4, 2.7, ncols=4)
    for axis, (photo, phrase) in zip(axes.flat[:3], THREE.items(), strict=True):
        picture = images.open_image(paths.PHOTOS / f"{photo}.jpg")
        found = model.ground(picture, phrase, top_k=1).boxes[0]
        truth = known.loc[(photo, phrase), box_ops.COLUMNS].to_numpy(np.float32)
        overlap = float(box_ops.iou(found, truth))
        plots.draw_boxes(axis, np.asarray(picture), [truth, found], colours=(TRUTH, GUESS))
        said = "right" if overlap >= 0.5 else "wrong"
        axis.set_title(f"“{phrase}”\n{said}: IoU {overlap:.2f}", fontsize=9)
    photo, phrase = EACH
    picture = images.open_image(paths.PHOTOS / f"{photo}.jpg")
    found = model.ground(picture, phrase, top_k=10, instances=True).boxes
    truth = np.float32(json.loads(drawn.loc[EACH, "instances"]))
    right = (box_ops.iou(found[:, None], truth[None]) >= 0.5).any(axis=0).sum()
    plots.draw_boxes(axes.flat[3], np.asarray(picture), found)
    title = f"“{phrase}”, each\n{right} of {len(truth)} in {len(found)} boxes"
    axes.flat[3].set_title(title, fontsize=9)
    return figure


def _picture(page) -> Image.Image:
    page.wait_for_timeout(400)  # a focus ring or a hovered button fades
    return Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")


def _choose(page, name: str, phrase: str) -> None:
    browser.choose(page, name)
    browser.wait_label(page, phrase)


def _heat(page, steps: int) -> None:
    slider = page.get_by_role("slider", name="Heat map (%)")
    for _ in range(abs(steps)):
        slider.press("ArrowRight" if steps > 0 else "ArrowLeft")
    slider.blur()


def screenshot(page) -> Image.Image:
    """Mode Phrase with a heat map and the words' weights."""
    browser.ask(page, "the woman in the orange suit")
    _heat(page, 8)
    page.locator(".sq-heat").wait_for()
    page.locator(".sq-line input").blur()
    return _picture(page)


def animation(page) -> list[tuple[Image.Image, int]]:
    """Frames and their milliseconds: a phrase, a sentence, a round of play."""
    _heat(page, -8)
    frames = []
    page.set_viewport_size(SIZE | {"height": 740})

    def frame(milliseconds: int) -> None:
        frames.append((_picture(page), milliseconds))

    _choose(page, "chelsea", "a cat")
    frame(1200)
    field = page.locator(".sq-line input")
    field.fill("")
    for part in ("the no", "se of", " the cat"):
        field.press_sequentially(part)
        frame(300)
    page.keyboard.press("Enter")
    browser.wait_label(page, "the nose of")
    frame(1800)
    _choose(page, "coffee", "a cup")
    browser.mode(page, "Sentence")
    page.locator(".sq-legend li").nth(2).wait_for()
    frame(2200)
    browser.mode(page, "Play")
    canvas = page.locator(".sq-draw svg")
    canvas.wait_for()
    while page.locator(".sq-task b").inner_text() != "a cup":
        page.get_by_role("button", name="Next phrase").click()
        page.wait_for_timeout(300)
    frame(1000)
    at = canvas.bounding_box()
    page.mouse.move(at["x"] + 0.3 * at["width"], at["y"] + 0.05 * at["height"])
    page.mouse.down()
    for share in (0.5, 1):
        right, bottom = 0.3 + 0.38 * share, 0.05 + 0.7 * share
        page.mouse.move(at["x"] + right * at["width"], at["y"] + bottom * at["height"], steps=4)
        frame(350)
    page.mouse.up()
    frame(500)
    page.get_by_role("button", name="Check").click()
    page.locator(".sq-task .sq-verdict").nth(1).wait_for()
    frame(2600)
    return frames


def gif_bytes(frames: list[tuple[Image.Image, int]]) -> bytes:
    """One palette for all frames, so that only what changes is stored; lines keep their colours."""
    small = [
        image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
        for image, _ in frames
    ]
    sheet = Image.new("RGB", (WIDTH, small[0].height * len(small) + 20 * len(LINES)))
    for place, image in enumerate(small):
        sheet.paste(image, (0, place * image.height))
    for place, colour in enumerate(LINES):  # few pixels have them, and they matter most
        top = small[0].height * len(small) + 20 * place
        sheet.paste(colour, (0, top, WIDTH, top + 20))
    palette = sheet.quantize(256, method=Image.Quantize.MEDIANCUT)
    plain = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in small]
    buffer = io.BytesIO()
    plain[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=plain[1:],
        duration=[milliseconds for _, milliseconds in frames],
        loop=0,
        optimize=True,
    )
    return buffer.getvalue()


def main() -> None:
    plots.save(four_photos(), FOLDER / "photos.png")
    with (
        tempfile.TemporaryDirectory() as folder,
        browser.widget_open(Path(folder), browser.PHOTOS_PAGE, viewport=SIZE) as page,
    ):
        still, moving = screenshot(page), gif_bytes(animation(page))
    if len(moving) > LARGEST:
        raise SystemExit(f"error: expected an animation below 2 MB, got {len(moving):,} bytes")
    for name, save in (
        ("ask.png", lambda path: still.save(path, "PNG", optimize=True)),
        ("ask.gif", lambda path: path.write_bytes(moving)),
    ):
        with atomic(FOLDER / name) as temporary:
            save(temporary)
        print(f"{FOLDER / name}: {(FOLDER / name).stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
