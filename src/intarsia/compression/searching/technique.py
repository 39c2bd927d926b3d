"""`compression.fit`: a model that keeps a budget, with the least loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model

NAME = "compression.fit"
EngineName = Literal["gguf", "onnx-genai", "torch"]
FamilyName = Literal["vocabulary", "table_bits", "blocks", "neurons", "rank", "recovery"]


class FitConfig(Config):
    """Settings of `compression.fit`."""

    budget: str = Field(
        description="bounds on bytes (or size), params, ram, latency, prefill, decode, energy, quality, ppl, kl, like "
        "'bytes<90MB, decode>4x, quality>0.95x' (x: times the model as it is)"
    )
    families: tuple[FamilyName, ...] = Field(
        ("vocabulary", "table_bits", "blocks", "neurons", "recovery"),
        description="what may be done beside fewer bits: tokens, blocks, neurons that go, embedding and head in 4 bits "
        "(table_bits), low rank (rank, in torch only), and learning after a cut (recovery)",
    )
    engines: tuple[EngineName, ...] = Field(
        ("gguf", "onnx-genai", "torch"), description="engines that the model may end in, as far as they are installed"
    )
    exhaustive: bool = Field(
        False, description="try all compositions and take the best; else stop at the first that keeps the budget"
    )
    tokens: int = Field(2048, ge=64, description="tokens of calibration text")
    quality_tokens: int = Field(2048, ge=64, description="tokens of text that quality is judged on at the end")
    first_tokens: int = Field(512, ge=16, description="tokens of text that each draft is judged on at first")
    candidates: int = Field(14, ge=1, description="most drafts, the best by what was predicted")
    finalists: int = Field(3, ge=1, description="most drafts that are built, exported and timed in a round")
    recovery_tokens: int = Field(4096, ge=64, description="tokens that a cut network learns from")
    prompt_tokens: int = Field(128, ge=1, description="speed: tokens of the prompt that is read")
    new_tokens: int = Field(24, ge=1, description="speed: tokens that are written")
    repeats: int = Field(5, ge=1, description="speed: rounds in which base and engines take turns")
    keep: Path | None = Field(
        None, description="folder of what is finished, for a search that was stopped; default: in the cache"
    )


@technique(
    NAME,
    kind="change",
    family="search",
    source="Goel et al. 2020, arXiv 2003.11066 (its categories, composed); successive halving: Jamieson & Talwalkar "
    "2016, arXiv 1502.07943; harms: Martens & Grosse 2015, K-FAC, arXiv 1503.05671, §3",
    needs="weights",
    example={"budget": "bytes<0.4x", "engines": ("torch",), "tokens": 256, "quality_tokens": 256, "first_tokens": 64,
             "repeats": 1, "prompt_tokens": 16, "new_tokens": 4},
)  # fmt: skip
def fit(
    model: Model, config: FitConfig, *, calibration: list[Text] | None = None, test: list[Text] | None = None,
    seed: int = 0,
) -> Model:  # fmt: skip
    """Make a model keep a budget, with the least loss, and show what it cost.

    First the budget is held against arithmetic: what the files of each engine take for so many weights in so many bits.
    Then one pass over the calibration text tells how much the predictions hear of each layer, and compositions are made
    of it: bits for each layer, a smaller vocabulary, fewer blocks, fewer neurons. Drafts are judged on a little text,
    the better half on more, and the best are built, exported and run: bytes are those on disk, quality (perplexity of
    the base over its own) is the engine's, speeds are measured in turns with the model as it is. The engine is the
    quickest that gives the network's answers; `extras["compression.fit"]["engine"]` names it, and `exports` has its
    file. What the budget leaves free becomes the objective: quality, else bytes, else the speed of writing.

    - calibration: texts of the domain the model is meant for, 512 tokens or more; by default Python's documentation.
    - test: texts that quality is judged by; default: the last quarter of calibration, which is then not read before.

    What is finished is kept, so a search that was stopped goes on. Raises `BadInput`, before anything runs, for budgets
    that cannot be read or reached (with what would make them possible) and for networks it does not know;
    `OutOfBudget` with the finding where nothing that was measured keeps the budget."""
    from intarsia.compression.searching.search import fit as run

    return run(model, config, calibration, test, seed)
