"""What a search found: hits with the parts of their scores, facts around the question, and both as context."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.data.documents import headed
from intarsia.prompting.data.splitting import count_about


@dataclass(frozen=True)
class Scores:
    """Why a hit is one: the cosine of its vector to the question's and its rank by that, its BM25 (more is better) and
    its rank by that; None where a ranking does not hold it, and without vectors. rerank: what the function that judged
    anew gave."""

    dense: float | None = None
    dense_rank: int | None = None
    words: float | None = None
    words_rank: int | None = None
    rerank: float | None = None


@dataclass(frozen=True)
class Hit:
    """A chunk that was found. `text` is what stands between `start` and `end` (characters) of the document."""

    text: str
    source: str
    title: str
    path: tuple[str, ...]
    anchor: str
    start: int
    end: int
    metadata: Mapping[str, Any]
    score: float
    scores: Scores
    chunk: int

    @property
    def citation(self) -> str:
        """Where it stands: `page.html#section`, else `notes.txt:120-480` (characters)."""
        return f"{self.source}#{self.anchor}" if self.anchor else f"{self.source}:{self.start}-{self.end}"

    @property
    def headings(self) -> str:
        """Title and headings as one line."""
        return headed(self.title, self.path)


@dataclass(frozen=True)
class Edge:
    """A fact: head, relation, tail. source: where it is from; confidence: of a predicted one, None for a known one."""

    id: int
    head: str
    relation: str
    tail: str
    source: str = ""
    confidence: float | None = None

    @property
    def line(self) -> str:
        """As a line of a prompt, without its id."""
        from intarsia.knowledge.retrieve import Retrieved

        fact = Retrieved(
            head=self.head, relation=self.relation, tail=self.tail, weight=0.0, confidence=self.confidence
        )  # fmt: skip
        return fact.line


@dataclass(frozen=True)
class Path:
    """One fact, or two in a row, from an entity that the question names. score: likeness to the question (a cosine), or
    its weight in the walk where the store has no vectors."""

    edges: tuple[Edge, ...]
    score: float

    @property
    def line(self) -> str:
        """The facts in words, from one to the next."""
        return "; ".join(edge.line for edge in self.edges)

    @property
    def ids(self) -> str:
        """What citations name: `E12` or `E12+E40`."""
        return "+".join(f"E{edge.id}" for edge in self.edges)


@dataclass(frozen=True)
class Passage:
    """A piece of context, as data: whoever writes a prompt fences it, and never takes it for instructions.

    - id: what an answer cites: `1`, `E12`. about: title and headings. citation: where it stands."""

    id: str
    text: str
    about: str
    citation: str

    def __str__(self) -> str:
        parts = (f"[{self.id}]", self.about, f"({self.citation})" if self.citation else "")
        return f"{' '.join(filter(None, parts))}\n{self.text}"


@dataclass(frozen=True)
class Context:
    """Passages that fit a budget, best first, and those that were dropped for it. tokens: of `text`."""

    passages: tuple[Passage, ...]
    dropped: tuple[Passage, ...]
    tokens: int = 0

    @property
    def text(self) -> str:
        """For a prompt; its last line says what was dropped. Empty where nothing fits."""
        if not self.passages:
            return ""
        return "\n\n".join([*map(str, self.passages), *([self.note] if self.dropped else [])])

    @property
    def note(self) -> str:
        """What was dropped, in a line; empty where nothing was."""
        if not self.dropped:
            return ""
        places = ", ".join(passage.citation or passage.id for passage in self.dropped[:5])
        more = f" and {len(self.dropped) - 5} more" if len(self.dropped) > 5 else ""
        return f"(left out for want of room: {places}{more})"

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Found:
    """Hits, best first; facts around the question, where `hops` asked for them; `entities`: names found in it."""

    query: str
    hits: tuple[Hit, ...] = ()
    facts: tuple[Path, ...] = ()
    entities: tuple[str, ...] = field(default=())

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]

    def passages(self) -> list[Passage]:
        """Hits as `1`, `2`, ... and facts by their edges' ids, in the order they should be dropped from the end."""
        told = [Passage(str(i), hit.text, hit.headings, hit.citation) for i, hit in enumerate(self.hits, 1)]
        facts = [
            Passage(path.ids, path.line, "fact", ", ".join(dict.fromkeys(e.source for e in path.edges if e.source)))
            for path in self.facts
        ]
        # A fact costs a line, and answers what was asked or does not: facts stand after the best passage.
        return [*told[:1], *facts, *told[1:]]

    def context(self, budget_tokens: int, *, count: Callable[[str], int] = count_about) -> Context:
        """What fits into so many tokens, by `count` (default: an estimate; give a model's own to be exact).

        Passages are whole or not there; a smaller one later may still fit. The note on what was dropped is counted."""
        if budget_tokens < 1:
            raise BadInput(f"budget_tokens: {budget_tokens}: give 1 or more")
        kept: list[Passage] = []
        dropped: list[Passage] = []
        spent = 0
        for passage in self.passages():
            cost = count(f"{passage}\n\n")
            if spent + cost <= budget_tokens:
                kept.append(passage)
                spent += cost
            else:
                dropped.append(passage)
        while True:
            made = Context(tuple(kept), tuple(dropped))
            tokens = count(made.text) if kept else 0
            if tokens <= budget_tokens:
                return Context(tuple(kept), tuple(dropped), tokens)
            dropped.insert(0, kept.pop())
