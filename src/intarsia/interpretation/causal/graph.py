"""A network as a graph: nodes that write to the residual stream and read from it, and runs in which every node reads
its own mixture of clean and corrupt outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.errors import BadInput
from intarsia.interpretation.causal.cells import base_run, below, resumed, site
from intarsia.interpretation.causal.contrast import Contrast
from intarsia.sites import Activations, Apply, Replace, read

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Node:
    """`embed`, `heads` (a head, or all of a layer's), `mlp` or `logits`. `stage`: what has a lower one comes before."""

    kind: str
    layer: int
    stage: int
    heads: tuple[int, ...] = ()
    name: str = ""


class Graph:
    """The nodes of a model under a contrast, and its clean and corrupt run."""

    def __init__(self, made: Contrast, who: str):
        self.made, self.model = made, made.model
        sites = self.model.sites
        forms = {wiring.form for wiring in sites.wiring[sites.main.name]}
        if len(forms) != 1 or not forms <= {"pre-norm", "parallel"}:
            raise BadInput(
                f"{who}: the blocks of {type(self.model.network).__name__} norm the stream between them, or "
                f"differ: it is no "
                "sum of what its parts write; use interpretation.activation_patching"
            )
        self.parallel = forms == {"parallel"}
        self.count = len(sites.blocks)
        kinds = ["z", "attn_out", "mlp_out"]
        self.clean = base_run(self.model, made.clean, kinds)
        self.corrupt = base_run(self.model, made.corrupt, kinds)
        self.nodes = self._nodes()
        self.index = {node: i for i, node in enumerate(self.nodes)}
        self.sources = self.nodes[:-1]
        self.targets = self.nodes[1:]
        stages = torch.tensor([node.stage for node in self.nodes])
        self.allowed = stages[:-1, None] < stages[None, 1:]  # [source, target]

    def at(self, run: Activations, layer: int, kind: str) -> Tensor:
        """One site of a run, [token, ...]."""
        return run[site(self.model, layer, kind)][0]

    def stream(self, run: Activations, layer: int) -> Tensor:
        """What enters a block, [token, width]."""
        return run[below(self.model, layer)][0]

    def _nodes(self) -> list[Node]:
        nodes = [Node("embed", -1, 0, name="embedding")]
        for layer in range(self.count):
            heads = self.at(self.clean, layer, "z").shape[1]
            if self._additive(layer, heads):
                nodes += [Node("heads", layer, 2 * layer + 1, (h,), f"head {layer}.{h}") for h in range(heads)]
            else:
                nodes.append(Node("heads", layer, 2 * layer + 1, tuple(range(heads)), f"attention {layer}"))
            nodes.append(Node("mlp", layer, 2 * layer + (1 if self.parallel else 2), name=f"MLP {layer}"))
        return [*nodes, Node("logits", self.count, 2 * self.count + 1, name="logits")]

    def _additive(self, layer: int, heads: int) -> bool:
        """Whether heads written one by one add up to all written together."""
        groups = [(h,) for h in range(heads)]
        corrupt = self.at(self.corrupt, layer, "z")
        alone = self.written(self.clean, layer, groups, corrupt.expand(heads, *corrupt.shape)).sum(0)
        whole = self.written(self.clean, layer, [tuple(range(heads))], corrupt[None])[0]
        return bool((alone - whole).abs().max() <= 1e-3 * whole.abs().max().clamp(min=1e-6))

    @torch.no_grad()
    def written(self, run: Activations, layer: int, groups: Sequence[tuple[int, ...]], z: Tensor) -> Tensor:
        """What heads add beyond a run when they give z [group, token, head, width] instead, [group, token, width]."""
        name = site(self.model, layer, "attn_out")

        def put(old: Tensor) -> Tensor:
            new = old.clone()
            for row, heads in enumerate(groups):
                new[row, :, list(heads)] = z[row, :, list(heads)].to(new)
            return new

        edit = Apply(site(self.model, layer, "z"), function=put)
        return resumed(self.model, run, layer, [0] * len(groups), [edit], at=name)[name] - run[name]

    def heads_read(self, run: Activations, layer: int, streams: Tensor, grad: bool = False) -> Tensor:
        """z [row, token, head, width] of a layer's heads on other streams [row, token, width]."""
        name = site(self.model, layer, "z")
        return resumed(self.model, run, layer, [0] * len(streams), state=streams, at=name, grad=grad)[name]

    def mlp_read(self, run: Activations, layer: int, streams: Tensor, grad: bool = False) -> Tensor:
        """What an MLP adds [row, token, width] when it reads other streams [row, token, width]."""
        name, rows = site(self.model, layer, "mlp_out"), [0] * len(streams)
        if self.parallel:
            return resumed(self.model, run, layer, rows, state=streams, at=name, grad=grad)[name]
        edit = Replace(site(self.model, layer, "resid_mid"), value=streams)
        return resumed(self.model, run, layer, rows, [edit], at=name, grad=grad)[name]

    def read_by(self, run: Activations, node: Node) -> Tensor:
        """The stream that a node reads in a run, [token, width]."""
        stream = self.stream(run, node.layer)
        if node.kind == "mlp" and not self.parallel:
            stream = stream + self.at(run, node.layer, "attn_out")
        return stream

    @torch.no_grad()
    def differences(self) -> Tensor:
        """Corrupt minus clean output of every source, [source, token, width]."""
        parts = [(self.stream(self.corrupt, 0) - self.stream(self.clean, 0))[None]]
        for layer in range(self.count):
            groups = [n.heads for n in self.sources if n.kind == "heads" and n.layer == layer]
            z = self.at(self.corrupt, layer, "z")
            parts.append(self.written(self.clean, layer, groups, z.expand(len(groups), *z.shape)))
            parts.append((self.at(self.corrupt, layer, "mlp_out") - self.at(self.clean, layer, "mlp_out"))[None])
        return torch.cat(parts)

    def slopes(self) -> Tensor:
        """Gradient of the metric by what every target reads, at the clean run, [target, token, width]."""
        names = [site(self.model, i, kind) for i in range(self.count) for kind in ("z", "mlp_out")]
        final = below(self.model, self.count)
        acts = read(self.model, self.made.clean, [*names, final, "logits"], grad=True)
        wanted = [acts[name] for name in (*names, final)]
        found = torch.autograd.grad(self.made.scored(acts["logits"])[0], wanted, allow_unused=True)
        slope = {
            name: torch.zeros_like(value) if g is None else g
            for name, value, g in zip((*names, final), wanted, found, strict=True)
        }
        parts = []
        for layer in range(self.count):
            groups = [n.heads for n in self.sources if n.kind == "heads" and n.layer == layer]
            leaf = self.stream(self.clean, layer).expand(len(groups), -1, -1).clone().requires_grad_(True)
            z, by_z = self.heads_read(self.clean, layer, leaf, grad=True), slope[site(self.model, layer, "z")][0]
            total = sum((z[row][:, list(h)] * by_z[:, list(h)]).sum() for row, h in enumerate(groups))
            parts.append(torch.autograd.grad(total, leaf)[0])
            node = next(n for n in self.nodes if n.kind == "mlp" and n.layer == layer)
            leaf = self.read_by(self.clean, node)[None].clone().requires_grad_(True)
            added = self.mlp_read(self.clean, layer, leaf, grad=True)
            by_mlp = slope[site(self.model, layer, "mlp_out")]
            parts.append(torch.autograd.grad((added * by_mlp).sum(), leaf)[0])
        return torch.cat([*parts, slope[final]]).detach()

    @torch.no_grad()
    def metric_of(self, edges: Tensor) -> float:
        """The metric when edges [source, target] carry what their sources give, and all others corrupt values."""
        # Beyond the corrupt run; a node that reads nothing but corrupt values gives corrupt values.
        beyond: dict[int, Tensor] = {0: self.stream(self.clean, 0) - self.stream(self.corrupt, 0)}

        def stream_of(node: Node) -> Tensor | None:
            from_ = [s for s in edges[:, self.index[node] - 1].nonzero()[:, 0].tolist() if s in beyond]
            if not from_:
                return None
            return self.read_by(self.corrupt, node) + torch.stack([beyond[s] for s in from_]).sum(0)

        for layer in range(self.count):
            here = [n for n in self.sources if n.layer == layer]
            ready = [(n, s) for n in here if n.kind == "heads" and (s := stream_of(n)) is not None]
            if ready:
                z = self.heads_read(self.corrupt, layer, torch.stack([s for _, s in ready]))
                for (node, _), part in zip(
                    ready, self.written(self.corrupt, layer, [n.heads for n, _ in ready], z), strict=True
                ):
                    beyond[self.index[node]] = part
            node = here[-1]
            if (stream := stream_of(node)) is not None:
                added = self.mlp_read(self.corrupt, layer, stream[None])[0]
                beyond[self.index[node]] = added - self.at(self.corrupt, layer, "mlp_out")
        final = stream_of(self.nodes[-1])
        final = self.stream(self.corrupt, self.count) if final is None else final
        return self._score(final)

    @torch.no_grad()
    def metric_without(self, source: int, target: int, difference: Tensor) -> float:
        """The metric of the clean run when one edge carries its source's corrupt output; all above follows."""
        node = self.targets[target]
        stream = self.read_by(self.clean, node) + difference
        if node.kind == "logits":
            return self._score(stream)
        if node.kind == "mlp":
            edit = Replace(
                site(self.model, node.layer, "mlp_out"), value=self.mlp_read(self.clean, node.layer, stream[None])
            )
        else:
            z = self.heads_read(self.clean, node.layer, stream[None])
            edit = Replace(site(self.model, node.layer, "z"), value=z, heads=node.heads)  # type: ignore[assignment]
        return float(self.made.scored(resumed(self.model, self.clean, node.layer, [0], [edit], **self.made.keep))[0])

    def _score(self, final: Tensor) -> float:
        output = resumed(self.model, self.clean, self.count, [0], state=final[None], **self.made.keep)
        return float(self.made.scored(output)[0])
