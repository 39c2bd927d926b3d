"""`EditFinding`: what became of the edits and of all the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, Field

from intarsia.report import Column, Figure, Finding, Mark, Series, Table

Pair = tuple[bool, bool]


class Asked(BaseModel):
    """A prompt whose answer should be the target. Pairs: before and after.

    - probability: of the target, geometric mean over its tokens. beats: whether it is likelier than the old answer
      (where there is none to beat: whether it is said). greedy: whether it is what the model says."""

    prompt: str
    probability: tuple[float, float]
    beats: Pair
    greedy: Pair


class Neighbour(BaseModel):
    """A prompt whose answer should stay.

    - kept: the most likely next token is what it was. divergence: KL of the next token, before to after, in nats.
    - right: where its own answer was given, whether that is likelier than the edit's target, before and after."""

    prompt: str
    kept: bool
    divergence: float
    right: Pair | None = None


class Edited(BaseModel):
    """One edit. `essence`: KL of what else is said of the subject ('SUBJECT is a'), in nats. `wanted`: the probability
    that the searched value alone gave the target; `steps`: of that search."""

    subject: str
    target: str
    old: str
    asked: Asked
    paraphrases: list[Asked] = Field(default_factory=list)
    neighbours: list[Neighbour] = Field(default_factory=list)
    consequences: list[Asked] = Field(default_factory=list)
    essence: float = 0.0
    wanted: float | None = None
    steps: int = 0


class EditFinding(Finding):
    """Edits, asked before and after.

    - layers: those that were changed; changed: |change| / |weights| of each. effects: what each layer recalls of the
      subjects by causal tracing, where that was done. perplexity: on text kept apart, before and after."""

    method: str = ""
    layers: list[int] = Field(default_factory=list)
    changed: list[float] = Field(default_factory=list)
    edits: list[Edited] = Field(default_factory=list)
    effects: dict[int, float] = Field(default_factory=dict)
    perplexity: tuple[float, float] | None = None

    def rates(self, when: int) -> dict[str, float | None]:
        """Shares before (0) and after (1): efficacy, said, paraphrases, paraphrases said, neighbourhood, consequences.

        None where nothing was given to judge by."""
        first = [e.asked for e in self.edits]
        others = [a for e in self.edits for a in e.paraphrases]
        near = [n.right[when] for e in self.edits for n in e.neighbours if n.right is not None]
        return {
            "efficacy": _share(a.beats[when] for a in first),
            "said": _share(a.greedy[when] for a in first),
            "paraphrase": _share(a.beats[when] for a in others),
            "paraphrase said": _share(a.greedy[when] for a in others),
            "neighbourhood": _share(near),
            "consequences": _share(a.greedy[when] for e in self.edits for a in e.consequences),
        }

    @property
    def kept(self) -> float | None:
        """Share of neighbours whose next token is what it was."""
        return _share(n.kept for e in self.edits for n in e.neighbours)

    @property
    def divergence(self) -> float | None:
        """Mean KL of the neighbours' next token, in nats."""
        return _mean(n.divergence for e in self.edits for n in e.neighbours)

    @property
    def essence(self) -> float | None:
        """Mean KL of what else is said of the subjects, in nats."""
        return _mean(e.essence for e in self.edits)

    def score(self, when: int) -> float | None:
        """Harmonic mean of efficacy, paraphrase and neighbourhood (where no answers were given: neighbours kept)."""
        rates = self.rates(when)
        near = rates["neighbourhood"]
        if near is None:
            near = self.kept if when else (None if self.kept is None else 1.0)
        parts = [rates["efficacy"], rates["paraphrase"], near]
        if any(part is None for part in parts):
            return None
        return len(parts) / sum(1 / max(part, 1e-12) for part in parts if part is not None)

    def headline(self) -> dict[str, Any]:
        after = self.rates(1)
        columns = {
            "edits said": (after["said"], Column(name="edits said", format=".0%", better="higher")),
            "paraphrases": (after["paraphrase"], Column(name="paraphrases", format=".0%", better="higher")),
            "neighbours kept": (self.kept, Column(name="neighbours kept", format=".0%", better="higher")),
        }
        return {key: pair for key, pair in columns.items() if pair[0] is not None}

    def tables(self) -> list[Table]:
        return [self._overall(), self._each()]

    def _overall(self) -> Table:
        before, after = self.rates(0), self.rates(1)
        meanings = {
            "efficacy": "target likelier than the old answer",
            "said": "target is what the model says",
            "paraphrase": "the same, asked in other words: likelier than the old answer",
            "paraphrase said": "the same, asked in other words: is what the model says",
            "neighbourhood": "about other things: the right answer is likelier than the target",
            "consequences": "what follows from the edits is what the model says",
        }
        rows: list[list[Any]] = [
            [name, before[name], after[name], meaning] for name, meaning in meanings.items() if after[name] is not None
        ]
        if self.kept is not None:
            rows.append(["neighbours kept", None, self.kept, "about other things: the next token stays"])
        if (score := self.score(1)) is not None:
            rows.append(["score", self.score(0), score, "harmonic mean of efficacy, paraphrase and neighbourhood"])
        share = Table(
            title=f"{len(self.edits)} edits, {self.method} in {_layers(self.layers)}",
            columns=[
                Column(name="figure"), Column(name="before", format=".0%"), Column(name="after", format=".0%"),
                Column(name="meaning"),
            ],
            rows=rows,
        )  # fmt: skip
        notes = []
        if self.divergence is not None:
            notes.append(f"KL of the neighbours' next token {self.divergence:.3f} nats")
        if self.essence is not None:
            notes.append(f"of what else is said of the subjects {self.essence:.3f}")
        if self.perplexity is not None:
            notes.append("perplexity on text {:.2f}, was {:.2f}".format(*reversed(self.perplexity)))
        changed = ", ".join(f"{c:.1%}" for c in self.changed)
        notes.append(f"weights changed by {changed}")
        share.note = "; ".join(notes) + "."
        return share

    def _each(self) -> Table:
        columns = [
            Column(name="subject"), Column(name="target"), Column(name="old answer"),
            Column(name="p before", format=".3f"), Column(name="p after", format=".3f"), Column(name="said"),
            Column(name="paraphrases", format=".0%"), Column(name="neighbours kept", format=".0%"),
            Column(name="KL of neighbours", format=".3f"),
        ]  # fmt: skip
        rows: list[list[Any]] = [
            [e.subject, e.target, e.old, *e.asked.probability, "yes" if e.asked.greedy[1] else "no",
             _share(a.beats[1] for a in e.paraphrases), _share(n.kept for n in e.neighbours),
             _mean(n.divergence for n in e.neighbours)]
            for e in self.edits
        ]  # fmt: skip
        return Table(title="Edit by edit", columns=columns, rows=rows)

    def figures(self) -> list[Figure]:
        if not self.effects:
            return []
        layers = sorted(self.effects)
        ends = {"": self.layers[0]} if len(self.layers) == 1 else {"from": self.layers[0], "to": self.layers[-1]}
        figure = Figure(
            title="Where the subjects are recalled", kind="line", x="layer", y="probability that comes back",
            series=[Series(name="MLPs around it, at the subject's last token", x=[float(i) for i in layers],
                           y=[self.effects[i] for i in layers])],
            marks=[Mark(axis="x", value=float(i), text=f"edited {end}".strip()) for end, i in ends.items()],
            format=".3f",
        )  # fmt: skip
        return [figure]


def _layers(layers: list[int]) -> str:
    return f"layer {layers[0]}" if len(layers) == 1 else f"layers {', '.join(map(str, layers))}"


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


def _share(values: Iterable[bool]) -> float | None:
    return _mean(map(float, values))
