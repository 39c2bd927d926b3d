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
        key = _key(backend, made, record, labels, shape, sampling)
        known = self._found(key)
        if known is not None and not self.check:
            self.taken += 1
            return known
        self.asked += 1
        try:
            answer: Any = await ask(backend, made, shape=wanted, sampling=sampling)
        except InvalidOutput as error:
            answer = error
        return self._kept(key, backend, made, record, answer, known)

    async def some(
        self, backend: Backend, mades: Sequence[Rendered], records: Sequence[str], *, labels: Sequence[str] = (),
        shape: Any = None, sampling: Sampling | None = None,
    ) -> list[Given]:  # fmt: skip
        """Of rendered prompts, asked in one request (`ask_many`); all of them again where one is not known. Raises as
        `ask`."""
        from intarsia.prompting.execute.asking_many import ask_many

        sampling = sampling or mades[0].sampling
        wanted = shape if shape is not None else (list(labels) or None)
        together = [made.hash for made in mades]
        keys = [
            _key(backend, made, record, labels, shape, sampling, together)
            for made, record in zip(mades, records, strict=True)
        ]
        found = [self._found(key) for key in keys]
        if not self.check and not any(known is None for known in found):
            self.taken += len(found)
            return [known for known in found if known is not None]
        self.asked += len(keys)
        answers = await ask_many(
            backend, mades, shape=wanted, together=len(mades), sampling=sampling, keep_going=True, task=""
        )
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, InvalidOutput):
                raise answer
        asked = zip(keys, mades, records, answers, found, strict=True)
        return [self._kept(key, backend, made, record, answer, known) for key, made, record, answer, known in asked]

    def _kept(
        self, key: str, backend: Backend, made: Rendered, record: str, answer: Any, known: Given | None
    ) -> Given:  # fmt: skip
        """What was answered, or the error that says what is wrong with it, as it is kept."""
        if isinstance(answer, InvalidOutput):
            new = Given(plain(answer.raw), made.hash, key, error="; ".join(answer.errors))
        else:
            new = Given(plain(answer.text), made.hash, key, answer.probabilities, answer.usage)
        if known is None:
            told = {"record": record, "model": backend.fingerprint, "prompt": made.hash}
            answered = {"text": new.text, "probabilities": new.probabilities, "error": new.error}
            self.journal.add(key, told | answered)
        elif known.text != new.text:
            self.differing.append(key)
        return new

    async def all(
        self, backend: Backend, prompt: Prompt, cases: Sequence[Case], *, labels: Sequence[str], shape: Any,
        sampling: Sampling | None, at_once: int, together: int = 1,
    ) -> list[Given]:  # fmt: skip
        """Of every case, so many together in a request. Raises `SomeFailed` where some could not be asked: what was
        answered is kept."""
        told = list(labels) or shape

        async def asking(case: Case) -> Given:
            made = prompt.render(shape=told, seed=FENCE, **case.inputs)
            return await self.one(backend, made, case.key, labels=labels, shape=shape, sampling=sampling)

        async def asking_some(some: Sequence[Case]) -> list[Given]:
            made = prompt.render_many([case.inputs for case in some], shape=told, seed=FENCE)
            records = [case.key for case in some]
            return await self.some(backend, made, records, labels=labels, shape=shape, sampling=sampling)

        if together > 1:
            # By their places in the set: who stands beside whom is the same when a run goes on.
            groups = [cases[start : start + together] for start in range(0, len(cases), together)]
            found = [one for some in await map_many(asking_some, groups, at_once, name="asking") for one in some]
        else:
            found = await map_many(asking, cases, at_once, name="asking")
        if self.differing:
            warnings.warn(
                f"{len(self.differing)} of {self.asked} answers are others than were kept", Note, stacklevel=2
            )
        return found


def _key(
    backend: Backend, made: Rendered, record: str, labels: Sequence[str], shape: Any, sampling: Sampling,
    together: Sequence[str] = (),
) -> str:  # fmt: skip
    """together: hashes of the prompts that share the request, where several do."""
    how = {"labels": list(labels), "shape": repr(_form(shape)), "sampling": sampling}
    how |= {"together": list(together)} if together else {}
    return hash_of(pack([made.hash, backend.fingerprint, record, how], "key"))


def _form(shape: Any) -> Any:
    return getattr(shape, "constraint", None) or (shape.__qualname__ if isinstance(shape, type) else shape)
