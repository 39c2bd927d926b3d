"""The peers, each in its own documented way of working, on a twin of the network that shares its weights.

Peers exchange forwards, wrap modules and change configs; on a twin that touches nothing else that is timed."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Reading = tuple[list[Tensor], Tensor]


def twin(network: nn.Module) -> nn.Module:
    """The same network in other modules: parameters and buffers are shared, modules, hooks and config are not."""
    shared: dict[int, Any] = {id(t): t for t in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, memo=shared)


class Peer(Protocol):
    def read(self, inputs: dict[str, Tensor]) -> Reading:
        """What every block gave, and the logits."""

    def patch(self, inputs: dict[str, Tensor], layer: int, position: int, state: Tensor) -> Tensor:
        """Logits with one state written after one block."""


class NNsight:
    def __init__(self, network: nn.Module, tokenizer: Any):
        import nnsight

        self.nnsight, self.model = nnsight, nnsight.TransformersModel(twin(network), tokenizer=tokenizer)

    def read(self, inputs: dict[str, Tensor]) -> Reading:
        with torch.no_grad(), self.model.trace(inputs):
            got = self.nnsight.save([])
            for block in self.model.model.layers:
                got.append(block.output)
            logits = self.model.lm_head.output.save()
        return list(got), logits

    def patch(self, inputs: dict[str, Tensor], layer: int, position: int, state: Tensor) -> Tensor:
        with torch.no_grad(), self.model.trace(inputs):
            self.model.model.layers[layer].output[:, position] = state
            logits = self.model.lm_head.output.save()
        return logits

    def state(self, inputs: dict[str, Tensor], layer: int, position: int) -> Tensor:
        with torch.no_grad(), self.model.trace(inputs):
            kept = self.model.model.layers[layer].output[0, position].save()
        return kept


class TransformerLens:
    """The bridge as it comes: it switches the network it is given to eager attention."""

    attention: str | None = None

    def __init__(self, network: nn.Module, tokenizer: Any):
        from transformer_lens.model_bridge import TransformerBridge

        own = twin(network)
        # The path only tells the bridge which architecture it is; nothing is fetched for a network that is given.
        self.bridge = TransformerBridge.boot_transformers(
            "HuggingFaceTB/SmolLM2-135M-Instruct", hf_model=own, tokenizer=tokenizer
        )
        if self.attention is not None:
            own.set_attn_implementation(self.attention)
        self.depth = len(network.model.layers)  # type: ignore[arg-type,union-attr]
        self.names = {f"blocks.{i}.hook_out" for i in range(self.depth)}

    def read(self, inputs: dict[str, Tensor]) -> Reading:
        with torch.no_grad():
            logits, cache = self.bridge.run_with_cache(inputs["input_ids"], names_filter=self.names.__contains__)
        return [cache[f"blocks.{i}.hook_out"] for i in range(self.depth)], logits

    def patch(self, inputs: dict[str, Tensor], layer: int, position: int, state: Tensor) -> Tensor:
        def write(stream: Tensor, hook: Any) -> Tensor:
            stream = stream.clone()
            stream[:, position] = state
            return stream

        with torch.no_grad():
            return self.bridge.run_with_hooks(inputs["input_ids"], fwd_hooks=[(f"blocks.{layer}.hook_out", write)])


class TransformerLensSdpa(TransformerLens):
    """The bridge with its network asked for the attention that the others use."""

    attention = "sdpa"


class Pyvene:
    def __init__(self, network: nn.Module, tokenizer: Any):
        import pyvene

        self.pyvene, self.network = pyvene, network
        self.width = network.config.hidden_size  # type: ignore[union-attr]
        places = [
            {"layer": i, "component": "block_output", "intervention_type": pyvene.CollectIntervention}
            for i in range(len(network.model.layers))  # type: ignore[arg-type,union-attr]
        ]
        self.reader = self._intervenable(places)
        for intervention in self.reader.interventions.values():
            intervention.keep_last_dim = True  # otherwise several positions are flattened into one and cut off
        self.writers: dict[int, Any] = {}

    def _intervenable(self, places: list[dict[str, Any]]) -> Any:
        return self.pyvene.IntervenableModel(places, twin(self.network))

    def read(self, inputs: dict[str, Tensor]) -> Reading:
        tokens = list(range(inputs["input_ids"].shape[1]))
        with torch.no_grad():
            result = self.reader(inputs, unit_locations={"base": tokens}, return_dict=True)
        batch, count = inputs["input_ids"].shape
        parts = torch.cat([t.reshape(-1, count, self.width) for t in result.collected_activations])
        return list(parts.unflatten(0, (-1, batch))), result.intervened_outputs.logits

    def patch(self, inputs: dict[str, Tensor], layer: int, position: int, state: Tensor) -> Tensor:
        if layer not in self.writers:
            place = {
                "layer": layer, "component": "block_output", "intervention_type": self.pyvene.VanillaIntervention
            }  # fmt: skip
            self.writers[layer] = self._intervenable([place])
        writer = self.writers[layer]
        key = next(iter(writer.interventions))
        with torch.no_grad():
            result = writer(inputs, source_representations={key: state[None]}, unit_locations={"base": position})
        return result[1].logits


PEERS = {
    "nnsight": NNsight,
    "transformer_lens": TransformerLens,
    "transformer_lens_sdpa": TransformerLensSdpa,
    "pyvene": Pyvene,
}


def available(network: nn.Module, tokenizer: Any, names: Iterable[str] = PEERS) -> dict[str, Peer]:
    """Of the named peers, those that are installed and start; the others are named with the reason."""
    found: dict[str, Peer] = {}
    for name in names:
        make = PEERS[name]
        try:
            found[name] = make(network, tokenizer)
        except Exception as error:
            print(f"{name} is left out: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    return found
