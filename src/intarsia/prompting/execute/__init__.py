"""The execute level: prompts, shapes, tools, agents, flows.

Names are imported when first used: each needs other libraries."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "agent": "agents",
    "agent_now": "agents",
    "Answer": "asking",
    "ask": "asking",
    "ask_now": "asking",
    "described": "prompt",
    "Finished": "agents",
    "Grammar": "shape",
    "may_call": "trust",
    "Prompt": "prompt",
    "Rendered": "prompt",
    "Shape": "shape",
    "taint": "trust",
    "tool": "tools",
    "Tool": "tools",
    "Untrusted": "trust",
    "approve": "flows",
    "ask_person": "flows",
    "flow": "flows",
    "map_many": "flows",
    "retry": "flows",
    "step": "flows",
    "Waiting": "flows",
    "within": "flows",
}
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
