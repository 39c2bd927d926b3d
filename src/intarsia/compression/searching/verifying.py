"""A composition in the engines that hold it: bytes on disk, the same answers, and speed against the base in turns."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from intarsia.compression.searching.anatomy import Anatomy
from intarsia.compression.searching.judging import Judge, engine_logits, network_logits, read_text
from intarsia.compression.searching.stores import Grids, Store
from intarsia.errors import IntarsiaError, Note
from intarsia.measure import size, speed
from intarsia.measure.energy import energy_in_turns
from intarsia.measure.memory import peak_memory
from intarsia.models.runtime import open_runtime

if TYPE_CHECKING:
    from intarsia.compression.searching.technique import FitConfig
    from intarsia.models import Model

SAME = 0.9  # share of places where an engine's first choice has to be the network's
AGREED_ON = 512  # tokens
Facts = dict[str, Any]


class Verifier:
    """- base: what speeds are held against. most: bytes above which no file is written. metrics: what is bounded."""

    def __init__(
        self, base: Model, judge: Judge, stores: Sequence[Store], config: FitConfig, most: float, metrics: set[str]
    ):
        self.base, self.judge, self.stores, self.config = base, judge, stores, config
        self.most, self.metrics = most, metrics

    def __call__(self, model: Model, shape: Anatomy, grids: Grids, wanted: str, folder: Path) -> Facts:
        """Save a model with its files in `folder`, run it in every engine that holds its codes, and choose one.

        - shape: of its network, and grids of its layers, by name. wanted: the engine whose file it was made for.

        The quickest engine at writing is chosen, of those that give the network's answers within the bytes allowed."""
        engines = self._exported(model, shape, grids, wanted, folder)
        runtimes, notes = self._opened(folder, engines)
        agreement = {name: self._agreement(model, runtime) for name, runtime in runtimes.items()}
        for name, share in list(agreement.items()):
            if share < SAME:
                notes.append(f"{name} agrees with the network on {share:.0%} of tokens only")
                del runtimes[name]
        laps: dict[str, Callable[[], speed.Lap]] = {}
        tokens = self.config.prompt_tokens, self.config.new_tokens
        for name, runtime in runtimes.items():
            laps[name] = speed.runtime_lap(runtime, *tokens)
        if not laps:  # no engine is left that gives the network's answers: the network itself does
            engines["torch"] = size.weight_bytes(folder)
        if "torch" in engines and (wanted == "torch" or not laps):
            laps["torch"] = speed.torch_lap(model, *tokens)
        taken = speed.take_turns({"base": speed.torch_lap(self.base, *tokens), **laps}, self.config.repeats)
        rates = {name: self._rates(taken[name], taken["base"]) for name in laps}
        chosen = max(rates, key=lambda name: rates[name]["values"].get("decode", 0.0))
        judged = self.judge(
            model, self.config.quality_tokens, engine_logits(runtimes[chosen]) if chosen in runtimes else None,
            f"judging in {chosen}",
        )  # fmt: skip
        loss, count = self.judge.loss(self.config.quality_tokens)
        values, ratios = dict(rates[chosen]["values"]), dict(rates[chosen]["ratios"])
        values |= {
            "bytes": engines[chosen], "params": size.count_parameters(model.network)[0], "kl": judged.kl,
            "ppl": judged.ppl,
        }  # fmt: skip
        ratios["quality"] = values["quality"] = float(
            torch.tensor((loss - judged.loss) / count, dtype=torch.float64).exp()
        )
        ratios["ppl"] = 1 / ratios["quality"]
        ratios["bytes"] = values["bytes"] / size.tensor_bytes(self.base.network)
        ratios["params"] = values["params"] / size.count_parameters(self.base.network)[0]
        self._cost(model, chosen, folder, laps, values, ratios, notes)
        return {
            "engine": chosen, "engines": {n: rates[n] | {"bytes": engines[n]} for n in rates}, "values": values,
            "ratios": ratios, "agreement": agreement.get(chosen, 1.0), "same": judged.agreement, "tokens": count,
            "notes": notes,
        }  # fmt: skip

    def _exported(self, model: Model, shape: Anatomy, grids: Grids, wanted: str, folder: Path) -> dict[str, int]:
        """Write the files; bytes by engine."""
        exports: dict[str, Path] = {}
        held = []
        for store in self.stores:
            if store.name == "torch" or not store.holds(grids, shape):
                continue
            if store.name != wanted and store.bytes(shape, grids) > self.most:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Note)  # each was told of this file before
                made = store.export(model)
            exports |= made.exports
            held.append(made)  # its folder lasts as long as it does
        model.exports = exports
        model.save(folder, force=True)
        found = {name: size.weight_bytes(folder / "export" / name) for name in exports}
        if wanted == "torch" or not found:
            found["torch"] = size.weight_bytes(folder)
        return found

    def _opened(self, folder: Path, engines: dict[str, int]) -> tuple[dict[str, Any], list[str]]:
        found, notes = {}, []
        for name in engines:
            if name != "torch":
                try:
                    found[name] = open_runtime(folder / "export" / name, torch.get_num_threads())
                except IntarsiaError as error:
                    notes.append(f"{name}: {error}")
        return found, notes

    def _agreement(self, model: Model, runtime: Any) -> float:
        """Share of places of the text where an engine's first choice is the network's."""
        same = places = 0
        for n in self.judge.pieces(AGREED_ON):
            ids = read_text(model, self.judge.texts[n]).ids
            ours, theirs = network_logits(model)(ids), engine_logits(runtime)(ids)
            same += int((ours.argmax(-1) == theirs.argmax(-1)).sum())
            places += len(ids)
        return same / places

    def _rates(self, own: Sequence[speed.Lap], base: Sequence[speed.Lap]) -> dict[str, dict[str, float]]:
        """Medians of the rounds, and of their ratios to the base's of the same round."""

        def answer(lap: speed.Lap) -> float | None:
            if not lap.decode:
                return None
            return self.config.prompt_tokens / lap.prefill + self.config.new_tokens / lap.decode

        def both(read: Callable[[speed.Lap], float | None]) -> tuple[float, float] | None:
            pairs = [(a, b) for lap, other in zip(own, base, strict=True) if (a := read(lap)) and (b := read(other))]
            if not pairs:
                return None
            return speed.spread([a for a, _ in pairs])[0], speed.spread([a / b for a, b in pairs])[0]

        found = {"prefill": both(lambda lap: lap.prefill), "decode": both(lambda lap: lap.decode),
                 "latency": both(answer)}  # fmt: skip
        return {
            "values": {name: pair[0] for name, pair in found.items() if pair},
            "ratios": {name: pair[1] for name, pair in found.items() if pair},
        }

    def _cost(
        self, model: Model, engine: str, folder: Path, laps: dict[str, Callable[[], speed.Lap]],
        values: dict[str, float], ratios: dict[str, float], notes: list[str],
    ) -> None:  # fmt: skip
        """Memory and energy, where the budget asks for them."""
        tokens = self.config.prompt_tokens, self.config.new_tokens
        if "ram" in self.metrics:
            place = folder if engine == "torch" else folder / "export" / engine
            values["ram"] = peak_memory(place, engine, *tokens, torch.get_num_threads())
            if base := self.base_memory(folder):
                ratios["ram"] = values["ram"] / base
        if "energy" in self.metrics:
            both = {"own": laps[engine], "base": speed.torch_lap(self.base, *tokens)}
            joules = energy_in_turns(both, sum(tokens))
            values["energy"] = speed.spread(joules["own"])[0]
            ratios["energy"] = speed.spread([a / b for a, b in zip(joules["own"], joules["base"], strict=True)])[0]

    def base_memory(self, folder: Path) -> int:
        """Of the base, saved for it where it has no folder of its own."""
        with tempfile.TemporaryDirectory(prefix="intarsia-fit-", dir=folder.parent) as scratch:
            place = self.base.save(Path(scratch) / "base")
            return peak_memory(
                place, "torch", self.config.prompt_tokens, self.config.new_tokens, torch.get_num_threads()
            )
