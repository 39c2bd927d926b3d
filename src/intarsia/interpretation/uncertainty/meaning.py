"""Whether two answers mean the same: by a model of entailment, by a sentence encoder, or by their words."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.sites import read, run

if TYPE_CHECKING:
    from intarsia.models import Model

BATCH = 32


def plain(text: str) -> str:
    """Lower case, without punctuation and articles, single spaces (Rajpurkar et al. 2016)."""
    text = text.casefold().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


class Words:
    """Answers mean the same when their plain words are the same."""

    name = "they have the same words"

    def alike(self, prompt: str, a: str, b: str) -> bool:
        """Whether two answers to a prompt mean the same."""
        return plain(a) == plain(b)

    def similarity(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """[pair] between 0 and 1."""
        return np.array([float(plain(a) == plain(b)) for a, b in pairs])


class Embeddings(Words):
    """Answers mean the same when a sentence encoder's vectors (mean over tokens) have a cosine of `least` or more."""

    def __init__(self, encoder: Model, least: float):
        self.encoder, self.least, self._known = encoder, least, dict[str, Tensor]()
        self.name = f"their cosine under {encoder.identity.source} is {least:g} or more"

    def alike(self, prompt: str, a: str, b: str) -> bool:
        """Whether two answers to a prompt mean the same; the prompt is not looked at."""
        return plain(a) == plain(b) or float(self.similarity([(a, b)])[0]) >= self.least

    def similarity(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Cosine of each pair, not below 0."""
        texts = dict.fromkeys(text or " " for pair in pairs for text in pair)
        new = [text for text in texts if text not in self._known]
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            self._known.update(zip(part, embed(self.encoder, part), strict=True))
        cosines = [float(self._known[a or " "] @ self._known[b or " "]) for a, b in pairs]
        return np.clip(np.array(cosines), 0, 1)


class Entailment(Words):
    """Answers mean the same when each entails the other, after the prompt (Kuhn et al. 2023, section 3.2)."""

    def __init__(self, nli: Model):
        labels = getattr(nli.config, "id2label", None) or {}
        found = [int(i) for i, label in labels.items() if str(label).casefold().startswith("entail")]
        if not type(nli.network).__name__.endswith("ForSequenceClassification") or len(found) != 1:
            raise BadInput(
                f"nli: wants a sequence classifier with one label that begins with 'entail'; "
                f"{type(nli.network).__name__} has the labels {', '.join(map(str, labels.values())) or 'none'}"
            )
        self.nli, self.entail, self._known = nli, found[0], dict[tuple[str, str], np.ndarray]()
        self.name = f"each entails the other by {nli.identity.source}"

    def alike(self, prompt: str, a: str, b: str) -> bool:
        """Whether two answers to a prompt mean the same."""
        if plain(a) == plain(b):
            return True
        one, other = f"{prompt} {a}", f"{prompt} {b}"
        self._read([(one, other), (other, one)])
        return all(int(self._known[pair].argmax()) == self.entail for pair in ((one, other), (other, one)))

    def similarity(self, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """Probability of entailment, the mean of both directions."""
        self._read([pair for a, b in pairs for pair in ((a, b), (b, a))])
        return np.array([(self._known[a, b][self.entail] + self._known[b, a][self.entail]) / 2 for a, b in pairs])

    def _read(self, pairs: Sequence[tuple[str, str]]) -> None:
        new = list(dict.fromkeys(pair for pair in pairs if pair not in self._known))
        for start in range(0, len(new), BATCH):
            part = new[start : start + BATCH]
            batch = self.nli.tokenizer(  # type: ignore[misc]
                [a for a, _ in part], [b for _, b in part], return_tensors="pt", padding=True, truncation=True
            )
            with torch.no_grad():
                logits = run(self.nli, dict(batch)).logits
            self._known.update(zip(part, logits.cpu().double().softmax(-1).numpy(), strict=True))


def meaning(encoder: Model | None, nli: Model | None, least: float) -> Words:
    """The best judge of meaning there is: entailment, else embeddings, else words."""
    if nli is not None:
        return Entailment(nli)
    return Embeddings(encoder, least) if encoder is not None else Words()


@torch.no_grad()
def embed(encoder: Model, texts: Sequence[str]) -> Tensor:
    """[text, width] float64, length 1: the mean of the last block's states over a text's tokens."""
    name = f"{encoder.sites.main.prefix}layers.{len(encoder.sites.blocks) - 1}.resid_post"
    limit = encoder.context_length
    batch = encoder.encode(list(texts), max_length=limit)
    acts = read(encoder, {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}, name)
    states, mask = acts[name].cpu().double(), batch["attention_mask"][..., None].cpu()
    return torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)


def clusters(judge: Words, prompt: str, answers: Sequence[str]) -> list[int]:
    """Each answer's cluster, numbered from 0 in order of appearance: an answer joins the first cluster whose first
    member means the same (Kuhn et al. 2023, algorithm 1)."""
    firsts: list[str] = []
    found = []
    for answer in answers:
        at = next((i for i, first in enumerate(firsts) if judge.alike(prompt, first, answer)), None)
        if at is None:
            at = len(firsts)
            firsts.append(answer)
        found.append(at)
    return found
