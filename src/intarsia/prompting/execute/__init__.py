"""The execute level: prompts, shapes, tools, agents, flows.

Names are imported when first used: each needs other libraries."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "agent": "agents",
    "agent_now": "agents",
    "Answer": "asking",
    "approve": "flows",
    "ask": "asking",
    "ask_now": "asking",
    "ask_person": "flows",
    "catalog_tool": "tool_catalog",
    "Copied": "copying",
    "copied": "copying",
    "code_tool": "sandbox",
    "described": "prompt",
    "Finished": "agents",
    "flow": "flows",
    "from_mcp": "tool_mcp",
    "Grammar": "shape",
    "map_many": "flows",
    "may_call": "trust",
    "Prompt": "prompt",
    "Rendered": "prompt",
    "retry": "flows",
    "run_code": "sandbox",
    "Shape": "shape",
    "step": "flows",
    "taint": "trust",
    "tool": "tools",
    "Tool": "tools",
    "Untrusted": "trust",
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
