"""The vision tower all three models start from, taught where everything is: each patch names what covers it, and in a
second stage the cell it lies in; the class row names what lies in each of the nine cells."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel

from bench.tokens.bed.cache import cache_folder, key
from bench.tokens.bed.concepts import NAMES
from bench.tokens.bed.drawings import data_folder, drawings
from bench.tokens.bed.scenes import PATCH, SIDE, cell_concepts, draw, normalised, patch_concepts, picture
from bench.tokens.bed.training import fit

WIDTH, LAYERS, HEADS = 128, 6, 4
STEPS, BATCH, RATE = 1200, 48, 1.5e-3
PLACING_STEPS, PLACING_RATE = 250, 1.2e-3
GRID = SIDE // PATCH


def vision_settings() -> dict[str, object]:
    """What the configs of CLIP and BLIP towers are given. BLIP's own initial range, 1e-10, trains nothing."""
    return dict(
        hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        image_size=SIDE, patch_size=PATCH, hidden_act="quick_gelu", layer_norm_eps=1e-5, initializer_range=0.02,
        projection_dim=WIDTH,
    )  # fmt: skip


def started(folder: Path) -> CLIPVisionModel:
    """The tower of the given emoji CLIP, its positions stretched to this grid."""
    small = CLIPModel.from_pretrained(folder / "emoji_clip_256").vision_model.state_dict()
    tower = CLIPVisionModel(CLIPVisionConfig(**vision_settings()))
    positions = small["embeddings.position_embedding.weight"]
    old = int((len(positions) - 1) ** 0.5)
    square = positions[1:].T.reshape(1, WIDTH, old, old)
    wide = nn.functional.interpolate(square, size=(GRID, GRID), mode="bicubic", align_corners=False)
    small["embeddings.position_embedding.weight"] = torch.cat([positions[:1], wide.reshape(WIDTH, -1).T])
    own = tower.state_dict()
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in own) else ""
    tower.load_state_dict(
        {prefix + name: value for name, value in small.items() if not name.endswith("position_ids")}, strict=False
    )
    return tower


class Localiser(nn.Module):
    """A tower with the two heads that teach it. BLIP's tower and CLIP's have the same parts by other names; both are
    read after their last layer norm."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower
        self.patches = nn.Linear(WIDTH, len(NAMES) + 1)
        self.cells = nn.Linear(WIDTH, 9 * (len(NAMES) + 1))
        self.places = nn.Linear(WIDTH, 9)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of each patch's concept [B, patches, 1 + concepts], of each cell's [B, 9, 1 + concepts], and of the
        cell that each patch lies in [B, patches, 9]."""
        rows = self.tower(pixel_values=pixels).last_hidden_state
        if isinstance(self.tower, CLIPVisionModel):
            rows = self.tower.post_layernorm(rows)
        return self.patches(rows[:, 1:]), self.cells(rows[:, 0]).unflatten(1, (9, -1)), self.places(rows[:, 1:])


@functools.lru_cache(maxsize=4)
def lesson(seed: int, step: int, size: int, split: str = "train") -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, concept of each patch and of each cell."""
    rng = np.random.default_rng((seed, step))
    art = drawings()
    scenes = [draw(rng, art, split) for _ in range(size)]
    pixels = normalised([picture(scene, art, split) for scene in scenes])
    patches = np.stack([patch_concepts(scene, art) for scene in scenes])
    cells = np.stack([cell_concepts(scene) for scene in scenes])
    return torch.from_numpy(pixels), torch.from_numpy(patches), torch.from_numpy(cells)


def lesson_loss(module: Localiser, seed: int, step: int, size: int, placing: bool = True) -> Tensor:
    """Mean cross-entropy of the patches plus that of the cells, and with `placing` of where the patches lie."""
    pixels, patches, cells = lesson(seed, step, size)
    patch_scores, cell_scores, place_scores = module(pixels)
    cross = nn.functional.cross_entropy
    loss = cross(patch_scores.flatten(0, 1), patches.flatten()) + cross(cell_scores.flatten(0, 1), cells.flatten())
    if placing:
        loss = loss + cross(place_scores.flatten(0, 1), patch_cells().repeat(size))
    return loss


def patch_cells() -> Tensor:
    """[patches] the cell each patch lies in."""
    row, column = torch.arange(GRID**2) // GRID, torch.arange(GRID**2) % GRID
    return row * 3 // GRID * 3 + column * 3 // GRID


@torch.no_grad()
def lesson_accuracy(module: Localiser, split: str = "test", size: int = 200) -> tuple[float, float, float]:
    """Shares of right answers, where there is something to name: concepts of patches, of cells, places of patches."""
    pixels, patches, cells = lesson(99, 0, size, split)
    patch_scores, cell_scores, place_scores = module(pixels)
    right = (patch_scores.argmax(-1) == patches)[patches > 0]
    cell_right = (cell_scores.argmax(-1) == cells)[cells > 0]
    placed = (place_scores.argmax(-1) == patch_cells())[patches > 0]
    return right.float().mean().item(), cell_right.float().mean().item(), placed.float().mean().item()


def first_recipe() -> dict[str, object]:
    return dict(steps=STEPS, batch=BATCH, rate=RATE, names=NAMES, **vision_settings())


def recipe() -> dict[str, object]:
    """What the trained tower depends on."""
    return dict(first=first_recipe(), steps=PLACING_STEPS, rate=PLACING_RATE)


def trained_localiser(say: Callable[[str], None] = print) -> Localiser:
    """The tower with its heads: trained before, or now.

    Taught concepts alone, the tower forgets where its patches lie (a linear reading names the cell of 15 in 100), so
    places are taught after them."""
    torch.manual_seed(0)
    module = Localiser(started(data_folder()))

    def said() -> str:
        return "patches {:.3f}, cells {:.3f}, places {:.3f} right".format(*lesson_accuracy(module))

    path = cache_folder() / f"{key('places', recipe())}.pt"
    if not path.exists():
        fit(
            module, lambda step: lesson_loss(module, 0, step, BATCH, placing=False),
            cache_folder() / f"{key('tower', first_recipe())}.pt", steps=STEPS, rate=RATE, say=say, check=said,
        )  # fmt: skip
    fit(
        module, lambda step: lesson_loss(module, 1, step, BATCH), path, steps=PLACING_STEPS, rate=PLACING_RATE,
        warmup=20, say=say, check=said,
    )  # fmt: skip
    return module


def trained_tower(say: Callable[[str], None] = print) -> CLIPVisionModel:
    """The tower alone."""
    return trained_localiser(say).tower  # type: ignore[return-value]


if __name__ == "__main__":
    torch.set_num_threads(1)
    trained_tower(lambda text: print(text, flush=True))
