"""`from_mcp`: the tools of an MCP server, as tools an agent may call. Extra: `server`."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from intarsia.errors import IntarsiaError, MissingExtra, first_line
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import ToolError
from intarsia.prompting.execute.tools import LIMIT, Tool


@asynccontextmanager
async def from_mcp(
    where: Any,
    *,
    reading: Collection[str] = (),
    believe_hints: bool = False,
    only: Collection[str] | None = None,
    prefix: str = "",
    timeout: float | None = 60.0,
    limit: int = LIMIT,
) -> AsyncIterator[list[Tool]]:
    """`async with from_mcp("http://127.0.0.1:8000/mcp") as tools: await agent(backend, tools, ...)`.

    - where: the URL of a server; a command that is one (a text or its words), started and ended here; or an `MCPServer`
      of this process.
    - reading: names of tools that change nothing. All others count as writing (see `Tool.writes`), since a server's own
      hints are only claims; believe_hints: for servers of your own.
    - only: names of the tools to take. prefix: put before their names, so that two servers' do not meet.
    - timeout: seconds of one call. limit: characters of a result.

    What a server says of its tools is read by the model: connect to servers you trust. Results are `Untrusted`.
    Raises `IntarsiaError` where the server cannot be reached."""
    try:
        from mcp import Client, StdioServerParameters
    except ImportError:
        raise MissingExtra("tools of an MCP server", "server") from None
    if isinstance(where, Sequence) and not (isinstance(where, str) and where.startswith(("http://", "https://"))):
        words = shlex.split(where) if isinstance(where, str) else list(where)
        target: Any = StdioServerParameters(command=words[0], args=words[1:])
    else:
        target = where
    name = where if isinstance(where, str) else " ".join(where) if isinstance(where, Sequence) else "the MCP server"
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(Client(target))
            listed = await _all_tools(client)
        except Exception as error:  # of any transport: HTTP, a process, the protocol
            raise IntarsiaError(f"{name}: the MCP server cannot be reached: {_reason(error)}") from None
        yield [
            _tool(client, one, prefix, one.name in reading or (believe_hints and _only_reads(one)), timeout, limit)
            for one in listed
            if only is None or one.name in only
        ]


async def _all_tools(client: Any) -> list[Any]:
    found, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += page.tools
        cursor = page.next_cursor
        if cursor is None or len(found) > 10_000:
            return found


def _tool(client: Any, one: Any, prefix: str, reads: bool, timeout: float | None, limit: int) -> Tool:
    name = re.sub(r"[^A-Za-z0-9_-]", "_", prefix + one.name)[:64]

    async def call(**arguments: Any) -> str:
        result = await client.call_tool(one.name, arguments)
        text = _text(result)
        if result.is_error:
            raise ToolError(name, text or "it failed")
        return text

    schema = {"type": "object", "properties": {}, **one.input_schema}
    check = functools.partial(_checked, name, json.dumps(schema))
    return Tool(
        name, one.description or one.title or one.name, schema, call, check, network=True, writes=not reads,
        timeout=timeout, limit=limit,
    )  # fmt: skip


def _only_reads(one: Any) -> bool:
    return bool(one.annotations is not None and one.annotations.read_only_hint)


def _checked(name: str, schema: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    from intarsia.prompting.base.validating import errors_of

    try:
        wrong = errors_of(json.dumps(dict(arguments)), Constraint("json", schema))
    except MissingExtra:
        wrong = []  # the server looks at them, too
    if wrong:
        raise ToolError(name, "; ".join(wrong)[:500])
    return dict(arguments)


def _text(result: Any) -> str:
    parts = []
    for block in result.content:
        kind = getattr(block, "type", "")
        if kind == "text":
            parts.append(block.text)
        elif kind == "resource" and getattr(block.resource, "text", None) is not None:
            parts.append(block.resource.text)
        elif kind == "resource_link":
            parts.append(f"[{block.name}: {block.uri}]")
        else:
            parts.append(f"[{kind}, {getattr(block, 'mime_type', None) or 'of unknown kind'}]")
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return first_line(error)
