"""`FakeBackend`: a model that does as it is told, for tests and for flows without a model."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import inspect
import json
import math
import random
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import ContextOverflow
from intarsia.prompting.base.messages import Call, Input, Message, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, TokenLogprob, Usage
from intarsia.prompting.base.smallest import smallest
from intarsia.prompting.base.token_tree import tree_of
from intarsia.prompting.base.validating import check, check_form
from intarsia.prompting.base.whole import Streaming, as_delta

if TYPE_CHECKING:
    import numpy as np

Answer = str | Call | Sequence[Call] | Reply | BaseException
"""What a script says: a text, a tool to call or several, a whole reply (sent as it is), an error (raised)."""
Script = Sequence[Answer] | Mapping[str, Answer] | Callable[[Input], Any]

_TOKEN = re.compile(r"\s*(?:\w+|[^\w\s])|\s+")
MESSAGE = 3  # tokens of a message beside its content


@dataclasses.dataclass(frozen=True)
class Request:
    """What a fake model was asked. kind: generate, score or embed."""

    kind: str
    prompt: Any
    sampling: Sampling | None = None
    constraint: Constraint | None = None
    tools: tuple[ToolSpec, ...] = ()
    choices: tuple[str, ...] = ()


class FakeBackend(Streaming):
    """A `Backend` without a model, the same every time.

    - script: answers in the order they are asked for; or answers by a regex that is searched for in the last message
      (the first that fits; `""` fits all); or a function of the prompt, async or not. Without one, a form's smallest
      text or call (see `smallest`), else the last message over again; above temperature 0 in another order, by the
      seed.
    - scores: log probability of a choice, or a function of prompt and choice; without it one by the choice's hash.
    - errors: what to raise at which request, counted from 1: `{2: BackendError("busy", retryable=True)}`.
    - seconds: for each token of an answer. width: of embeddings.

    A text of a script is cut at `stop` and `max_tokens`, and has to have the form that was asked for (`InvalidOutput`);
    a tool that it calls has to be among those offered (`BadInput`).

    A token is a word or a mark with the space before it; a message has `MESSAGE` more, and calls and tools are counted
    as their JSON. `requests` holds everything that was asked."""

    def __init__(
        self, script: Script | None = None, *, name: str = "fake", context_length: int | None = 8192,
        scores: Mapping[str, float] | Callable[[Input, str], float] | None = None,
        errors: Mapping[int, BaseException] | None = None, seconds: float = 0.0, width: int = 64,
    ):  # fmt: skip
        if isinstance(script, str | bytes):
            raise BadInput('the script of a fake model is a list, a dict or a function: give ["answer"]')
        self.name, self.context_length, self.tokenizer = name, context_length, None
        self.script, self.scores, self.errors = script, scores, dict(errors or {})
        self.seconds, self.width = seconds, width
        self.requests: list[Request] = []
        self._next = 0
        told = repr(script) if script is None or isinstance(script, Sequence | Mapping) else _called(script)
        self.fingerprint = f"fake:{hashlib.sha256(f'{name} {told}'.encode()).hexdigest()[:16]}"

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """An answer, a token at a time. Raises as `Backend.stream`, and what the script says."""
        request = Request("generate", prompt, sampling, constraint, tuple(tools))
        self._begin(request)
        used = self.count(prompt, tools)
        if self.context_length is not None and used + sampling.max_tokens > self.context_length:
            raise ContextOverflow(used + sampling.max_tokens, self.context_length)
        if constraint is not None:
            check_form(constraint)
        answer = await self._answer(request)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            yield as_delta(answer)
            return
        if not isinstance(answer, str):
            calls = _named([answer] if isinstance(answer, Call) else list(answer), tools)
            made = sum(len(pieces(_call_text(call))) for call in calls)
            await asyncio.sleep(self.seconds * made)
            yield Delta(finish="tool_calls", usage=Usage(used, made), calls=calls)
            return
        if constraint is not None:
            check(answer, constraint)
        answer = answer[: min((at for stop in sampling.stop if (at := answer.find(stop)) >= 0), default=len(answer))]
        parts = pieces(answer)
        finish = "length" if len(parts) > sampling.max_tokens else "stop"
        parts = parts[: sampling.max_tokens]
        for number, part in enumerate(parts):
            await asyncio.sleep(self.seconds)
            yield Delta(part, logprobs=self._logprobs("".join(parts[:number]), part, sampling.logprobs))
        yield Delta(finish=finish, usage=Usage(used, len(parts)))

    async def score(self, prompt: Input, choices: Sequence[str]) -> Scores:
        """As `scores` says; else each token of a choice has a probability by its hash and what is before it."""
        self._begin(Request("score", prompt, choices=tuple(choices)))
        parts = [pieces(choice) for choice in choices]
        usage = Usage(self.count(prompt) + len(tree_of(parts)[0]))
        if callable(self.scores):
            return Scores((float(self.scores(prompt, choice)) for choice in choices), usage)
        if self.scores is not None:
            if missing := [choice for choice in choices if choice not in self.scores]:
                raise BadInput(f"the fake model has no score for {missing[0]!r}: add it to scores")
            return Scores((float(self.scores[choice]) for choice in choices), usage)
        before = _text(prompt)
        return Scores((sum(_logprob(before, part) for part in some) for some in parts), usage)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[text, width] float32 of length one: each word, in small letters, is added to or taken from one place, both
        by its hash. Texts with the same words are equal, texts without a common word close to square."""
        import numpy as np

        self._begin(Request("embed", tuple(texts)))
        out = np.zeros((len(texts), self.width), np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.lower()):
                number = _hash(word)
                out[row, number // 2 % self.width] += 1 if number % 2 else -1
            if not out[row].any():  # no word, or words that cancel
                out[row, 0] = 1
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def count(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens, as the class says. Raises `BadInput` for token ids: there are none here."""
        told = sum(len(pieces(json.dumps(dataclasses.asdict(tool)))) for tool in tools)
        if isinstance(prompt, str):
            return told + len(pieces(prompt))
        messages = _messages(prompt)
        calls = sum(len(pieces(_call_text(call))) for message in messages for call in message.calls)
        return told + calls + sum(MESSAGE + len(pieces(message.content)) for message in messages)

    async def close(self) -> None:
        """Nothing is held."""

    def _begin(self, request: Request) -> None:
        self.requests.append(request)
        if (error := self.errors.get(len(self.requests))) is not None:
            raise error

    async def _answer(self, request: Request) -> Any:
        script, text = self.script, _text(request.prompt)
        if script is None:
            if request.constraint is not None and request.constraint.kind == "call":
                return _smallest_call(request.constraint, request.tools)
            if request.constraint is not None:
                drawn = request.sampling is not None and request.sampling.temperature > 0
                return smallest(request.constraint, self._seed(request) if drawn else None)
            return self._said_again(text, request)
        if isinstance(script, Mapping):
            for pattern, answer in script.items():
                if re.search(pattern, text):
                    return answer
            raise BadInput(f'the fake model\'s script has no answer to {text[:60]!r}: add one, "" answers all')
        if isinstance(script, Sequence):
            if self._next >= len(script):
                raise BadInput(f"the fake model's script has {len(script)} answers, and more were asked for")
            self._next += 1
            return script[self._next - 1]
        answer = script(request.prompt)
        return await answer if inspect.isawaitable(answer) else answer

    def _said_again(self, text: str, request: Request) -> str:
        sampling = request.sampling
        if sampling is None or sampling.temperature == 0:
            return text
        words = text.split()
        random.Random(f"{self._seed(request)} {text}").shuffle(words)
        return " ".join(words)

    def _seed(self, request: Request) -> int:
        seed = request.sampling.seed if request.sampling is not None else None
        return len(self.requests) if seed is None else seed

    def _logprobs(self, before: str, part: str, most: int | None) -> tuple[TokenLogprob, ...]:
        if most is None:
            return ()
        logprob = _logprob(before, part)
        # What is left is shared out among tokens that stand for all others.
        left = math.log(-math.expm1(logprob))
        others = [(f"<{number}>", left - math.log(2) * number) for number in range(1, most + 1)]
        top = sorted([(part, logprob), *others], key=lambda pair: -pair[1])[:most]
        return (TokenLogprob(part, None, logprob, tuple(top)),)


def pieces(text: str) -> list[str]:
    """The tokens of a text; together they are the text."""
    return _TOKEN.findall(text)


def _messages(prompt: Input) -> Sequence[Message]:
    if not all(isinstance(message, Message) for message in prompt):
        raise BadInput("a fake model knows no token ids: give a text, or messages")
    return prompt  # type: ignore[return-value]


def _text(prompt: Input) -> str:
    """What is answered: a text, or the last message's content."""
    if isinstance(prompt, str):
        return prompt
    messages = _messages(prompt)
    return messages[-1].content if messages else ""


def _named(calls: list[Call], tools: Sequence[ToolSpec]) -> tuple[Call, ...]:
    """Calls with an id each."""
    offered = [tool.name for tool in tools]
    for call in calls:
        if call.name not in offered:
            known = f"only {', '.join(offered)}" if offered else "no tool"
            raise BadInput(f"the fake model's script calls {call.name}, and {known} was offered")
    return tuple(
        call if call.id else dataclasses.replace(call, id=f"call_{n}") for n, call in enumerate(calls, 1)
    )  # fmt: skip


def _smallest_call(form: Constraint, tools: Sequence[ToolSpec]) -> Call:
    named = [tool for tool in tools if form.source in ("required", tool.name)]
    if not named:
        raise BadInput(f"{form.source} has to be called, and is not offered: give it as a tool")
    arguments = smallest(Constraint("json", json.dumps(named[0].parameters)))
    return Call(named[0].name, json.loads(arguments))


def _call_text(call: Call) -> str:
    return json.dumps({"name": call.name, "arguments": call.arguments})


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def _logprob(before: str, part: str) -> float:
    """Between log 0.05 and log 0.95."""
    return math.log(0.05 + 0.9 * _hash(f"{before}\0{part}") / 2**64)


def _called(function: Any) -> str:
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', type(function).__name__)}"
