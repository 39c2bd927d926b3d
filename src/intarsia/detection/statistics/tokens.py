"""What a language model thinks of every token of a text: one forward pass gives all that the scores are made of.

For tokens x_1..x_N, a scoring model q and a reference model p (often the same), for every token that is predicted:
l_i = log q(x_i | x_<i); r_i = 1 + the number of tokens that q finds more probable; m_i = sum_v p(v) log q(v);
s2_i = sum_v p(v) (log q(v))^2 - m_i^2; H_i = -sum_v p(v) log p(v).

Source: Bao et al. 2024, Fast-DetectGPT, eq. 4-6 (m and s2); Gehrmann et al. 2019, GLTR (ranks and entropy)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.likelihood import check_causal, length_batches, right_padded
from intarsia.progress import track

if TYPE_CHECKING:
    from torch import Tensor

    from intarsia.models import Model

WINDOW = 160  # tokens that are run at once
CONTEXT = 32  # of them, how many of the window before
ROWS = 8  # windows in one forward: [8, 160, vocabulary] floats are 0.25 GB for 49,152 words
AT_ONCE = 8  # tokens whose [token, vocabulary] is worked on at once, so that it stays in the cache: four times as fast
FIELDS = ("log_probability", "rank", "mean", "variance", "entropy")
PREFIXES = (32, 48, 64, 80, 96, 112, 128)  # tokens after which the mean state so far is noted
DEPTHS = (1 / 3, 1 / 2, 2 / 3, 5 / 6)  # of the network, where states are read: each tells of something else


@dataclass(frozen=True)
class TokenStatistics:
    """Of the predicted tokens of one text, each [token].

    - spans: [token, 2]: where each stands in the text, in characters.
    - log_probability: l, in nats. rank: r, from 1. mean: m. variance: s2. entropy: H, in nats.
    - prefixes: [prefix] numbers of tokens; states: [prefix, 4 width] float32: the mean over so many of the text's first
      tokens of the scoring model's states at a third, a half, two thirds and five sixths of its depth, side by side.
      (The very first token is left out: its state says only that it is the first.)"""

    spans: np.ndarray
    log_probability: np.ndarray
    rank: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    entropy: np.ndarray
    prefixes: np.ndarray
    states: np.ndarray

    def __len__(self) -> int:
        return len(self.log_probability)

    def part(self, tokens: slice | np.ndarray) -> TokenStatistics:
        """Of some of the tokens. The states stay those of the whole text's beginning."""
        return TokenStatistics(*(getattr(self, n)[tokens] for n in ("spans", *FIELDS)), self.prefixes, self.states)

    def state(self, tokens: int | None = None) -> np.ndarray:
        """[4 width] mean state of about so many first tokens (default: as many as there are here): the nearest prefix
        that was noted. NaN for a text of one token."""
        if not len(self.prefixes):
            return np.full(self.states.shape[1:], np.nan)
        count = len(self) if tokens is None else tokens
        return self.states[int(np.argmin(np.abs(self.prefixes - count)))]

    def between(self, start: int, end: int) -> TokenStatistics:
        """Of the tokens that begin in a stretch of the text, in characters."""
        return self.part((self.spans[:, 0] >= start) & (self.spans[:, 0] < end))


def token_statistics(
    model: Model, texts: Sequence[str], *, reference: Model | None = None, most: int | None = None,
    window: int = WINDOW, context: int = CONTEXT,
) -> list[TokenStatistics]:  # fmt: skip
    """What `model` thinks of every token of every text. Nothing is cut: long texts are read in windows.

    - reference: the model p whose expectation m, s2 and H are; default: the same. Its vocabulary must be the same up to
      its end: of the longer one the rest is left out.
    - most: tokens of a text that are scored, from its beginning; default: all.
    - window: tokens run at once; a window after the first begins with the last `context` tokens of the one before,
      which are not scored again. With both, what a token is predicted from is never less than `context` tokens, and
      costs are linear in the text's length.

    The first token is not predicted unless the tokenizer begins texts with one of its own. Raises `BadInput` for a
    model that is not a causal language model, or two that do not read a text as the same tokens."""
    for m in (model, reference):
        if m is not None:
            check_causal(m)
            if m.tokenizer is None:
                raise BadInput("detection needs text: this model has no tokenizer (wrap(network, tokenizer))")
    window = min(window, *(m.context_length or window for m in (model, reference) if m is not None))
    if not 0 <= context < window - 1:
        raise BadInput(f"a window of {window} tokens with {context} of the one before scores nothing")
    rows, found, width = [], [], states_width(model)
    for number, text in enumerate(texts):
        ids, spans = _encoded(model, text)
        if reference is not None and _encoded(reference, text)[0] != ids:
            raise BadInput("the two models read texts as different tokens: give models of one family")
        if most is not None:
            ids, spans = ids[: most + 1], spans[: most + 1]
        found.append(_empty(spans[1:], width))
        for begin, end, first in _windows(len(ids), window, context):
            rows.append((number, first, first - begin, ids[begin:end]))
    batches = length_batches([len(ids) for *_, ids in rows], window * ROWS, rows=ROWS)
    for batch in track(batches, "reading texts"):
        for row, values in zip(batch, _forward(model, reference, [rows[i][3] for i in batch]), strict=True):
            number, first, skipped, _ = rows[row]
            states = values.pop("states")
            if first == 1:
                found[number] = replace(found[number], **_prefixes(states))
            for name, value in values.items():
                value = value[skipped - 1 :]
                getattr(found[number], name)[first - 1 : first - 1 + len(value)] = value
    return found


def states_width(model: Model) -> int:
    """Numbers in a text's mean state."""
    return len(DEPTHS) * model.config.get_text_config().hidden_size


def _prefixes(states: np.ndarray) -> dict[str, np.ndarray]:
    """Means of states [token, 4 width] over the first tokens."""
    counts = [count for count in PREFIXES if count < len(states)]
    if len(states) and len(states) <= PREFIXES[-1]:
        counts.append(len(states))
    elif len(states):
        counts.append(PREFIXES[-1])
    counts = sorted(set(counts))
    sums = np.cumsum(states.astype(np.float64), 0)
    means = np.stack([sums[count - 1] / count for count in counts]) if counts else np.zeros((0, states.shape[1]))
    return {"prefixes": np.array(counts, dtype=np.int64), "states": means.astype(np.float32)}


def _encoded(model: Model, text: str) -> tuple[list[int], np.ndarray]:
    """Token ids, and where each stands in the text [token, 2]; the tokenizer's own tokens stand at 0."""
    tokenizer = model.tokenizer
    if tokenizer.is_fast:  # type: ignore[union-attr]
        out = tokenizer(text, return_offsets_mapping=True, verbose=False)  # type: ignore[misc]
        ids, spans = out["input_ids"], out["offset_mapping"]
    else:  # token by token: what a token adds to the text decoded so far
        ids, spans, at = tokenizer(text, verbose=False)["input_ids"], [], 0  # type: ignore[misc]
        for end in range(1, len(ids) + 1):
            grown = min(len(text), len(tokenizer.decode(ids[:end], skip_special_tokens=True)))  # type: ignore[union-attr]
            spans.append((at, grown))
            at = grown
    special = set(tokenizer.all_special_ids) - {None}  # type: ignore[union-attr]
    while ids and ids[-1] in special and not text.endswith(tokenizer.decode([ids[-1]])):  # type: ignore[union-attr]
        ids, spans = ids[:-1], spans[:-1]  # an end that nobody wrote
    return list(ids), np.array(spans, dtype=np.int64).reshape(-1, 2)


def _windows(length: int, window: int, context: int) -> list[tuple[int, int, int]]:
    """(begin, end, first predicted token) of windows that predict every token after the first once."""
    out, first = [], 1
    while first < length:
        begin = max(0, first - max(1, context)) if first > 1 else 0
        end = min(length, begin + window)
        out.append((begin, end, first))
        first = end
    return out


def _empty(spans: np.ndarray, width: int) -> TokenStatistics:
    n = len(spans)
    nothing = np.zeros(0, dtype=np.int64), np.zeros((0, width), dtype=np.float32)
    return TokenStatistics(spans, np.zeros(n), np.ones(n, dtype=np.int64), *(np.zeros(n) for _ in range(3)), *nothing)


def _forward(model: Model, reference: Model | None, ids: Sequence[list[int]]) -> list[dict[str, np.ndarray]]:
    """Of each row, for its tokens after the first: the five statistics, and states [token, 4 width]."""
    import torch

    batch = {k: v.to(model.device) for k, v in right_padded(ids, 0).items()}
    with torch.inference_mode():
        logits, states = _outputs(model, batch)
        others = logits
        if reference is not None:
            others, _ = _outputs(reference, {k: v.to(reference.device) for k, v in batch.items()})
            others = others.to(logits.device)
            size = min(logits.shape[-1], others.shape[-1])
            logits, others = logits[..., :size], others[..., :size]
        out = []
        for row, tokens in enumerate(ids):
            n = len(tokens) - 1
            target = batch["input_ids"][row, 1 : n + 1, None]
            parts = [
                _of(logits[row, at : at + AT_ONCE], others[row, at : at + AT_ONCE], target[at : at + AT_ONCE])
                for at in range(0, n, AT_ONCE)
            ]
            values = (torch.cat(part)[:n] for part in zip(*parts, strict=True))
            found = dict(zip(FIELDS, (value.cpu().numpy() for value in values), strict=True))
            out.append(found | {"states": states[row, 1 : n + 1].float().cpu().numpy()})
    return out


def _of(logits: Tensor, others: Tensor, target: Tensor) -> tuple[Tensor, ...]:
    """The five statistics of some tokens, from logits [token, vocabulary]; `target` [token, 1] ends with the text."""
    import torch

    logits, others = logits[: len(target)], others[: len(target)]
    log_q = torch.log_softmax(logits.float(), -1)
    chosen = log_q.gather(1, target)
    same = others.data_ptr() == logits.data_ptr()
    log_p = log_q if same else torch.log_softmax(others.float(), -1)
    p = log_p.exp()
    entropy = -torch.linalg.vecdot(p, log_p)
    mean = -entropy if same else torch.linalg.vecdot(p, log_q)
    square = torch.linalg.vecdot(p.mul_(log_q), log_q)
    return chosen[:, 0], (log_q > chosen).sum(-1) + 1, mean, (square - mean**2).clamp(min=0), entropy


def _outputs(model: Model, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits [row, token, vocabulary] of all tokens but the last, and states [row, token, 4 width]."""
    import torch

    from intarsia.measure.likelihood import accepts, given

    out = model.network(**given(batch, accepts(model.network)), use_cache=False, output_hidden_states=True)
    depth = len(out.hidden_states) - 1
    return out.logits[:, :-1], torch.cat([out.hidden_states[max(1, round(d * depth))] for d in DEPTHS], -1)
