"""A step of the grid model's training against the same step in PyTorch, on random pictures.

    python -m tests.benchmarks.training CONTENDER SIZE FOLDER

is a contender in a process of its own, see `tools.answer`: `keras`, the trainer of
`grid_training`, `torch` or `torch compiled`. The folder holds the backbone as `portable` writes it
and the numbers of the model. The twin's convolutions run in bfloat16 with weights in float32, as
PyTorch's autocast does and as Keras's mixed policy does. The losses that hold words against other
pictures and that show the second reading where to look are left out of both.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from scene_utils.features.portable import Portable
from tests.benchmarks import tools

SIZES = (224, 320)
CONTENDERS = ("keras", "torch", "torch compiled")
WORDS, WORD_DIM, OWN_DIM, UNITS, DEPTH, CHANNELS, BLOCKS = 8000, 50, 64, 160, 256, 128, 3


def _numbers(size: int):
    from scene_utils.grid.train import GridSettings

    left_out = {"contrasted": False, "anchored": False}
    settings = GridSettings(backbone="efficientnet_lite2", size=size, **left_out)
    rng = np.random.default_rng(0)
    b, p = settings.pictures_per_step, settings.phrases_per_picture
    corners = np.sort(rng.uniform(0, 1, (b, p, 2, 2)), axis=2).reshape(b, p, 4)
    return settings, {
        "pixels": rng.integers(0, 256, (b, size, size, 3), np.uint8),
        "tokens": rng.integers(1, WORDS, (b, p, settings.length), np.int32),
        "boxes": np.float32(corners),
    }


def _keras(size: int):
    from scene_utils.features import backbones
    from scene_utils.grid.network import build_grid
    from scene_utils.grid.train import ANCHORS, Trainer

    settings, batch = _numbers(size)
    model = build_grid(
        backbones.load_backbone(settings.backbone, untrained=True),
        np.zeros((WORDS, WORD_DIM), np.float32),
        settings.length,
    )
    trainer = Trainer(model, settings, 10_000)
    count = len(batch["pixels"])
    views = np.tile(np.float32([0, 0, 1, 1]), (count, 1))
    light = np.tile(np.float32([1, 0, 1]), (count, 1))
    tokens, boxes = batch["tokens"], batch["boxes"]
    anchors = np.zeros((*tokens.shape[:2], ANCHORS, 4), np.float32)
    absent = np.zeros((*tokens.shape[:2], count), bool)
    given = batch["pixels"], views, light, tokens, boxes, anchors, absent
    return lambda: float(trainer.step(size, *given)[0])


def _torch(size: int, folder: Path, compiled: bool):
    import torch
    from torch import nn
    from torch.nn import functional

    from tests.benchmarks.peers import torch_step

    facts = json.loads((folder / "facts.json").read_text())
    network = Portable.load(folder / "backbone.npz")
    batch = dict(np.load(folder / "batch.npz"))
    cells = size // 16

    class PhraseConvolution(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.gate, self.shift = nn.Linear(DEPTH, DEPTH), nn.Linear(DEPTH, channels)
            self.fixed = nn.Parameter(torch.randn(DEPTH, channels) / 16)
            self.scaled = nn.Parameter(torch.randn(DEPTH, channels) / 16)

        def forward(self, grid, phrases):
            """Maps (b, c, c, DEPTH) and vectors (b * p, DEPTH) to (b * p, c², channels)."""
            b, channels = len(grid), self.fixed.shape[1]
            with torch.autocast("cpu", enabled=False):
                gate, shift = self.gate(phrases).tanh(), self.shift(phrases)
            kernel = gate.reshape(b, -1, DEPTH, 1) * self.scaled + self.fixed
            kernel = kernel.transpose(1, 2).reshape(b, DEPTH, -1)
            x = grid.reshape(b, cells**2, DEPTH) @ kernel
            x = x.reshape(b, cells**2, -1, channels).transpose(1, 2).flatten(0, 1)
            return x + shift[:, None]

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = nn.ParameterDict()
            for name, array in network.arrays.items():
                weight = torch.from_numpy(array)
                if array.ndim == 4:
                    weight = weight.contiguous(memory_format=torch.channels_last)
                learned = name in facts["learned"]
                self.weights[name.replace("/", "_")] = nn.Parameter(weight, requires_grad=learned)
            c3, c4, c5 = (len(network.arrays[f"{n}/bias"]) for n in facts["widths"])
            self.from_c3 = nn.Conv2d(c3, 64, 3, 2, 1)
            self.from_c5 = nn.Conv2d(c5, DEPTH, 1)
            self.fuse = nn.Conv2d(64 + c4 + DEPTH, DEPTH, 1)
            self.around = nn.Conv2d(DEPTH, DEPTH, 3, padding=1)
            self.project = nn.Conv2d(DEPTH, DEPTH, 1)
            self.place = nn.Linear(8, DEPTH, bias=False)
            self.visual_norm, self.text_norm = nn.LayerNorm(DEPTH), nn.LayerNorm(DEPTH)
            self.words = nn.Embedding(WORDS, WORD_DIM)
            self.own = nn.Embedding(facts["frequent"], OWN_DIM)
            self.word = nn.Linear(WORD_DIM + OWN_DIM, UNITS)
            self.gru = nn.GRU(UNITS, UNITS, batch_first=True, bidirectional=True)
            self.read, self.attention = nn.Linear(3 * UNITS, DEPTH), nn.Linear(DEPTH, 2)
            self.named, self.beside = PhraseConvolution(CHANNELS), PhraseConvolution(CHANNELS // 2)
            self.look, self.there, self.here = (
                nn.Linear(CHANNELS // 2, out, bias=False) for out in (1, CHANNELS, CHANNELS)
            )
            self.way = nn.Linear(7, CHANNELS, bias=False)
            self.keys, self.gates = nn.Linear(DEPTH, DEPTH + 1), nn.Linear(DEPTH, 2)
            self.lies, self.known = nn.Linear(2 * DEPTH, 8), nn.Linear(3, CHANNELS)
            block = {"padding": 1, "bias": False}
            self.into, self.out, self.everywhere, self.asked = (
                nn.ModuleList([make() for _ in range(BLOCKS)])
                for make in (
                    *[lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, **block)] * 2,
                    lambda: nn.Linear(CHANNELS, CHANNELS),
                    lambda: nn.Linear(2 * DEPTH, CHANNELS),
                )
            )
            self.last = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
            self.score_in, self.sides_in = (nn.Conv2d(CHANNELS, CHANNELS, 1) for _ in range(2))
            self.score, self.sides = nn.Conv2d(CHANNELS, 1, 1), nn.Conv2d(CHANNELS, 4, 1)
            centres = (torch.arange(cells) + 0.5) / cells
            y, x = torch.meshgrid(centres, centres, indexing="ij")
            self.centres = torch.stack([x, y], -1)

        def maps(self, pixels):
            made = {}
            for step in network.steps[:-1]:
                given = [made[name] for name in step["inputs"]] or [pixels]
                made[step["name"]] = torch_step(step, given, self.weights, torch.float32)
                if step["name"] == facts["fixed"]:
                    made[step["name"]] = made[step["name"]].detach()
            return [made[name] for name in facts["maps"]]

        def forward(self, pixels, tokens):
            c3, c4, c5 = self.maps(pixels)
            c5 = functional.interpolate(self.from_c5(c5).relu(), scale_factor=2)
            x = self.fuse(torch.cat([self.from_c3(c3).relu(), c4, c5], 1)).relu()
            x = self.project(x + self.around(x).relu())
            xy = self.centres
            edge = 2 * (xy - 0.5).abs()
            place = self.place(torch.cat([xy, 2 * xy - 1, edge, edge**2], -1))
            grid = self.visual_norm(x.permute(0, 2, 3, 1) + place)
            with torch.autocast("cpu", enabled=False):
                phrases, keys, gates = self.phrases(tokens.flatten(0, 1))
            fits = self.fits(grid, keys, gates)
            x = self.named(grid, phrases[:, :DEPTH])
            told, share = self.from_there(self.beside(grid, phrases[:, DEPTH:]).relu(), fits)
            with torch.autocast("cpu", enabled=False):
                lies = self.lying(share, phrases)
            known = torch.cat([fits, lies[..., None]], -1).clamp(min=-12)
            x = x + told + self.known(known)
            x = x.reshape(-1, cells, cells, CHANNELS).permute(0, 3, 1, 2)
            x = x.bfloat16().contiguous(memory_format=torch.channels_last).relu()
            for into, out, everywhere, asked in zip(
                self.into, self.out, self.everywhere, self.asked, strict=True
            ):
                more = everywhere(x.mean((2, 3))) + asked(phrases)
                y = (into(x) + more[:, :, None, None]).relu()
                x = (x + out(y)).relu()
            x = self.last(x).relu()
            score = self.score(self.score_in(x).relu()).float().flatten(1)
            score = score + fits[..., 0] + lies
            sides = self.sides(self.sides_in(x).relu()).float().permute(0, 2, 3, 1)
            sides = 0.2 * sides.clamp(-6, 3).exp()
            corners = torch.cat([xy - sides[..., :2], xy + sides[..., 2:]], -1)
            return score, corners.clamp(0, 1).reshape(len(x), -1, 4)

        def fits(self, grid, keys, gates):
            keys, gates = (part.unflatten(0, (len(grid), -1)) for part in (keys, gates))
            words = keys[..., :-1].flatten(1, 2).transpose(1, 2)
            fits = (grid.flatten(1, 2) @ words).float() / DEPTH**0.5
            fits = functional.logsigmoid(fits + keys[..., -1].flatten(1)[:, None])
            fits = fits.unflatten(2, keys.shape[1:3])
            with torch.autocast("cpu", enabled=False):
                return torch.einsum("bcpl,bplr->bpcr", fits, gates).flatten(0, 1)

        def lying(self, share, phrases):
            step = torch.arange(2 * cells)
            step = torch.where(step < cells, step, step - 2 * cells) / cells
            y, x = torch.meshgrid(step, step, indexing="ij")
            near = (-(x**2 + y**2) / 0.02).exp()
            ways = [x, y, x.abs(), y.abs(), (20 * x).tanh(), (20 * y).tanh(), near]
            told = 4 * self.lies(phrases)
            fits = torch.einsum("yxf,nf->nyx", torch.stack(ways, -1), told[:, :-1])
            fits = torch.fft.rfft2((fits + told[:, -1, None, None] + 1).sigmoid())
            place = torch.fft.rfft2(share.reshape(-1, cells, cells), (2 * cells, 2 * cells))
            lies = torch.fft.irfft2(fits * place)[:, :cells, :cells]
            return (lies.relu() + 1e-3).log().flatten(1)

        def from_there(self, x, fits):
            share = (self.look(x).float() + fits[..., 1:]).softmax(1)
            found = (x * share).sum(1, keepdim=True)
            centres = self.centres.reshape(1, -1, 2)
            way = centres - (centres * share).sum(1, keepdim=True)
            spread = ((way**2).sum(2, keepdim=True) * share).sum(1, keepdim=True)
            spread = (spread + 1e-6).sqrt()
            parts = [way, way.abs(), (way / spread).tanh(), spread + 0 * way[..., :1]]
            with torch.autocast("cpu", enabled=False):
                told = 4 * self.way(torch.cat(parts, -1)) + self.there(found.float())
            return told + self.here(x), share

        def phrases(self, tokens):
            own = self.own(torch.where(tokens < facts["frequent"], tokens, 1))
            x = functional.dropout(torch.cat([self.words(tokens), own], -1), 0.2)
            x = self.word(x).relu()
            x = self.read(torch.cat([self.gru(x)[0], x], -1)).relu()
            weights = self.attention(x).masked_fill(tokens[..., None] == 0, -1e9).softmax(1)
            phrases = self.text_norm((x[:, :, None] * weights[..., None]).sum(1))
            gates = self.gates(x).sigmoid() * (tokens[..., None] > 0)
            return functional.dropout(phrases.flatten(1), 0.2), self.keys(x), gates

    def loss_of(scores, boxes, truth, centres):
        truth = truth.reshape(-1, 1, 4)
        size = (
            torch.minimum(boxes[..., 2:], truth[..., 2:])
            - torch.maximum(boxes[..., :2], truth[..., :2])
        ).relu()
        both = size.prod(-1)
        areas = [(box[..., 2:] - box[..., :2]).relu().prod(-1) for box in (boxes, truth)]
        either = areas[0] + areas[1] - both
        low, high = torch.minimum(boxes, truth), torch.maximum(boxes, truth)
        hull = (high[..., 2:] - low[..., :2]).prod(-1).clamp(min=1e-7)
        iou = both / either.clamp(min=1e-7)
        giou = iou - (hull - either) / hull
        xy = centres.reshape(1, -1, 2)
        inside = ((xy >= truth[..., :2]) & (xy < truth[..., 2:])).all(-1)
        offset = xy - (truth[..., :2] + truth[..., 2:]) / 2
        nearest = (offset**2).sum(-1).argmin(-1)
        inside = (inside | functional.one_hot(nearest, cells**2).bool()).float()
        half = ((truth[..., 2:] - truth[..., :2]) / 2).clamp(min=0.02)
        central = inside * ((-((offset / half) ** 2).sum(-1)).exp() + 1e-6)
        box_loss = ((1 - giou) * central).sum(-1) / central.sum(-1)
        target = inside * (iou.detach() ** 3 + 1e-4)
        target = target / target.sum(-1, keepdim=True)
        score_loss = -(target * scores.log_softmax(-1)).sum(-1)
        return score_loss.mean() + 2 * box_loss.mean()

    torch.manual_seed(0)
    model = Twin().to(memory_format=torch.channels_last)
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    found = sum(weight.numel() for weight in learned)
    if found != facts["parameters"]:
        raise RuntimeError(f"expected a twin with {facts['parameters']} weights, got {found}")
    optimizer = torch.optim.AdamW(learned, 1e-4, weight_decay=0.01, fused=True)
    averaged = [weight.detach().clone() for weight in learned]
    pixels, tokens, truth = (torch.from_numpy(batch[key]) for key in ("pixels", "tokens", "boxes"))
    tokens = tokens.long()
    forward = torch.compile(model) if compiled else model

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores, boxes = forward(pixels, tokens)
        loss = loss_of(scores, boxes, truth, model.centres)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer.step()
        torch._foreach_lerp_(averaged, learned, 0.001)
        return float(loss.detach())

    return step


def _describe(size: int, folder: Path) -> None:
    """Write the backbone, the batch and what the twin must match."""
    from scene_utils.features import backbones, folding, portable
    from scene_utils.grid.network import FREQUENT, build_grid

    settings, batch = _numbers(size)
    backbone = backbones.load_backbone(settings.backbone, untrained=True, size=size)
    np.savez(folder / "batch.npz", **batch)
    network = portable.export(folding.fold_norms(backbone.model))
    network.save(folder / "backbone.npz")
    model = build_grid(
        backbone, np.zeros((WORDS, WORD_DIM), np.float32), settings.length, policy="float32"
    )
    maps = model.visual.layers[1]
    names = [step["name"] for step in network.steps]
    widest = backbones.MAPS[settings.backbone].values()
    last = [[name for name in names if name.startswith(prefix)][-1] for prefix in widest]
    learned = [layer.name for layer in maps.layers if getattr(layer, "trainable_weights", None)]
    facts = {
        "maps": last,
        "widths": [
            [n for n in names if n.startswith(prefix) and f"{n}/bias" in network.arrays][-1]
            for prefix in widest
        ],
        "fixed": last[0],
        "frequent": FREQUENT,
        "learned": [f"{name}/{part}" for name in learned for part in ("kernel", "bias")],
        "parameters": int(
            sum(np.prod(v.shape) for part in model.parts() for v in part.trainable_variables)
        ),
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def measure(repeats: int = 7) -> dict:
    """Seconds of a training step by side of the pictures and contender, interleaved."""
    result: dict = {"backbone": "efficientnet_lite2", "weights": "random", "sizes": {}}
    for size in SIZES:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            _describe(size, folder)
            words = {name: [name, size, folder] for name in CONTENDERS}
            seconds, missing = tools.race("bench_training", words, folder, repeats)
        medians = {name: float(np.median(found)) for name, found in seconds.items()}
        peers = [value for name, value in medians.items() if name != "keras"]
        result["sizes"][str(size)] = {
            "step_seconds": medians,
            "missing": missing,
            "keras_over_best_peer": medians["keras"] / min(peers) if peers else None,
        }
    return result


def main() -> None:
    name, size, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    try:
        step = _keras(size) if name == "keras" else _torch(size, folder, name == "torch compiled")
        for _ in range(3):
            step()
    except ImportError as error:
        sys.exit(f"missing: {error}")
    tools.answer(step)


if __name__ == "__main__":
    main()
