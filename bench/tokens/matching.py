"""How well rows are matched, and what matching and merging cost beside the block they save work in.

- Quality: mean cosine similarity of the merged pairs, on keys of a trained tower and on patches of photographs, from
  ToMe's (0 %) to that of a sequential greedy search (100 %).
- Cost: matching and merging over one dense block of a ViT-B, in process time on one thread, round after round in turn
  with the peers; the smallest of the rounds."""

from __future__ import annotations

import functools
import io
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import intarsia
from bench.common import interleave, show
from bench.tokens.official import reduce_as_published
from intarsia.data import shared_data
from intarsia.sites import read
from intarsia.sites.recomposing import Seen
from intarsia.tokens.ensemble import combine
from intarsia.tokens.importance import attended
from intarsia.tokens.matching import Pairs, bipartite, complete, dominance, greedy

QUALITY_TITLE = "Pairs: 1 - mean cosine, x1000; how far from ToMe's to greedy ones"
QUALITY_COLUMNS = ("", "r", "ToMe", "CrossGET", "ours", "greedy", "CrossGET's way", "our way")
COST_COLUMNS = ("matching and merging", "ms", "of the block")
SHARES = (0.08, 0.25, 0.45)
"""Of the rows, that are merged in one step."""
WIDTH, HEADS = 768, 12
REPEATS = 5
SIZES = {"577": (8, 577, 24), "197": (32, 197, 16)}
"""Batch, rows and pairs: ViT-B/16 at 384 pixels and at 224."""


def run(quick: bool) -> dict[str, float]:
    """The figures; the tables are shown. Quality is left out where the data set is missing."""
    figures: dict[str, float] = {}
    if features := image_features(8 if quick else 32):
        found, rows = quality(features)
        figures |= found
        show(QUALITY_TITLE, QUALITY_COLUMNS, rows)
    for name, (batch, tokens, r) in SIZES.items():
        found, rows = cost(name, rounds=3 if quick else 7)
        figures |= found
        show(f"ViT-B, {tokens} rows, batch {batch}, r {r}, one thread", COST_COLUMNS, rows)
    return figures


# ---- quality


def quality(features: dict[str, Tensor]) -> tuple[dict[str, float], list[list[str]]]:
    """`greedy_gap_closed`: the mean over features and numbers of pairs, in parts of one, of the way from bipartite to
    greedy; `_least` its smallest."""
    rows, closed = [], {"dominance": [], "complete": []}
    for name, metric in features.items():
        for share in SHARES:
            r = round(share * metric.shape[1])
            cosine = {f.__name__: similarity_of(f(metric, r), metric) for f in (bipartite, complete, dominance, greedy)}
            gap = cosine["greedy"] - cosine["bipartite"]
            for matcher, shares in closed.items():
                shares.append((cosine[matcher] - cosine["bipartite"]) / gap)
            gained = [f"{closed[matcher][-1]:.0%}" for matcher in ("complete", "dominance")]
            rows.append([name, str(r), *(f"{1000 * (1 - value):.2f}" for value in cosine.values()), *gained])
    figures = {
        "greedy_gap_closed": float(np.mean(closed["dominance"])),
        "greedy_gap_closed_least": min(closed["dominance"]),
        "greedy_gap_closed_crossget": float(np.mean(closed["complete"])),
    }
    return figures, rows


def similarity_of(pairs: Pairs, metric: Tensor) -> float:
    """Mean cosine of the merged pairs, from the metric itself."""
    unit = torch.nn.functional.normalize(metric.double(), dim=-1)
    index = [i[..., None].expand(-1, -1, unit.shape[2]) for i in (pairs.source, pairs.target)]
    cosine = (unit.gather(1, index[0]) * unit.gather(1, index[1])).sum(-1)
    return float(cosine.mean() if pairs.valid is None else cosine[pairs.valid].mean())


def image_features(count: int) -> dict[str, Tensor]:
    """[picture, row, width] by name: keys (mean over heads, class token left out) of blocks 1 and 4 of the
    emoji CLIP for drawings over photographs, and patches of photographs as they are. Empty without the data set."""
    folder = shared_data("vision_language")
    if folder is None:
        return {}
    photographs = _photographs(folder, count)
    pictures = _over(folder, photographs)
    model = intarsia.load(str(folder / "emoji_clip_256"))
    keys = read(model, {"pixel_values": (pictures - 0.5) / 0.25}, at=["vision.layers.1.k", "vision.layers.4.k"])
    found = {f"keys {name.split('.')[2]}": keys[name].mean(dim=2)[:, 1:] for name in keys}
    large = torch.nn.functional.interpolate(photographs, size=56, mode="bilinear", antialias=True)
    found["photographs"] = torch.nn.functional.unfold(large, 4, stride=4).mT.contiguous()
    return found


def _photographs(folder: Path, count: int) -> Tensor:
    """[picture, 3, 32, 32] in 0..1, evenly over the test set's classes."""
    with zipfile.ZipFile(folder / "cifar10_subset" / "images.zip") as pack:
        names = sorted(name for name in pack.namelist() if name.startswith("test/") and name.endswith(".jpg"))
        names = names[:: len(names) // count][:count]
        return torch.stack([_pixels(pack.read(name), "RGB") for name in names])


def _over(folder: Path, photographs: Tensor) -> Tensor:
    """[picture, 3, 64, 64] in 0..1: each photograph with one drawing over it."""
    under = torch.nn.functional.interpolate(photographs, size=64, mode="bicubic").clamp(0, 1)
    with zipfile.ZipFile(folder / "emoji" / "images.zip") as pack:
        names = sorted(name for name in pack.namelist() if name.startswith("noto/"))
        names = names[:: len(names) // len(under)][: len(under)]
        drawn = torch.stack([_pixels(pack.read(name), "RGBA") for name in names])
    colour, opacity = drawn[:, :3], drawn[:, 3:]
    return colour * opacity + under * (1 - opacity)


def _pixels(data: bytes, mode: str) -> Tensor:
    picture = Image.open(io.BytesIO(data)).convert(mode)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255


# ---- cost


def cost(name: str, rounds: int) -> tuple[dict[str, float], list[list[str]]]:
    """`matching_share_NAME`: matching by dominance and merging over one dense block, in parts of one."""
    import transformers as tf
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    batch, tokens, r = SIZES[name]
    torch.manual_seed(0)
    config = tf.CLIPVisionConfig(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=HEADS)
    config._attn_implementation = "sdpa"
    block = CLIPEncoderLayer(config).eval()
    stream = _stream(batch, tokens)
    with torch.no_grad():
        inside = block.layer_norm1(stream)
        flat_q, flat_k = block.self_attn.q_proj(inside), block.self_attn.k_proj(inside)
    q, k = (x.view(batch, tokens, HEADS, -1).transpose(1, 2) for x in (flat_q, flat_k))
    sizes = torch.ones(batch, tokens)
    blocked = torch.zeros(batch, tokens, dtype=torch.bool)
    blocked[:, 0] = True

    def ours(match: Callable[..., Pairs]) -> Callable[[], Any]:
        return lambda: combine(stream, sizes, match(k.mean(dim=1), r, blocked=blocked))

    def guided() -> Any:
        first = torch.zeros(batch, 1, dtype=torch.long)
        importance = attended(Seen(q, k, k.shape[3] ** -0.5), first)
        return combine(
            stream, sizes, dominance(k.mean(dim=1), r, blocked=blocked, importance=importance, strength=0.02)
        )

    contenders: dict[str, Callable[[], Any]] = {
        "dense block": lambda: block(stream, attention_mask=None),
        "dominance": ours(dominance),
        "dominance, with the class token's attention": guided,
        "CrossGET's policy, lean": ours(complete),
        "ToMe's policy": ours(bipartite),
        "CrossGET's policy, as published": lambda: reduce_as_published(stream, sizes, flat_k, flat_q[:, 0], r, (0,)),
    }
    # A block takes a second, a merge some milliseconds: a mean of several, or one moment of a neighbour's work decides.
    counts = {contender: 1 if contender == "dense block" else REPEATS for contender in contenders}
    turns = {name: functools.partial(repeated, once, counts[name]) for name, once in contenders.items()}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            timings = interleave(turns, rounds, clock=time.process_time)
    finally:
        torch.set_num_threads(threads)
    best = {contender: min(timing.seconds) / counts[contender] for contender, timing in timings.items()}
    whole = best["dense block"]
    rows = [[contender, f"{seconds * 1e3:.1f}", f"{seconds / whole:.2%}"] for contender, seconds in best.items()]
    figures = {
        f"matching_share_{name}": best["dominance"] / whole,
        f"matching_share_{name}_guided": best["dominance, with the class token's attention"] / whole,
        f"matching_share_{name}_crossget": best["CrossGET's policy, as published"] / whole,
        f"matching_share_{name}_tome": best["ToMe's policy"] / whole,
    }
    return figures, rows


def repeated(once: Callable[[], Any], count: int) -> None:
    """Call so many times, keeping nothing."""
    for _ in range(count):
        once()


def _stream(batch: int, tokens: int) -> Tensor:
    """[batch, tokens, WIDTH]: a class row and patches that resemble their neighbours, as those of pictures do."""
    side = int((tokens - 1) ** 0.5)
    coarse = torch.randn(batch, WIDTH, side // 3, side // 3)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear").flatten(2).mT
    patches = smooth + 0.3 * torch.randn(batch, side * side, WIDTH)
    return torch.cat([torch.randn(batch, 1, WIDTH), patches], dim=1)


if __name__ == "__main__":
    from bench.common import parser, start, write

    options = parser(__doc__).parse_args()
    start(options)
    write(run(options.quick), options.json)
