"""The log probability of texts after a prompt: the prompt is computed once, the texts side by side behind it."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from intarsia.prompting.base.local.engine import BESIDE
from intarsia.prompting.base.local.runner import Runner, Work

TOKENS = 1024  # padded tokens of texts in one forward


def score(
    runner: Runner, prompt: Sequence[int], choices: Sequence[Sequence[int]], adapter: str | None = None
) -> Generator[None, None, list[float]]:  # fmt: skip
    """A job of the engine: the sum of each choice's token log probabilities, natural, after the prompt's tokens."""
    row, known = runner.open(prompt, max(map(len, choices)), adapter)
    try:
        end = len(prompt) - 1  # the last token runs with each choice, whose first token it tells of
        while known < end:
            step = min(BESIDE, end - known)
            runner.run([Work(row, prompt[known : known + step], known)])
            known += step
            runner.keep(row, prompt[:known])
            yield
        found = [0.0] * len(choices)
        for batch in _batches([len(choice) for choice in choices], runner.rows):
            _score_batch(runner, row, prompt, choices, batch, found, adapter)
            yield
        return found
    finally:
        runner.close(row)


def _score_batch(
    runner: Any, row: int, prompt: Sequence[int], choices: Sequence[Sequence[int]], batch: Sequence[int],
    found: list[float], adapter: str | None,
) -> None:  # fmt: skip
    end = len(prompt) - 1
    rows = [row]
    try:
        for _ in batch[1:]:
            rows.append(runner.open((), len(prompt) + max(map(len, choices)), adapter)[0])
            runner.copy(row, rows[-1], end)
        work = [Work(r, [prompt[-1], *choices[i][:-1]], end) for r, i in zip(rows, batch, strict=True)]
        for i, logits in zip(batch, runner.run(work, every=True), strict=True):
            logs = logits.double().log_softmax(-1)
            found[i] = float(logs[range(len(choices[i])), list(choices[i])].sum())
    finally:
        for other in rows[1:]:
            runner.close(other)


def _batches(lengths: Sequence[int], rows: int) -> list[list[int]]:
    """Numbers of choices that run together: of similar length."""
    from intarsia.measure.likelihood import length_batches

    return length_batches(lengths, TOKENS, rows)
