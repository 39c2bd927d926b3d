"""Provenance: the facts that say where a figure was made and with what."""

from __future__ import annotations

import functools
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "numpy")


def provenance(**facts: Any) -> dict[str, Any]:
    """Versions, platform, processor, threads and `facts` (seed, data hash, settings), for `Finding.provenance`.

    Holds no clock time and no user, host or path name: equal on one machine from run to run."""
    return {
        "intarsia": _version("intarsia"),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": cores(),
        "threads": threads(),
        **facts,
    }


@functools.cache
def cpu_name() -> str:
    """The processor's name as its maker writes it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("model name", "Model\t")):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int | None:
    """Threads torch computes with; None while torch is not imported (this does not import it)."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else None


@functools.cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
