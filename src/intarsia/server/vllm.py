"""A model as vLLM takes it: a plain Hugging Face folder, checked, and the command that serves it.

vLLM knows transformers' own layers: rounded weights are multiplied out, adapters stay beside the weights."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from intarsia.errors import BadInput, IntarsiaError
from intarsia.server.versions import resolved

CLOSE = 1e-3
"""How far a logit of the folder may be from the model's own, relative to the largest: rounding of the order of sums."""
PROBE = (3, 1, 4, 1, 5, 9, 2, 6)


@dataclass(frozen=True)
class ForVllm:
    """folder: the weights. command: `vllm serve` with all it needs. gap: the largest relative difference of a logit
    between the folder, loaded anew by transformers, and the model."""

    folder: Path
    command: str
    gap: float


def export(
    source: str, out: str | Path, *, name: str | None = None, adapters: Mapping[str, Path] | None = None,
    force: bool = False,
) -> ForVllm:  # fmt: skip
    """Write a model, a run or a bundle for vLLM.

    - name: what clients are to call it. adapters: LoRA folders by name, as PEFT saves them.

    Raises `BadInput` for what vLLM cannot take, `IntarsiaError` where the folder does not answer as the model does."""
    import torch
    import transformers as tf

    from intarsia.compression import dequantize
    from intarsia.models import load

    ranks = {called: _rank(Path(folder)) for called, folder in (adapters or {}).items()}
    model = load(resolved(source, "torch"), dtype="auto")
    if model.tokenizer is None:
        raise BadInput(f"{source} has no tokenizer: vLLM needs one")
    if not isinstance(model.network, tf.GenerationMixin):
        raise BadInput(f"{source} is a {type(model.network).__name__}, which makes no text: give a language model")
    plain = dequantize(model)
    folder = plain.save(out, force=force)
    ids = torch.tensor([[i % plain.network.config.get_text_config().vocab_size for i in PROBE]])
    again = tf.AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    with torch.no_grad():
        own, other = (net(input_ids=ids).logits.float() for net in (plain.network.eval(), again))
    gap = float((own - other).abs().max() / own.abs().max())
    if not gap <= CLOSE:
        raise IntarsiaError(f"{folder} does not answer as {source} does: a logit differs by {gap:.2g} of the largest")
    words = ["vllm", "serve", str(folder), "--served-model-name", name or Path(source).name]
    if plain.context_length is not None:
        words += ["--max-model-len", str(plain.context_length)]
    if ranks:
        allowed = next(rank for rank in (8, 16, 32, 64, 128, 256, 320, 512) if rank >= max(ranks.values()))
        modules = [f"{called}={Path(path).absolute()}" for called, path in (adapters or {}).items()]
        words += ["--enable-lora", "--max-lora-rank", str(allowed), "--lora-modules", *modules]
    return ForVllm(folder, shlex.join(words), gap)


def _rank(folder: Path) -> int:
    """The rank of a LoRA. Raises `BadInput` for what vLLM has no way to run."""
    try:
        said = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        kind, rank = said["peft_type"], max([int(said["r"]), *map(int, (said.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError):
        raise BadInput(f"{folder} holds no adapter: expected adapter_config.json, as PEFT saves it") from None
    if kind != "LORA" or said.get("use_dora") or said.get("modules_to_save") or rank > 512:
        raise BadInput(f"{folder}: vLLM takes plain LoRA up to rank 512; merge this adapter into the model first")
    return rank
