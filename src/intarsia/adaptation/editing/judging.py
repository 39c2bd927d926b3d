"""What became of edits: asked as they were written, in other words, and about other things.

Efficacy, paraphrase and neighbourhood score: Meng et al. 2022, section 3.3; reliability, generality and locality are
the same with greedy answers in place of comparisons, portability is what follows from an edit: Yao et al. 2023 (arXiv
2305.13172)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.adaptation.editing import wording
from intarsia.adaptation.editing.exact import exact
from intarsia.adaptation.editing.finding import Asked, Edited, Neighbour
from intarsia.adaptation.editing.wording import Row
from intarsia.data import FactEdit
from intarsia.measure.likelihood import accepts, given, left_padded, length_batches
from intarsia.progress import track
from intarsia.sites import generate

if TYPE_CHECKING:
    from intarsia.models import Model

TOKENS = 1024  # padded tokens in one forward


@dataclass
class Scores:
    """Of one (prompt, target): by model (before, after).

    - log_p: log probability of the target, a token in the mean. greedy: whether each of its tokens is the likeliest."""

    log_p: tuple[float, float] = (0.0, 0.0)
    greedy: tuple[bool, bool] = (False, False)


def own_answers(model: Model, edits: Sequence[FactEdit]) -> list[str]:
    """What each edit's target has to beat: `old`, else what the model itself says, as many tokens as the target has."""
    told = [edit.old for edit in edits]
    unknown = [i for i, old in enumerate(told) if not old.strip()]
    lengths = {i: len(wording.row(model, edits[i].prompt, target=edits[i].target).target) for i in unknown}
    for length in sorted(set(lengths.values())):
        numbers = [i for i in unknown if lengths[i] == length]
        for start in range(0, len(numbers), 32):
            part = numbers[start : start + 32]
            prompts = [edits[i].prompt for i in part]
            new = generate(model, prompts, max_new_tokens=length, min_new_tokens=length).ids
            for i, ids in zip(part, new, strict=True):
                told[i] = model.tokenizer.decode(ids)  # type: ignore[union-attr]
    return told


def judge(before: Model, after: Model, edits: Sequence[FactEdit], olds: Sequence[str]) -> list[Edited]:
    """Each edit, asked of both models. `olds`: from `own_answers` of the model before."""
    rows: list[Row] = []

    def add(prompt: str, target: str) -> int:
        rows.append(wording.row(before, prompt, target=target))
        return len(rows) - 1

    # A place in `rows` for everything that is asked, then all of it in batches of similar length.
    asked: list[list[tuple[str, int, int]]] = []  # of an edit: prompt, row of the target, row of the old answer
    nearby: list[list[tuple[int, int]]] = []
    following: list[list[int]] = []
    for edit, old in zip(edits, olds, strict=True):
        # What the model said itself may be blank, or nothing that text can hold: the target then has nothing to beat.
        beaten = old if old.strip() else ""
        asked.append(
            [(p, add(p, edit.target), add(p, beaten) if beaten else -1) for p in (edit.prompt, *edit.paraphrases)]
        )
        answers = edit.neighbour_targets
        pairs = zip(edit.neighbours, answers, strict=True) if answers else ()
        nearby.append([(add(prompt, answer), add(prompt, edit.target)) for prompt, answer in pairs])
        following.append([add(p, a) for p, a in edit.consequences])
    scores = scored(before, after, rows)
    open_rows = [[*(wording.row(before, p) for p in e.neighbours), wording.essence(before, e)] for e in edits]
    drift = drifted(before, after, [row for group in open_rows for row in group])
    found = []
    for number, edit in enumerate(edits):
        ways = [_asked(prompt, scores[new], scores[o] if o >= 0 else None) for prompt, new, o in asked[number]]
        here, drift = drift[: len(edit.neighbours) + 1], drift[len(edit.neighbours) + 1 :]
        neighbours = [
            Neighbour(prompt=prompt, kept=same, divergence=kl, right=_right(scores, nearby[number], i))
            for i, (prompt, (same, kl)) in enumerate(zip(edit.neighbours, here, strict=False))
        ]
        pairs = zip(edit.consequences, following[number], strict=True)
        consequences = [_asked(prompt, scores[i], None) for (prompt, _), i in pairs]
        found.append(
            Edited(
                subject=edit.subject, target=edit.target.strip(), old=olds[number].strip(), asked=ways[0],
                paraphrases=ways[1:], neighbours=neighbours, consequences=consequences, essence=here[-1][1],
            )
        )  # fmt: skip
    return found


def _asked(prompt: str, new: Scores, old: Scores | None) -> Asked:
    p = tuple(torch.tensor(new.log_p, dtype=torch.float64).exp().tolist())
    beats = tuple(n > o for n, o in zip(new.log_p, old.log_p, strict=True)) if old is not None else new.greedy
    return Asked(prompt=prompt, probability=p, beats=beats, greedy=new.greedy)


def _right(scores: Sequence[Scores], pairs: Sequence[tuple[int, int]], i: int) -> tuple[bool, bool] | None:
    """Whether a neighbour's own answer is more likely than the edit's target, before and after."""
    if not pairs:
        return None
    own, target = (scores[place].log_p for place in pairs[i])
    return own[0] > target[0], own[1] > target[1]


def scored(before: Model, after: Model, rows: Sequence[Row]) -> list[Scores]:
    """Targets of rows under both models."""
    out = [Scores() for _ in rows]
    for numbers in track(length_batches([len(row.ids) for row in rows], TOKENS), "asking about the edits"):
        part = [rows[i] for i in numbers]
        keep = max(len(row.target) for row in part)
        pairs = []
        for model in (before, after):
            log_p = _log_probs(model, part, keep)
            both = []
            for at, row in enumerate(part):
                here = log_p[at, keep - len(row.target) :]
                wanted = torch.tensor(row.target, device=here.device)
                mean = here.gather(-1, wanted[:, None]).mean()
                both.append((float(mean), bool((here.argmax(-1) == wanted).all())))
            pairs.append(both)
        for i, one, other in zip(numbers, *pairs, strict=True):
            out[i] = Scores((one[0], other[0]), (one[1], other[1]))
    return out


def drifted(before: Model, after: Model, rows: Sequence[Row]) -> list[tuple[bool, float]]:
    """For each row: whether the most likely next token stayed, and KL(before || after) of the next token, in nats."""
    out = [(True, 0.0)] * len(rows)
    for numbers in track(length_batches([len(row.ids) for row in rows], TOKENS), "asking about other things"):
        part = [rows[i] for i in numbers]
        old, new = (_log_probs(model, part, 1)[:, -1] for model in (before, after))
        kl = (old.exp() * (old - new)).sum(-1).clamp_min(0)
        same = old.argmax(-1) == new.argmax(-1)
        for i, stayed, nats in zip(numbers, same.tolist(), kl.tolist(), strict=True):
            out[i] = (stayed, nats)
    return out


def _log_probs(model: Model, rows: Sequence[Row], keep: int) -> Tensor:
    """[row, last `keep` positions, vocabulary] float64."""
    takes = accepts(model.network)
    batch = left_padded([row.ids for row in rows], getattr(model.tokenizer, "pad_token_id", None) or 0)
    inputs = {name: value.to(model.device) for name, value in given(batch, takes).items()}
    more = {"logits_to_keep": keep} if takes("logits_to_keep") else {}
    with torch.inference_mode():
        logits = model.network(**inputs, use_cache=False, **more).logits
    return exact(logits[:, -keep:]).log_softmax(-1)
