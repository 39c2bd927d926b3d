"""The site map: every place of a network that can be read or edited, derived from the network and proved on it."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import nn

from intarsia.errors import BadInput, did_you_mean
from intarsia.sites.names import BLOCK_SITES, MEANINGS, expand
from intarsia.sites.probe import probe
from intarsia.sites.taps import Tap
from intarsia.sites.towers import Tower, find_towers
from intarsia.sites.wiring import BlockWiring, final_norm_tap, wire

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass
class SiteMap:
    """The sites of one network. Prints as a tree.

    - towers: its stacks of blocks by name (`""` when there is only one).
    - wiring: per tower, each block's taps and form.
    - taps: site name -> how to reach it.
    - disabled: site name -> why it cannot be used here.
    - lock: held while the engine has hooks on the network, for these would see the forwards of other threads too."""

    network: nn.Module = field(repr=False)
    towers: dict[str, Tower]
    wiring: dict[str, list[BlockWiring]] = field(repr=False)
    taps: dict[str, Tap] = field(repr=False)
    disabled: dict[str, str] = field(repr=False)
    note: str = ""
    lock: Any = field(default_factory=threading.RLock, repr=False, compare=False)
    _expanded: dict[tuple[str, ...], list[str]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def main(self) -> Tower:
        """The tower that carries the text stream: the only one, else `decoder`, `text`, or the last."""
        for name in ("", "decoder", "text"):
            if name in self.towers:
                return self.towers[name]
        return list(self.towers.values())[-1]

    @property
    def blocks(self) -> tuple[nn.Module, ...]:
        """The main tower's blocks."""
        return self.main.blocks

    def block(self, name: str | int) -> tuple[Tower, int]:
        """Tower and index of `layers.7`, `vision.layers.-1`, or of a number (in the main tower)."""
        text = f"{self.main.prefix}layers.{name}" if isinstance(name, int) else name
        site = expand(f"{text}.resid_post", self._counts, [*self.taps, *self.disabled])
        prefix, _, rest = site[0].rpartition("layers.")
        if len(site) != 1:
            raise BadInput(f"'{name}' names {len(site)} blocks, one is wanted")
        return self.towers[prefix.removesuffix(".")], int(rest.split(".")[0])

    @property
    def patterns(self) -> list[str]:
        """One pattern for each kind of site there is: `layers.*.resid_post`, ..."""
        seen: dict[str, None] = {}
        for name in self.taps:
            parts = name.split(".")
            seen["*".join(_split_index(parts))] = None
        return list(seen)

    @cached_property
    def order(self) -> dict[str, int]:
        """Site name -> its place in `taps`: the order in which a forward comes by."""
        return {name: i for i, name in enumerate(self.taps)}

    @property
    def _counts(self) -> dict[str, int]:
        return {name: len(tower.blocks) for name, tower in self.towers.items()}

    def expand(self, patterns: str | list[str] | tuple[str, ...]) -> list[str]:
        """The site names that a pattern or several select, without repetition.

        Raises `BadInput`: an unknown site (with the nearest names), or one that is disabled here (with the reason)."""
        patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        if patterns not in self._expanded:
            self._expanded[patterns] = self._expand(patterns)
        return list(self._expanded[patterns])

    def _expand(self, patterns: tuple[str, ...]) -> list[str]:
        names: dict[str, None] = {}
        for pattern in patterns:
            for name in expand(self._long(pattern), self._counts, [*self.taps, *self.disabled]):
                if name in self.disabled and "*" not in pattern and ":" not in pattern:
                    raise BadInput(f"site '{name}' is not available: {self.disabled[name]}")
                if name in self.taps:
                    names[name] = None
            if not names:
                name = expand(self._long(pattern), self._counts, self.disabled)[0]
                raise BadInput(f"site '{pattern}' is not available: {self.disabled[name]}")
        return list(names)

    def _long(self, pattern: str) -> str:
        """In a composite network a bare `layers...` means the main tower."""
        if "" not in self.towers and (pattern.startswith("layers.") or pattern in ("embed", "final_norm")):
            return self.main.prefix + pattern
        return pattern

    def tap(self, name: str) -> Tap:
        """How to reach one site, by its full name."""
        if name not in self.taps:
            raise BadInput(f"no site '{name}'{did_you_mean(name, self.taps)}")
        return self.taps[name]

    def __contains__(self, name: str) -> bool:
        return name in self.taps

    def __iter__(self) -> Any:
        return iter(self.taps)

    def __len__(self) -> int:
        return len(self.taps)

    def __str__(self) -> str:
        lines = [f"{type(self.network).__name__}: {len(self.taps)} sites" + (f" ({self.note})" if self.note else "")]
        for name, tower in self.towers.items():
            forms = sorted({w.form for w in self.wiring[name]})
            kind = type(tower.blocks[0]).__name__
            lines.append(f"{name or 'network'}  {len(tower.blocks)} x {kind}, width {tower.width}, {'/'.join(forms)}")
            if f"{tower.prefix}embed" in self.taps:
                lines.append(f"  {tower.prefix}embed")
            for site in BLOCK_SITES:
                have = [i for i, w in enumerate(self.wiring[name]) if site in w.taps]
                if have:
                    lines.append(f"  {tower.prefix}layers.{_ranges(have)}.{site:<15} {MEANINGS[site]}")
            if f"{tower.prefix}final_norm" in self.taps:
                lines.append(f"  {tower.prefix}final_norm")
        if "logits" in self.taps:
            lines.append("logits")
        reasons: dict[str, list[str]] = {}
        for name, reason in self.disabled.items():
            reasons.setdefault(reason, []).append(name)
        lines += [f"not here: {_shorten(names)} - {reason}" for reason, names in reasons.items()]
        return "\n".join(lines)


def _split_index(parts: list[str]) -> list[str]:
    if "layers" not in parts:
        return [".".join(parts)]
    at = parts.index("layers")
    return [".".join(parts[: at + 1]) + ".", "." + ".".join(parts[at + 2 :])]


def _ranges(indices: list[int]) -> str:
    whole = list(range(indices[0], indices[-1] + 1)) == indices
    if whole:
        return str(indices[0]) if len(indices) == 1 else f"{indices[0]}..{indices[-1]}"
    return ",".join(map(str, indices))


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f", ... ({len(names)} sites)" if len(names) > 4 else "")


_maps: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[int, ...], SiteMap]] = weakref.WeakKeyDictionary()
_deriving = threading.RLock()


def site_map(network: nn.Module) -> SiteMap:
    """The site map of a transformers network, made on first use and again when its modules have changed.

    Raises `BadInput` when no stack of blocks is found, or the network is compiled."""
    signature = _signature(network)
    kept = _maps.get(network)
    if kept is None or kept[0] != signature:
        with _deriving:
            kept = _maps.get(network)
            if kept is None or kept[0] != signature:
                kept = _maps[network] = (signature, _derive(network))
    return kept[1]


def _signature(network: nn.Module) -> tuple[int, ...]:
    """The identities of all modules. `Module.modules` would also make their names, which takes several times as long,
    and every call of the engine comes by here."""
    found = [network]
    seen = set()
    for module in found:  # grows as it is walked
        if module._modules and id(module) not in seen:
            seen.add(id(module))
            found.extend(m for m in module._modules.values() if m is not None)
    return tuple(map(id, found))


def of(model: Model | nn.Module) -> SiteMap:
    """The site map of a `Model` or of a bare network."""
    return site_map(model if isinstance(model, nn.Module) else model.network)


def _derive(network: nn.Module) -> SiteMap:
    if type(network).__name__ == "OptimizedModule" or any(
        getattr(m, "_compiled_call_impl", None) is not None for m in network.modules()
    ):
        raise BadInput("this network is compiled (torch.compile): hooks may be ignored there; give the plain network")
    towers = find_towers(network)
    record = probe(network, towers)
    taps: dict[str, Tap] = {}
    disabled: dict[str, str] = {}
    wiring: dict[str, list[BlockWiring]] = {}
    for tower in towers:
        blocks = wiring[tower.name] = [wire(tower, i, record) for i in range(len(tower.blocks))]
        if "resid_pre" in blocks[0].taps:
            taps[f"{tower.prefix}embed"] = Tap(tower.blocks[0], "in")
        else:
            disabled[f"{tower.prefix}embed"] = blocks[0].missing["resid_pre"]
        for index, block in enumerate(blocks):
            for site in BLOCK_SITES:
                name = f"{tower.prefix}layers.{index}.{site}"
                if site in block.taps:
                    taps[name] = block.taps[site]
                elif site in block.missing:
                    disabled[name] = block.missing[site]
        if "resid_post" in blocks[-1].taps and (norm := final_norm_tap(tower, record)) is not None:
            taps[f"{tower.prefix}final_norm"] = norm
    if any(tower.head_root is not None for tower in towers):
        taps["logits"] = Tap(network, "network", item="logits")
    note = f"wiring not proved, the probe failed: {record.error}" if record.error else ""
    return SiteMap(network, {t.name: t for t in towers}, wiring, taps, disabled, note)
