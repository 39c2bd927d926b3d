"""Recording: a text through a network, and which experts its tokens went to."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.errors import BadInput
from intarsia.moe.routing.trace import Trace, TraceFacts
from intarsia.progress import track

if TYPE_CHECKING:
    from intarsia.models import Model


def routed_layers(model: Model) -> list[str]:
    """The sites of its routers' choices, in layer order. Raises `BadInput` for a network without experts."""
    names = [name for name in model.sites if name.endswith(".router_experts")]
    if not names:
        if model.sites.note:
            raise BadInput(f"{model.identity.source}: its routers were not found ({model.sites.note})")
        raise BadInput(
            f"{model.identity.source}: no layer sends its tokens to experts (a dense network); "
            "give a mixture-of-experts model, such as Mixtral, OLMoE, Qwen3-MoE or gpt-oss"
        )
    return names


def router_sha256(model: Model) -> str:
    """Of the routers' weights as float32, in layer order: equal routing of equal states, equal hash."""
    digest = hashlib.sha256()
    for name in routed_layers(model):
        module = model.sites.tap(name).module
        digest.update(module.weight.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def facts_of(model: Model, corpus: str = "", checkpoint: str = "") -> TraceFacts:
    """What a trace of this model will say about itself; one tiny forward tells experts and choices."""
    import torch

    from intarsia.sites import read

    names = routed_layers(model)
    first = names[0].removesuffix("_experts")
    acts = read(model, torch.zeros((1, 2), dtype=torch.long, device=model.device), at=[first, names[0]])
    layers = tuple(int(re.findall(r"\d+", name)[-1]) for name in names)
    return TraceFacts(
        acts[first].shape[-1], acts[names[0]].shape[-1], layers, model.identity.source, router_sha256(model), corpus,
        checkpoint,
    )  # fmt: skip


def texts_of(records: Sequence[Any]) -> list[str]:
    """Strings, or the `.text` of records. Raises `BadInput` for records without."""
    out = [record if isinstance(record, str) else getattr(record, "text", None) for record in records]
    if any(text is None for text in out):
        raise BadInput("a trace is recorded from texts: strings, or records with a field 'text'")
    return [text for text in out if text is not None]


def unfinished() -> Path:
    """Where recordings that are not finished lie."""
    from intarsia.models.cache import cache_dir

    return cache_dir() / "traces"


def pieces_of(model: Model, texts: Sequence[str], length: int, most: int | None) -> list[list[int]]:
    """Token ids of the texts in pieces of at most `length`, up to `most` tokens in all; a piece of one token says
    nothing and is left out. Raises `BadInput` for a model without tokenizer, and where no text is left."""
    if model.tokenizer is None:
        raise BadInput("a trace is recorded from text: this model has no tokenizer")
    pieces: list[list[int]] = []
    left = most if most is not None else 1 << 62
    for text in texts:
        ids = model.tokenizer(text, verbose=False)["input_ids"]
        for start in range(0, len(ids), length):
            piece = ids[start : min(start + length, start + left)]
            if len(piece) > 1:
                pieces.append(piece)
                left -= len(piece)
            if left < 2:
                return pieces
    if not pieces:
        raise BadInput("there is no text of two tokens or more to record")
    return pieces


def record(
    model: Model,
    texts: Sequence[str],
    *,
    length: int = 256,
    max_tokens: int | None = None,
    batch_size: int = 8,
    corpus: str = "",
    folder: Path | None = None,
) -> Trace:
    """The trace of texts, cut into pieces of `length` tokens.

    - folder: where rows are put as they come; what is there of an earlier run of the same is not run again."""
    facts = facts_of(model, corpus)
    pieces = pieces_of(model, texts, min(length, model.context_length or length), max_tokens)
    rows = _Rows(facts, folder, _key(model, facts, pieces, batch_size))
    order = [pieces[i : i + batch_size] for i in range(0, len(pieces), batch_size)]
    for number, batch in enumerate(track(order, "recording routes")):
        if number >= rows.batches:
            rows.add(_routes(model, batch, number * batch_size))
    return rows.trace()


def _routes(model: Model, batch: list[list[int]], first: int) -> dict[str, Any]:
    """Arrays of the batch's real tokens, sequence by sequence."""
    import torch

    from intarsia.measure.likelihood import right_padded
    from intarsia.sites import read

    padded = right_padded(batch, 0)
    ids, mask = padded["input_ids"], padded["attention_mask"]
    names = routed_layers(model)
    at = [*names, *(name.removesuffix("_experts") for name in names)]
    acts = read(model, {key: value.to(model.device) for key, value in padded.items()}, at=at)
    chosen, gates = [], []
    for name in names:
        weights = acts[name.removesuffix("_experts")].float().softmax(-1)
        gate = weights.gather(-1, acts[name].long())
        # Some routers hand on their choices in no order: the first is the one of the greatest weight.
        order = gate.argsort(dim=-1, descending=True, stable=True)
        chosen.append(acts[name].gather(-1, order))
        gates.append(gate.gather(-1, order))
    real = mask.bool()
    where = real.nonzero().numpy()
    return {
        "expert_ids": torch.stack(chosen, 2).cpu()[real].numpy(),
        "gate": torch.stack(gates, 2).cpu()[real].numpy().astype(np.float16),
        "token_id": ids[real].numpy().astype(np.uint32),
        "seq": (where[:, 0] + first).astype(np.uint32),
        "pos": where[:, 1].astype(np.uint32),
    }


def _key(model: Model, facts: TraceFacts, pieces: list[list[int]], batch_size: int) -> str:
    """What must be the same for a recording to be gone on with."""
    embedding = model.network.get_input_embeddings().weight.detach().float().cpu().numpy().tobytes()
    known = [facts.router_sha256, hashlib.sha256(embedding).hexdigest(), str(model.dtype), batch_size, pieces]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


class _Rows:
    """Rows as they come, in memory or, batch by batch, in a folder."""

    def __init__(self, facts: TraceFacts, folder: Path | None, key: str):
        self.facts, self.folder = facts, folder
        self.kept: list[dict[str, Any]] = []
        if folder is not None:
            self.folder = folder / key[:16]
            self.folder.mkdir(parents=True, exist_ok=True)
        self.batches = 0
        while self.folder is not None and (self.folder / f"{self.batches:06d}.npz").is_file():
            self.batches += 1

    def add(self, arrays: dict[str, Any]) -> None:
        small = np.uint8 if self.facts.experts <= 256 else np.uint16
        arrays["expert_ids"] = arrays["expert_ids"].astype(small)
        self.batches += 1
        if self.folder is None:
            self.kept.append(arrays)
            return
        path = self.folder / f"{self.batches - 1:06d}.npz"
        part = path.with_suffix(".part")
        with part.open("wb") as file:
            np.savez_compressed(file, **arrays)
        part.replace(path)

    def read(self) -> Iterator[dict[str, Any]]:
        if self.folder is None:
            yield from self.kept
            return
        for number in range(self.batches):
            with np.load(self.folder / f"{number:06d}.npz", allow_pickle=False) as arrays:
                yield dict(arrays)

    def trace(self) -> Trace:
        """All rows; what lies in the folder has done its work then."""
        parts = list(self.read())
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.folder is not None:
            shutil.rmtree(self.folder)
        return Trace.in_memory(self.facts, arrays)
