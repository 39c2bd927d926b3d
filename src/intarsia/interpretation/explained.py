"""What is explained: one text, and the probability that a model gives one choice after reading it.

Every method that asks "which words did it?" (attribution, counterfactuals, evaluation of explanations) asks it of an
`Explained`: it knows which tokens count as features, runs many masked variants of the text in one batch and remembers
them, and is differentiable with respect to the embeddings. The choice is one of three kinds:

- a label of a label task: the probability of its path through the label trie (`measure.likelihood`), over the labels;
- a class of a sequence classifier's head, over the classes;
- words that follow (or the model's own greedy ones), over the vocabulary.

Each of them is read off a single forward of prompt + the choice's own tokens."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from intarsia.data import LabelledText
from intarsia.errors import BadInput, Note, did_you_mean
from intarsia.measure import LabelTask
from intarsia.measure import trie as tries
from intarsia.measure.likelihood import left_padded
from intarsia.measure.prompts import fitted
from intarsia.sites import Apply, Edit, Replace, read, run
from intarsia.sites.inputs import takes

if TYPE_CHECKING:
    from intarsia.models import Model

Removal = Literal["attention", "token", "delete"]
TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class Choice:
    """One thing the model may say.

    - tail: token ids read after the prompt (teacher forcing).
    - steps: (tokens of the tail read before, the token ids in question or None for all, index of the one taken):
      its log probability is the sum of their log softmaxes. Empty for a classifier's head."""

    name: str
    tail: tuple[int, ...] = ()
    steps: tuple[tuple[int, tuple[int, ...] | None, int], ...] = ()


class Explained:
    """A text as a model reads it, and the choice whose log probability is to be explained.

    - ids: the prompt's token ids.
    - features: positions in it of the text's own tokens (a template, earlier turns and special tokens stay in place).
    - tokens: those tokens as text. words: for each word of the text, the indices of its features.
    - choices, choice: what the model may say, and the index of what is explained.
    - forwards, backwards: texts run through the network so far, and those of them with a graph: what a method costs.
    - removal: what taking a token away means: it cannot be attended to (`attention`), another neutral token stands in
      its place (`token`), or the text is shorter (`delete`)."""

    def __init__(
        self,
        model: Model,
        ids: Sequence[int],
        features: Sequence[int],
        choices: Sequence[Choice],
        choice: int | None = None,
        *,
        words: Sequence[Sequence[int]] | None = None,
        tokens: Sequence[str] | None = None,
        text: str = "",
        removal: Removal = "attention",
    ):
        self.model, self.ids, self.features = model, list(ids), list(features)
        self.choices, self.text, self.removal = list(choices), text, removal
        self.words = [list(w) for w in words] if words is not None else [[i] for i in range(len(self.features))]
        self.tokens = list(tokens) if tokens is not None else _as_text(model, [self.ids[i] for i in self.features])
        self._values: dict[bytes, Tensor] = {}
        self.forwards = self.backwards = 0
        self.choice = int(self.log_probs().argmax()) if choice is None else choice

    @property
    def name(self) -> str:
        """What is explained, in words."""
        return self.choices[self.choice].name

    def log_probs(self, keep: Tensor | None = None) -> Tensor:
        """[n, choices] float64: log probability of every choice for masked variants of the text.

        keep: [n, feature] bool, True where a token stays; None is the whole text (n = 1). Variants seen before are not
        run again."""
        if keep is None:
            keep = torch.ones(1, len(self.features), dtype=torch.bool)
        if keep.dim() != 2 or keep.shape[1] != len(self.features):
            raise BadInput(f"masks must be [n, {len(self.features)}], were {list(keep.shape)}")
        keep = keep.cpu().bool()
        keys = [row.numpy().tobytes() for row in keep]
        new = list({key: i for i, key in enumerate(keys) if key not in self._values}.values())
        size = max(1, TOKENS_PER_BATCH // (len(self.ids) + max(len(c.tail) for c in self.choices)))
        for start in range(0, len(new), size):
            part = new[start : start + size]
            for i, values in zip(part, self._run_masked(keep[part]), strict=True):
                self._values[keys[i]] = values
        return torch.stack([self._values[key] for key in keys])

    def value(self, keep: Tensor | None = None) -> Tensor:
        """[n] float64: log probability of the explained choice; `keep` as in `log_probs`."""
        return self.log_probs(keep)[:, self.choice]

    def embeddings(self) -> Tensor:
        """[token, width]: what enters the first block, for the prompt's tokens."""
        return read(self.model, self._ids(), self._site("embed"))[self._site("embed")][0]

    def value_at(self, embeddings: Tensor) -> Tensor:
        """[n]: log probability of the explained choice at embeddings [n, token, width], with a graph."""
        return self._of_states(embeddings, [], [])[0]

    def value_with(
        self, at: Sequence[str], edits: Sequence[Edit] = (), count: int = 1
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The explained log probability [count] with a graph, and the activations at sites (and `logits`) that it was
        computed through.

        The text is followed by the tail of the choice: the token axis is that much longer than the prompt. `count`
        runs it that many times in one batch, for edits of single rows."""
        return self._of_states(None, list(at), list(edits), count)

    def _of_states(
        self, embeddings: Tensor | None, at: list[str], edits: list[Edit], count: int = 1
    ) -> tuple[Tensor, Any]:
        tail = self.choices[self.choice].tail
        ids = self._ids(tail)
        count = count if embeddings is None else len(embeddings)
        self.forwards += count
        self.backwards += count * torch.is_grad_enabled()
        if embeddings is not None:
            after = read(self.model, ids, self._site("embed"))[self._site("embed")][:, len(self.ids) :]
            whole = torch.cat([embeddings.to(after.dtype), after.expand(count, -1, -1)], dim=1)
            edits = [*edits, Replace(self._site("embed"), value=whole)]
        elif torch.is_grad_enabled():
            edits = [Apply(self._site("embed"), function=_differentiable), *edits]
        inputs = {"input_ids": ids.expand(count, -1), "attention_mask": torch.ones_like(ids).expand(count, -1)}
        if at and "logits" in self.model.sites:
            acts = read(self.model, inputs, [*at, "logits"], edits=edits, grad=torch.is_grad_enabled())
            return self._log_prob(acts["logits"], self.choices[self.choice]), acts
        kept: dict[str, Tensor] = {}  # a classifier's head is no site: its whole forward runs, and what passes is kept
        for site in self.model.sites.expand(at) if at else []:
            edits = [*edits, Apply(site, function=partial(_keep_passing, kept, site))]
        output = run(self.model, inputs, edits, grad=torch.is_grad_enabled(), **self._keep(tail))
        kept["logits"] = output.logits
        return self._log_prob(output.logits, self.choices[self.choice]), kept

    def log_probs_of(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """[n, choices] float64: log probability of every choice after other prompts, given as token ids."""
        size = max(1, TOKENS_PER_BATCH // max(len(p) for p in prompts))
        parts = [list(prompts[start : start + size]) for start in range(0, len(prompts), size)]
        return torch.cat([self._choices(len(part), partial(self._left_padded, part)) for part in parts])

    def _run_masked(self, keep: Tensor) -> Tensor:
        return self._choices(len(keep), partial(self._inputs, keep))

    @torch.no_grad()
    def _choices(self, count: int, inputs: Callable[[tuple[int, ...]], dict[str, Tensor]]) -> Tensor:
        """One forward for each different tail; `inputs(tail)` gives what the network is fed."""
        values = torch.empty(count, len(self.choices), dtype=torch.float64)
        for tail in dict.fromkeys(c.tail for c in self.choices):
            self.forwards += count
            output = run(self.model, inputs(tail), **self._keep(tail))
            for i, choice in enumerate(self.choices):
                if choice.tail == tail:
                    values[:, i] = self._log_prob(output.logits, choice).cpu()
        return values

    def _left_padded(self, prompts: list[Sequence[int]], tail: tuple[int, ...]) -> dict[str, Tensor]:
        batch = left_padded([[*p, *tail] for p in prompts], neutral_token(self.model))
        if not takes(self.model.network, "position_ids"):
            del batch["position_ids"]
        return {name: value.to(self.model.device) for name, value in batch.items()}

    def _inputs(self, keep: Tensor, tail: tuple[int, ...]) -> dict[str, Tensor]:
        """What the network is fed for masked variants: the last column is always the end of prompt + tail."""
        full = torch.tensor([*self.ids, *tail])
        stays = torch.ones(len(keep), len(full), dtype=torch.bool)
        stays[:, self.features] = keep
        ids, mask = full.expand(len(keep), -1).clone(), torch.ones(len(keep), len(full), dtype=torch.long)
        positions = torch.arange(len(full)).expand(len(keep), -1)
        if self.removal != "delete":
            # Unattended tokens are exchanged too: the prompt's last one is where the choice is read off.
            ids[~stays] = neutral_token(self.model)
        if self.removal == "attention":
            mask = stays.long()
        elif self.removal == "delete":
            order = stays.long().argsort(dim=1, stable=True)  # what is deleted goes left, as padding
            ids, mask = ids.gather(1, order), stays.long().gather(1, order)
            positions = (mask.cumsum(1) - 1).clamp(min=0)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if takes(self.model.network, "position_ids"):
            inputs["position_ids"] = positions
        return {name: value.to(self.model.device) for name, value in inputs.items()}

    def _log_prob(self, logits: Tensor, choice: Choice) -> Tensor:
        """[n] float64 from logits [n, token, vocabulary] whose last rows belong to the prompt's end and the tail, or
        from a classifier's [n, classes]."""
        if not choice.steps:
            index = next(i for i, c in enumerate(self.choices) if c is choice)
            return logits.double().log_softmax(-1)[:, index]
        total = torch.zeros(len(logits), dtype=torch.float64, device=logits.device)
        for depth, branches, taken in choice.steps:
            at = logits[:, depth - len(choice.tail) - 1]
            if branches is not None:
                at = at[:, list(branches)]
            total = total + at.double().log_softmax(-1)[:, taken]
        return total

    def _ids(self, tail: Sequence[int] = ()) -> Tensor:
        return torch.tensor([[*self.ids, *tail]], device=self.model.device)

    def _keep(self, tail: Sequence[int]) -> dict[str, Any]:
        return {"logits_to_keep": len(tail) + 1} if takes(self.model.network, "logits_to_keep") else {}

    def _site(self, name: str) -> str:
        return f"{self.model.sites.main.prefix}{name}"


def explain_text(
    model: Model,
    record: str | Any,
    *,
    target: str | None = None,
    new_tokens: int = 1,
    task: LabelTask | None = None,
    removal: Removal = "attention",
) -> Explained:
    """What there is to explain about one text (a string or a record with `.text`).

    - target: the label, class or following words to explain; None is what the model itself chooses.
    - new_tokens: how many of its own greedy tokens are explained when the model neither has a label task nor a
      classifier's head, and no `target` is given.
    - task: the label task, by default the one that travels with the model.

    Raises `BadInput` for a model that gives no such probability, an unknown label, or a text without tokens."""
    if model.tokenizer is None or not model.tokenizer.is_fast:
        raise BadInput("explaining a text needs a model with a fast tokenizer: its tokens must know their characters")
    record = LabelledText(record, "") if isinstance(record, str) else record
    task = task or LabelTask.of(model)
    causal = bool(model.network.can_generate()) and not getattr(model.config, "is_encoder_decoder", False)
    classes = getattr(model.config, "id2label", None) if _is_classifier(model) else None
    if task is not None and causal:
        return _of_task(model, record, task, target, removal)
    if classes:
        names = [str(classes[i]) for i in sorted(classes)]
        ids, features, words, tokens = _features(model, record.text, 0, len(record.text))
        choices = [Choice(name) for name in names]
        return _made(model, ids, features, choices, target, words, tokens, record.text, removal)
    if not causal:
        raise BadInput(
            f"{type(model.network).__name__} has no label task, no classifier's head and no next token: there is "
            "nothing to explain"
        )
    ids, features, words, tokens = _features(model, record.text, 0, len(record.text))
    following = _following(model, ids, target, new_tokens)
    steps = tuple((depth, None, token) for depth, token in enumerate(following))
    name = target if target is not None else model.tokenizer.decode(following)
    choices = [Choice(name, tuple(following[:-1]), steps)]
    return _made(model, ids, features, choices, None, words, tokens, record.text, removal)


def _differentiable(tensor: Tensor) -> Tensor:
    """Gradients begin at the embeddings, also where the network's own parameters are frozen."""
    return tensor if tensor.requires_grad else tensor.detach().requires_grad_()


def _keep_passing(kept: dict[str, Tensor], site: str, tensor: Tensor) -> Tensor:
    kept[site] = tensor
    return tensor


def neutral_token(model: Model) -> int:
    """The token that stands where one was taken away: the mask token, else padding, else the unknown token, else the
    end of text."""
    tokenizer = model.tokenizer
    for name in ("mask_token_id", "pad_token_id", "unk_token_id", "eos_token_id"):
        if (token := getattr(tokenizer, name, None)) is not None:
            return int(token)
    return 0


def _of_task(model: Model, record: Any, task: LabelTask, target: str | None, removal: Removal) -> Explained:
    tokenizer = model.tokenizer
    trie = tries.of_task(task, tokenizer)
    context = getattr(record, "context", ())
    record = LabelledText(record.text, "", context=tuple(context))
    limits = [task.max_tokens, model.context_length - trie.depth - 1 if model.context_length else None]
    if (limit := min((n for n in limits if n), default=None)) is not None:
        length = len(tokenizer(task.render(record.text, record.context), verbose=False)["input_ids"])
        if length > limit:
            warnings.warn(f"a text of {length} tokens is explained only up to {limit}", Note, stacklevel=4)
            record = fitted(tokenizer, task, record, limit)
    prompt = task.render(record.text, record.context)
    # Where the text stands in the prompt: render everything before it.
    head = task.model_copy(update={"template": task.template.partition("{text}")[0] + "{text}"})
    start = len(head.render("", record.context))
    ids, features, words, tokens = _features(model, prompt, start, start + len(record.text))
    choices = []
    for i, label in enumerate(task.labels):
        steps = tuple((len(n.path), n.branches, b) for n, b in trie.steps(i))
        deepest = max((depth for depth, _, _ in steps), default=0)
        choices.append(Choice(label, trie.sequences[i][:deepest], steps))
    return _made(model, ids, features, choices, target, words, tokens, record.text, removal)


def _made(
    model: Model, ids: list[int], features: list[int], choices: list[Choice], target: str | None,
    words: list[list[int]], tokens: list[str], text: str, removal: Removal,
) -> Explained:  # fmt: skip
    names = [c.name for c in choices]
    if target is not None and target not in names:
        raise BadInput(f"no choice '{target}'{did_you_mean(target, names)}; there are: {', '.join(names)}")
    choice = names.index(target) if target is not None else 0 if len(choices) == 1 else None
    return Explained(model, ids, features, choices, choice, words=words, tokens=tokens, text=text, removal=removal)


def _features(
    model: Model, prompt: str, start: int, end: int
) -> tuple[list[int], list[int], list[list[int]], list[str]]:
    """Ids of the prompt, positions of the tokens that lie in its characters start..end, words of them, their text."""
    encoded = model.tokenizer(prompt, return_offsets_mapping=True, verbose=False)  # type: ignore[misc]
    ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
    if (limit := model.context_length) and len(ids) > limit:
        raise BadInput(f"a text has {len(ids)} tokens, and the network's context is {limit}: shorten it")
    features = [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > start]
    if not features:
        raise BadInput("a text has no tokens: there is nothing to explain")
    # A token belongs to the word it reaches into; white space of its own goes with the word that follows.
    ends = [m.end() for m in re.finditer(r"\S+", prompt[:end])]
    words: dict[int, list[int]] = {}
    for index, position in enumerate(features):
        a, b = offsets[position]
        inside = prompt[a:b].lstrip()
        at = b - len(inside)
        word = next((n for n, stop in enumerate(ends) if at < stop), len(ends) - 1)
        words.setdefault(word, []).append(index)
    tokens = [prompt[a:b] for a, b in (offsets[i] for i in features)]
    return list(ids), features, [words[w] for w in sorted(words)], tokens


@torch.no_grad()
def _following(model: Model, ids: list[int], target: str | None, new_tokens: int) -> list[int]:
    if target is not None:
        found = list(model.tokenizer(target, add_special_tokens=False)["input_ids"])  # type: ignore[misc]
        if not found:
            raise BadInput("target: the words to explain are empty")
        return found
    out: list[int] = []
    for _ in range(new_tokens):
        logits = run(model, torch.tensor([[*ids, *out]])).logits[0, -1]
        out.append(int(logits.argmax()))
    return out


def _is_classifier(model: Model) -> bool:
    return type(model.network).__name__.endswith("ForSequenceClassification") and model.config.num_labels > 1


def _as_text(model: Model, ids: list[int]) -> list[str]:
    if model.tokenizer is None:
        return [str(i) for i in ids]
    return [model.tokenizer.decode([i]) for i in ids]


def log_odds(log_probability: Tensor) -> Tensor:
    """log p - log (1 - p), elementwise."""
    return log_probability - torch.log(-torch.expm1(log_probability.clamp(max=-1e-12)))


__all__ = ["Choice", "Explained", "Removal", "explain_text", "log_odds", "neutral_token"]
