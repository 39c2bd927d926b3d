"""Points of ours that are more than rounded: each family of compression, and compositions of several.

One order holds for all of them: what goes first (tokens, blocks, neurons, width), then what is left learns from the
whole, and weights are rounded last. Every step is kept below the source's folder, for several points begin with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.compression.contenders import SYMMETRIC, Contender, Source
from bench.compression.elastic import ways
from intarsia.compression import distil, factorize, fit, prune, quantize, trim_vocabulary
from intarsia.compression.exporting.gguf import export_gguf
from intarsia.models import Model

ROWS = 16_384  # tokens of the vocabulary that is left
LEARNED = 16_384  # tokens that a cut network learns from
LESSON: dict[str, Any] = {"tokens": LEARNED, "window": 256, "batch_size": 1}
BUDGET = "size<80MB, decode>4x, quality>0.88x"
SEARCH: dict[str, Any] = {}  # settings of the search beside its budget
FOUR: Mapping[str, Any] = {"bits": 4, **SYMMETRIC}
EIGHT: Mapping[str, Any] = {"bits": 8, "scheme": "symmetric", "group_size": 32, "embed": "keep"}
LLAMA = ("ik-llama-cpp-python", "gguf")
TORCH = ("torch", "torch")


def families() -> list[Contender]:
    """All of them."""
    four = {
        "neurons (body -20 %)": "neurons",
        "neurons (body -20 %), recovered": "neurons, recovered",
        "3 blocks fewer": "blocks",
        "vocabulary 16,384": "vocabulary",
        "vocabulary 16,384, neurons (body -20 %), recovered": "vocabulary, neurons, recovered",
    }
    smaller = [
        *(Contender(f"ours: {said}, GGUF Q4_0, awq+gptq", *LLAMA, _gguf(cut, FOUR), own_tokens="vocabulary" in cut)
          for said, cut in four.items()),
        # No engine's file holds factors, or 4 bits in rows that 32 does not divide; nine heads allow no other width.
        Contender("ours: factors (body -20 %)", *TORCH, lambda source, out: cut(source, "factors").save(out / "model")),
        Contender("ours: factors (body -20 %), torch 8 bits", *TORCH, _eight("factors")),
        Contender("ours: width 522 (body -10 %), torch 8 bits", *TORCH, _eight("width")),
        Contender(f"ours: compression.fit, {BUDGET}", "intarsia", "fitted", _fitted, own_tokens=True),
    ]  # fmt: skip
    zeros = [
        Contender(f"ours: 2:4 by {said}, GGUF Q8_0, zeros stored", *LLAMA, _gguf(said.lower(), EIGHT))
        for said in ("Wanda", "SparseGPT")
    ]
    return [replace(one, ours=True, smaller=True) for one in smaller] + [replace(one, ours=True) for one in zeros]


def cut(source: Source, name: str) -> Model:
    """The model after a step; its name is those of all steps so far."""
    before, _, last = name.rpartition(", ")
    return source.kept(f"cut-{name}", lambda: STEPS[last](source, before))


def _reads(source: Source) -> dict[str, Any]:
    return {"calibration": list(source.texts), "tokens": source.tokens}


def _before(source: Source, name: str) -> Model:
    return cut(source, name) if name else source.dense


def _less(way: str, share: float) -> Callable[[Source, str], Model]:
    """A share of the body less, in one of `elastic`'s ways."""
    return lambda source, before: ways(_before(source, before), source.texts, share, source.tokens, {})[way]()


def _recovered(source: Source, before: str) -> Model:
    # The teacher is the whole network with the same vocabulary.
    teacher = _before(source, "vocabulary" if before.startswith("vocabulary") else "")
    return distil(cut(source, before), teacher=teacher, train=list(source.texts), **LESSON)


STEPS: dict[str, Callable[[Source, str], Model]] = {
    "vocabulary": lambda source, _: trim_vocabulary(source.dense, size=ROWS, train=list(source.texts)),
    "blocks": _less("blocks", 0.1),
    "neurons": _less("neurons", 0.2),
    "width": _less("width", 0.1),
    "wanda": lambda source, _: prune(source.dense, method="wanda", pattern="2:4", **_reads(source)),
    "sparsegpt": lambda source, _: prune(source.dense, method="sparsegpt", pattern="2:4", **_reads(source)),
    "factors": lambda source, _: factorize(source.dense, keep=0.8, **_reads(source)),
    "recovered": _recovered,
}
"""By the last of a name's steps: (the source, the names of those before) -> the model."""


def _gguf(name: str, settings: Mapping[str, Any]) -> Callable[[Source, Path], Any]:
    """Round what a step left, and write it; embedding and head in 8 bits, as the other files have them."""

    def make(source: Source, out: Path) -> None:
        small = quantize(cut(source, name), **_reads(source), **settings)
        tables = ["model.embed_tokens", *([] if small.config.tie_word_embeddings else ["lm_head"])]
        export_gguf(small, out / "model.gguf", dict.fromkeys(tables, "Q8_0"), check_again=False)
        _words(small, out)

    return make


def _eight(name: str) -> Callable[[Source, Path], Any]:
    return lambda source, out: quantize(cut(source, name), bits=8).save(out / "model")


def _fitted(source: Source, out: Path) -> None:
    """The bundle, and links by which its engine finds its file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        best = fit(source.dense, budget=BUDGET, calibration=list(source.texts), keep=source.folder / "fit", **SEARCH)
    best.save(out / "bundle")
    engine = best.extras["compression.fit"]["engine"]
    (out / "engine").write_text(engine)
    if engine == "gguf":
        (out / "model.gguf").symlink_to("bundle/export/gguf/model.gguf")
    else:
        (out / "model").symlink_to("bundle" if engine == "torch" else f"bundle/export/{engine}")
    _words(best, out)


def _words(model: Model, out: Path) -> None:
    model.tokenizer.save_pretrained(out / "tokenizer")  # type: ignore[union-attr]
