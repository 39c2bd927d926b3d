"""`Answer`: one request while it is worked on, from its prompt to its last piece."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from intarsia.prompting.base.calling import CallReader
from intarsia.prompting.base.detokenising import Detokeniser, decode
from intarsia.prompting.base.replies import Delta, Finish, Sampling, TokenLogprob, Usage
from intarsia.prompting.base.stopping import Stopper

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.prompting.base.local.choosing import Draw
    from intarsia.prompting.base.masking import Matcher


class Answer:
    """A prompt and what was made of it.

    - ids: the prompt's tokens and those made since. known: how many of them a runner has computed.
    - cached: of the prompt's tokens, those that it had before. forced: tokens that the form left no choice for.
    - ends: tokens that end it. matcher: keeps it to a form. calls: reads calls of tools out of it.
    - deliver: takes what is to be told: a `Delta`, or the error it ended with.
    - pieces: whether text is wanted as it comes; else all is told at the end.
    - cancelled: nobody waits any more. Set from any thread."""

    def __init__(
        self, ids: Sequence[int], sampling: Sampling, tokenizer: Any, *, ends: frozenset[int],
        deliver: Callable[[Delta | Exception], None], pieces: bool = True, matcher: Matcher | None = None,
        calls: CallReader | None = None, adapter: str | None = None,
    ):  # fmt: skip
        self.ids, self.prompt, self.sampling = list(ids), len(ids), sampling
        self.ends, self.matcher, self.calls, self.adapter = ends, matcher, calls, adapter
        self.deliver, self.cancelled = deliver, False
        self.row = -1
        self.known = self.cached = 0
        self.finish: Finish | None = None
        self._tokenizer = tokenizer
        self._kept = calls.form.marker_ids(tokenizer) if calls is not None and tokenizer is not None else frozenset()
        self._text = Detokeniser(tokenizer, self._kept) if tokenizer is not None else None
        self._stopper = Stopper(sampling.stop)
        self._random = random.Random(sampling.seed)
        self._pieces = pieces or bool(sampling.stop)
        self._tell = pieces
        self._counts: dict[int, int] = {}
        self._held: list[Delta] = []
        self._logprobs: list[TokenLogprob] = []
        self.forced = self._ended = 0
        self._said: list[str] = []

    @property
    def pending(self) -> int:
        """Tokens that are still to be computed."""
        return len(self.ids) - self.known

    @property
    def made(self) -> int:
        """Tokens of the answer, an end that is left out included."""
        return len(self.ids) - self.prompt + self._ended

    @property
    def room(self) -> int:
        """Tokens that it may still need places for."""
        return self.prompt + self.sampling.max_tokens - len(self.ids)

    def begin(self) -> None:
        """Before anything is computed: what the form leaves no choice for belongs to the answer already."""
        self._go_on_by_form()

    def shape(self, logits: Tensor) -> None:
        """Change the next token's logits, [vocabulary], in place: penalties, and what the form does not allow."""
        asked = self.sampling
        if self._counts:
            from intarsia.prompting.base.local.choosing import penalise

            penalise(logits, self._counts, asked.presence_penalty, asked.frequency_penalty)
        if self.matcher is not None:
            self.matcher.apply(logits, self.room)

    def draw(self) -> Draw | None:
        """How the next token is drawn; None: the most likely."""
        asked = self.sampling
        if not asked.temperature:
            return None
        from intarsia.prompting.base.local.choosing import Draw

        return Draw(asked.temperature, asked.top_k, asked.top_p, self._random.random())

    def likelihood(self, logits: Tensor) -> Callable[[int], TokenLogprob] | None:
        """Takes down the logits as the model gave them, where they are asked for; gives what is told of a token."""
        if self.sampling.logprobs is None:
            return None
        from intarsia.prompting.base.local.choosing import log_probabilities

        raw, top = logits.clone(), self.sampling.logprobs

        def of(token: int) -> TokenLogprob:
            value, likely = log_probabilities(raw, token, top)
            return TokenLogprob(
                self._word(token), token, value, tuple((self._word(i), logprob) for i, logprob in likely)
            )

        return of

    def take(self, token: int, likelihood: Callable[[int], TokenLogprob] | None = None) -> None:
        """Note a chosen token, and what follows from it."""
        if token in self.ends:
            if self.matcher is not None:
                self.matcher.accept(token)
            self._ended = 1
            self._end("stop")
            return
        if self.matcher is not None:
            self.matcher.accept(token)
        self._add([token], () if likelihood is None else (likelihood(token),))
        if self.finish is None:
            self._go_on_by_form()

    def fail(self, error: Exception) -> None:
        """It cannot be gone on with."""
        self.finish = "cancelled"
        self.deliver(error)

    def _go_on_by_form(self) -> None:
        """Add the tokens that the form leaves no choice for. Where probabilities are asked for, all are chosen."""
        if self.matcher is None:
            return
        if self.sampling.logprobs is None and not self.matcher.done:
            forced = self.matcher.forced()[: self.room]
            forced = forced[: next((i for i, token in enumerate(forced) if token in self.ends), len(forced))]
            if forced:
                self.matcher.accept_many(forced)
                self.forced += len(forced)
                self._add(forced)
        if self.finish is None and self.matcher.done:
            self._end("stop")

    def _add(self, tokens: Sequence[int], logprobs: Sequence[TokenLogprob] = ()) -> None:
        self.ids.extend(tokens)
        if self.sampling.presence_penalty or self.sampling.frequency_penalty:
            for token in tokens:
                self._counts[token] = self._counts.get(token, 0) + 1
        text = self._passed(self._text.add(tokens)) if self._pieces and self._text is not None else ""
        if self._tell:
            self.deliver(Delta(text, tuple(tokens), tuple(logprobs)))
        else:
            self._said.append(text)
            self._logprobs.extend(logprobs)
        if self._stopper.stopped:
            self._end("stop")
        elif len(self.ids) - self.prompt >= self.sampling.max_tokens:
            # A form that is complete with the last token is complete all the same.
            self._end("stop" if self.matcher is not None and self.matcher.done else "length")

    def _passed(self, text: str) -> str:
        """What of new text can be told."""
        text = self._stopper.feed(text)
        return self.calls.feed(text) if self.calls is not None else text

    def _end(self, finish: Finish) -> None:
        text = ""
        if self._text is not None:
            if not self._pieces:
                text = self._passed(self._text.add(self.ids[self.prompt :]))
            text += self._passed(self._text.end())
            rest = self._stopper.end()
            text += self.calls.feed(rest) + self.calls.finish() if self.calls is not None else rest
        calls = tuple(self.calls.calls) if self.calls is not None else ()
        self.finish = "tool_calls" if calls and finish == "stop" else finish
        usage = Usage(self.prompt, self.made, self.cached, self.forced)
        if self._tell:
            self.deliver(Delta(text, finish=self.finish, usage=usage, calls=calls))
        else:
            whole, tokens = "".join(self._said) + text, tuple(self.ids[self.prompt :])
            self.deliver(Delta(whole, tokens, tuple(self._logprobs), self.finish, usage, calls))

    def _word(self, token: int) -> str:
        return decode(self._tokenizer, [token]) if self._tokenizer is not None else ""


def common(one: Sequence[int], other: Iterable[int]) -> int:
    """Tokens that both begin with."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count
