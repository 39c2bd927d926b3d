"""How a block is wired, read off the probe: which modules add what to the residual stream.

Three forms cover the transformers there are, with x the block's input, y its output, s a constant scale:
- pre-norm:  mid = x + s*attn (+ s*cross);  y = mid + s*mlp            (Llama, GPT-2, Gemma, T5, CLIP, ...)
- parallel:  y = x + s*attn + s*mlp; there is no mid                   (NeoX, GPT-J, Falcon, Cohere, ...)
- post-norm: mid = norm(x + attn); y = norm(mid + mlp)                 (BERT, RoBERTa, BLIP's text tower, ...)
A form is accepted only when the sums hold on real numbers; what could not be explained is reported, not guessed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from intarsia.sites.names import BLOCK_SITES
from intarsia.sites.probe import ROWS, Call, Probe
from intarsia.sites.taps import Tap
from intarsia.sites.towers import Tower

_ATTENTION = re.compile(r"Attention|Attn|Mixer|SSM|Mamba|ShortConv|GatedDelta|RecurrentBlock|TimeMix")
_CROSS = re.compile(r"cross|encdec|encoder_attn", re.IGNORECASE)


@dataclass
class BlockWiring:
    """Taps of one block by site name, and the reasons for sites that are missing.

    - form: `pre-norm`, `parallel`, `post-norm` or `unknown`.
    - mid_via: in pre-norm blocks, what is between `resid_pre` and `resid_mid`: sites whose sum is the difference, in
      order. `resid_mid` is edited through the last of them.
    - tuple_output: how many things the block returns when that is a tuple with the stream first, else 0.
    - attention: the modules that hold the block's attention, cross-attention after self-attention.
    - tokens: how many tokens the block was given by the probe (in a vision tower: those of a picture of its size)."""

    taps: dict[str, Tap] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    form: str = "unknown"
    mid_via: tuple[str, ...] = ()
    tuple_output: int = 0
    attention: tuple[nn.Module, ...] = ()
    tokens: int = 0


def wire(tower: Tower, index: int, record: Probe) -> BlockWiring:
    """The wiring of block `index` of `tower`."""
    block = tower.blocks[index]
    result = BlockWiring()
    calls = record.calls.get((tower.name, index), [])
    runs = [c for c in calls if c.path == ""]
    whole = runs[0] if runs else None
    reason = ""
    if len(runs) > 1:
        reason = f"{type(block).__name__} runs {len(runs)} times a forward: layers that share it cannot be told apart"
    elif whole is not None and whole.taken is not None and (whole.taken.dim() != 3 or whole.taken.shape[0] % ROWS):
        reason = f"{type(block).__name__} does not work on [batch, token, width]: it is given {list(whole.taken.shape)}"
    if reason:
        result.missing = dict.fromkeys(BLOCK_SITES, reason)
        return result
    result.taps["resid_pre"] = Tap(block, "in")
    result.taps["resid_post"] = Tap(block, "out")
    if whole is None or whole.taken is None or whole.given is None:
        reason = record.error or "the block was not reached by the probe"
        for site in ("resid_mid", "attn_out", "mlp_out", "z", "mlp_act"):
            result.missing[site] = f"wiring unknown: {reason}"
        return result
    result.tuple_output = len(whole.output) if isinstance(whole.output, tuple) else 0
    result.tokens = whole.taken.shape[1]
    inner = sorted((c for c in calls if c.path), key=lambda c: c.order)
    _Wirer(tower, whole, inner, record, result).solve()
    return result


class _Wirer:
    def __init__(self, tower: Tower, whole: Call, inner: list[Call], record: Probe, result: BlockWiring):
        assert whole.taken is not None and whole.given is not None
        self.tower, self.record, self.result = tower, record, result
        # What is called more than once (one dropout after attention and after the MLP) is no place of its own.
        times = Counter(id(c.module) for c in inner)
        self.inner = [c for c in inner if times[id(c.module)] == 1]
        self.x, self.y, self.stream = whole.taken, whole.given, whole.source
        self._tokens = self.x.shape[:-1].numel()
        coarse = self.x.dtype in (torch.bfloat16, torch.float16)
        self.tolerance = 3e-2 if coarse else 2e-4
        roots = _outermost([c.path for c in self.inner if _ATTENTION.search(type(c.module).__name__)])
        self.cross_roots = [p for p in roots if _CROSS.search(p) or _CROSS.search(self._class(p))]
        self.self_roots = [p for p in roots if p not in self.cross_roots]

    def _class(self, path: str) -> str:
        return next(type(c.module).__name__ for c in self.inner if c.path == path)

    # ---- the sums

    def close(self, a: Tensor, b: Tensor) -> bool:
        if a.shape != b.shape:
            return False
        gap = (a.float() - b.float()).abs().max()
        return bool(gap <= self.tolerance * b.float().abs().max().clamp(min=1e-3))

    def streamlike(self, tensor: Tensor | None) -> Tensor | None:
        """`tensor` in the stream's shape, or None when it is something else."""
        if tensor is None or not tensor.is_floating_point() or tensor.numel() != self.x.numel():
            return None
        return tensor.reshape(self.x.shape) if tensor.shape[-1] == self.x.shape[-1] else None

    def contributors(self, roots: list[str], calls: list[Call]) -> list[Call]:
        """Calls that may be what a part adds to the stream: outermost first, one for each distinct tensor; norms that
        are fed by them included (Gemma's sandwich)."""
        inside = [c for c in calls if any(_within(c.path, r) for r in roots) and self.streamlike(c.given) is not None]
        fed = [
            c
            for c in calls
            if _is_norm(c.module) and any(_same(c.source, i.target) for i in inside) and c not in inside
        ]
        ordered = sorted(inside, key=lambda c: (c.path.count("."), -c.order)) + fed
        seen: set[int] = set()
        distinct = []
        for call in ordered:
            assert call.target is not None
            if call.target.data_ptr() not in seen:
                seen.add(call.target.data_ptr())
                distinct.append(call)
        return distinct

    def solve(self) -> None:
        calls = self.inner
        attention = self.contributors(self.self_roots, calls)
        cross = self.contributors(self.cross_roots, calls)
        ours = {c.path for c in (*attention, *cross)}
        in_attention = [*self.self_roots, *self.cross_roots]
        modules = {c.path: c.module for c in calls}
        self.result.attention = tuple(modules[path] for path in in_attention)
        tops = _outermost(
            [c.path for c in calls if not any(_within(c.path, r) or _within(r, c.path) for r in in_attention)]
        )
        rest = [p for p in tops if p not in ours and not self._reads_stream_norm(p)]
        inside_mixed = [  # T5's layer list holds attention and norms side by side under one parent
            c.path for c in calls if any(_within(r, c.path) for r in in_attention) and c.path not in in_attention
        ]
        mlp = self.contributors(rest, calls)
        scales = _scales(self.tower.config)
        if not (self._pre_norm(attention, cross, mlp, scales) or self._post_norm(attention, cross, mlp)):
            reason = (
                f"no modules of {type(self.tower.blocks[0]).__name__} were found whose outputs sum to what the "
                f"stream gained (attention: {self.self_roots or 'none'}, rest: {rest or inside_mixed or 'none'})"
            )
            for site in ("attn_out", "mlp_out", "resid_mid"):
                self.result.missing.setdefault(site, reason)
        self._attention_inside()
        self._mlp_inside(rest)
        self._routers()

    def _reads_stream_norm(self, path: str) -> bool:
        call = next(c for c in self.inner if c.path == path)
        return _is_norm(call.module) and _same(call.source, self.stream)

    def _pre_norm(self, attention: list[Call], cross: list[Call], mlp: list[Call], scales: list[float]) -> bool:
        gained = self.y
        for scale in scales:
            for a in attention or [None]:
                for c in [*cross, None] if cross else [None]:
                    mid = self._plus(self._plus(self.x, a, scale), c, scale)
                    for b in mlp or [None]:
                        if a is None and b is None:
                            continue
                        if self.close(self._plus(mid, b, scale), gained):
                            self._accept_pre_norm(a, c, b, mid, scale)
                            return True
                    # A mixer without an MLP (Mamba): what attention adds is all.
                    if a is not None and mlp and self.close(mid, gained):
                        self._accept_pre_norm(a, c, None, mid, scale)
                        return True
        return False

    def _plus(self, stream: Tensor, call: Call | None, scale: float) -> Tensor:
        if call is None:
            return stream
        added = self.streamlike(call.given)
        assert added is not None
        return stream + scale * added

    def _accept_pre_norm(self, a: Call | None, c: Call | None, b: Call | None, mid: Tensor, scale: float) -> None:
        taps, missing = self.result.taps, self.result.missing
        for site, call in (("attn_out", a), ("cross_out", c), ("mlp_out", b)):
            if call is not None:
                taps[site] = self._out_tap(call, scale)
            elif site != "cross_out":
                missing[site] = "this block has no attention" if site == "attn_out" else "this block has no MLP"
        readers = [k for k in self.inner if (t := self.streamlike(k.taken)) is not None and self.close(t, mid)]
        readers = [k for k in readers if a is None or k.order > a.order]
        if a is not None and b is not None and not readers:
            self.result.form = "parallel"
            missing["resid_mid"] = "attention and MLP run in parallel here: there is no stream between them"
        elif a is not None and b is not None:
            self.result.form = "pre-norm"
            first = min(readers, key=lambda k: (not _is_norm(k.module), k.order))
            taps["resid_mid"] = Tap(first.module, "in", layout=_layout(first.taken, self.x))
            self.result.mid_via = ("attn_out", "cross_out") if c is not None else ("attn_out",)
        else:
            self.result.form = "pre-norm"
            missing["resid_mid"] = "this block has only one part, so there is no middle"
        norms = [k for k in self.inner if _is_norm(k.module) and k.taken is not None and k.given is not None]
        reading_x = [k for k in norms if (t := self.streamlike(k.taken)) is not None and self.close(t, self.x)]
        if reading_x and a is not None:
            taps["attn_in"] = Tap(reading_x[0].module, "out", layout=_layout(reading_x[0].given, self.x))
        reading_mid = [k for k in readers if _is_norm(k.module)]
        second = reading_mid[0] if reading_mid else (reading_x[1] if len(reading_x) > 1 else None)
        if second is not None and b is not None and self.result.form != "unknown":
            taps["mlp_in"] = Tap(second.module, "out", layout=_layout(second.given, self.x))

    def _post_norm(self, attention: list[Call], cross: list[Call], mlp: list[Call]) -> bool:
        norms = [k for k in self.inner if _is_norm(k.module) and self.streamlike(k.taken) is not None]

        def after(stream: Tensor, options: list[Call]) -> tuple[Call, Call] | None:
            for option in options:
                total = self._plus(stream, option, 1.0)
                for norm in norms:
                    if norm.order > option.order and self.close(self.streamlike(norm.taken), total):  # type: ignore[arg-type]
                        return option, norm
            return None

        attended = after(self.x, attention)
        if attended is None:
            return False
        mid_norm = attended[1]
        crossed = after(mid_norm.given, cross) if cross else None  # type: ignore[arg-type]
        if crossed is not None:
            mid_norm = crossed[1]
        last = after(mid_norm.given, mlp)  # type: ignore[arg-type]
        if last is None or not self.close(last[1].given, self.y):  # type: ignore[arg-type]
            return False
        taps = self.result.taps
        self.result.form = "post-norm"
        taps["attn_out"] = self._out_tap(attended[0], 1.0)
        if crossed is not None:
            taps["cross_out"] = self._out_tap(crossed[0], 1.0)
        taps["mlp_out"] = self._out_tap(last[0], 1.0)
        taps["resid_mid"] = Tap(mid_norm.module, "out")
        return True

    def _out_tap(self, call: Call, scale: float) -> Tap:
        return Tap(call.module, "out", layout=_layout(call.given, self.x), scale=scale)

    # ---- inside the parts

    def _attention_inside(self) -> None:
        result, seen = self.result, self.record.attention_seen
        modules = {c.path: c.module for c in self.inner}
        core = next(
            (m for p, m in modules.items() if m in seen and not any(_within(p, r) for r in self.cross_roots)), None
        )
        heads = seen.get(core) if core is not None else _head_count(self.tower.config)
        linears = self._linears(self.self_roots)
        if linears and heads and linears[-1].taken is not None and linears[-1].taken.shape[-1] % heads == 0:
            result.taps["z"] = Tap(linears[-1].module, "in", layout="split", heads=heads)
        else:
            result.missing["z"] = "no output projection with a width of heads x head width was found"
        for site, layout in (("q", "bhtd"), ("k", "bhtd"), ("v", "bhtd"), ("scores", "bhqk"), ("pattern", "bhqk")):
            if core is not None:
                result.taps[site] = Tap(core, "attention", item=site, layout=layout)  # type: ignore[arg-type]
            else:
                result.missing[site] = "this attention does not go through transformers' attention interface"

    def _mlp_inside(self, roots: list[str]) -> None:
        routed = any(_is_router(c) for c in self.inner)
        linears = self._linears(roots)
        if routed:
            self.result.missing["mlp_act"] = "a mixture of experts has its neurons inside one fused module"
        elif linears and (taken := linears[-1].taken) is not None and taken.shape[:-1].numel() == self._tokens:
            layout = "stream" if taken.shape[:-1] == self.x.shape[:-1] else "flat"
            self.result.taps["mlp_act"] = Tap(linears[-1].module, "in", layout=layout)  # type: ignore[arg-type]
        else:
            self.result.missing["mlp_act"] = "no down projection was found"

    def _linears(self, roots: list[str]) -> list[Call]:
        """Calls of linear maps onto the stream's width under `roots`, in order; a LoRA layer counts as one map."""
        found = [
            c
            for c in self.inner
            if any(_within(c.path, r) for r in roots)
            and _is_linear(c.module)
            and c.given is not None
            and c.given.shape[-1] == self.x.shape[-1]
        ]
        return [c for c in found if not any(c is not o and _within(c.path, o.path) for o in found)]

    def _routers(self) -> None:
        for call in self.inner:
            if _is_router(call):
                # The logits are only reported; routing follows the weights and the chosen experts.
                self.result.taps["router"] = Tap(call.module, "out", 0, "flat", writable=False)
                self.result.taps["router_weights"] = Tap(call.module, "out", 1, "flat")
                self.result.taps["router_experts"] = Tap(call.module, "out", 2, "flat")
                return


def final_norm_tap(tower: Tower, record: Probe) -> Tap | None:
    """The norm between the last block and the head, or None (post-norm networks, pooled vision towers)."""
    calls = record.calls.get((tower.name, len(tower.blocks) - 1), [])
    whole = next((c for c in calls if c.path == ""), None)
    if whole is None or whole.given is None:
        return None
    for call in record.after.get(tower.name, []):
        if _is_norm(call.module) and call.taken is not None and call.taken.shape == whole.given.shape:
            return Tap(call.module, "out") if torch.equal(call.taken, whole.given) else None
    return None


def _scales(config: Any) -> list[float]:
    multiplier = getattr(config, "residual_multiplier", None)
    return [1.0] if multiplier in (None, 1.0) else [float(multiplier), 1.0]


def _head_count(config: Any) -> int | None:
    for key in ("num_attention_heads", "num_heads", "n_head"):
        if isinstance(value := getattr(config, key, None), int):
            return value
    return None


def _layout(tensor: Tensor | None, x: Tensor) -> Any:
    return "stream" if tensor is not None and tensor.shape == x.shape else "flat"


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    # An inactive dropout hands on the same memory as another tensor object.
    return a is b or (a is not None and b is not None and a.shape == b.shape and a.data_ptr() == b.data_ptr())


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()


def _is_linear(module: nn.Module) -> bool:
    if hasattr(module, "base_layer"):
        return True
    weight = getattr(module, "weight", None)
    known = isinstance(module, nn.Linear) or type(module).__name__ in ("Conv1D",) or "Linear" in type(module).__name__
    return known or (isinstance(weight, Tensor) and weight.dim() == 2 and hasattr(module, "in_features"))


def _is_router(call: Call) -> bool:
    output = call.output
    if not (isinstance(output, tuple) and len(output) == 3 and all(isinstance(o, Tensor) for o in output)):
        return False
    return output[0].shape[:-1] == output[1].shape[:-1] == output[2].shape[:-1] and not output[2].is_floating_point()


def _within(path: str, root: str) -> bool:
    return path == root or path.startswith(root + ".")


def _outermost(paths: list[str]) -> list[str]:
    return [p for p in dict.fromkeys(paths) if not any(p != o and _within(p, o) for o in paths)]
