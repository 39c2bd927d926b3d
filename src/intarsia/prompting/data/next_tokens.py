"""A memory of next tokens, mixed into what a model expects: p = (1 - share) p_LM + share p_kNN, where p_kNN(y) is the
sum of exp(-d / temperature) over the nearest states that y came after, of all of them.

Source: Khandelwal et al. 2020, "Generalization through Memorization: Nearest Neighbor Language Models", §2-3. Here a
key is the stream behind the final norm, brought to length one (d = 2 - 2 cos, and one temperature suits any width), and
the search is exact. It learns by keeping: nothing of the model changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.measure.likelihood import log_softmax
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model

Array = np.ndarray[Any, Any]
SITE = "final_norm"
WINDOW = 512
"""Tokens that are read at once: a longer text is cut, and each part begins anew."""


@dataclass(frozen=True)
class Judged:
    """What model and memory expect of each token of texts but the first ones of windows. model: log p_LM of it [token];
    distances: to the nearest entries [token, nearest]; right: whether it is the token that came there."""

    model: Array
    distances: Array
    right: Array

    def losses(self, share: float, temperature: float) -> Array:
        """Nats of each token, by both."""
        return -_mixed(self.model, (_weights(self.distances, temperature) * self.right).sum(-1), share)

    def perplexity(self, share: float = 0.0, temperature: float = 1.0) -> float:
        """exp of the mean loss; of the model alone with a share of 0."""
        return float(np.exp(self.losses(share, temperature).mean()))


class NextTokens:
    """Entries (state, next token) of one model, to be mixed into what it expects.

        memory = NextTokens(model)
        memory.add(texts)
        memory.next("The warranty of the kettle is")     # log p [vocabulary]

    - share, temperature, nearest: how it is mixed; choose them on texts of your own (`judged`)."""

    def __init__(self, model: Model, share: float = 0.25, temperature: float = 0.05, nearest: int = 32):
        if not 0 <= share <= 1:
            raise BadInput(f"share: {share}: give 0 (the model alone) to 1 (the memory alone)")
        if temperature <= 0 or nearest < 1:
            raise BadInput(f"temperature {temperature}, nearest {nearest}: give more than 0, and 1 or more")
        self.model, self.share, self.temperature, self.nearest = model, share, temperature, nearest
        self._keys: Array = np.zeros((0, 0), np.float16)
        self._tokens: Array = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, texts: Sequence[str]) -> int:
        """Keep each token of the texts with the state before it; how many entries are new."""
        keys, tokens = [], []
        for ids in track(list(self._windows(texts)), "remembering texts"):
            keys.append(self._read(ids, logits=False)[0][:-1].astype(np.float16))
            tokens.append(np.array(ids[1:], np.int32))
        if keys:
            self._keys = np.concatenate([self._keys, *keys] if len(self) else keys)
            self._tokens = np.concatenate([self._tokens, *tokens])
        return sum(map(len, tokens))

    def save(self, file: str | Path) -> None:
        """To a safetensors file, whole or not at all."""
        import torch

        from intarsia.models.saved import Saved
        from intarsia.models.weights import weights_key

        note = {"weights": weights_key(self.model), "share": self.share, "temperature": self.temperature,
                "nearest": self.nearest}  # fmt: skip
        Saved({"keys": torch.from_numpy(self._keys), "tokens": torch.from_numpy(self._tokens)}, note).write(Path(file))

    @staticmethod
    def open(file: str | Path, model: Model) -> NextTokens:
        """From a file. Raises `BadInput` where there is none, and for another model: states of one mean nothing to
        another."""
        from intarsia.models.saved import Saved
        from intarsia.models.weights import weights_key

        saved = Saved.read(Path(file))
        if saved is None:
            raise BadInput(f"{file}: no memory there; NextTokens(model).save({str(file)!r}) writes one")
        if saved.note.get("weights") != weights_key(model):
            raise BadInput(f"{file}: was made by another model: open it with that one, or make it anew")
        made = NextTokens(model, *(saved.note[name] for name in ("share", "temperature", "nearest")))
        made._keys, made._tokens = saved.tensors["keys"].numpy(), saved.tensors["tokens"].numpy()
        return made

    def next(self, text: str) -> Array:
        """[vocabulary]: log probability of each token as the one that comes after a text."""
        states, logits = self._read(next(self._windows([text], last=True)), logits=True)
        distances, tokens = self._near(states[-1:])
        near = np.zeros(logits.shape[1])
        np.add.at(near, tokens[0], _weights(distances, self.temperature)[0])
        return _mixed(log_softmax(logits[-1:].astype(np.float64))[0], near, self.share)

    def judged(self, texts: Sequence[str]) -> Judged:
        """What is expected of texts, for choosing share and temperature by, and for figures."""
        parts = []
        for ids in track(list(self._windows(texts)), "asking model and memory"):
            states, logits = self._read(ids, logits=True)
            target = np.array(ids[1:])
            distances, tokens = self._near(states[:-1])
            parts.append((log_softmax(logits[:-1].astype(np.float64))[np.arange(len(target)), target], distances,
                          tokens == target[:, None]))  # fmt: skip
        if not parts:
            raise BadInput("no text of two tokens or more: there is nothing to expect")
        return Judged(*(np.concatenate(of) for of in zip(*parts, strict=True)))

    def _windows(self, texts: Sequence[str], last: bool = False) -> Iterator[list[int]]:
        """Token ids of two or more; with last, those of the end of each text."""
        if self.model.tokenizer is None:
            raise BadInput("a memory of texts needs a tokenizer: wrap(network, tokenizer)")
        size = min(WINDOW, self.model.context_length or WINDOW)
        for ids in self.model.tokenizer(list(texts), verbose=False)["input_ids"] if len(texts) else ():
            if last:
                if not ids:
                    raise BadInput("a text without tokens has no next one")
                yield ids[-size:]
                continue
            for start in range(0, len(ids), size):
                if len(ids) - start > 1:
                    yield ids[start : start + size]

    def _read(self, ids: list[int], logits: bool) -> tuple[Array, Array]:
        """States [token, width] of length one; logits [token, vocabulary] where they are wanted."""
        from intarsia.sites import read

        sites = [SITE, "logits"] if logits else [SITE]
        found = read(self.model, [ids], sites)
        states = found[SITE][0].float().cpu().numpy()
        states /= np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
        return states, found["logits"][0].float().cpu().numpy() if logits else states

    def _near(self, states: Array) -> tuple[Array, Array]:
        """(squared distances, tokens), each [state, nearest], the nearest first."""
        from intarsia.prompting.data.store.vectors import Matrix

        if not len(self):
            raise BadInput("the memory is empty: add texts first")
        count = min(self.nearest, len(self))
        found = Matrix.of(self._keys).nearest(states, np.arange(len(self)), count)
        places = np.stack([place for place, _ in found])
        return np.maximum(2 - 2 * np.stack([cosine for _, cosine in found]), 0), self._tokens[places]


def _weights(distances: Array, temperature: float) -> Array:
    """exp(-d / temperature) over their sum, [..., nearest]."""
    weights = np.exp(-(distances - distances.min(-1, keepdims=True)).astype(np.float64) / temperature)
    return weights / weights.sum(-1, keepdims=True)


def _mixed(model: Array, near: Array, share: float) -> Array:
    """log((1 - share) p_LM + share p_kNN), of log p_LM and p_kNN."""
    with np.errstate(divide="ignore"):
        return np.logaddexp(np.log(1 - share) + model, np.log(share) + np.log(near))
