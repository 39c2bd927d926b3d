"""`LocalBackend`: a model on this machine, asked by many at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.base.errors import ContextOverflow
from intarsia.prompting.base.local.answer import Answer
from intarsia.prompting.base.local.asking import check_sampling, choice_ids, prompt_ids
from intarsia.prompting.base.local.engine import Engine
from intarsia.prompting.base.local.scoring import Scoring
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, Usage

if TYPE_CHECKING:
    import numpy as np

    from intarsia.models import Model
    from intarsia.prompting.base.constraint import Constraint
    from intarsia.prompting.base.local.identity import Fingerprint


class LocalBackend:
    """A `Backend` over an engine. `open_local` makes it.

    - model: the `Model`; None where only another engine's file is there.
    - runs_on: `torch`, `gguf`, `onnx-genai` or `openvino`.
    - adapter: the LoRA adapter it answers with. `with_adapter` gives the same network with another one: they share the
      engine, and requests of different adapters run together.
    - describe_tools: for chat templates that know no tools: whether these are described in the system message."""

    def __init__(
        self, engine: Engine, *, name: str, tokenizer: Any, ends: frozenset[int], context_length: int | None,
        vocabulary: int, fingerprint: Fingerprint, model: Model | None = None, runs_on: str = "torch",
        adapter: str | None = None, describe_tools: bool = False,
    ):  # fmt: skip
        self.engine, self.name, self.tokenizer = engine, name, tokenizer
        self.context_length, self.vocabulary, self.ends = context_length, vocabulary, ends
        self.model, self.runs_on, self.adapter, self.describe_tools = model, runs_on, adapter, describe_tools
        self._fingerprint = fingerprint

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, changes, adapter and tokenizer. The first time, weights in memory alone are read whole."""
        return self._fingerprint.of(self.adapter)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names that `with_adapter` takes."""
        return tuple(self._fingerprint.adapters)

    def with_adapter(self, adapter: str | None) -> LocalBackend:
        """The same model with one of its adapters, or with none; `name` becomes `model:adapter`."""
        if adapter is not None and adapter not in self.adapters:
            hint = did_you_mean(adapter, self.adapters) or f": it has {', '.join(self.adapters) or 'none'}"
            raise BadInput(f"{self.name} has no adapter '{adapter}'{hint}")
        base = self.name.removesuffix(f":{self.adapter}") if self.adapter else self.name
        return LocalBackend(
            self.engine, name=f"{base}:{adapter}" if adapter else base, tokenizer=self.tokenizer, ends=self.ends,
            context_length=self.context_length, vocabulary=self.vocabulary, fingerprint=self._fingerprint,
            model=self.model, runs_on=self.runs_on, adapter=adapter, describe_tools=self.describe_tools,
        )  # fmt: skip

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """One answer, whole."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        whole = await self._whole(self._answer(prompt, sampling, constraint, tools, queue, pieces=False), queue)
        return Reply(whole.text, whole.finish, whole.tokens, whole.logprobs, whole.calls, whole.usage or Usage())

    def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """The same answer as it comes. What is wrong with the request is raised here, before the first piece."""
        queue: asyncio.Queue[Any] = asyncio.Queue()
        return self._pieces(self._answer(prompt, sampling, constraint, tools, queue, pieces=True), queue)

    async def _pieces(self, answer: Answer, queue: asyncio.Queue[Any]) -> AsyncIterator[Delta]:
        self.engine.submit(answer)
        try:
            while True:
                delta = await queue.get()
                if isinstance(delta, Exception):
                    raise delta
                yield delta
                if delta.finish is not None:
                    return
        finally:
            answer.cancelled = True

    async def score(self, prompt: Input, choices: Sequence[str]) -> Scores:
        """Natural log probability of each choice, all its tokens, after the prompt. Prompt and choices are one forward,
        which they share with others that are asked for at the same time."""
        self._check_generates()
        ids = self.ids(prompt, ())
        texts = choice_ids(self.tokenizer, prompt, ids, choices)
        if not texts:
            return Scores(usage=Usage(calls=0))
        self._check_room(len(ids), max(map(len, texts)))
        queue: asyncio.Queue[Any] = asyncio.Queue()
        scoring = Scoring(ids, texts, self.adapter, self.engine.poster(asyncio.get_running_loop(), queue))
        return await self._whole(scoring, queue)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """[text, width] float32, each of length one: the mean over the network's last states."""
        if self.model is None:
            raise BadInput(
                f"{self.name} runs in {self.runs_on}, which gives no states: open the model itself for embedding"
            )
        from intarsia.prompting.base.local.embedding import embed

        return await asyncio.wrap_future(self.engine.do(lambda _: embed(self.model, list(texts))))

    def count(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens that the prompt has, template included."""
        return len(self.ids(prompt, tools))

    def statistics(self) -> dict[str, float]:
        """What the engine does now and did so far, for metrics: see `Engine.statistics`."""
        return self.engine.statistics()

    @contextlib.contextmanager
    def paused(self) -> Iterator[Model | None]:
        """The model for other use: no answer is gone on with while the block runs. Blocks until the forward that is
        under way is over."""
        with self.engine.lock:
            yield self.model

    async def close(self) -> None:
        """Take no more requests; those under way end first. Closes every backend with the same engine."""
        await asyncio.to_thread(self.engine.close)

    async def _whole(self, request: Answer | Scoring, queue: asyncio.Queue[Any]) -> Any:
        """What comes of a request that tells all at its end."""
        self.engine.submit(request)
        try:
            whole = await queue.get()
        finally:
            request.cancelled = True
        if isinstance(whole, Exception):
            raise whole
        return whole

    def _answer(
        self, prompt: Input, sampling: Sampling, constraint: Constraint | None, tools: Sequence[ToolSpec],
        queue: asyncio.Queue[Any], *, pieces: bool,
    ) -> Answer:  # fmt: skip
        self._check_generates()
        check_sampling(sampling, self.tokenizer)
        ids = self.ids(prompt, tools)
        self._check_room(len(ids), sampling.max_tokens)
        matcher = calls = None
        if constraint is not None and constraint.kind == "call":
            from intarsia.prompting.base.call_forms import calls_constraint

            constraint = calls_constraint(tools, constraint.source, tokenizer=self.tokenizer, parallel=False)
        if constraint is not None:
            from intarsia.prompting.base.masking import Matcher

            if self.tokenizer is None:
                raise BadInput(f"{self.name} has no tokenizer: a form wants text")
            matcher = Matcher(self.tokenizer, constraint, self.vocabulary, end=sorted(self.ends) or None)
        if tools:
            from intarsia.prompting.base.calling import CallReader, call_format

            turns = len(prompt) if not isinstance(prompt, str) else 1
            calls = CallReader(call_format(self.tokenizer), salt=str(turns))
        return Answer(
            ids, sampling, self.tokenizer, ends=self.ends, pieces=pieces, matcher=matcher, calls=calls,
            adapter=self.adapter, deliver=self.engine.poster(asyncio.get_running_loop(), queue),
        )  # fmt: skip

    def ids(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> list[int]:
        """Exactly the token ids that the model reads."""
        return prompt_ids(
            self.tokenizer, prompt, tools, vocabulary=self.vocabulary, name=self.name, describe=self.describe_tools
        )

    def _check_room(self, prompt: int, made: int) -> None:
        if self.context_length is not None and prompt + made > self.context_length:
            raise ContextOverflow(prompt + made, self.context_length)

    def _check_generates(self) -> None:
        if self.engine.runner is None:
            raise BadInput(f"{self.name} is no causal language model: it can be asked for embeddings alone")
