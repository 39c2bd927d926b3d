"""The computation behind `interpretation.fit_sae`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation import states
from intarsia.interpretation.features.fit_sae import FitSAE, FitSAEConfig
from intarsia.interpretation.features.objectives import Trained, loss_of
from intarsia.interpretation.features.sae import SAE
from intarsia.interpretation.wording import percent
from intarsia.measure import provenance
from intarsia.progress import tell
from intarsia.sites import read

if TYPE_CHECKING:
    from intarsia.models import Model

WHO = "interpretation.fit_sae"
TASK = "training the autoencoder"
TENSORS, NOTE = "training.safetensors", "training.json"


def fit(model: Model, config: FitSAEConfig, train: Sequence[Any], test: Sequence[Any] | None, seed: int) -> SAE:
    """Train; see `interpretation.fit_sae`."""
    states.check_readable(model, WHO)
    at = site_of(model, config.layer, config.kind)
    texts = [states.text_of(r) for r in train if states.text_of(r).strip()]
    if not texts:
        raise BadInput(f"{WHO}: no text was given: wants at least one that is not empty")
    width = model.sites.main.width
    if config.k > config.expansion * width:
        raise BadInput(f"{WHO}: k {config.k} is more than there are features ({config.expansion * width})")
    buffers = Buffers(model, at, texts, config, seed)
    first = buffers.fill()
    size = min(config.batch_states, len(first))
    # Measured on the first buffer: where the states lie, and how large they are.
    mean = first.mean(0)
    scale = float((width / (first - mean).pow(2).sum(-1).mean()).sqrt())
    trained = Trained.start(width, config, mean * scale, first[:2048] * scale, seed)
    step = 0
    curve: list[tuple[int, float, float, float]] = []
    if config.checkpoint is not None and (found := _resume(config, seed, trained, texts)) is not None:
        step, scale, curve = found["step"], found["scale"], [tuple(row) for row in found["curve"]]  # type: ignore[misc]
        buffers.skip(found["read"])
        first = buffers.fill() if step < config.steps else first
    buffer = first
    while step < config.steps:
        for batch in buffers.mixed(buffer).split(size):
            if len(batch) < size or step >= config.steps:
                break
            trained.rate(step)
            loss, shown = loss_of(trained, batch * scale, config)
            trained.update(loss)
            step += 1
            if step == 1 or step % max(1, config.steps // 50) == 0 or step == config.steps:
                curve.append((step, *shown))
                tell(TASK, step, config.steps, unexplained=round(shown[0], 4), dead=round(shown[2], 3))
        if config.checkpoint is not None:
            note = {"step": step, "scale": scale, "read": buffers.read, "curve": curve}
            _keep(config, seed, trained, texts, note)
        if step < config.steps:
            buffer = buffers.fill()
    tell(TASK, step, config.steps, finished=True)
    sae = trained.finished(at, scale, {"model_name": model.identity.source})
    held = [states.text_of(r) for r in test or []]
    checked = Buffers(model, at, held, config, seed).fill() if held else buffer
    explained, active, dead = quality(sae, checked)
    finding = FitSAE(
        title=f"A sparse autoencoder for {model.identity.source} at {at}",
        technique=WHO,
        summary=f"{sae.features} features explain {percent(max(explained, 0.0))} of the variance of {len(checked):,} "
        f"{'held-out' if held else 'training'} states with {active:.1f} active at a time; {percent(dead)} "
        f"never fire there.",
        site=at,
        architecture=config.architecture,
        features=sae.features,
        explained=explained,
        active=active,
        dead=dead,
        states=len(checked),
        held_out=bool(held),
        curve=curve,
        provenance=provenance(seed=seed, settings=config.model_dump(mode="json"), texts=len(texts)),
    )
    sae.finding = finding
    return sae


def site_of(model: Model, layer: int | None, kind: str) -> str:
    """The full name of the site, with the layer counted from 0; the middle one when unset."""
    count = states.layer_count(model)
    layer = count // 2 if layer is None else layer
    if not -count <= layer < count:
        raise BadInput(f"{WHO}: layer {layer} does not exist, there are {count} (0 to {count - 1})")
    (name,) = model.sites.expand(states.site_name(model.sites, layer % count, kind))
    return name


class Buffers:
    """States of texts, a buffer at a time: texts in a new order each time round, states mixed within a buffer.

    When all texts fit into one buffer they are read once. `read`: batches of texts read so far."""

    def __init__(self, model: Model, at: str, texts: Sequence[str], config: FitSAEConfig, seed: int):
        self.model, self.at, self.texts, self.config, self.seed = model, at, list(texts), config, seed
        self.read = self.rounds = 0
        self.whole: Tensor | None = None

    def _batches(self) -> Iterator[list[str]]:
        """The rest of this time round."""
        each = -(-len(self.texts) // self.config.batch_size)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.read // each)
        order = torch.randperm(len(self.texts), generator=generator).tolist()
        for number in range(self.read % each, each):
            part = order[number * self.config.batch_size : (number + 1) * self.config.batch_size]
            self.read += 1
            yield [self.texts[i] for i in part]

    def fill(self) -> Tensor:
        """The next buffer, [state, width] float32 on the CPU; ends with its time round at the latest."""
        if self.whole is not None:
            self.read += -(-len(self.texts) // self.config.batch_size)
            return self.whole
        begun = self.read
        parts: list[Tensor] = []
        total = 0
        for texts in self._batches():
            for tokens in states.batches(self.model, texts, self.config.max_tokens, len(texts)):
                inputs = {"input_ids": tokens.ids, "attention_mask": tokens.mask.long()}
                with torch.no_grad():
                    found = read(self.model, inputs, self.at)[self.at]
                parts.append(found[tokens.mask][tokens.position > 0].float().cpu())
                total += len(parts[-1])
            tell("reading states", min(total, self.config.buffer_states), self.config.buffer_states)
            if total >= self.config.buffer_states:
                break
        tell("reading states", total, total, finished=True)
        if total < 2:
            raise BadInput(f"{WHO}: the texts hold {total} states: wants texts of two tokens or more")
        joined = torch.cat(parts)
        if begun == 0 and self.read == -(-len(self.texts) // self.config.batch_size):
            self.whole = joined
        return joined

    def skip(self, read: int) -> None:
        """Go on after so many batches of texts."""
        self.read = read

    def mixed(self, buffer: Tensor) -> Tensor:
        """The buffer in the order that belongs to where reading stands."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + 7919 * self.read)
        return buffer[torch.randperm(len(buffer), generator=generator)]


@torch.no_grad()
def quality(sae: SAE, found: Tensor) -> tuple[float, float, float]:
    """(share of variance explained, active features a state, share of features that never fire) on states."""
    error = active = 0.0
    fired = torch.zeros(sae.features, dtype=torch.bool)
    for part in found.split(4096):
        back, features = sae.reconstruct(part)
        error += float((part - back).double().pow(2).sum())
        active += float((features > 0).sum())
        fired |= (features > 0).any(0).cpu()
    spread = float((found - found.mean(0)).double().pow(2).sum())
    return 1 - error / spread, active / len(found), float((~fired).double().mean())


def _same(config: FitSAEConfig, seed: int, texts: Sequence[str]) -> dict[str, Any]:
    import hashlib

    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()
    return {"settings": config.model_dump(mode="json", exclude={"checkpoint"}), "seed": seed, "texts": digest}


def _keep(config: FitSAEConfig, seed: int, trained: Trained, texts: Sequence[str], note: dict[str, Any]) -> None:
    """Write the state of training beside, then rename: an interruption leaves the one before."""
    from safetensors.torch import save_file

    from intarsia.models import cache

    path = Path(config.checkpoint).expanduser().absolute()  # type: ignore[arg-type]
    with cache.beside(path, replace=True) as part:
        save_file(trained.state(), part / TENSORS)
        (part / NOTE).write_text(json.dumps({**_same(config, seed, texts), **note}), "utf-8")
        cache.share_modes(part)


def _resume(config: FitSAEConfig, seed: int, trained: Trained, texts: Sequence[str]) -> dict[str, Any] | None:
    from safetensors.torch import load_file

    path = Path(config.checkpoint).expanduser()  # type: ignore[arg-type]
    if not (path / NOTE).is_file():
        if path.exists() and any(path.iterdir()):
            raise BadInput(f"{WHO}: {path} holds something else than a fit's state: give another --checkpoint")
        return None
    note = json.loads((path / NOTE).read_text("utf-8"))
    if any(note.get(name) != value for name, value in _same(config, seed, texts).items()):
        raise BadInput(f"{WHO}: {path} belongs to a fit with other settings or texts: give another --checkpoint")
    trained.load(load_file(path / TENSORS))
    return note
