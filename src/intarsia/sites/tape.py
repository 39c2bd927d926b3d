"""The tape: hooks on for the length of one call, to read and to edit, and off again whatever happens.

One hook for each module and side that is needed, none for the rest of the network. At a site the edits come first, in
the order given, then the reading: what is read is what the network goes on with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.errors import BadInput
from intarsia.sites.attention import AttentionCall, intercepting
from intarsia.sites.edits import Edit, apply
from intarsia.sites.inputs import Batch
from intarsia.sites.probe import first_tensor
from intarsia.sites.sitemap import SiteMap
from intarsia.sites.taps import Tap
from intarsia.sites.towers import Tower


class Stop(Exception):
    """Raised inside a forward when the last site needed has been read, and caught by whoever started it."""


@dataclass
class Runs:
    """How often a tower has run within the call, the rows and tokens it now runs on, the tokens of its first run."""

    count: int = 0
    rows: int = 0
    tokens: int = 0
    prompt: int = 0


@dataclass
class Tape:
    """What was read so far, and what is still wanted.

    - runs: by tower, what it has run on so far (known when there are edits).
    - versions: of the tensors read, to notice when the network overwrites one."""

    sites: SiteMap
    batch: Batch
    wanted: set[str]
    edits: dict[str, list[Edit]]
    stop: bool = False
    clone: bool = False
    read: dict[str, Tensor] = field(default_factory=dict)
    extras: dict[str, tuple] = field(default_factory=dict)
    runs: dict[str, Runs] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)

    def tower_of(self, site: str) -> Tower:
        prefix = site.rpartition("layers.")[0] if "layers." in site else site.rpartition(".")[0] + "."
        return self.sites.towers.get(prefix.removesuffix("."), self.sites.main)

    def edited(self, edits: Sequence[Edit], shown: Tensor, tower: Tower) -> Tensor:
        """`shown` [batch, token, ...] after the edits; `shown` itself when none of them selects anything."""
        runs = self.runs.get(tower.name, Runs())
        decoding = runs.count > 1  # a step after the prompt was read: counted, never guessed from a shape
        if decoding and shown.shape[1] == runs.tokens > runs.prompt:
            # Generation without a cache reads the prompt again at each step, so it is edited again.
            parts = shown[:, : runs.prompt], shown[:, runs.prompt :]
            new = self._apply(edits, parts[0], tower, False), self._apply(edits, parts[1], tower, True)
            return shown if new[0] is parts[0] and new[1] is parts[1] else torch.cat(new, dim=1)
        return self._apply(edits, shown, tower, decoding)

    def _apply(self, edits: Sequence[Edit], shown: Tensor, tower: Tower, decoding: bool) -> Tensor:
        mask = self.batch.mask_for(tower.name, shown.shape[1])
        beams, odd = divmod(shown.shape[0], mask.shape[0])
        if odd:
            beams = 1  # rows that are none of the batch's own
        if decoding or odd:
            mask = mask.new_ones(shown.shape[:2])
        elif beams > 1:
            mask = mask.repeat_interleave(beams, dim=0)
        for edit in edits:
            shown = apply(edit, shown, mask, decoding, beams)
        return shown

    def visit(self, site: str, tap: Tap, raw: Tensor, tower: Tower) -> Tensor:
        """Edit and read one site; returns the raw tensor to go on with."""
        if raw.dim() < 2 + (tap.layout == "stream"):
            return raw  # the module serves another purpose too (a final norm that also norms the pooled token)
        edits = self.edits.get(site, ())
        size = raw.shape[0]
        if tap.layout == "flat":
            size = self.runs[tower.name].rows if tower.name in self.runs else self.batch.size
        if edits:
            old = tap.view(raw, size)
            shown = self.edited(edits, old, tower)
            if shown is not old:
                raw = tap.unview(shown, raw, size)
        if site in self.wanted and site not in self.read:
            shown = tap.view(raw, size)
            shown = shown.clone() if self.clone else shown
            self.read[site] = shown
            self.versions[site] = shown._version
            if shown is not raw and shown.requires_grad and torch.is_grad_enabled():
                # What was read must lie on the way to what follows, or it would have no gradient.
                raw = tap.unview(shown.clone() if self.clone else shown, raw, size)
        return raw

    def finished(self) -> bool:
        return self.stop and len(self.read) == len(self.wanted)

    def changed_in_place(self) -> bool:
        """Whether the network overwrote a tensor after it was read."""
        return any(self.read[s]._version != v for s, v in self.versions.items()) and not self.clone


@contextlib.contextmanager
def recording(
    sites: SiteMap,
    batch: Batch,
    read: list[str] = [],  # noqa: B006 - never changed
    edits: list[Edit] = [],  # noqa: B006
    stop: bool = False,
    clone: bool = False,
) -> Iterator[Tape]:
    """Hooks on inside, off after, also when the body raises. `Stop` is swallowed.

    - read: the sites to read; edits: what to write. `stop` ends the forward when all of `read` is there.
    - clone: read copies, for networks that overwrite their tensors."""
    by_site: dict[str, list[Edit]] = {}
    for edit in edits:
        for name in sites.expand(edit.site):
            if not sites.taps[name].writable:
                raise BadInput(f"site '{name}' can only be read: edit router_weights or router_experts instead")
            by_site.setdefault(name, []).append(edit)
    tape = Tape(sites, batch, set(read), by_site, stop, clone)
    handles: list[Any] = []
    with sites.lock:
        try:
            with intercepting(_install(tape, handles)), contextlib.suppress(Stop):
                yield tape
        finally:
            for handle in handles:
                handle.remove()


def _install(tape: Tape, handles: list[Any]) -> dict[nn.Module, Any]:
    ins: dict[nn.Module, list[str]] = {}
    outs: dict[nn.Module, list[str]] = {}
    inner: dict[nn.Module, list[str]] = {}
    through: list[str] = []
    for site in sorted({*tape.wanted, *tape.edits}, key=tape.sites.order.__getitem__):
        tap = tape.sites.taps[site]
        if site.endswith(".resid_mid") and site in tape.edits and tap.kind == "in":
            through.append(site)
            if site not in tape.wanted:
                continue
        group = {"in": ins, "out": outs, "attention": inner}.get(tap.kind)
        if group is not None:
            group.setdefault(tap.module, []).append(site)

    if tape.edits:
        for tower in {t.name: t for t in map(tape.tower_of, tape.edits)}.values():
            if f"{tower.prefix}embed" not in tape.sites:
                continue  # its blocks are no layers: how often they run says nothing
            handles.append(tower.blocks[0].register_forward_pre_hook(_counter(tape, tower), with_kwargs=True))
    # A resid_mid edit needs the stream before the block as it was edited, so its stash comes after the edits.
    for module, names in ins.items():
        handles.append(module.register_forward_pre_hook(_on_input(tape, names), with_kwargs=True))
    for site in through:
        _write_mid(tape, site, handles)
    # First in line: transformers' own capturing hooks (LLaVA's middle layer) must see what was edited. Later ones go
    # before earlier ones, so what attention adds is edited before the middle of the block is.
    for module, names in outs.items():
        handles.append(module.register_forward_hook(_on_output(tape, names), with_kwargs=True, prepend=True))
    _keep_extras(tape, handles)
    if "logits" in tape.wanted or "logits" in tape.edits:
        head = tape.sites.main.head_root
        handles.append(head.register_forward_hook(_on_logits(tape)))  # type: ignore[union-attr]
    return {module: _on_attention(tape, names) for module, names in inner.items()}


def _counter(tape: Tape, tower: Tower) -> Any:
    def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
        runs = tape.runs.setdefault(tower.name, Runs())
        runs.count += 1
        runs.rows, runs.tokens = first_tensor(args, kwargs).shape[:2]  # type: ignore[union-attr]
        runs.prompt = runs.prompt or runs.tokens

    return hook


def _on_input(tape: Tape, names: list[str]) -> Any:
    taps = [(name, tape.sites.taps[name], tape.tower_of(name)) for name in names]

    def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
        raw = old = first_tensor(args, kwargs)
        for name, tap, tower in taps:
            raw = tape.visit(name, tap, raw, tower)  # type: ignore[arg-type]
        if tape.finished():
            raise Stop
        return None if raw is old else tap.put_input(raw, args, kwargs)  # type: ignore[arg-type]

    return hook


def _on_output(tape: Tape, names: list[str]) -> Any:
    taps = [(name, tape.sites.taps[name], tape.tower_of(name)) for name in names]

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any) -> Any:
        result = output
        for name, tap, tower in taps:
            raw = tap.raw(args, kwargs, result)
            new = tape.visit(name, tap, raw, tower)
            if new is not raw:
                result = tap.put_output(new, result)
        if tape.finished():
            raise Stop
        return None if result is output else result

    return hook


def _on_attention(tape: Tape, names: list[str]) -> Any:
    taps = [(name, tape.sites.taps[name], tape.tower_of(name)) for name in names]

    def handler(call: AttentionCall) -> None:
        for name, tap, tower in taps:
            raw = getattr(call, str(tap.item))
            new = tape.visit(name, tap, raw, tower)
            # An edit that changes nothing must not change the kernel; but a gradient has to pass through what is read.
            if new is not raw and ((new.requires_grad and torch.is_grad_enabled()) or not new.equal(raw)):
                setattr(call, str(tap.item), new)
        if tape.finished():
            raise Stop

    return handler


def _on_logits(tape: Tape) -> Any:
    tap = tape.sites.taps["logits"]

    def hook(module: nn.Module, args: tuple, output: Any) -> Any:
        raw = output.logits
        new = tape.visit("logits", tap, raw, tape.sites.main)
        if new is not raw:
            output.logits = new
        if tape.finished():
            raise Stop
        return output if new is not raw else None

    return hook


def _write_mid(tape: Tape, site: str, handles: list[Any]) -> None:
    """Edit the stream in the middle of a block through the last part that is added before it."""
    prefix = site.removesuffix("resid_mid")
    tower, index = tape.sites.block(prefix.removesuffix("."))
    via = tape.sites.wiring[tower.name][index].mid_via
    stash: dict[str, Tensor] = {}
    edits = tape.edits.pop(site)
    reader = Tape(tape.sites, tape.batch, set(), {site: edits}, runs=tape.runs)

    def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
        stash["stream"] = first_tensor(args, kwargs)  # type: ignore[assignment]

    handles.append(tower.blocks[index].register_forward_pre_hook(before, with_kwargs=True))
    for part in via:
        tap = tape.sites.taps[prefix + part]

        def hook(module: nn.Module, args: tuple, kwargs: dict, output: Any, tap: Tap = tap, part: str = part) -> Any:
            raw = tap.raw(args, kwargs, output)
            added = tap.view(raw, raw.shape[0])
            middle = stash["stream"] + added
            if part != via[-1]:
                stash["stream"] = middle
                return None
            new = reader.visit(site, Tap(tap.module, "out"), middle, tower)
            if new is middle:
                return None
            # Only the difference is added, so that what did not change stays bit for bit what it was.
            return tap.put_output(tap.unview(added + (new - middle), raw, raw.shape[0]), output)

        handles.append(tap.module.register_forward_hook(hook, with_kwargs=True, prepend=True))


def _keep_extras(tape: Tape, handles: list[Any]) -> None:
    """Keep what tuple-returning blocks give beside the stream: a later `resume` has to hand it on."""
    for name, tower in tape.sites.towers.items():
        if not any(w.tuple_output for w in tape.sites.wiring[name]) or not tape.wanted:
            continue
        for index, block in enumerate(tower.blocks):

            def hook(module: nn.Module, args: tuple, output: Any, key: str = f"{tower.prefix}layers.{index}") -> None:
                if isinstance(output, tuple):
                    tape.extras[key] = output[1:]

            # First in line, before a reading hook may stop the forward.
            handles.append(block.register_forward_hook(hook, prepend=True))
