"""How likely a causal model finds given continuations, after prompts that begin alike.

The tokens that all prompts of a call share are run once, into a key-value cache; every row goes on from it. The result
equals running each prompt on its own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation.explained import Choice, neutral_token
from intarsia.measure.likelihood import check_causal
from intarsia.sites import run
from intarsia.sites.inputs import takes

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS_PER_BATCH = 2048
ROWS = 32


class Reader:
    """A causal model after `ids`, which run once: rows of further tokens go on from there.

    Where a network keeps more than keys and values between tokens, nothing is shared and every row runs whole."""

    def __init__(self, model: Model, ids: Sequence[int]):
        self.model, self.ids, self.cache = model, list(ids), None
        self.last: Tensor | None = None
        if not self.ids or not takes(model.network, "past_key_values"):
            return
        with torch.no_grad():
            output = forward(model, torch.tensor([self.ids]), None, None, torch.tensor([len(self.ids) - 1]))
        cache = getattr(output, "past_key_values", None)
        if hasattr(cache, "batch_repeat_interleave") and all(
            hasattr(layer, "keys") for layer in getattr(cache, "layers", (None,))
        ):
            self.cache, self.last = cache, output.logits[0, -1]

    def logits(self, rows: Sequence[Sequence[int]], keep: Sequence[int]) -> list[Tensor]:
        """Logits [keep_i, vocabulary], float64, after each of the last `keep_i` tokens of `ids` + row i."""
        if self.cache is None:
            rows, held = [[*self.ids, *row] for row in rows], 0
        else:
            held = len(self.ids)
        width = max(len(row) for row in rows)
        # Padding stands on the right, where no token can see it: positions and windows stay what they are.
        ids = torch.full((len(rows), width), neutral_token(self.model))
        mask = torch.ones(len(rows), held + width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(list(row), dtype=torch.long)
            mask[i, held + len(row) :] = 0
        wanted = sorted({p for row, k in zip(rows, keep, strict=True) for p in range(len(row) - k, len(row)) if p >= 0})
        at = {position: i for i, position in enumerate(wanted)}
        logits = None
        if wanted:
            with torch.no_grad():
                output = forward(self.model, ids, mask, self._grown(len(rows)), torch.tensor(wanted))
            logits = output.logits
        found = []
        for i, (row, k) in enumerate(zip(rows, keep, strict=True)):
            places = [at[p] for p in range(len(row) - k, len(row)) if p >= 0]
            parts = [logits[i, places]] if places and logits is not None else []
            if len(places) < k:  # the first of them follows the shared tokens themselves
                assert self.last is not None and len(places) == k - 1
                parts.insert(0, self.last[None])
            found.append(torch.cat(parts).cpu().double())
        return found

    def _grown(self, rows: int) -> Any:
        """The cache for so many rows; a forward writes into its cache, hence the copy."""
        if self.cache is None:
            return None
        grown = copy.deepcopy(self.cache)
        grown.batch_repeat_interleave(rows)
        return grown


def forward(model: Model, ids: Tensor, mask: Tensor | None, cache: Any, keep: Tensor) -> Any:
    """The network on ids [row, token] after a cache: its output, with logits at the positions `keep` alone."""
    network, device = model.network, model.device
    mask = torch.ones_like(ids) if mask is None else mask
    inputs = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
    more: dict[str, Any] = {"past_key_values": cache} if cache is not None else {}
    if takes(network, "use_cache"):
        more["use_cache"] = True
    if takes(network, "logits_to_keep"):
        return run(model, inputs, logits_to_keep=keep.to(device), **more)
    output = run(model, inputs, **more)
    output.logits = output.logits[:, keep.to(device)]
    return output


def common_prefix(rows: Sequence[Sequence[int]]) -> int:
    """How many first tokens all rows share."""
    low, high = min(rows), max(rows)
    return next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))


def read_ends(model: Model, rows: Sequence[Sequence[int]], keep: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """(i, logits [keep_i, vocabulary] float64 at the last `keep_i` tokens of row i), in order of length.

    What all rows have in common runs once. Raises `BadInput` for a row longer than the network's context."""
    rows = [list(row) for row in rows]
    check_length(model, max(len(row) for row in rows))
    # The prefix ends before the first position whose logits are wanted, so that it serves every row.
    shared = min(common_prefix(rows), *(len(row) - k + 1 for row, k in zip(rows, keep, strict=True)))
    reader = Reader(model, rows[0][: max(0, shared)])
    held = len(reader.ids)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    batch: list[int] = []
    for place, i in enumerate(order):
        batch.append(i)
        after = order[place + 1] if place + 1 < len(order) else None
        cost = (len(batch) + 1) * (len(rows[after]) if after is not None else 0)
        if after is None or len(batch) >= ROWS or cost > TOKENS_PER_BATCH:
            yield from zip(batch, reader.logits([rows[b][held:] for b in batch], [keep[b] for b in batch]), strict=True)
            batch = []


def check_length(model: Model, length: int, what: str = "a prompt with its answer") -> None:
    """Raise `BadInput` where so many tokens are more than the network takes."""
    if (limit := model.context_length) and length > limit:
        raise BadInput(f"{what} has {length} tokens, and the network's context is {limit}: give less, or shorter, text")


def encode(model: Model, text: str) -> list[int]:
    """The token ids of a prompt, with the special tokens that begin one."""
    check_causal(model)
    if model.tokenizer is None:
        raise BadInput("this needs text: the model has no tokenizer (wrap(network, tokenizer))")
    return list(model.tokenizer(text, verbose=False)["input_ids"])  # type: ignore[arg-type]


def token_count(model: Model, text: str) -> int:
    """How many tokens a text has without special ones."""
    return len(model.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])  # type: ignore[misc,arg-type]


def asked(model: Model, text: str, chat: bool) -> str:
    """A question as the model reads it: itself, or a turn of the chat template. Raises `BadInput` without one."""
    if not chat:
        return text
    tokenizer = model.tokenizer
    if tokenizer is None or not tokenizer.chat_template:
        raise BadInput("chat is set, but this model's tokenizer has no chat template: leave it out")
    turn = [{"role": "user", "content": text}]
    written = str(tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))
    # The tokenizer writes its own beginning-of-text token in front.
    start = tokenizer.bos_token if tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id] else None
    return written.removeprefix(start) if start else written


def tail_of(model: Model, prompt: str, words: str) -> list[int]:
    """The token ids that `words` have after `prompt`; those they have alone where the two melt at the seam."""
    joint, head = encode(model, prompt + words), encode(model, prompt)
    if joint[: len(head)] == head and len(joint) > len(head):
        return joint[len(head) :]
    return list(model.tokenizer(words, add_special_tokens=False, verbose=False)["input_ids"])  # type: ignore[misc]


def as_choice(name: str, tail: Sequence[int]) -> Choice:
    """A continuation as a `Choice` over the whole vocabulary: every one of its tokens counts."""
    return Choice(name, tuple(tail[:-1]), tuple((depth, None, token) for depth, token in enumerate(tail)))


def choice_log_probs(
    model: Model, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[Choice]]
) -> list[Tensor]:
    """For each prompt (token ids), [choice] float64: the log probability of each of its own choices after it."""
    jobs: dict[tuple[tuple[int, ...], tuple[int, ...]], list[int]] = {}
    for i, (prompt, own) in enumerate(zip(prompts, choices, strict=True)):
        for tail in dict.fromkeys(choice.tail for choice in own):
            jobs.setdefault((tuple(prompt), tail), []).append(i)
    found = [torch.zeros(len(own), dtype=torch.float64) for own in choices]
    keys = list(jobs)
    rows = [[*prompt, *tail] for prompt, tail in keys]
    for n, logits in read_ends(model, rows, [len(tail) + 1 for _, tail in keys]):
        for i in jobs[keys[n]]:
            for c, choice in enumerate(choices[i]):
                if choice.tail == keys[n][1]:
                    found[i][c] = _log_prob(logits, choice)
    return found


def _log_prob(logits: Tensor, choice: Choice) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for depth, branches, taken in choice.steps:
        at = logits[depth] if branches is None else logits[depth, list(branches)]
        total = total + at.log_softmax(-1)[taken]
    return total


def token_log_probs(
    model: Model, prompts: Sequence[Sequence[int]], tails: Sequence[Sequence[int]]
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each prompt and its tail of n tokens: their log probabilities [n], the entropy of the distribution each was
    drawn from [n] (nats), and whether each is the most likely token [n]; float64."""
    found: list[Any] = [None] * len(prompts)
    rows = [[*prompt, *tail[:-1]] for prompt, tail in zip(prompts, tails, strict=True)]
    for i, logits in read_ends(model, rows, [len(tail) for tail in tails]):
        found[i] = measured(logits, torch.tensor(list(tails[i])))
    return found


def measured(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log probability, entropy in nats and being on top of `tokens` [n] under logits [n, vocabulary]."""
    log_p = logits.double().log_softmax(-1)
    entropy = -torch.where(log_p > -torch.inf, log_p.exp() * log_p, 0.0).sum(-1)
    return log_p.gather(-1, tokens[:, None])[:, 0], entropy, logits.argmax(-1) == tokens
