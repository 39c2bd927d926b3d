"""Which examples stand in a prompt: those most like the input, or the same ones for every input.

Nearest by vectors with maximal marginal relevance, and so many of each label, are `intarsia.measure.demonstrations`;
here they are chosen for a prompt's input, one at a time, within a budget of tokens.

Source: BM25, Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework", eq. 3.15 (k1 = 1.2, b = 0.75)."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from intarsia.errors import BadInput

if TYPE_CHECKING:
    import numpy as np

    from intarsia.data import LabelledText

R = TypeVar("R")
How = Literal["nearest", "words", "balanced", "random"]
K1, B = 1.2, 0.75
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Chosen(Generic[R]):
    """Examples for one input, the one most like it last, next to the input. left_out: those that the budget had no room
    for, the least like it first."""

    examples: tuple[R, ...]
    left_out: tuple[R, ...] = ()


class Selector(Generic[R]):
    """Chooses examples out of a pool.

        selector = Selector(pool, "nearest", encoder="minilm", k=4)
        prompt.render(turn=turn, shots=list(selector.choose(turn).examples))

    - pool: records with `text` and `label` (`intarsia.data.LabelledText`, mappings, any objects); their `group`, where
      they have one, keeps an input's own kin out.
    - how: `nearest`: by the cosine of an encoder's vectors, each next one by lambda * likeness to the input -
      (1 - lambda) * largest likeness to those chosen, with lambda = relevance; `words`: by BM25; `balanced`: k of each
      label, `random`: k of all, both drawn by the seed, the same ones for every input.
    - encoder: a model's name, a `Model`, a `Backend`, a function from texts to rows (`nearest` alone).
    - k: examples; budget_tokens: of all of them together, by `count` of an example as it stands in the prompt (default:
      an estimate of its text and label).

    Raises `BadInput` for settings that do not fit each other, and for records without text or label."""

    def __init__(
        self, pool: Sequence[R], how: How = "nearest", *, k: int = 4, encoder: Any = None,
        relevance: float | None = None, seed: int = 0, budget_tokens: int | None = None,
        count: Callable[[R], int] | None = None,
    ):  # fmt: skip
        from intarsia.measure import demonstrations

        if how not in ("nearest", "words", "balanced", "random"):
            raise BadInput(f"how: nearest, words, balanced or random (given: '{how}')")
        if (how == "nearest") != (encoder is not None):
            raise BadInput("an encoder is what 'nearest' needs, and nothing else takes one")
        if k < 1 or (budget_tokens is not None and budget_tokens < 1):
            raise BadInput(f"k and budget_tokens are at least 1 (given: {k}, {budget_tokens})")
        if not pool:
            raise BadInput("the pool of examples is empty")
        relevance = demonstrations.RELEVANCE if relevance is None else relevance
        if not 0 < relevance <= 1:
            raise BadInput(f"relevance is a share above 0, up to 1 (given: {relevance})")
        self.pool, self.how, self.k, self.seed, self.relevance = list(pool), how, k, seed, relevance
        self.budget_tokens, self.count = budget_tokens, count or _about
        self._encoder = encoder
        self._records = [_record(one, number) for number, one in enumerate(pool)]

    def choose(self, text: str, *, group: str | None = None) -> Chosen[R]:
        """Examples for a text. group: what it belongs to (a dialogue), of which no example is taken."""
        return self.choose_many([text], groups=[group])[0]

    def choose_many(self, texts: Sequence[str], *, groups: Sequence[str | None] | None = None) -> list[Chosen[R]]:
        """The same for many texts, in one pass of the encoder."""
        from intarsia.data import LabelledText

        groups = groups or [None] * len(texts)
        inputs = [LabelledText(str(text), "", group) for text, group in zip(texts, groups, strict=True)]
        if not inputs:
            return []
        return [self._within([self.pool[number] for number in chosen]) for chosen in self._numbers(inputs)]

    def _numbers(self, inputs: Sequence[LabelledText]) -> list[list[int]]:
        from intarsia.measure import demonstrations

        if self.how == "balanced":
            labels = sorted({record.label for record in self._records})
            return demonstrations.fixed(self._records, inputs, labels, self.k, seed=self.seed)
        barred = [self._same(record) for record in inputs]
        if self.how == "nearest":
            queries = self._encoded[0].vectors([record.text for record in inputs])
            free = [i for i, bar in enumerate(barred) if not bar]
            found = dict(zip(free, self._nearest([inputs[i] for i in free], queries[free], set()), strict=True))
            return [
                found[i] if i in found else self._nearest([record], queries[i : i + 1], barred[i])[0]
                for i, record in enumerate(inputs)
            ]
        out = []
        drawn = list(range(len(self.pool)))
        random.Random(self.seed).shuffle(drawn)
        for record, bar in zip(inputs, barred, strict=True):
            away = {*self._kin.of(record), *bar}
            order = drawn if self.how == "random" else self._words.ranked(record.text)
            taken = [number for number in order if number not in away][: self.k]
            out.append(taken[::-1] if self.how == "words" else taken)
        return out

    def _nearest(self, inputs: list[LabelledText], queries: np.ndarray, barred: set[int]) -> list[list[int]]:
        from intarsia.measure import demonstrations

        left = [number for number in range(len(self.pool)) if number not in barred]
        if not inputs or not left:
            return [[] for _ in inputs]
        records = [self._records[number] for number in left]
        found = demonstrations.nearest(
            records, self._encoded[1][left], inputs, queries, self.k, relevance=self.relevance
        )  # fmt: skip
        return [[left[number] for number in numbers] for numbers in found]

    def _same(self, record: LabelledText) -> set[int]:
        """Numbers of the pool that have the input's own text: its answer must not stand before it."""
        return self._by_text.get(record.text, set())

    def _within(self, examples: list[R]) -> Chosen[R]:
        if self.budget_tokens is None:
            return Chosen(tuple(examples))
        left, kept = self.budget_tokens, len(examples)
        for number in range(len(examples) - 1, -1, -1):
            left -= self.count(examples[number])
            if left < 0:
                break
            kept = number
        return Chosen(tuple(examples[kept:]), tuple(examples[:kept]))

    @cached_property
    def _by_text(self) -> dict[str, set[int]]:
        out: dict[str, set[int]] = {}
        for number, record in enumerate(self._records):
            out.setdefault(record.text, set()).add(number)
        return out

    @cached_property
    def _kin(self) -> Any:
        from intarsia.measure.demonstrations import Kin

        return Kin(self._records)

    @cached_property
    def _encoded(self) -> tuple[Any, np.ndarray]:
        from intarsia.prompting.data.store.encoders import encoder_of

        encoder = encoder_of(self._encoder)
        return encoder, encoder.vectors([record.text for record in self._records])

    @cached_property
    def _words(self) -> Words:
        return Words([record.text for record in self._records])


class Words:
    """BM25 over texts; words in small letters."""

    def __init__(self, texts: Sequence[str]):
        counts = [Counter(_WORD.findall(text.lower())) for text in texts]
        self.lengths = [sum(count.values()) for count in counts]
        self.mean = sum(self.lengths) / max(len(texts), 1)
        self.places: dict[str, list[tuple[int, int]]] = {}
        for number, count in enumerate(counts):
            for word, times in count.items():
                self.places.setdefault(word, []).append((number, times))

    def scores(self, query: str) -> list[float]:
        """Of each text; 0 where no word is shared."""
        out = [0.0] * len(self.lengths)
        for word in set(_WORD.findall(query.lower())):
            found = self.places.get(word, [])
            rarity = math.log(1 + (len(out) - len(found) + 0.5) / (len(found) + 0.5))
            for number, times in found:
                size = K1 * (1 - B + B * self.lengths[number] / self.mean)
                out[number] += rarity * times * (K1 + 1) / (times + size)
        return out

    def ranked(self, query: str) -> list[int]:
        """Numbers of the texts, the best first; equal ones in their order."""
        scores = self.scores(query)
        return sorted(range(len(scores)), key=lambda number: (-scores[number], number))


def _record(one: Any, number: int) -> LabelledText:
    from intarsia.data import LabelledText

    get = one.get if isinstance(one, Mapping) else lambda name: getattr(one, name, None)
    text, label, group = get("text"), get("label"), get("group")
    if not isinstance(text, str) or not isinstance(label, str | int):
        missing = "text" if not isinstance(text, str) else "label"
        raise BadInput(f"example {number + 1} of the pool has no '{missing}': examples have a text and a label")
    return LabelledText(text, str(label), None if group is None else str(group))


def _about(one: Any) -> int:
    from intarsia.prompting.data import count_about

    record = _record(one, 0)
    return count_about(f"{record.text} {record.label}")
