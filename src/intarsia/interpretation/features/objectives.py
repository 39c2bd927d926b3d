"""The weights of an autoencoder while it is trained, and what it is trained for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from intarsia.interpretation.features.fit_sae import FitSAEConfig
from intarsia.interpretation.features.sae import SAE

BANDWIDTH = 0.1  # of the straight-through gradient of a threshold, in units of the scaled pre-activations
L0_WEIGHT = 0.1  # of (active / k - 1)^2


@dataclass
class Trained:
    """Weights on scaled states, Adam, and for each feature how many updates ago it last fired."""

    weights: dict[str, Tensor]
    optimizer: torch.optim.Adam
    silent: Tensor
    config: FitSAEConfig

    @classmethod
    def start(cls, width: int, config: FitSAEConfig, mean: Tensor, sample: Tensor, seed: int) -> Trained:
        """Random unit directions, the encoder their transpose, the decoder's bias the mean state."""
        generator = torch.Generator().manual_seed(seed)
        decoder = torch.randn(config.expansion * width, width, generator=generator)
        decoder /= decoder.norm(dim=-1, keepdim=True)
        weights = {
            "W_enc": decoder.T.clone(),
            "b_enc": torch.zeros(len(decoder)),
            "W_dec": decoder,
            "b_dec": mean.clone(),
        }
        if config.architecture == "jumprelu":
            pre = (sample - mean) @ weights["W_enc"]
            # The threshold at which k features are active to begin with.
            level = pre.flatten().sort().values[max(0, int(pre.numel() * (1 - config.k / len(decoder))) - 1)]
            weights["threshold"] = level.clamp(min=1e-3).expand(len(decoder)).clone()
        for value in weights.values():
            value.requires_grad_(True)
        optimizer = torch.optim.Adam(weights.values(), lr=config.learning_rate, betas=(0.9, 0.999))
        return cls(weights, optimizer, torch.zeros(len(decoder), dtype=torch.long), config)

    def rate(self, step: int) -> None:
        """Set the learning rate: up over the first 5 % of the updates, down to 0 over the last 20 %."""
        total = self.config.steps
        up = min(1.0, (step + 1) / max(1, total // 20))
        down = min(1.0, (total - step) / max(1, total // 5))
        self.optimizer.param_groups[0]["lr"] = self.config.learning_rate * up * down

    def update(self, loss: Tensor) -> None:
        """One step; directions keep norm 1, and the gradient along them is left out (Bricken et al. 2023)."""
        self.optimizer.zero_grad()
        loss.backward()
        decoder = self.weights["W_dec"]
        with torch.no_grad():
            assert decoder.grad is not None
            decoder.grad -= (decoder.grad * decoder).sum(-1, keepdim=True) * decoder
        self.optimizer.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=-1, keepdim=True)

    def state(self) -> dict[str, Tensor]:
        """Everything training goes on from."""
        out = {f"weights.{name}": value.detach().contiguous() for name, value in self.weights.items()}
        for name, value in self.weights.items():
            for key, kept in self.optimizer.state[value].items():
                out[f"adam.{name}.{key}"] = torch.as_tensor(kept).contiguous()
        return {**out, "silent": self.silent}

    def load(self, state: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(state[f"weights.{name}"])
                prefix = f"adam.{name}."
                self.optimizer.state[value] = {
                    key.removeprefix(prefix): kept for key, kept in state.items() if key.startswith(prefix)
                }
        self.silent = state["silent"]

    def finished(self, site: str, scale: float, metadata: dict[str, Any]) -> SAE:
        """The autoencoder on states as they are: the scale goes into biases and thresholds."""
        with torch.no_grad():
            weights = {name: value.detach().clone() for name, value in self.weights.items()}
            for name in ("b_enc", "b_dec", "threshold"):
                if name in weights:
                    weights[name] /= scale
        k = self.config.k if self.config.architecture == "topk" else None
        return SAE(weights, self.config.architecture, site, k=k, facts={"metadata": metadata})


def loss_of(trained: Trained, x: Tensor, config: FitSAEConfig) -> tuple[Tensor, tuple[float, float, float]]:
    """The loss of a batch of scaled states, and (variance not explained, active features, dead share)."""
    w = trained.weights
    pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    extra: Tensor | float = 0.0
    if config.architecture == "topk":
        top = pre.topk(config.k, dim=-1)
        features = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    elif config.architecture == "jumprelu":
        threshold = w["threshold"].clamp(min=0)
        gate = Step.apply(pre, threshold)
        features = pre.relu() * gate
        extra = L0_WEIGHT * (gate.sum(-1).mean() / config.k - 1) ** 2
    else:
        features = pre.relu()
        # Directions have norm 1, so that the size of a feature is the size of what it writes.
        extra = config.penalty * features.sum(-1).mean() / math.sqrt(x.shape[-1])
    error = x - features @ w["W_dec"] - w["b_dec"]
    unexplained = error.pow(2).sum(-1).mean() / x.shape[-1]
    with torch.no_grad():
        fired = (features > 0).any(0)
        trained.silent = torch.where(fired, 0, trained.silent + 1)
        dead = trained.silent >= config.dead_after
    loss = unexplained + extra
    if config.revive and bool(dead.any()):
        loss = loss + config.revive * _revival(pre, dead, error.detach(), w["W_dec"])
    active = float((features > 0).sum(-1).double().mean())
    return loss, (float(unexplained.detach()), active, float(dead.double().mean()))


def _revival(pre: Tensor, dead: Tensor, error: Tensor, decoder: Tensor) -> Tensor:
    """How badly the dead features explain what is left over (Gao et al. 2024, A.2), at most 1 or so."""
    count = min(int(dead.sum()), max(1, error.shape[-1] // 2))
    top = pre.masked_fill(~dead, -torch.inf).topk(count, dim=-1)
    features = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    rest = (error - features @ decoder).pow(2).sum(-1).mean()
    return torch.nan_to_num(rest / error.pow(2).sum(-1).mean())


class Step(torch.autograd.Function):
    """1 where x is above the threshold; the threshold's gradient is that of a window around it (Rajamanoharan et al.
    2024, eq. 11), x has none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor) -> Tensor:
        ctx.save_for_backward(x, threshold)
        return (x > threshold).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        x, threshold = ctx.saved_tensors
        window = ((x - threshold).abs() < BANDWIDTH / 2).to(x.dtype) / BANDWIDTH
        return None, -(window * gradient).sum(0)
