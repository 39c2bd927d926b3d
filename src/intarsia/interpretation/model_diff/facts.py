"""Which facts a change made unreadable, and from which layer on: a Patchscopes view of two models.

A fact is a prompt and what should follow it. The state of every layer at the prompt's end is read through the blocks
above it (the sink lens: `lenses.presets`) in either model, and it is noted how high the fact's first token ranks there.
A fact that is gone from the output may still be readable inside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import pydantic
from pydantic import Field

from intarsia.interpretation.wording import one_line
from intarsia.report import Block, Column, Figure, Mark, Series, Table

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.data import TextPair
    from intarsia.models import Model

CHUNK = 16  # facts whose logits over all layers are held at a time
Fate = Literal["kept", "hidden", "lost", "gained", "never readable"]


class FactDiff(pydantic.BaseModel):
    """One fact in both models.

    - before, after: the first layer at which the fact is readable, None for none.
    - rank_before, rank_after: of its first token in the model's own prediction, 1 is best.
    - fate: `kept` in the prediction; `hidden`: gone from it but still readable at some layer; `lost` at every layer;
      `gained`: in the prediction only since the change; `never readable` in the prediction of either."""

    prompt: str
    target: str
    before: int | None
    after: int | None
    rank_before: int
    rank_after: int
    fate: Fate


class FactsDiff(pydantic.BaseModel):
    """What became of a list of facts.

    `readable_before`, `readable_after`: share of the facts that rank among the first `top`, by layer. `control_before`,
    `control_after`: share of facts for which that is so at any layer of the target of another fact."""

    facts: list[FactDiff]
    lens: str
    top: int
    readable_before: list[float] = Field(default_factory=list)
    readable_after: list[float] = Field(default_factory=list)
    control_before: float = 0.0
    control_after: float = 0.0

    def count(self, fate: Fate) -> int:
        return sum(fact.fate == fate for fact in self.facts)

    def sentence(self) -> str:
        """What happened, in words."""
        known = self.count("kept") + self.count("hidden") + self.count("lost")
        if not known:
            return f"None of the {len(self.facts)} facts was known before the change."
        text = (
            f"Of {known} facts among the first {self.top} predictions before the change {self.count('kept')} still are"
        )
        text += f", {self.count('hidden')} are only readable inside, {self.count('lost')} are unreadable"
        gained = self.count("gained")
        return text + (f"; {gained} came in." if gained else ".")

    def blocks(self) -> list[Block]:
        x = [[float(i) for i in range(len(line))] for line in (self.readable_before, self.readable_after)]
        chance = max(self.control_before, self.control_after)
        figure = Figure(
            title="From which layer on the facts can be read",
            kind="line",
            x="layer",
            y=f"share of facts among the first {self.top}",
            series=[
                Series(name="before", x=x[0], y=list(self.readable_before)),
                Series(name="after", x=x[1], y=list(self.readable_after)),
            ],
            marks=[Mark(value=chance, text="another fact's target, at any layer")],
            format=".0%",
            note=f"Read through the {self.lens} lens at the prompt's last token.",
        )
        order: dict[Fate, int] = {"lost": 0, "hidden": 1, "gained": 2, "kept": 3, "never readable": 4}
        rows = [
            [f.fate, one_line(f.prompt), one_line(f.target), f.before, f.after, f.rank_before, f.rank_after]
            for f in sorted(self.facts, key=lambda f: (order[f.fate], -f.rank_after))
        ]
        table = Table(
            title="Facts",
            columns=[
                Column(name="fate"),
                Column(name="prompt"),
                Column(name="fact"),
                Column(name="readable from layer, before", format="d"),
                Column(name="after", format="d"),
                Column(name="rank in the prediction, before", format=",d"),
                Column(name="after ", format=",d"),
            ],
            rows=rows,
            note="hidden: no longer predicted, but some layer's state still says it. Only the first token is judged.",
        )
        return [figure, table]


def facts_diff(before: Model, after: Model, facts: Sequence[TextPair], top: int, lens: str) -> FactsDiff:
    """Read the facts in both models. Raises `BadInput` for a fact without words, or a model without a next token."""
    targets = [_first_token(after, fact) for fact in facts]
    others = [targets[(i + 1) % len(targets)] for i in range(len(targets))]
    differ = [i for i in range(len(targets)) if others[i] != targets[i]]
    prompts = [fact.prompt for fact in facts]
    readable, control, last, found = [], [], [], []
    for model in (before, after):
        mine, chance = _ranks(model, prompts, [targets, others], lens)
        readable.append(mine <= top)  # [fact, layer]
        control.append(float((chance <= top)[differ].any(1).float().mean()) if differ else 0.0)
        last.append(mine[:, -1])
    for i, fact in enumerate(facts):
        layers = [m[i].nonzero().flatten().tolist() for m in readable]
        said = [bool(m[i, -1]) for m in readable]
        fate: Fate = "never readable"
        if said[0]:
            fate = "kept" if said[1] else "hidden" if layers[1] else "lost"
        elif said[1]:
            fate = "gained"
        first = [some[0] if some else None for some in layers]
        found.append(
            FactDiff(
                prompt=fact.prompt,
                target=fact.target,
                before=first[0],
                after=first[1],
                rank_before=int(last[0][i]),
                rank_after=int(last[1][i]),
                fate=fate,
            )
        )
    return FactsDiff(
        facts=found,
        lens=lens,
        top=top,
        readable_before=readable[0].float().mean(0).tolist(),
        readable_after=readable[1].float().mean(0).tolist(),
        control_before=control[0],
        control_after=control[1],
    )


def check_facts(before: Model, after: Model, facts: Sequence[TextPair], lens: str) -> None:
    """Raise `BadInput` for facts that are none, or models that cannot be read so; before any work is done."""
    from intarsia.errors import BadInput
    from intarsia.interpretation.lenses.readers import reader

    if not facts:
        return
    for fact in facts:
        if not hasattr(fact, "target"):
            raise BadInput("interpretation.diff: facts are pairs of a prompt and its target ({prompt:, target:})")
        _first_token(after, fact)
    for model in (before, after):
        reader(model, lens)


def _ranks(model: Model, prompts: list[str], tokens: list[list[int]], lens: str) -> list[Tensor]:
    """For each list of tokens, one a prompt: their ranks [prompt, layer] after the prompt, 1 is best."""
    import torch

    from intarsia.interpretation import divergence, states
    from intarsia.interpretation.lenses.readers import reader
    from intarsia.progress import track
    from intarsia.sites import read

    through = reader(model, lens)
    layers = list(range(states.layer_count(model)))
    names = [states.site_name(model.sites, layer, "resid_post") for layer in layers]
    parts: list[list[Tensor]] = [[] for _ in tokens]
    for start in track(range(0, len(prompts), CHUNK), "reading facts"):
        acts = read(model, prompts[start : start + CHUNK], names)
        ids = [torch.tensor(row[start : start + CHUNK], device=model.device) for row in tokens]
        by_layer = list(through.over([acts.last(name) for name in names], layers))
        for row, of in zip(ids, parts, strict=True):
            of.append(torch.stack([divergence.rank(log_p, row) for log_p in by_layer], dim=1).cpu())
    return [torch.cat(of) for of in parts]


def _first_token(model: Model, fact: TextPair) -> int:
    """The first token of the target as it follows the prompt."""
    from intarsia.errors import BadInput

    tokenizer = model.tokenizer
    assert tokenizer is not None
    if not fact.target.strip():
        raise BadInput(f"interpretation.diff: the fact '{one_line(fact.prompt)}' has no words to follow it")
    seam = "" if fact.target[:1].isspace() or fact.prompt[-1:].isspace() else " "
    head = tokenizer(fact.prompt)["input_ids"]
    whole = tokenizer(fact.prompt + seam + fact.target)["input_ids"]
    if whole[: len(head)] == head and len(whole) > len(head):
        return int(whole[len(head)])
    return int(tokenizer(seam + fact.target, add_special_tokens=False)["input_ids"][0])
