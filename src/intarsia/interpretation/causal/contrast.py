"""The contrast: a clean prompt, a corrupt one (or noise), and the number that tells the two runs apart.

Every causal technique asks how much of metric(clean) - metric(corrupt) an intervention moves, so that all of them
measure with the same `Contrast`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import divergence, states
from intarsia.interpretation.causal.findings import Contrasted
from intarsia.sites import batch_of, run
from intarsia.sites.inputs import takes

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass
class Contrast:
    """Two runs of a model and a metric of what it says at one position.

    - clean, corrupt: token ids [1, token]; corrupt is None where noise or a cut makes the difference.
    - at: the position whose prediction is measured.
    - answer, foil: token ids.
    - clean_value, corrupt_value: the metric of both runs (corrupt_value is set later where there is no prompt)."""

    model: Model
    clean: Tensor
    corrupt: Tensor | None
    at: int
    metric: str
    answer: int
    foil: int | None
    clean_log_p: Tensor
    prompt: str
    corrupt_prompt: str = ""
    clean_value: float = float("nan")
    corrupt_value: float = float("nan")

    def score(self, logits: Tensor) -> Tensor:
        """The metric [n], float64, of logits [n, vocabulary] at `at`. Keeps a graph."""
        logits = logits.double()
        match self.metric:
            case "logit-difference":
                return logits[:, self.answer] - logits[:, self.foil]
            case "log-probability":
                return logits.log_softmax(-1)[:, self.answer]
            case "probability":
                return logits.softmax(-1)[:, self.answer]
            case _:
                log_p = self.clean_log_p.to(logits.device)
                return (log_p.exp() * (log_p - logits.log_softmax(-1))).sum(-1)

    def at_position(self, output: Any) -> Tensor:
        """Logits [n, vocabulary] at the measured position, of a network's output or of [n, token, vocabulary]."""
        logits = output if isinstance(output, Tensor) else output.logits
        return logits[:, self.at] if logits.shape[1] == self.length else logits[:, -1]

    def scored(self, output: Any) -> Tensor:
        """The metric of each row of a network's output, [n] float64."""
        return self.score(self.at_position(output))

    @property
    def length(self) -> int:
        """Tokens of the prompt."""
        return self.clean.shape[1]

    @property
    def keep(self) -> dict[str, int]:
        """Arguments with which the network makes logits of the last position alone, where that is what is measured."""
        last = self.at == self.length - 1 and takes(self.model.network, "logits_to_keep")
        return {"logits_to_keep": 1} if last else {}

    @property
    def difference(self) -> float:
        """Metric of the clean run minus that of the corrupt one."""
        return self.clean_value - self.corrupt_value

    def effect(self, values: Tensor, base: float | Tensor | None = None, source: float | None = None) -> Tensor:
        """How far each value went from `base` (the corrupt run's) to `source` (the clean run's); 1 is all the way."""
        base = self.corrupt_value if base is None else base
        source = self.clean_value if source is None else source
        return (values - base) / (source - base)

    def check_differs(self, who: str) -> None:
        """Raise `BadInput` where the two runs do not differ in the metric: no share of nothing can be told."""
        size = max(abs(self.clean_value), abs(self.corrupt_value), 1e-12)
        if not abs(self.difference) > 1e-9 * size:
            raise BadInput(
                f"{who}: clean and corrupt run give the same {self.metric} ({self.clean_value:.4g}): there "
                f"is no effect "
                "to trace; give a corrupt prompt that changes the answer"
            )

    def tokens(self) -> list[str]:
        """The clean prompt's tokens as text; where the corrupt prompt has another one, both (`John|Mary`)."""
        name = states.Vocabulary(self.model)
        rows = [self.clean[0].tolist(), (self.clean if self.corrupt is None else self.corrupt)[0].tolist()]
        return [name(a) if a == b else f"{name(a)}|{name(b)}" for a, b in zip(*rows, strict=True)]

    def told(self) -> Contrasted:
        """The contrast as plain data, for a finding."""
        name = states.Vocabulary(self.model)
        return Contrasted(
            prompt=self.prompt,
            corrupt=self.corrupt_prompt,
            metric=self.metric,
            answer=name(self.answer),
            foil=name(self.foil) if self.foil is not None else None,
            clean=self.clean_value,
            corrupted=self.corrupt_value,
            tokens=self.tokens(),
            at=self.at,
        )


@torch.no_grad()
def contrast(
    model: Model,
    who: str,
    prompt: str,
    corrupt: str | None = None,
    *,
    answer: str | None = None,
    foil: str | None = None,
    metric: str = "logit-difference",
) -> Contrast:
    """The contrast of a prompt with another one of as many tokens, or with itself where `corrupt` is None.

    Raises `BadInput`: a network without a head, prompts of different length, no mask token in an encoder's prompt,
    answer and foil that begin alike."""
    states.check_readable(model, who)
    if model.tokenizer is None or not states.has_head(model):
        raise BadInput(f"{who}: wants a language model with its tokenizer and a head over its vocabulary")
    ids = batch_of(model, prompt).kwargs["input_ids"]
    other = batch_of(model, corrupt).kwargs["input_ids"] if corrupt is not None else None
    name = states.Vocabulary(model)
    if other is not None and other.shape != ids.shape:
        pieces = [" ".join(repr(name(i)) for i in row[0].tolist()[:40]) for row in (ids, other)]
        raise BadInput(
            f"{who}: prompt and corrupt prompt must have as many tokens, they have {ids.shape[1]} and "
            f"{other.shape[1]}: "
            f"{pieces[0]} and {pieces[1]}"
        )
    at = _measured(model, ids, who)
    if other is not None and _measured(model, other, who) != at:
        raise BadInput(f"{who}: the mask token must be at the same position in both prompts")
    logits = run(model, ids).logits[:, at]
    against = run(model, other).logits[:, at] if other is not None else logits
    token, wrong = _words(model, who, logits[0], answer, foil)
    if wrong is None:
        best = int(against[0].argmax())
        wrong = (
            best
            if best != token
            else int(logits[0].index_fill(0, logits.new_tensor([token]).long(), -torch.inf).argmax())
        )
    made = Contrast(
        model=model,
        clean=ids,
        corrupt=other,
        at=at,
        metric=metric,
        answer=token,
        foil=wrong if metric == "logit-difference" else None,
        clean_log_p=divergence.log_probabilities(logits[0].double()),
        prompt=prompt,
        corrupt_prompt=corrupt or "",
    )
    made.clean_value = float(made.score(logits)[0])
    if other is not None:
        made.corrupt_value = float(made.score(against)[0])
        made.check_differs(who)
    return made


def span(model: Model, prompt: str, part: str, who: str) -> list[int]:
    """Positions of the tokens that hold `part`, at its last occurrence in the prompt.

    Raises `BadInput` when it does not occur, or the tokenizer does not know its tokens' characters."""
    start = prompt.rfind(part)
    if not part.strip() or start < 0:
        raise BadInput(f"{who}: '{part}' does not occur in the prompt '{prompt}': give it as it is written there")
    if model.tokenizer is None or not model.tokenizer.is_fast:
        raise BadInput(f"{who}: wants a fast tokenizer, which knows its tokens' characters")
    end = start + len(part)
    start += len(part) - len(part.lstrip())
    offsets = model.tokenizer(prompt, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    return [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > start]


def _measured(model: Model, ids: Tensor, who: str) -> int:
    if states.is_causal(model):
        return ids.shape[1] - 1
    mask = getattr(model.tokenizer, "mask_token_id", None)
    places = (ids[0] == mask).nonzero()[:, 0].tolist() if mask is not None else []
    if len(places) != 1:
        shown = getattr(model.tokenizer, "mask_token", None) or "its mask token"
        raise BadInput(f"{who}: an encoder predicts at its mask token: the prompt must hold {shown} once")
    return places[0]


def _words(model: Model, who: str, logits: Tensor, answer: str | None, foil: str | None) -> tuple[int, int | None]:
    """First tokens of answer and foil. With or without a space before the word, whichever the model finds likelier."""
    if answer is None:
        token = int(logits.argmax())
        wrong = _first(model, foil, who) if foil is not None else None
        if wrong == token:
            raise BadInput(f"{who}: the foil '{foil}' is what the model puts first: give the answer, too")
        return token, wrong
    pairs = []
    for space in ("", " ") if not answer[:1].isspace() else ("",):
        pair = (_first(model, space + answer, who), _first(model, space + foil, who) if foil is not None else None)
        # A token that is nothing but the space would stand for any word.
        if pair[0] != pair[1] and (not space or states.Vocabulary(model)(pair[0]).strip()):
            pairs.append(pair)
    if not pairs:
        raise BadInput(f"{who}: answer '{answer}' and foil '{foil}' begin with the same token: give others")
    return max(pairs, key=lambda pair: float(logits[pair[0]]))


def _first(model: Model, word: str, who: str) -> int:
    ids = model.tokenizer(word, add_special_tokens=False)["input_ids"]  # type: ignore[misc]
    if not ids:
        raise BadInput(f"{who}: a word to measure is empty")
    return int(ids[0])
