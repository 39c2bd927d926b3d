"""Soft prompts: vectors before the input, the same for every text, or shifted by what the text is like.

Source: Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning", §2.2 (beginning with the labels'
words and other words of the vocabulary); depending on the instance: base + g(e(x)) with a small g, of our own, after Wu
et al. 2022, "IDPG", §3.

The task's prompt is what PEFT calls PromptTuning, and is kept under the same name. It goes in by a door of our own:
PEFT puts it before the padding and drops the positions, so that a text's scores would depend on those beside it."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from intarsia.adaptation.continual.blocks.prompts import Door
from intarsia.adaptation.routes.rung import Likelihood
from intarsia.adaptation.routes.rungs.tuned import Part, Tuned
from intarsia.errors import Note
from intarsia.measure.prompts import encode_prompts
from intarsia.sites import Guest, guest_of, put_beside
from intarsia.training.loop import Trained

if TYPE_CHECKING:
    from intarsia.adaptation.routes.bench import Bench
    from intarsia.adaptation.routes.examples import Example
    from intarsia.adaptation.routes.setting import Setting
    from intarsia.models import Model

UNITS = 32  # of g


class SoftPrompt(Guest):
    """The prompt beside a network.

    - prompt_embeddings: [position, width]. shift: from an embedding of the text to what is added to them, zero at the
      start; None: nothing."""

    def __init__(self, embedding: nn.Module, start: Tensor, inputs: int = 0):
        super().__init__()
        self.prompt_embeddings = nn.Parameter(start.clone())
        self.shift: nn.Sequential | None = None
        if inputs:
            last = nn.Linear(UNITS, start.numel())
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.shift = nn.Sequential(nn.Linear(inputs, UNITS), nn.Tanh(), last).to(start.device)
        self.known: dict[tuple[int, ...], np.ndarray] = {}
        self._vectors: Tensor | None = None
        self.door = Door(self, embedding, encoder=False)  # type: ignore[arg-type]

    def know(self, rows: Sequence[Sequence[int]], vectors: np.ndarray) -> None:
        """Say what texts are like, by their token ids: the network is given ids, wherever it is called from."""
        self.known.update(zip(map(tuple, rows), vectors, strict=True))

    def enter(self, given: dict[str, Any]) -> dict[str, Any]:
        cache = given.get("past_key_values")
        decoding = cache is not None and cache.get_seq_length() > 0
        if self.shift is not None and not decoding:
            ids, mask = given["input_ids"], given["attention_mask"]
            rows = [tuple(row[real.bool()].tolist()) for row, real in zip(ids.cpu(), mask.cpu(), strict=True)]
            vectors = torch.from_numpy(np.stack([self.known[row] for row in rows]))
            self._vectors = vectors.to(self.prompt_embeddings)
        return self.door.enter(given, decoding=decoding)

    def leave(self, output: Any) -> Any:
        return self.door.leave(output)

    def replaced(self, old: nn.Module, new: nn.Module) -> None:
        if old is self.door.embedding:
            self.door.embedding = new

    def forward(self, batch: int) -> tuple[Tensor, Tensor]:
        """[row, position, width], and which of it is real, for the door."""
        rows = self.prompt_embeddings.expand(batch, -1, -1)
        if self.shift is not None and self._vectors is not None:
            rows = rows + self.shift(self._vectors).view(rows.shape)
        return rows, torch.ones(rows.shape[:2], dtype=torch.long, device=rows.device)


class OfTask(Tuned):
    """One prompt for all texts."""

    name = "soft-prompt"
    what = "vectors before the prompt, the same for all texts"
    access = "grey box"
    changes = False
    factor = 20.0
    setting_names: tuple[str, ...] = ("prompt_length",)

    def put(self, model: Model, setting: Setting) -> Part:
        return self._put(model, setting, 0)

    def _put(self, model: Model, setting: Setting, inputs: int) -> Part:
        model.network.requires_grad_(False)
        embedding = model.network.get_input_embeddings()
        with torch.no_grad():
            ids = torch.tensor([first_ids(setting)], device=model.device)
            start = embedding(ids)[0].float()
        guest = SoftPrompt(embedding, start, inputs)
        put_beside(model.network, guest, {})
        trained = dict(guest.named_parameters())
        return Part(trained, model.network, lambda: model.network.requires_grad_(True), upper=False)


def first_ids(setting: Setting) -> list[int]:
    """The tokens whose embeddings a prompt begins as: the labels' words, then others, drawn by the seed."""
    ids = list(dict.fromkeys(token for path in setting.trie.sequences for token in path))
    special = set(setting.model.tokenizer.all_special_ids)
    others = [i for i in range(len(setting.model.tokenizer)) if i not in special and i not in ids]
    random.Random(setting.seed).shuffle(others)
    return (ids + others)[: setting.config.prompt_length]


@dataclass
class Shifted(Likelihood):
    """Says what the texts are like before they are scored."""

    setting: Setting
    guest: SoftPrompt

    def raw(self, examples: Sequence[Example]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Note)  # how many texts are cut is said when they are scored
            rows = encode_prompts(self.model, self.task, list(examples), room=self.setting.trie.depth + 1)
        self.guest.know(rows.ids, self.setting.said(examples))
        return super().raw(examples)


class OfInstance(OfTask):
    """A prompt for each text: the task's, plus a small network's reading of the text's embedding."""

    name = "instance-prompt"
    what = "vectors before the prompt, by what the text is like"
    setting_names = ("prompt_length", "embedder")

    def put(self, model: Model, setting: Setting) -> Part:
        return self._put(model, setting, setting.embedder.config.get_text_config().hidden_size)

    def train(self, bench: Bench, new: Model, part: Part, rows: int | None = None) -> Trained:
        some, vectors, _ = bench.embedded()
        _guest(new).know(bench.written.ids[: len(some)], vectors)
        return super().train(bench, new, part, len(some))

    def labeller(self, setting: Setting, likelihood: Likelihood) -> Shifted:
        return Shifted(likelihood.model, likelihood.task, setting, _guest(likelihood.model))


def _guest(model: Model) -> SoftPrompt:
    guest = guest_of(model.network)
    assert isinstance(guest, SoftPrompt)
    return guest
