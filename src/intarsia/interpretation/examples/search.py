"""The search for an edit that changes an answer: words are exchanged or taken out, one more each round.

Proposals come from the gradient (the first-order change of the goal for every word of the vocabulary; Ebrahimi et al.
2018, HotFlip) and from the model's own next-token distribution at the place (so that they read well). Every proposal is
then put to the model itself; the first-order estimate only decides what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.interpretation.examples.finding import EditedText
from intarsia.interpretation.explained import Explained
from intarsia.sites import read, run

if TYPE_CHECKING:
    from intarsia.models import Model

Words = tuple[tuple[int, ...], ...]  # token ids of each word; an empty word was taken out


@dataclass(frozen=True)
class Bounds:
    """What an edit may be.

    - max_edits: words. beam: variants kept from round to round. candidates: proposals of each kind a round.
    - similar: least cosine of the embeddings of a word's token and of what replaces it (None: any).
    - likely: a replacement must be among that many likeliest tokens at its place, given what comes before it.
    - delete: whether words may be taken out."""

    max_edits: int
    beam: int
    candidates: int
    similar: float | None = None
    likely: int | None = None
    delete: bool = False


class Vocabulary:
    """What a model's search needs to know once: which tokens are words, and what they are at the `embed` site."""

    def __init__(self, model: Model, forbidden: Sequence[str] = ()):
        tokenizer = model.tokenizer
        count = model.network.get_input_embeddings().weight.shape[0]
        texts = tokenizer.batch_decode([[i] for i in range(min(count, len(tokenizer)))])  # type: ignore[union-attr]
        texts += [""] * (count - len(texts))
        banned = {word.strip().lower() for word in forbidden}
        self.texts = texts
        self.spaced = torch.tensor([t[:1].isspace() for t in texts])
        # "##ing" of a word-piece vocabulary goes on a word; it is none itself.
        self.word = torch.tensor([t.strip().isalpha() and t.strip().lower() not in banned for t in texts])
        name = f"{model.sites.main.prefix}embed"
        chunks = torch.arange(count)[:, None].split(4096)
        self.embeddings = torch.cat([read(model, c.to(model.device), name)[name][:, 0].float() for c in chunks])
        centred = self.embeddings - self.embeddings.mean(0)
        self.directions = torch.nn.functional.normalize(centred, dim=1)


class Search:
    """One text's search. `goal` is the wanted choice, or None for any but the one the model gives now."""

    def __init__(self, explained: Explained, vocabulary: Vocabulary, bounds: Bounds, goal: int | None):
        self.explained, self.vocabulary, self.bounds, self.goal = explained, vocabulary, bounds, goal
        first, last = explained.features[0], explained.features[-1]
        self.head, self.foot = tuple(explained.ids[:first]), tuple(explained.ids[last + 1 :])
        self.start: Words = tuple(tuple(explained.ids[explained.features[i]] for i in w) for w in explained.words)
        self.now = int(explained.log_probs().argmax())
        self.causal = bool(explained.model.network.can_generate())
        self.tried = 0

    def ids(self, words: Words) -> list[int]:
        return [*self.head, *(i for word in words for i in word), *self.foot]

    def answers(self, variants: Sequence[Words]) -> Tensor:
        """[n, choices] log probabilities."""
        self.tried += len(variants)
        return self.explained.log_probs_of([self.ids(v) for v in variants])

    def objective(self, log_probs: Tensor) -> Tensor:
        return log_probs[:, self.goal] if self.goal is not None else -log_probs[:, self.now]

    def reached(self, log_probs: Tensor) -> Tensor:
        best = log_probs.argmax(1)
        return best == self.goal if self.goal is not None else best != self.now

    def run(self) -> Words | None:
        """The words of the best edit that reaches the goal, or None."""
        beam = [self.start]
        for _ in range(self.bounds.max_edits):
            variants = list(dict.fromkeys(v for kept in beam for v in self.proposals(kept)))
            if not variants:
                return None
            log_probs = self.answers(variants)
            hits = self.reached(log_probs).nonzero().flatten().tolist()
            if hits:
                return self.pruned(self.most_fluent([variants[i] for i in hits]))
            order = self.objective(log_probs).argsort(descending=True, stable=True)
            beam = [variants[i] for i in order[: self.bounds.beam].tolist()]
        return None

    def proposals(self, words: Words) -> list[Words]:
        """Variants with one more word changed."""
        open_words = [w for w, word in enumerate(words) if word == self.start[w]]
        if not open_words:
            return []
        found: list[Words] = []
        allowed = self.allowed(words, open_words)
        gain = self.gains(words, open_words).masked_fill(~allowed, -torch.inf)
        for flat in gain.flatten().topk(min(self.bounds.candidates, gain.numel())).indices.tolist():
            row, token = divmod(flat, gain.shape[1])
            if torch.isfinite(gain[row, token]):
                w = open_words[row]
                found.append(_exchanged(words, w, (token, *self.punctuation(words[w]))))
        if self.causal and self.bounds.likely is None:
            likely = self.likely(words, open_words).masked_fill(~allowed, -torch.inf)
            each = max(1, self.bounds.candidates // len(open_words))
            for row, w in enumerate(open_words):
                top = likely[row].topk(min(each, likely.shape[1]))
                found += [
                    _exchanged(words, w, (token, *self.punctuation(words[w])))
                    for value, token in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                    if value > float("-inf")
                ]
        if self.bounds.delete and sum(map(bool, words)) > 1:
            found += [_exchanged(words, w, self.punctuation(words[w])) for w in open_words]
        return found

    def punctuation(self, word: tuple[int, ...]) -> tuple[int, ...]:
        """The tokens without a letter or digit that end a word: they stay when it goes."""
        end = len(word)
        while end > 1 and not any(c.isalnum() for c in self.vocabulary.texts[word[end - 1]]):
            end -= 1
        return word[end:]

    def allowed(self, words: Words, open_words: list[int]) -> Tensor:
        """[open word, vocabulary] bool: what may stand in a word's place."""
        known = self.vocabulary
        firsts = [words[w][0] for w in open_words]
        allowed = known.word[None] & (known.spaced[None] == known.spaced[firsts][:, None])
        allowed[torch.arange(len(firsts)), firsts] = False
        if self.bounds.similar is not None:
            allowed &= (known.directions[firsts] @ known.directions.T >= self.bounds.similar).cpu()
        if self.bounds.likely is not None and self.causal:
            likely = self.likely(words, open_words)
            edge = likely.topk(min(self.bounds.likely, likely.shape[1])).values[:, -1:]
            allowed &= likely >= edge
        return allowed

    def gains(self, words: Words, open_words: list[int]) -> Tensor:
        """[open word, vocabulary]: first-order change of the goal when a word's first token is exchanged."""
        ids = self.ids(words)
        choice = self.now if self.goal is None else self.goal
        at = Explained(self.explained.model, ids, [0], self.explained.choices, choice)
        embeddings = at.embeddings().detach().requires_grad_()
        (slope,) = torch.autograd.grad(at.value_at(embeddings[None]).sum(), embeddings)
        places, position = [], len(self.head)
        for w, word in enumerate(words):
            if w in open_words:
                places.append(position)
            position += len(word)
        rows = slope[places].float()
        change = rows @ self.vocabulary.embeddings.T.to(rows.device)
        change = change - change.gather(1, torch.tensor([[words[w][0]] for w in open_words], device=rows.device))
        return (change if self.goal is not None else -change).cpu()

    @torch.no_grad()
    def likely(self, words: Words, open_words: list[int]) -> Tensor:
        """[open word, vocabulary]: logits of the model at a word's place; nothing is known before the first token."""
        model = self.explained.model
        logits = run(model, torch.tensor([self.ids(words)])).logits[0].float().cpu()
        rows, position = [], len(self.head)
        for w, word in enumerate(words):
            if w in open_words:
                rows.append(logits[position - 1] if position else torch.zeros_like(logits[0]))
            position += len(word)
        return torch.stack(rows)

    def most_fluent(self, hits: list[Words]) -> Words:
        """Among edits that reach the goal with as few words, the one the model finds least surprising."""
        if not self.causal:
            return hits[int(self.objective(self.answers(hits)).argmax())]
        hits = hits[:64]
        surprises = self.surprises(hits)
        return hits[min(range(len(hits)), key=surprises.__getitem__)]

    def pruned(self, words: Words) -> Words:
        """Without the changes that turn out not to be needed."""
        for w, word in enumerate(words):
            if word != self.start[w]:
                back = _exchanged(words, w, self.start[w])
                if back != self.start and bool(self.reached(self.answers([back]))[0]):
                    words = back
        return words

    @torch.no_grad()
    def surprises(self, variants: list[Words]) -> list[float]:
        """-log p a token of each variant's own tokens, given the prompt before them."""
        first = max(1, len(self.head))
        rows = [self.ids(words) for words in variants]
        logits = run(self.explained.model, rows).logits
        found = []
        for row, of in zip(rows, logits, strict=True):
            last = max(len(row) - len(self.foot), first)
            picked = torch.tensor(row[first:last], device=of.device)[:, None]
            log_p = of[first - 1 : last - 1].float().log_softmax(-1).gather(1, picked)
            found.append(-float(log_p.mean()) if len(picked) else 0.0)
        return found

    def result(self, words: Words | None) -> EditedText:
        """The text before and after, for the finding."""
        decode: Any = self.explained.model.tokenizer.decode  # type: ignore[union-attr]
        edited = words if words is not None else self.start
        both = self.explained.log_probs_of([self.ids(self.start), self.ids(edited)])
        names = [c.name for c in self.explained.choices]
        surprises = self.surprises([self.start, edited]) if self.causal else [None, None]
        return EditedText(
            text=self.explained.text,
            edited=decode([i for word in edited for i in word]).strip(),
            before=names[self.now],
            after=names[int(both[1].argmax())],
            probability_before=float(both[0, self.now].exp()),
            probability_after=float(both[1, self.now].exp()),
            flipped=words is not None,
            words=[decode(list(word)) for word in edited],
            was=[None if w == old else decode(list(old)) for w, old in zip(edited, self.start, strict=True)],
            edits=sum(w != old for w, old in zip(edited, self.start, strict=True)),
            surprise_before=surprises[0],
            surprise_after=surprises[1],
            tried=self.tried,
        )


def _exchanged(words: Words, at: int, word: tuple[int, ...]) -> Words:
    return (*words[:at], word, *words[at + 1 :])
