"""A model as the judge, by a prompt the user gives. Nothing is asked of it that does not stand there.

The prompt takes `answer` and may take `gold` and columns of the record; its header's shape names the verdicts: numbers,
or words of which the first is best and the last is worst. A prompt that takes `first` and `second` compares two
answers: it is asked twice, with their order swapped, and its verdicts are `first`, `second` and perhaps one for a tie.

Source: Zheng et al. 2023, arXiv 2306.05685, §3.4 (swapping positions; a win is a win in both orders)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.base import InvalidOutput
from intarsia.prompting.execute.evaluating.answering import FENCE, Answers, Given
from intarsia.prompting.execute.evaluating.cases import Case
from intarsia.prompting.execute.flows import map_many

if TYPE_CHECKING:
    from intarsia.prompting.base import Backend
    from intarsia.prompting.execute.prompt import Prompt


class Judge:
    """Verdicts as values from 0 to 1. pairs: whether it compares two answers."""

    def __init__(self, prompt: Prompt):
        """Raises `BadInput` for a prompt without verdicts, or that takes no answer."""
        self.prompt = prompt
        self.pairs = {"first", "second"} <= set(prompt.inputs)
        if not self.pairs and "answer" not in prompt.inputs:
            raise BadInput(f"{prompt.name}: a judge's prompt takes `answer`, or `first` and `second`")
        if not isinstance(prompt.shape, list) or len(prompt.shape) < 2:
            raise BadInput(f"{prompt.name}: a judge's header names its verdicts: shape: [yes, no], or [1, 2, 3, 4, 5]")
        self.verdicts = [str(one) for one in prompt.shape]
        if self.pairs and not {"first", "second"} <= set(self.verdicts):
            raise BadInput(f"{prompt.name}: the verdicts of a judge of pairs are `first` and `second`, and a tie's")
        self.values = {} if self.pairs else _values(self.verdicts)

    def check(self, cases: Sequence[Case]) -> None:
        """Raises `BadInput` for a column that the prompt takes and a record has not."""
        own = {"answer", "gold", "first", "second"}
        for case in cases:
            for name, spec in self.prompt.inputs.items():
                if name not in own and spec.required and name not in case.row:
                    raise BadInput(f"{case.where}: no column '{name}', which the judge's {self.prompt.name} takes")
                if name == "gold" and spec.required and case.gold is None:
                    raise BadInput(f"{case.where}: the judge's {self.prompt.name} takes `gold`, and there is none")

    async def values_of(
        self, backend: Backend, answers: Answers, cases: Sequence[Case], given: Sequence[Given],
        others: Sequence[str | None], at_once: int,
    ) -> list[float]:  # fmt: skip
        """A value for each answer. others: what it is compared with, in pairs; None: nothing to compare with: half."""

        async def single(number: int) -> float:
            case, one = cases[number], given[number]
            if not self.pairs:
                verdict = await self._verdict(backend, answers, case, {"answer": one.text})
                return self.values[verdict]
            other = others[number]
            if other is None or other == one.text:
                return 0.5
            ahead = await self._verdict(backend, answers, case, {"first": one.text, "second": other})
            behind = await self._verdict(backend, answers, case, {"first": other, "second": one.text})
            wins = (ahead == "first") + (behind == "second")
            losses = (ahead == "second") + (behind == "first")
            return 1.0 if wins == 2 else 0.0 if losses == 2 else 0.5

        return await map_many(single, range(len(cases)), at_once, name="judging")

    async def _verdict(self, backend: Backend, answers: Answers, case: Case, said: Mapping[str, Any]) -> str:
        inputs = {name: case.row[name] for name in self.prompt.inputs if name in case.row}
        if "gold" in self.prompt.inputs and case.gold is not None:
            inputs["gold"] = case.gold
        made = self.prompt.render(shape=self.verdicts, seed=FENCE, **{**inputs, **said})
        verdict = (await answers.one(backend, made, case.key, labels=self.verdicts)).text.strip()
        if verdict not in self.verdicts:
            raise InvalidOutput(verdict, [f"the judge's verdict on {case.where} is none of {', '.join(self.verdicts)}"])
        return verdict


def _values(verdicts: Sequence[str]) -> dict[str, float]:
    try:
        numbers = [float(one) for one in verdicts]
        low, high = min(numbers), max(numbers)
        return {one: (number - low) / (high - low) for one, number in zip(verdicts, numbers, strict=True)}
    except ValueError:
        return {one: 1 - i / (len(verdicts) - 1) for i, one in enumerate(verdicts)}
