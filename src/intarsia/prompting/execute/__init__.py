"""The execute level: prompts, shapes, tools, agents, flows.

Names are imported when first used: each needs other libraries."""

from __future__ import annotations

from intarsia.lazy import lazily

_HOMES = {
    "agent": "agents",
    "agent_now": "agents",
    "Answer": "asking",
    "approve": "flows",
    "ask": "asking",
    "ask_many": "asking_many",
    "ask_many_now": "asking_many",
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
    "put_together": "together",
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

__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
