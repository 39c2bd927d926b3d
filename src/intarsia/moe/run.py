"""`moe.run`: a mixture of experts run by several processes, and what went between them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.moe.checkpoint import Checkpoint
from intarsia.report import Cell, Column, Figure, Finding, Series, Table


class RunConfig(Config):
    ranks: int | None = Field(None, ge=1, description="processes; unset: as many as the placement has devices, or 2")
    placement: Path | None = Field(None, description="a placement.json; unset: contiguous")
    mode: Literal["auto", "vanilla", "home", "coherent"] = Field(
        "auto",
        description="vanilla: states visit experts and come back; home: the same, requests near their experts; "
        "coherent: tokens move, every rank has every context; auto: by the cost model",
    )
    trace: Path | None = Field(
        None, description="a routing trace that mode auto counts on; unset: every expert as likely as any other"
    )
    max_new_tokens: int = Field(32, ge=1, description="tokens made for each prompt, at most")
    temperature: float = Field(0.0, ge=0, description="0: the most likely token each time")
    deterministic: bool = Field(False, description="equal bits in every mode and on any number of ranks; slower")
    check: bool = Field(False, description="also run the network in one process, and compare experts, tokens, logits")
    torch_type: Literal["float32", "float64", "auto"] = Field("float32", description="of the weights; auto: as kept")
    accelerator: Literal["cpu", "cuda"] = Field("cpu", description="where ranks compute; cuda: one GPU each, NCCL")
    max_prompts: int = Field(16, ge=1, description="prompts run, the first ones")


class Ran(pydantic.BaseModel):
    """A prompt and what was made of it."""

    prompt: str
    text: str
    tokens: list[int]


class RankHeld(pydantic.BaseModel):
    """What one rank held and sent. Bytes; `sent`: in all phases."""

    rank: int
    experts: int
    replicated: int
    contexts: int
    resident: int
    sent: int


class Moved(pydantic.BaseModel):
    """Decode traffic of all ranks, for each token made. collectives: of a step."""

    collectives: float
    messages: float
    rows: float
    payload: float
    metadata: float
    contexts: float
    padding: float


class Checked(pydantic.BaseModel):
    """Against the network in one process."""

    mode: str
    experts: int
    other_experts: int
    tokens: int
    other_tokens: int
    gap: float
    same_bits: bool | None
    counters_agree: bool
    passed: bool


class ExpertRun(Finding):
    """A model that ran on several ranks."""

    volatile = frozenset({"seconds", "held", "reason"})
    ranks: int = 1
    mode: str = ""
    reason: str = ""
    seconds: float = 0.0
    made: list[Ran] = Field(default_factory=list)
    held: list[RankHeld] = Field(default_factory=list)
    moved: Moved | None = None
    checked: list[Checked] = Field(default_factory=list)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        if self.moved is None:
            return {}
        return {"rows": (self.moved.rows, Column(name="rows a token", format=".1f", better="lower"))}

    def tables(self) -> list[Table]:
        said = [Column(name="prompt"), Column(name="made")]
        tables = [Table(title="Completions", columns=said, rows=[[r.prompt, r.text] for r in self.made])]
        if self.moved is not None:
            columns = [
                Column(name="collectives a step", format=".1f"),
                Column(name="messages", format=".1f"),
                Column(name="rows", format=".2f", help="hidden states, there and back"),
                Column(name="states", format="bytes"),
                Column(name="routing", format="bytes", help="experts, weights, counts, chosen tokens"),
                Column(name="contexts", format="bytes", help="keys and values, to keep contexts equal or to move one"),
                Column(name="padding", format="bytes"),
            ]
            m = self.moved
            row: list[Any] = [m.collectives, m.messages, m.rows, m.payload, m.metadata, m.contexts, m.padding]
            title = "Between ranks, for each token that was made"
            tables.append(Table(title=title, columns=columns, rows=[row], note=self.reason))
        names = ("experts", "replicated", "contexts", "resident", "sent")
        columns = [Column(name="rank"), *(Column(name=n, format="bytes") for n in names)]
        rows: list[list[Any]] = [[h.rank, *(getattr(h, n) for n in names)] for h in self.held]
        note = "experts: weights of those placed there; resident: of the whole process, libraries included."
        tables.append(Table(title="What each rank held", columns=columns, rows=rows, note=note))
        if self.checked:
            columns = [
                Column(name="mode"), Column(name="expert choices", format=",d"), Column(name="that differ", format="d"),
                Column(name="tokens", format=",d"), Column(name="prompts that differ", format="d"),
                Column(name="largest difference of a logit", format=".2g"), Column(name="equal bits"),
                Column(name="counts agree"), Column(name="passed"),
            ]  # fmt: skip
            lines: list[list[Any]] = [
                [c.mode, c.experts, c.other_experts, c.tokens, c.other_tokens, c.gap,
                 "not asked" if c.same_bits is None else c.same_bits, c.counters_agree, c.passed]
                for c in self.checked
            ]  # fmt: skip
            tables.append(Table(title="Against one process", columns=columns, rows=lines))
        return tables

    def figures(self) -> list[Figure]:
        names = [f"rank {h.rank}" for h in self.held]
        series = [
            Series(name=word, x=names, y=[float(getattr(h, key)) for h in self.held])
            for word, key in (("experts", "experts"), ("replicated", "replicated"), ("contexts", "contexts"))
        ]
        return [Figure(title="Memory of each rank", kind="bar", y="bytes", series=series, format="bytes")]


@technique(
    "moe.run",
    kind="look",
    family="expert parallelism",
    source="Yao et al. 2024 (ExFlow), context-coherent expert parallelism; home assignment: own",
    needs="experts, a placement",
    gives="ExpertRun",
    extra="moe",
    example={
        "subject": "allenai/OLMoE-1B-7B-0924",
        "text": ["The museum opens at"],
        "placement": "placement.json",
        "max_new_tokens": 4,
    },
)
def run(checkpoint: Checkpoint, config: RunConfig, *, text: list[Any], seed: int = 0) -> ExpertRun:
    """Run a mixture-of-experts model on several processes, each of which loads only the experts placed on it.

    Prints what was made, what was sent between ranks for each token (exact counts), and what each rank holds. `auto`
    takes the mode whose exchanges take the shortest modelled time on the link measured between the processes.

    - CHECKPOINT: a folder with safetensors, a known name or a hub id. It is never loaded whole, unless `check` asks for
      the comparison.
    - text: prompts, strings or records with `.text`.

    Raises `BadInput` for a network without experts, a placement of another shape, and prompts that do not fit."""
    from intarsia.moe.running import run_on_ranks

    return run_on_ranks(checkpoint, config, text, seed)
