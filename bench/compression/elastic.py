"""A network made smaller by a tenth and a fifth of its body, one way at a time and by a search over all of them.

`python -m bench.compression --parts elastic`: blocks (`drop_blocks`), neurons (`narrow`), the stream's width
(`slice_width`), and what `search_architecture` finds with even blocks, with blocks that differ, and after the shared
weights have learnt (--quick: from fewer choices, one of which is made). Body: all parameters but the tables of
embedding and head, which a narrower stream makes two."""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

from bench.common import show
from bench.compression.quality import Judge
from bench.compression.texts import domains, off_grid, records, scripts, spread
from bench.kept import Kept
from intarsia.compression import drop_blocks, narrow, search_architecture, slice_width
from intarsia.models import Model

SHARES = (0.1, 0.2)
STEPS = 60  # of the shared weights
RANKED = 256  # tokens that blocks are ranked on
SEARCH: dict[str, Any] = {
    "finalists": 3, "rank_tokens": RANKED // 2, "quality_tokens": 1024, "multiple": 32, "least": 0.6,
}  # fmt: skip
QUICK: dict[str, Any] = {
    "finalists": 1, "rank_tokens": 64, "quality_tokens": 512, "multiple": 256, "most_blocks": 0.1, "least": 0.6,
}  # fmt: skip


def body(model: Model) -> int:
    """Parameters but for the tables."""
    network: Any = model.network
    tables = {id(t.weight): t.weight for t in (network.get_input_embeddings(), network.get_output_embeddings())}
    return sum(p.numel() for p in network.parameters()) - sum(t.numel() for t in tables.values())


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Measure, print, and give the figures."""
    warnings.simplefilter("ignore")
    dense = off_grid()
    count = options.windows or (1 if options.quick else 4)
    judges = {text: Judge(dense, spread(dense, some, count)) for text, some in domains().items()}
    text = records(scripts("train"))
    kept = Kept(options.keep, f"elastic-{count}-{options.tokens}", options.quick)
    full = body(dense)

    def measured(make: Callable[[], Model]) -> dict[str, Any]:
        began = time.process_time()
        small = make()
        spent = time.process_time() - began
        facts = small.extras.get("compression.search_architecture")
        said = facts["said"] + f", without {sorted(set(range(30)) - set(facts['blocks']))}" if facts else ""
        finding: Any = small.finding if facts else None
        tested = [[one.said, one.predicted, one.kl, one.params] for one in finding.tested] if finding else []
        return {
            "texts": {name: judge(small) for name, judge in judges.items()}, "seconds": spent, "tested": tested,
            "body": body(small) / full, "params": sum(p.numel() for p in small.network.parameters()), "said": said,
        }  # fmt: skip

    found: dict[str, dict[str, Any]] = {}
    for share in SHARES:
        for name, make in ways(dense, text, share, options.tokens, SEARCH | (QUICK if options.quick else {})).items():
            key = f"{name}, -{share:.0%}"
            if options.points is None or any(word in key for word in options.points):
                found[key] = kept(key, lambda make=make: measured(make))
    show(
        f"SmolLM2-135M with less of its body ({full / 1e6:.1f} M parameters beside {28.3:.1f} M of its table)",
        ["way", "body", "M parameters",
         *(f"{text}: {what}" for text in judges for what in ("KL", "perplexity", "top-1")), "CPU s", "what"],
        [[name, f"{f['body']:.1%}", f"{f['params'] / 1e6:.1f}",
          *(said for q in f["texts"].values()
            for said in (f"{max(q['kl'], 0):.3f}", f"{q['perplexity']:.2f}", f"{q['top1']:.1%}")),
          f"{f['seconds']:.0f}", f["said"]] for name, f in found.items()],
    )  # fmt: skip
    return {f"kl {name}": f["texts"]["MELD"]["kl"] for name, f in found.items()}


def ways(
    dense: Model, text: Any, share: float, tokens: int, settings: dict[str, Any]
) -> dict[str, Callable[[], Model]]:
    """Each way to about this share less of the body."""
    reads = {"calibration": text, "tokens": tokens}
    full, blocks = body(dense), len(dense.sites.blocks)
    mlp = 3 * 1536 / (3 * 1536 + 4 * 576 - 2 * 384)  # of a block
    limit = sum(p.numel() for p in dense.network.parameters()) - share * full
    search = {**settings, **reads, "budget": f"params<{limit:.0f}"}
    return {
        "blocks": lambda: drop_blocks(dense, count=round(share * blocks), calibration=text, tokens=RANKED),
        "neurons": lambda: narrow(dense, neurons=share / mlp, multiple=32, **reads),
        "width, not refitted": lambda: slice_width(dense, share=share, multiple=9, refit=False, **reads),
        "width": lambda: slice_width(dense, share=share, multiple=9, **reads),
        "searched": lambda: search_architecture(dense, **search),
        "searched, uneven": lambda: search_architecture(dense, **search, uneven=True),
        "taught and searched": lambda: search_architecture(
            dense, **(search | {"tokens": max(tokens, 4 * 4096)}), train_steps=STEPS
        ),
    }
