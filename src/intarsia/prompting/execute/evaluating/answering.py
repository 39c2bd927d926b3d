"""Asking for the answers of a set: each once, kept at once, found again by prompt, model and record."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import Note
from intarsia.prompting.base import InvalidOutput, Sampling, Usage
from intarsia.prompting.execute.evaluating.cases import Case
from intarsia.prompting.execute.flows import map_many
from intarsia.prompting.execute.trust import plain
from intarsia.prompting.tracing import hash_of, pack

if TYPE_CHECKING:
    from intarsia.prompting.base import Backend
    from intarsia.prompting.execute.prompt import Prompt, Rendered

FENCE = "evaluate"  # the same marks around text from outside in every run, so that the same prompt has the same hash


@dataclass(frozen=True)
class Given:
    """An answer.

    - prompt: hash of what was asked. probabilities: of the labels, where they were scored.
    - error: why it has not the wanted form."""

    text: str
    prompt: str
    key: str
    probabilities: dict[str, float] = field(default_factory=dict)
    usage: Usage = field(default_factory=lambda: Usage(calls=0))
    error: str = ""


class Answers:
    """Answers by key: hashes of the prompt as it is sent, the model, the record, and how it is asked.

    - check: ask all again; `differing` holds the keys of those whose answer is another one now."""

    def __init__(self, path: Path | None, check: bool = False):
        from intarsia.prompting.execute.optimising.journal import Journal

        self.journal = Journal(path, {"of": "evaluation"})
        self.check = check
        self.asked = self.taken = 0
        self.differing: list[str] = []

    def _found(self, key: str) -> Given | None:
        known = self.journal.known.get(key)
        if known is None:
            return None
        return Given(known["text"], known["prompt"], key, known["probabilities"], Usage(calls=0), known["error"])

    async def one(
        self, backend: Backend, made: Rendered, record: str, *, labels: Sequence[str] = (), shape: Any = None,
        sampling: Sampling | None = None,
    ) -> Given:  # fmt: skip
        """The answer to a rendered prompt. Raises as `ask`; an answer without the wanted form is an answer."""
        from intarsia.prompting.execute.asking import ask

        sampling = sampling or made.sampling
        wanted = shape if shape is not None else (list(labels) or None)
        how = {"labels": list(labels), "shape": repr(_form(shape)), "sampling": sampling}
        key = hash_of(pack([made.hash, backend.fingerprint, record, how], "key"))
        known = self._found(key)
        if known is not None and not self.check:
            self.taken += 1
            return known
        self.asked += 1
        try:
            answer = await ask(backend, made, shape=wanted, sampling=sampling)
            new = Given(plain(answer.text), made.hash, key, answer.probabilities, answer.usage)
        except InvalidOutput as error:
            new = Given(plain(error.raw), made.hash, key, error="; ".join(error.errors))
        if known is None:
            told = {"record": record, "model": backend.fingerprint, "prompt": made.hash}
            answered = {"text": new.text, "probabilities": new.probabilities, "error": new.error}
            self.journal.add(key, told | answered)
        elif known.text != new.text:
            self.differing.append(key)
        return new

    async def all(
        self, backend: Backend, prompt: Prompt, cases: Sequence[Case], *, labels: Sequence[str], shape: Any,
        sampling: Sampling | None, at_once: int,
    ) -> list[Given]:  # fmt: skip
        """Of every case. Raises `SomeFailed` where some could not be asked: what was answered is kept."""
        told = list(labels) or shape

        async def asking(case: Case) -> Given:
            made = prompt.render(shape=told, seed=FENCE, **case.inputs)
            return await self.one(backend, made, case.key, labels=labels, shape=shape, sampling=sampling)

        found = await map_many(asking, cases, at_once, name="asking")
        if self.differing:
            warnings.warn(
                f"{len(self.differing)} of {self.asked} answers are others than were kept", Note, stacklevel=2
            )
        return found


def _form(shape: Any) -> Any:
    return getattr(shape, "constraint", None) or (shape.__qualname__ if isinstance(shape, type) else shape)
