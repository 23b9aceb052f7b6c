"""A step of the grid model's training, on random pictures."""

import time

import numpy as np

SIZES = (224, 320)
WORDS, WORD_DIM = 8000, 50


def grid_step(size: int):
    """A function that takes one step at `size` px, with weights and pictures at random."""
    from scene_utils.features import backbones
    from scene_utils.grid.batches import LANDMARKS, Batch, GridSettings
    from scene_utils.grid.network import build_grid
    from scene_utils.grid.trainer import Trainer

    settings = GridSettings(backbone="efficientnet_lite2", size=size)
    model = build_grid(
        backbones.load_backbone(settings.backbone, untrained=True),
        np.zeros((WORDS, WORD_DIM), np.float32),
        settings.length,
    )
    trainer = Trainer(model, settings, 10_000)
    rng = np.random.default_rng(0)
    b, p = settings.pictures_per_step, settings.phrases_per_picture
    boxes = np.sort(rng.uniform(0, 1, (b, p, 2, 2)), axis=2).reshape(b, p, 4).astype(np.float32)
    batch = Batch(
        np.arange(b),
        rng.integers(0, 256, (b, size, size, 3), np.uint8),
        np.tile(np.float32([0, 0, 1, 1]), (b, 1)),
        np.tile(np.float32([1, 0, 1]), (b, 1)),
        rng.integers(1, WORDS, (b, p, settings.length), np.int32),
        boxes,
        np.repeat(boxes[:, :, None], LANDMARKS, axis=2),
        np.ones((b, p, b), bool),
    )
    return lambda: trainer.step(size, batch)


def measure(repeats: int = 7, sizes: tuple[int, ...] = SIZES) -> dict:
    """Seconds of a training step by side of the pictures, the median after three."""
    result: dict = {"backbone": "efficientnet_lite2", "weights": "random", "sizes": {}}
    for size in sizes:
        step, seconds = grid_step(size), []
        for _ in range(3 + repeats):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        found = {"keras": float(np.median(seconds[3:]))}
        result["sizes"][str(size)] = {"step_seconds": found}
    return result
