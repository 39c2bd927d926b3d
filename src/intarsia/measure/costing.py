"""How `measure.cost` goes about it, step by step."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from intarsia.errors import BadInput, IntarsiaError
from intarsia.measure import size, speed
from intarsia.measure.cost import Cost, CostConfig, EngineCost
from intarsia.measure.energy import estimate_energy
from intarsia.measure.memory import peak_memory
from intarsia.measure.provenance import provenance

if TYPE_CHECKING:
    from intarsia.models import Model

# What a network raises when it wants pictures or other things beside tokens.
_NOT_TOKENS = (TypeError, ValueError, AttributeError)


def measure(model: Model, config: CostConfig) -> Cost:
    """See `intarsia.measure.cost.cost`."""
    notes: list[str] = []
    limit = model.context_length
    if limit and config.prompt_tokens + config.new_tokens > limit:
        raise BadInput(
            f"measure.cost: {config.prompt_tokens} + {config.new_tokens} tokens do not fit the model's context of "
            f"{limit}: lower prompt_tokens or new_tokens"
        )
    parameters, trainable, nonzero = size.count_parameters(model.network)
    try:
        macs = size.macs_per_token(model.network, config.prompt_tokens)
    except _NOT_TOKENS:
        macs = None
        notes.append("This network wants more than tokens: MACs and speed were not measured.")
    engines: dict[str, EngineCost] = {"torch": EngineCost()}
    disk: dict[str, int] = {"torch": size.tensor_bytes(model.network)}
    runtimes: dict[str, Any] = {}
    for name, folder in model.exports.items():
        disk[name] = size.weight_bytes(Path(folder))
        engines[name] = EngineCost()
        if config.speed:
            try:
                runtimes[name] = _open(Path(folder))
            except IntarsiaError as error:
                notes.append(f"{name} was not timed: {error}.")
    with tempfile.TemporaryDirectory(prefix="intarsia-cost-") as scratch:
        folder = Path(scratch) / "model"
        try:
            model.save(folder)
            disk["torch"] = size.weight_bytes(folder)
        except IntarsiaError as error:
            notes.append(f"The model cannot be saved ({error}): bytes on disk are those of its tensors.")
        if config.memory and macs is not None:
            # Before the timing: the processor's caches and clock are then as in any other run.
            _memory(model, folder, engines, config, notes)
    laps: dict[str, Callable[[], speed.Lap]] = {}
    if macs is not None:
        laps["torch"] = speed.torch_lap(model, config.prompt_tokens, config.new_tokens)
    laps |= {k: speed.runtime_lap(r, config.prompt_tokens, config.new_tokens) for k, r in runtimes.items()}
    if config.speed and laps:
        for name, taken in speed.take_turns(laps, config.repeats).items():
            rates = speed.summed(taken)
            engines[name].prefill, engines[name].decode = rates.prefill, rates.decode
    if config.energy and laps:
        _energy(laps, engines, config, notes)
    found = Cost(
        title="Cost",
        technique="measure.cost",
        provenance=provenance(settings=config.model_dump()),
        parameters=parameters,
        trainable=trainable,
        nonzero=nonzero,
        tensor_bytes=size.tensor_bytes(model.network),
        bytes_on_disk=disk,
        macs_per_token=macs,
        prompt_tokens=config.prompt_tokens,
        new_tokens=config.new_tokens,
        repeats=config.repeats,
        threads=torch.get_num_threads(),
        engines=engines,
        notes=notes,
    )
    found.summary = _summary(found)
    return found


def _open(folder: Path) -> Any:
    from intarsia.models.runtime import open_runtime

    runtime = open_runtime(folder, torch.get_num_threads())
    if not hasattr(runtime, "generate"):
        raise BadInput("an encoder writes no text")
    return runtime


def _memory(model: Model, folder: Path, engines: dict[str, EngineCost], config: CostConfig, notes: list[str]) -> None:
    places = {"torch": folder, **{name: Path(path) for name, path in model.exports.items()}}
    for name, place in places.items():
        if place.is_dir():
            try:
                engines[name].peak_memory = peak_memory(
                    place, name, config.prompt_tokens, config.new_tokens, torch.get_num_threads()
                )
            except IntarsiaError as error:
                notes.append(f"{str(error).rstrip('.')}.")


def _energy(
    laps: dict[str, Callable[[], speed.Lap]], engines: dict[str, EngineCost], config: CostConfig, notes: list[str]
) -> None:
    for name, lap in laps.items():

        def work(lap: Callable[[], speed.Lap] = lap) -> int:
            return config.prompt_tokens + (config.new_tokens if lap().decode is not None else 0)

        try:
            engines[name].joules_per_token = estimate_energy(work)
        except IntarsiaError as error:
            notes.append(f"Energy: {error}.")
            return
    notes.append("Energy is codecarbon's estimate from load and rated power, over tokens read and written.")


def _summary(found: Cost) -> str:
    parts = []
    for name, bytes_ in found.bytes_on_disk.items():
        cost = found.engines[name]
        rate = cost.decode or cost.prefill
        verb = "writes" if cost.decode else "reads"
        speed_part = f" and {verb} {rate[0]:,.0f} tokens a second" if rate else ""
        parts.append(f"{'in' if parts else 'In'} {name} it takes {bytes_ / 1e6:,.1f} MB{speed_part}")
    return f"{found.parameters / 1e6:,.1f} M parameters. {'; '.join(parts)}."
