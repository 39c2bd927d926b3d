"""`OpenAICompatible`: a model behind any server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, did_you_mean
from intarsia.models.remote import KEY_VARIABLE, Address, Client, Refused
from intarsia.models.remote.key import read_key
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import BackendError, ContextOverflow
from intarsia.prompting.base.estimating import estimated_tokens
from intarsia.prompting.base.messages import Input, ToolSpec
from intarsia.prompting.base.openai_asking import Asking, told
from intarsia.prompting.base.openai_form import Answer, of_the_api
from intarsia.prompting.base.openai_scores import Scorer
from intarsia.prompting.base.replies import Delta, Reply, Sampling, Scores, Usage
from intarsia.prompting.base.validating import check, check_form
from intarsia.prompting.base.whole import assembled

if TYPE_CHECKING:
    import httpx2
    import numpy as np

# What some servers do not know, and what they call it; without the last they do not say what was used.
MAY_BE = {"max_tokens": "max_completion_tokens", "stream_options": None}
AT_ONCE = 128  # texts that are embedded in one request


class OpenAICompatible:
    """A `Backend` by the name of a model on a server.

    - url: the server, with the path before `/chat/completions`; `/v1` where it has none.
    - key_variable: the environment variable that holds the key. It is read when something is asked, sent to the server
      alone, and shown nowhere; without it the server is asked without a key.
    - tokenizer: the model's Hugging Face tokenizer, if it is at hand: then `count` is exact, and what is too long is
      told before it is sent. Without it `count` is an estimate, on the high side. context_length: tokens, if known;
      `check` asks the server.
    - timeout: seconds the server may be silent. tries, pause: how often a busy or failing server is asked, and the
      seconds before the second time, doubled every time after; what it asks for itself is kept to, up to a minute.
      at_once: requests under way at a time.
    - also: fields that go along with every request for an answer: `{"tool_choice": "required"}`.
    - transport: what carries requests, where it is not the network: `httpx2.ASGITransport(app)`.

    Messages go to `/chat/completions`, texts and token ids to `/completions`. A form is asked for with
    `response_format` (JSON), or the fields that vLLM takes; whatever the server makes of it, an answer that has not the
    form raises `InvalidOutput`. A seed goes along, but it is the server that decides what it is worth. Where the
    server does not say what was used, `Usage` is an estimate too. What it tells of a model's thinking, apart from the
    answer, is no part of it. Needs the extra `remote`."""

    def __init__(
        self, url: str, model: str, *, key_variable: str = KEY_VARIABLE, tokenizer: Any = None,
        context_length: int | None = None, timeout: float = 120.0, tries: int = 5, pause: float = 1.0,
        at_once: int = 8, also: Mapping[str, Any] | None = None, transport: httpx2.AsyncBaseTransport | None = None,
    ):  # fmt: skip
        """Raises `BadInput` for an address that is none, or holds a user or password."""
        address = Address.read(url, key_variable)
        self.client = Client(
            address,
            key_variable,
            timeout=timeout,
            tries=tries,
            pause=pause,
            at_once=at_once,
            may_be=MAY_BE,
            transport=transport,
        )
        self.server, self.provider = address.server, address.parts.hostname
        self.name = self.model = model
        self.tokenizer, self.context_length = tokenizer, context_length
        self.also = dict(also or {})
        named = json.dumps([address.at(""), model, self.also], sort_keys=True)
        self.fingerprint = f"openai:{hashlib.sha256(named.encode()).hexdigest()[:32]}"
        self._asking = Asking(self.client, model, self.also)
        self._scorer = Scorer(self.client, model, tokenizer)

    async def generate(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> Reply:  # fmt: skip
        """As `Backend.generate`."""
        end, body = self._request(prompt, sampling, tools, constraint)
        answer = Answer(self.server, read_key(self.client.key_variable))
        async with self._told():
            delta = answer.take(json.dumps(await self._asking.whole(end, body, constraint)))
            if not answer.begun:
                raise BackendError(f"{self.server} answered without a choice: is OpenAI's API there?")
        return assembled([*([delta] if delta else []), self._last(answer, prompt, tools, constraint)])

    async def stream(
        self, prompt: Input, sampling: Sampling = Sampling(), *, constraint: Constraint | None = None,
        tools: Sequence[ToolSpec] = (),
    ) -> AsyncIterator[Delta]:  # fmt: skip
        """As `Backend.stream`. Closing it closes the connection. A form is checked when all has come."""
        end, body = self._request(prompt, sampling, tools, constraint)
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = Answer(self.server, read_key(self.client.key_variable))
        async with self._told():
            async with aclosing(self._asking.events(end, body, constraint)) as events:
                async for data in events:
                    if data.strip() == "[DONE]":
                        # Read to its end, so that the connection can be used again.
                        with suppress(TimeoutError):
                            async with asyncio.timeout(1):
                                async for _ in events:
                                    pass
                        break
                    if (delta := answer.take(data)) is not None:
                        yield delta
        if answer.finish is None:
            raise BackendError(f"{self.server} broke off: the stream ended before the answer did", retryable=True)
        yield self._last(answer, prompt, tools, constraint)

    async def score(self, prompt: Input, choices: Sequence[str]) -> Scores:
        """As `Backend.score`: by the server's `/score` where it is Intarsia's, else by the log probabilities that its
        `/completions` gives of a prompt's own tokens. Raises `BadInput` where it has neither."""
        async with self._told():
            return await self._scorer.scores(prompt, choices)

    async def score_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """As `many.score_many`. Raises `NotImplementedError` where the server is not Intarsia's (`score` may do)."""
        async with self._told():
            return await self._scorer.scores_of_many(prompts, choices)

    async def embed(self, texts: Sequence[str]) -> np.ndarray:
        """As `Backend.embed`."""
        import numpy as np

        rows: list[Any] = []
        async with self._told():
            for start in range(0, len(texts), AT_ONCE):
                some = list(texts[start : start + AT_ONCE])
                body = {"model": self.model, "input": some}
                said = await self.client.post("/embeddings", body)
                data = said.get("data") if isinstance(said, dict) else None
                if not isinstance(data, list) or len(data) != len(some):
                    raise BackendError(f"{self.server} answered without an embedding for each text")
                with of_the_api(self.server):
                    rows += [each["embedding"] for each in sorted(data, key=lambda each: each.get("index", 0))]
        with of_the_api(self.server):
            out = np.asarray(rows, np.float32).reshape(len(rows), -1 if rows else 0)
        return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)

    def count(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> int:
        """Tokens that the prompt has: exact with a tokenizer, else `estimated_tokens`."""
        return estimated_tokens(prompt, tools) if self.tokenizer is None else len(self.ids(prompt, tools))

    def ids(self, prompt: Input, tools: Sequence[ToolSpec] = ()) -> list[int]:
        """The prompt's token ids. Raises `BadInput` without a tokenizer."""
        if self.tokenizer is None:
            raise BadInput(f"the tokens of {self.model} are not known here: give its tokenizer")
        from intarsia.prompting.base.local.asking import prompt_ids

        return prompt_ids(self.tokenizer, prompt, tools, vocabulary=1 << 62, name=self.model)

    async def check(self) -> dict[str, Any]:
        """What the server says of the model; `context_length` is taken from it where it was not given.

        Raises `BadInput` where the server has models, and not this one; `BackendError` where it cannot be asked."""
        with told():
            try:
                said = await self.client.get("/models")
            except Refused as refused:
                if refused.code in (404, 405, 501):
                    return {}
                raise
        found = {each["id"]: each for each in _listed(said)}
        if self.model not in found:
            hint = did_you_mean(self.model, found) or f": it has {', '.join(list(found)[:5]) or 'none'}"
            raise BadInput(f"{self.server} has no model '{self.model}'{hint}")
        about = found[self.model]
        if self.context_length is None:
            lengths = (about.get(name) for name in ("max_model_len", "context_length", "context_window"))
            self.context_length = next((n for n in lengths if isinstance(n, int) and n > 0), None)
        return about

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()

    def _request(
        self, prompt: Input, sampling: Sampling, tools: Sequence[ToolSpec], constraint: Constraint | None
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        """Where a request goes and what it says, and all that is wrong with it before it is sent."""
        if constraint is not None:
            check_form(constraint)
        if self.tokenizer is not None and self.context_length is not None:
            needed = self.count(prompt, tools) + sampling.max_tokens
            if needed > self.context_length:
                raise ContextOverflow(needed, self.context_length)
        return self._asking.request(prompt, sampling, tools)

    @asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """As `told`; and where something is not found, whether it is the model."""
        try:
            with told():
                yield
        except BackendError as error:
            if error.status == 404:
                with suppress(BackendError):
                    await self.check()
            raise

    def _last(self, answer: Answer, prompt: Input, tools: Sequence[ToolSpec], constraint: Constraint | None) -> Delta:
        """The end of an answer, when all of it has come."""
        calls = answer.calls
        finish = answer.finish or "stop"
        if constraint is not None and not calls and (finish != "length" or constraint.kind == "call"):
            check(answer.text, constraint)
        used = answer.usage or Usage(self.count(prompt, tools), answer.tokens or estimated_tokens(answer.text))
        return Delta(finish="tool_calls" if calls else finish, usage=used, calls=calls)


def _listed(said: Any) -> list[dict[str, Any]]:
    data = said.get("data") if isinstance(said, dict) else None
    return [each for each in data or () if isinstance(each, dict) and "id" in each]
