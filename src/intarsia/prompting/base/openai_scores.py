"""Log probabilities of choices from a server."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from intarsia.errors import BadInput
from intarsia.models.remote import Client, Refused
from intarsia.prompting.base.messages import Input
from intarsia.prompting.base.openai_asking import prompt_body
from intarsia.prompting.base.openai_form import of_the_api, usage_of
from intarsia.prompting.base.replies import Scores, Usage

AT_ONCE = 64  # prompts in a request for scores
_NOT_THERE = (404, 405, 501)


class Scorer:
    """Asks for scores in the way that the server knows: Intarsia's own `/score`; else `/completions`, which gives the
    log probabilities of a prompt's own tokens when it is asked to `echo` it, or for vLLM's `prompt_logprobs`.

    tokenizer: the model's, or None: then a text alone can be scored without `/score`."""

    def __init__(self, client: Client, model: str, tokenizer: Any):
        self.client, self.model, self.tokenizer = client, model, tokenizer
        self._own = True  # whether the server has Intarsia's /score, until it has said that it has not
        self._many = True  # and whether that takes many prompts
        self._echo = True
        self._least = 0  # tokens it has to make at least

    async def scores(self, prompt: Input, choices: Sequence[str]) -> Scores:
        """Natural log probability of each choice, and what the server says it took. Raises `BadInput` where it cannot
        tell."""
        if not all(choices):
            raise BadInput("an empty choice has no probability: give a text")
        if not choices:
            return Scores(usage=Usage(calls=0))
        if self._own and (found := await self._by_server(prompt, choices)) is not None:
            return found
        if self.tokenizer is None and not isinstance(prompt, str):
            raise BadInput(
                f"{self.client.address.server} has no /score, and without the model's tokenizer only a text can be "
                "scored by it: give tokenizer=, or a text"
            )
        told = await asyncio.gather(*(self._by_echo(prompt, choice) for choice in choices))
        took = [usage for _, usage in told if usage is not None]
        usage = sum(took, Usage(calls=0)) if len(took) == len(told) else None
        return Scores((score for score, _ in told), usage)

    async def scores_of_many(self, prompts: Sequence[Input], choices: Sequence[str]) -> list[Scores]:
        """The same of many prompts, `AT_ONCE` a request. Raises `NotImplementedError` without Intarsia's `/score`."""
        if not all(choices):
            raise BadInput("an empty choice has no probability: give a text")
        out: list[Scores] = []
        for start in range(0, len(prompts), AT_ONCE):
            some = prompts[start : start + AT_ONCE]
            bodies = [prompt_body(prompt) for prompt in some]
            asked = {"prompts": [body.get("messages") or body["prompt"] for body in bodies], "choices": list(choices)}
            said = None
            if self._own and self._many:
                try:
                    said = await self._asked_server(asked)
                except Refused as refused:
                    if refused.code not in (400, 422) or "prompts" not in refused.said:
                        raise
            results = said.get("results") if isinstance(said, dict) else None
            if not isinstance(results, list) or len(results) != len(some):
                self._many = False
                raise NotImplementedError(f"{self.client.address.server} does not score many prompts in a request")
            with of_the_api(self.client.address.server):
                for number, one in enumerate(results):
                    usage = usage_of(one.get("usage"))
                    usage = usage and replace(usage, calls=int(not number))  # one request
                    out.append(Scores((float(score) for score in one["scores"]), usage))
        return out

    async def _by_server(self, prompt: Input, choices: Sequence[str]) -> Scores | None:
        said = await self._asked_server({**prompt_body(prompt), "choices": list(choices)})
        scores = said.get("scores") if isinstance(said, dict) else None
        if not isinstance(scores, list) or len(scores) != len(choices):
            self._own = False
            return None
        with of_the_api(self.client.address.server):
            return Scores((float(score) for score in scores), usage_of(said.get("usage")))

    async def _asked_server(self, body: Mapping[str, Any]) -> Any:
        """What `/score` says; None where there is none."""
        try:
            return await self.client.post("/score", {"model": self.model, **body})
        except Refused as refused:
            # vLLM has another /score, which refuses this as a form that is wrong.
            other = refused.code in (400, 422) and "text_1" in refused.said
            if refused.code not in _NOT_THERE and not other:
                raise
            return None

    async def _by_echo(self, prompt: Input, choice: str) -> tuple[float, Usage | None]:
        if self.tokenizer is None:
            assert isinstance(prompt, str)
            said, usage = await self._completion(prompt + choice)
            with of_the_api(self.client.address.server):
                return _after(said, len(prompt), len(prompt) + len(choice), self._cannot), usage
        from intarsia.prompting.base.local.asking import choice_ids, prompt_ids

        ids = prompt_ids(self.tokenizer, prompt, vocabulary=1 << 62, name=self.model)
        [wanted] = choice_ids(self.tokenizer, prompt, ids, [choice])
        said, usage = await self._completion([*ids, *wanted])
        with of_the_api(self.client.address.server):
            return self._of_tokens(said, len(ids), wanted), usage

    def _of_tokens(self, said: Mapping[str, Any], start: int, wanted: Sequence[int]) -> float:
        end = start + len(wanted)
        if (known := said.get("prompt_logprobs")) is not None:
            return sum(float(known[at][str(id)]["logprob"]) for at, id in zip(range(start, end), wanted, strict=True))
        logprobs = (said.get("logprobs") or {}).get("token_logprobs") or ()
        if len(logprobs) < end or any(one is None for one in logprobs[start:end]):
            raise self._cannot()
        return sum(float(one) for one in logprobs[start:end])

    async def _completion(self, prompt: str | list[int]) -> tuple[Mapping[str, Any], Usage | None]:
        """The first choice of a completion that gives the prompt's log probabilities as well, and what it took."""
        while True:
            ask = {"echo": True, "logprobs": 1} if self._echo else {"prompt_logprobs": 0}
            body = {"model": self.model, "prompt": prompt, "temperature": 0, "max_tokens": self._least, **ask}
            try:
                said = await self.client.post("/completions", body)
                break
            except Refused as refused:
                if refused.code in _NOT_THERE:
                    raise self._cannot() from None
                if refused.code not in (400, 422):
                    raise
                # By what was sent: another request may have learned in the meantime.
                if body["max_tokens"] == 0 and "max_tokens" in refused.said:
                    self._least = 1
                elif "echo" in body and self.tokenizer is not None and "echo" in refused.said:
                    self._echo = False
                elif "echo" in refused.said or "logprobs" in refused.said:
                    raise self._cannot() from None
                else:
                    raise
        choices = said.get("choices") if isinstance(said, dict) else None
        if not choices or not isinstance(choices[0], dict):
            raise self._cannot()
        with of_the_api(self.client.address.server):
            return choices[0], usage_of(said.get("usage"))

    def _cannot(self) -> BadInput:
        return BadInput(
            f"{self.client.address.server} gives no log probabilities of a prompt's tokens, so it cannot score: ask a "
            "server that does (intarsia serve, vLLM), or a model here"
        )


def _after(said: Mapping[str, Any], start: int, end: int, cannot: Any) -> float:
    """The sum over the tokens whose characters lie from `start` to `end` in a text that was echoed."""
    logprobs = said.get("logprobs") or {}
    tokens, values = logprobs.get("tokens") or (), logprobs.get("token_logprobs") or ()
    offsets = logprobs.get("text_offset") or ()
    if not tokens or not (len(tokens) == len(values) == len(offsets)) or offsets[-1] + len(tokens[-1]) <= start:
        raise cannot()
    inside = [at for at, offset in enumerate(offsets) if start <= offset < end]
    if not inside or offsets[inside[0]] != start:
        raise BadInput(
            "the server's tokens do not end where the prompt does, so the choice has no probability of its own: end "
            "the prompt before the space, and begin the choice with it, or give the model's tokenizer"
        )
    if any(values[at] is None for at in inside):
        raise cannot()
    return sum(float(values[at]) for at in inside)
