"""`flow`: a plain function whose steps are recorded, and which goes on where it stopped."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.execute.flows.approving import Asker, answering, answers_to
from intarsia.prompting.execute.flows.keys import Resource, kept, named, source_hash
from intarsia.prompting.tracing import NotSerialisable, Redactor, Trace, current, step, switched_off, trace

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Done(Generic[T]):
    """What a flow gave, and its trace (None where nothing is recorded)."""

    value: T
    trace: Trace | None


class Flow(Generic[P, T]):
    """A function whose calls are traces. Call it as the function; `run` says more of where and how.

    - function: what it is made of. name: of its traces."""

    def __init__(self, function: Callable[P, Any], name: str = "", redact: Redactor | None = None):
        self.function, self.name, self.redact = function, name or named(function), redact
        self.asynchronous = inspect.iscoroutinefunction(function)
        functools.update_wrapper(self, function)

    def __call__(self, *given: P.args, **named_: P.kwargs) -> Any:
        """As the function itself: to be awaited where that is async."""
        arguments = self._bound(given, named_)
        if self.asynchronous:
            return self._awaited(arguments)
        with self._recorded(arguments) as s:
            return self._finished(s, None if s.replayed else self.function(*arguments.args, **arguments.kwargs))

    async def run(
        self, inputs: Mapping[str, Any] | None = None, *, path: Path | str | None = None, resume: str | None = None,
        answers: Sequence[str] | str = (), asker: Asker | None = None, facts: Mapping[str, Any] | None = None,
    ) -> Done[T]:  # fmt: skip
        """The flow with `inputs` by name.

        - path: the file of traces. resume: id of a trace to go on with: what it holds is not done again, and inputs
          that are not given are taken from it.
        - answers: to what that trace waits for: a text, or `ID=TEXT` where several questions wait. asker: who is asked.

        Raises `BadInput` for inputs it does not take, for a trace of another flow, and `Waiting` (see `approve`)."""
        given, told = dict(inputs or {}), {}
        if resume is not None:
            if switched_off():
                raise BadInput("a flow cannot be gone on with where INTARSIA_TRACE=off: nothing is recorded")
            old = Trace.open(path, resume)
            if old.name != self.name:
                raise BadInput(f"trace {old.id[:12]} is of '{old.name}', not of '{self.name}': give one of this flow")
            given = {**self._recalled(old, set(given)), **given}
            told = answers_to(old, [answers] if isinstance(answers, str) else list(answers))
            resume = old.id
        elif answers:
            raise BadInput("answers belong to a trace that waits for them: give resume=ID")
        arguments = self._bound((), given)
        with answering(asker, told), self._recorded(arguments, path, resume, facts) as s:
            if s.replayed:
                value = s.output
            elif self.asynchronous:
                value = await self.function(*arguments.args, **arguments.kwargs)
            else:
                value = await asyncio.to_thread(self.function, *arguments.args, **arguments.kwargs)
            value = self._finished(s, value)
            held = current()
        return Done(value, held.read() if held is not None else None)

    def run_now(self, inputs: Mapping[str, Any] | None = None, **options: Any) -> Done[T]:
        """`run`, where no event loop is."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self.run(inputs, **options))
        raise BadInput("run_now is for where no event loop runs; here, write `await flow.run(...)`")

    async def _awaited(self, arguments: inspect.BoundArguments) -> T:
        with self._recorded(arguments) as s:
            return self._finished(s, None if s.replayed else await self.function(*arguments.args, **arguments.kwargs))

    @contextmanager
    def _recorded(
        self, arguments: inspect.BoundArguments, path: Any = None, resume: str | None = None, facts: Any = None
    ) -> Any:
        given = {name: kept(value, name) for name, value in arguments.arguments.items()}
        if current() is not None and path is None and resume is None:
            # Inside another flow it is a step like any other.
            with step("flow", self.name, given, code=source_hash(self.function)) as s:
                yield s
            return
        known = {"flow": self.target, **(facts or {})}
        with trace(self.name, path, self.redact, input=given, resume=resume, facts=known) as t:
            yield t.root if t is not None else step("flow", self.name)

    @staticmethod
    def _finished(s: Any, value: Any) -> Any:
        if s.replayed:
            return s.output
        try:
            s.output = kept(value, "output")
        except NotSerialisable:
            if s.parent is not None:  # of a flow inside another, what it gave may be wanted again
                raise
            s.output = Resource(type(value).__qualname__, "", "")
        return value

    @property
    def target(self) -> str:
        """FILE.py:NAME, as `intarsia flow run` takes it."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{code.co_filename}:{self.function.__qualname__}" if code is not None else ""

    def _bound(self, given: Sequence[Any], named_: Mapping[str, Any]) -> inspect.BoundArguments:
        self._takes(named_)
        try:
            return inspect.signature(self.function).bind(*given, **named_)
        except TypeError as error:
            raise BadInput(f"{self.name}: {error}") from None

    def _takes(self, named_: Iterable[str]) -> None:
        parameters = inspect.signature(self.function).parameters
        open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        for name in named_:
            if name not in parameters and not open_ended:
                takes = ", ".join(parameters) or "nothing"
                raise BadInput(f"{self.name} takes no '{name}'{did_you_mean(name, parameters)}; it takes {takes}")

    def _recalled(self, old: Trace, given: set[str]) -> dict[str, Any]:
        """Inputs as an earlier run was given them."""
        events = old.events()
        out = {}
        for name, value in (events[0].input or {}).items() if events else ():
            if name in given:
                continue
            if isinstance(value, Resource):
                raise BadInput(
                    f"the input '{name}' is a {value.kind} ({value.name}), which no trace holds: give it again"
                )
            out[name] = value
        return out

    def from_json(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs out of JSON, of the types that the function says; a `Backend` by its name, a `Store` by its folder.

        Raises `BadInput` that names the input."""
        import pydantic

        signature = inspect.signature(self.function)
        try:
            hints = typing.get_type_hints(self.function)
        except NameError as error:
            raise BadInput(f"{self.name}: the types of its inputs cannot be read: {error}") from None
        self._takes(inputs)
        out = {}
        for name, value in inputs.items():
            hint = hints.get(name, Any)
            if name not in signature.parameters or hint is Any:
                out[name] = value
            elif (opener := _opener(hint)) is not None:
                if not isinstance(value, str):
                    raise BadInput(f"{self.name}: input '{name}' wants the name of a {opener.__name__}, is {value!r}")
                out[name] = opener(value)
            else:
                try:
                    out[name] = pydantic.TypeAdapter(hint).validate_python(value)
                except pydantic.ValidationError as error:
                    first = error.errors()[0]
                    at = "".join(f".{part}" for part in first["loc"])
                    raise BadInput(f"{self.name}: input '{name}{at}': {first['msg']}, is {first['input']!r}") from None
                except pydantic.PydanticSchemaGenerationError:
                    raise BadInput(f"{self.name}: input '{name}' is a {hint}, which JSON cannot give") from None
        return out


def _opener(hint: Any) -> Callable[[str], Any] | None:
    """What opens a thing by its name, for inputs that no JSON can hold."""
    from intarsia.prompting.base import Backend

    if hint is Backend:
        from intarsia.prompting.base.opening import open_backend

        def backend(name: str) -> Any:
            return open_backend(name)

        return backend
    if getattr(hint, "__module__", "").startswith("intarsia.prompting.data.store") and hint.__name__ == "Store":

        def store(folder: str) -> Any:
            return hint.open(folder, create=False)

        return store
    return None


@typing.overload
def flow(function: Callable[P, T]) -> Flow[P, T]: ...
@typing.overload
def flow(*, name: str = "", redact: Redactor | None = None) -> Callable[[Callable[P, T]], Flow[P, T]]: ...
def flow(function: Any = None, *, name: str = "", redact: Redactor | None = None) -> Any:
    """`@flow` before a plain function, async or not: its calls are traces.

        @flow
        async def answer(question: str, backend: Backend) -> str:
            pages = await step("find", search, question)
            drafts = await map_many(draft, pages)
            if not await approve("Send it?"):
                return ""
            return (await ask(backend, prompt.render(drafts=drafts))).text

    Control flow is Python's. What is recorded: `step(...)`, calls of `@step` functions, requests to models, tools,
    other flows; what is between them is done again when a trace is gone on with: let it be quick and without effects.
    """
    if function is None:
        return lambda function: Flow(function, name, redact)
    if not callable(function):
        raise BadInput("@flow stands before a function; its settings are flow(name=..., redact=...)")
    return Flow(function, name, redact)
