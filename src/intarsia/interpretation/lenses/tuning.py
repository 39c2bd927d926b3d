"""Training of the tuned lens: maps h A + b of every layer, minimising KL(final distribution || lens).

Source: Belrose et al. 2023, section 2. A step reads the states of a few texts (cheap beside the head, which has to be
applied to every layer), draws positions from them and takes one step for every layer."""

from __future__ import annotations

import hashlib
import json
import random
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.errors import BadInput, IntarsiaError, Note
from intarsia.interpretation import divergence, states
from intarsia.interpretation.fitted import facts_of
from intarsia.interpretation.lenses import fitting
from intarsia.interpretation.lenses.fit import FitLensConfig
from intarsia.progress import track
from intarsia.sites import unembed

if TYPE_CHECKING:
    from intarsia.models import Model

RATES = {"adam": 3e-4, "sgd": 0.1}  # sgd: the paper's 1.0 x (1 - momentum)
KEEP_EVERY = 45.0  # seconds between checkpoints


class Translators:
    """What is trained: for every layer but the last, start(h) + (x D + c) * spread, with x the state.

    For Adam x is the state less its mean, over its standard deviation, and `spread` the final state's standard
    deviation, so that one learning rate fits all layers and widths; for SGD x = h and spread = 1, as in the paper. Both
    are the same family of affine maps."""

    def __init__(self, fixed: dict[str, Tensor]):
        self.matrix, self.bias = fixed["matrix"], fixed["bias"]
        self.mean, self.scale, self.spread = fixed["mean"], fixed["scale"], fixed["spread"]
        self.delta = [torch.zeros_like(matrix) for matrix in self.matrix]
        self.shift = [torch.zeros_like(bias) for bias in self.bias]
        self.parameters = [*self.delta, *self.shift]

    def __call__(self, hidden: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """Translated states [n, width] of a layer, and the x they were made from."""
        x = (hidden - self.mean[layer]) / self.scale[layer]
        start = hidden @ self.matrix[layer] + self.bias[layer]
        return start + (x @ self.delta[layer] + self.shift[layer]) * self.spread, x

    def folded(self) -> tuple[Tensor, Tensor]:
        """Plain maps [layer, width, width] and biases [layer, width] of all layers, the last one the identity."""
        matrices, biases = [], []
        for i in range(len(self.delta)):
            change = self.delta[i] / self.scale[i][:, None] * self.spread
            matrices.append(self.matrix[i] + change)
            biases.append(self.bias[i] + self.shift[i] * self.spread - self.mean[i] @ change)
        width = self.spread.shape[0]
        matrices.append(torch.eye(width, device=self.spread.device))
        biases.append(torch.zeros(width, device=self.spread.device))
        return torch.stack(matrices).cpu(), torch.stack(biases).cpu()


def beginning(model: Model, texts: Sequence[str], config: FitLensConfig) -> dict[str, Tensor]:
    """What does not change in the training: the maps it starts from, the standardisation, and how many positions they
    were taken from."""
    width, count = model.sites.main.width, states.layer_count(model) - 1
    fixed = {
        "matrix": torch.eye(width).repeat(count, 1, 1),
        "bias": torch.zeros(count, width),
        "mean": torch.zeros(count, width),
        "scale": torch.ones(count, width),
        "spread": torch.ones(width),
        "rows": torch.zeros((), dtype=torch.long),
    }
    if config.start == "affine" or config.optimiser == "adam":
        sums = fitting.accumulate(model, texts, config, 0)
        fixed["rows"] += sums[0].rows
        if config.start == "affine":
            matrix, bias = fitting.solve(sums, config.penalty, keep_last=True)
            fixed |= {"matrix": matrix[:count], "bias": bias[:count]}
        if config.optimiser == "adam":
            moments = [sum_.moments() for sum_ in sums]
            fixed["mean"] = torch.stack([mean for mean, _ in moments[:count]]).float()
            fixed["scale"] = torch.stack([scale for _, scale in moments[:count]]).float()
            fixed["spread"] = moments[-1][1].float()
    return {name: value.to(model.device).contiguous() for name, value in fixed.items()}


def tune(
    model: Model, texts: Sequence[str], config: FitLensConfig, seed: int
) -> tuple[Tensor, Tensor, list[float], int]:
    """Train; returns maps, biases, the loss (mean KL over layers, nats) of every step, and the positions of the start.

    Raises `IntarsiaError` when the loss is no longer a number, `BadInput` for another training's checkpoint."""
    kept = _Checkpoint(config, _key(model, texts, config, seed))
    fixed = kept.load("start") or beginning(model, texts, config)
    kept.save("start", fixed, [])
    translators = Translators({name: value.to(model.device) for name, value in fixed.items()})
    rate = config.learning_rate or RATES[config.optimiser]
    optimiser = _optimiser(translators.parameters, config, rate)
    losses = _put_back(kept, translators, optimiser)
    draws = _texts(texts, config, seed)
    for step, some in enumerate(track(draws, "training the lens", total=config.steps)):
        if step < len(losses):
            continue  # done before the stop; the draw of texts is the same again
        for group in optimiser.param_groups:
            group["lr"] = rate * (1 - step / config.steps)
        stream = _positions(model, some, config, random.Random(seed * 1_000_003 + step))
        losses.append(_step(model, translators, stream))
        if losses[-1] != losses[-1] or losses[-1] == float("inf"):
            raise IntarsiaError(
                f"the loss is {losses[-1]} at step {step + 1}: lower learning_rate (now {rate}), or use adam"
            )
        optimiser.step()
        if kept.due() or step + 1 == config.steps:
            kept.save("training", _state(translators, optimiser), losses)
    return *translators.folded(), losses, int(fixed["rows"])


def _step(model: Model, translators: Translators, stream: list[Tensor]) -> float:
    """Set the gradients of mean KL over positions for every layer; returns the mean loss over layers."""
    with torch.no_grad():
        log_p = divergence.log_probabilities(states.logits(model, stream[-1]))
        p = log_p.exp()
    total = 0.0
    for layer in range(len(translators.delta)):
        with torch.no_grad():
            translated, x = translators(stream[layer].float(), layer)
        with torch.enable_grad():
            translated.requires_grad_()
            log_q = divergence.log_probabilities(unembed(model, translated.to(stream[layer].dtype)))
            loss = (p * (log_p - log_q)).sum(-1).mean()
            (gradient,) = torch.autograd.grad(loss, translated)  # not the weights': those stay as they are
        gradient = gradient * translators.spread
        translators.delta[layer].grad = x.T @ gradient
        translators.shift[layer].grad = gradient.sum(0)
        total += float(loss.detach())
    return total / max(1, len(translators.delta))


def _optimiser(parameters: list[Tensor], config: FitLensConfig, rate: float) -> torch.optim.Optimizer:
    if config.optimiser == "adam":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=0.9, nesterov=True, weight_decay=config.weight_decay)


def _texts(texts: Sequence[str], config: FitLensConfig, seed: int) -> Iterator[list[str]]:
    """For every step as many texts as surely hold its positions when they are long; shuffled anew in each round."""
    size = max(2, -(-2 * config.positions // config.max_tokens))
    shuffle = random.Random(seed)
    queue: list[str] = []
    for _ in range(config.steps):
        while len(queue) < size:
            queue += shuffle.sample(list(texts), len(texts))
        some, queue = queue[:size], queue[size:]
        yield some


def _positions(model: Model, texts: list[str], config: FitLensConfig, draw: random.Random) -> list[Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Note)  # that texts are cut was said when they were first read
        parts = [stream for stream, _ in fitting.pairs(model, texts, config.max_tokens, len(texts), 0)]
    stream = [torch.cat([part[i] for part in parts]) for i in range(len(parts[0]))]
    count = len(stream[0])
    chosen = torch.tensor(sorted(draw.sample(range(count), min(config.positions, count))), dtype=torch.long)
    return [h[chosen.to(h.device)] for h in stream]


def _key(model: Model, texts: Sequence[str], config: FitLensConfig, seed: int) -> str:
    settings = config.model_dump(mode="json", exclude={"checkpoint"})
    return hashlib.sha256(json.dumps([settings, facts_of(model)["weights"], list(texts), seed]).encode()).hexdigest()


def _state(translators: Translators, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"{i}.value": p for i, p in enumerate(translators.parameters)}
    for i, kept in optimiser.state_dict()["state"].items():
        tensors |= {f"{i}.{name}": value for name, value in kept.items() if isinstance(value, Tensor)}
    return tensors


def _put_back(kept: _Checkpoint, translators: Translators, optimiser: torch.optim.Optimizer) -> list[float]:
    """Put the kept training into translators and optimiser; the losses so far, none when nothing was kept."""
    tensors = kept.load("training")
    if tensors is None:
        return []
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, what = name.partition(".")
        if what == "value":
            translators.parameters[int(index)].copy_(tensor)
        else:
            state.setdefault(int(index), {})[what] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return kept.losses


class _Checkpoint:
    """The training on disk: a part is tensors with a note of the losses so far, written beside and renamed."""

    def __init__(self, config: FitLensConfig, key: str):
        self.folder = Path(config.checkpoint).expanduser() if config.checkpoint is not None else None
        self.key = key
        self.losses: list[float] = []
        self.last = time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self.last >= KEEP_EVERY

    def load(self, part: str) -> dict[str, Tensor] | None:
        """The tensors of a part, None when it was not kept. Raises `BadInput` when another training kept it."""
        if self.folder is None or not (self.folder / part / "note.json").is_file():
            return None
        from safetensors.torch import load_file

        note = json.loads((self.folder / part / "note.json").read_text("utf-8"))
        if note["key"] != self.key:
            raise BadInput(
                f"{self.folder} keeps another training (other settings, texts, seed or model): give another checkpoint "
                "folder, or remove this one"
            )
        self.losses = list(note["losses"])
        return load_file(self.folder / part / "tensors.safetensors")

    def save(self, part: str, tensors: dict[str, Tensor], losses: list[float]) -> None:
        if self.folder is None:
            return
        from safetensors.torch import save_file

        from intarsia.models import cache

        with cache.beside(self.folder / part, replace=True) as folder:
            save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "tensors.safetensors")
            (folder / "note.json").write_text(json.dumps({"key": self.key, "losses": losses}), "utf-8")
        self.last = time.monotonic()
