"""Traces that others recorded: the ExFlow repository's arrays, SGLang's and vLLM's dumps of routed experts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.errors import BadInput, first_line
from intarsia.moe.routing.trace import Trace


def from_official(path: str | Path, experts: int) -> Trace:
    """An `.npy` of the ExFlow repository: [token, layer] ids 0..experts-1, one choice a token."""
    return Trace.of(_array(path), experts, model=Path(path).stem)


def from_vllm(paths: Sequence[str | Path], experts: int) -> Trace:
    """`.npy` files of requests' `routed_experts` [token, layer, choice], a sequence each.

    vLLM and SGLang return them with the engine argument `enable_return_routed_experts`."""
    arrays = [_array(path) for path in paths]
    if not arrays or len({a.shape[1:] for a in arrays}) > 1:
        raise BadInput("give one or several arrays of one model, [token, layer, choice]")
    seq = np.repeat(np.arange(len(arrays)), [len(a) for a in arrays])
    return Trace.of(np.concatenate(arrays), experts, seq=seq, model=Path(paths[0]).stem)


def from_sglang(paths: Sequence[str | Path], experts: int, k: int, layers: Sequence[int] | None = None) -> Trace:
    """SGLang's expert distribution dumps (`.pt`, mode `per_token`).

    Their ids are of physical experts: they are mapped back by the dump's own `last_physical_to_logical_map`. Layers
    that routed nothing (dense ones) are left out, unless `layers` says which to take; their numbers are kept. Every
    record (a forward of the server) counts as one sequence for each request in it."""
    import torch

    ids, seq, number = [], [], 0
    for path in paths:
        try:
            dump = torch.load(path, map_location="cpu", weights_only=True)
            back = np.asarray(dump["last_physical_to_logical_map"])
            for record in dump["records"]:
                number = _taken(record, back, k, ids, seq, number)
        except Exception as error:
            raise BadInput(f"{path}: not a per-token dump of SGLang ({first_line(error)})") from None
    if not ids:
        raise BadInput("the dumps hold no records: record with --expert-distribution-recorder-mode per_token")
    table = np.concatenate(ids)
    kept = list(layers) if layers is not None else np.flatnonzero((table >= 0).any((0, 2))).tolist()
    table, real = table[:, kept], (table[:, kept] >= 0).all((1, 2))
    return Trace.of(table[real], experts, seq=np.concatenate(seq)[real], layers=kept, model="sglang")


def _taken(record: Any, back: np.ndarray, k: int, ids: list, seq: list, number: int) -> int:
    """Take in one record; the number of the next sequence. What lies in its buffer beyond its tokens is left out."""
    chosen = np.asarray(record["topk_ids_of_layer"])[:, :, :k]
    lengths = record.get("extend_seq_lens")
    lengths = [1] * chosen.shape[1] if lengths is None else [int(n) for n in lengths]
    chosen = chosen[:, : sum(lengths)]
    logical = np.where(chosen >= 0, np.take_along_axis(back[:, None], np.maximum(chosen, 0), 2), -1)
    ids.append(logical.transpose(1, 0, 2))
    seq.append(np.repeat(np.arange(number, number + len(lengths)), lengths)[: chosen.shape[1]])
    return number + len(lengths)


def _array(path: str | Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: not an array of numpy ({first_line(error)})") from None
