"""Tools that come from elsewhere: MCP servers, and the catalog of techniques."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest
from jsonschema import Draft202012Validator

from intarsia import catalog
from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.base import Call, ToolError
from intarsia.prompting.base.call_forms import calls_constraint
from intarsia.prompting.base.calling import call_format
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.base.masking import check_constraint
from intarsia.prompting.execute.agents import agent
from intarsia.prompting.execute.tool_catalog import catalog_tool
from intarsia.prompting.execute.tool_mcp import from_mcp
from intarsia.prompting.execute.trust import is_untrusted
from tests.tiny import tiny

SERVER = '''
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("numbers")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@server.tool(name="read.it", annotations=ToolAnnotations(read_only_hint=True))
def read(what: str) -> list[str]:
    """Reads."""
    return [what, what]


@server.tool()
def breaks() -> str:
    """Breaks."""
    from mcp.server.mcpserver.exceptions import ToolError

    raise ToolError("no luck")
'''


def server():
    names: dict = {"__name__": "numbers"}
    exec(SERVER, names)
    return names["server"]


def test_tools_of_a_server():
    async def work():
        async with from_mcp(server(), prefix="n_") as tools:
            by_name = {tool.name: tool for tool in tools}
            assert set(by_name) == {"n_add", "n_read_it", "n_breaks"}
            add = by_name["n_add"]
            assert add.network and add.writes and add.parameters["required"] == ["a", "b"]
            check_constraint(calls_constraint([tool.spec for tool in tools], form=call_format("<tool_call>")))
            result = await add.run({"a": 1, "b": 2})
            assert result == "3" and is_untrusted(result)
            assert await by_name["n_read_it"].run({"what": "x"}) == "x\nx"
            with pytest.raises(ToolError, match=r"n_add: \$\.a: 'x' is not of type 'integer'"):
                await add.run({"a": "x", "b": 1})
            with pytest.raises(ToolError, match="no luck"):
                await by_name["n_breaks"].run({})
            calls = [Call("n_add", {"a": 2, "b": 2}), "four"]
            done = await agent(FakeBackend(calls), tools, "?")
            assert done.answer == "four" and done.calls[0].result == "4"
        async with from_mcp(server(), believe_hints=True, only=["read.it", "add"]) as tools:
            assert {tool.name: tool.writes for tool in tools} == {"add": True, "read_it": False}
        async with from_mcp(server(), reading=["add"]) as tools:
            assert {tool.name: tool.writes for tool in tools} == {"add": False, "read_it": True, "breaks": True}

    asyncio.run(work())


def test_a_server_that_is_a_command(tmp_path):
    script = tmp_path / "served.py"
    script.write_text(SERVER + "\nserver.run('stdio')\n")

    async def work():
        async with from_mcp([sys.executable, str(script)]) as tools:
            return await next(tool for tool in tools if tool.name == "add").run({"a": 20, "b": 22})

    assert asyncio.run(work()) == "42"


@pytest.mark.parametrize("where", ["http://127.0.0.1:9/mcp", ["/not/there"]])
def test_servers_that_are_not_there(where):
    async def work():
        async with from_mcp(where):
            raise AssertionError("it cannot be there")

    with pytest.raises(IntarsiaError, match="cannot be reached") as error:
        asyncio.run(work())
    assert "\n" not in str(error.value)


def test_every_technique_makes_a_tool(tmp_path):
    """Its arguments are a JSON schema that models can be held to."""
    for name, technique in catalog.load().items():
        made = catalog_tool(name, out=tmp_path)
        assert made.description and made.writes == (technique.kind != "look" or technique.in_place)
        Draft202012Validator.check_schema(made.parameters)
        assert set(made.parameters["required"]) <= set(made.parameters["properties"])
        assert json.loads(json.dumps(made.parameters)) == made.parameters
    specs = [catalog_tool(name, out=tmp_path).spec for name in ("interpretation.patchscope", "measure.quality")]
    check_constraint(calls_constraint(specs, form=call_format("<tool_call>")))


def test_a_technique_is_run():
    model = tiny("llama")
    lens = catalog_tool("interpretation.lens", model=model)
    assert lens.name == "interpretation_lens" and lens.parameters["required"] == ["texts"] and not lens.writes
    found = asyncio.run(lens.run({"texts": ["hello there", "what now"]}))
    assert is_untrusted(found) and found.startswith("{") and "lens" in found
    seen = asyncio.run(
        catalog_tool("interpretation.patchscope", model=model).run({"prompt": "ab cd", "show": "identity"})
    )
    assert json.loads(seen.partition("\n[cut")[0]) if "[cut" not in seen else seen.startswith("{")


def test_what_is_made_is_saved_where_it_was_said(tmp_path):
    with pytest.raises(BadInput, match="give out="):
        catalog_tool("compression.quantize")
    made = catalog_tool("compression.quantize", model=tiny("llama"), out=tmp_path / "made")
    assert made.writes
    for number in (1, 2):
        result = asyncio.run(made.run({"bits": 8}))
        folder = json.loads(result)["saved"]
        assert folder.endswith(f"-{number}") and (tmp_path / "made").iterdir()
    assert len(list((tmp_path / "made").iterdir())) == 2


def test_wrong_arguments_of_techniques():
    made = catalog_tool("interpretation.lens", model=tiny("llama"))
    with pytest.raises(ToolError, match="texts is missing"):
        asyncio.run(made.run({}))
    with pytest.raises(ToolError, match="unknown setting 'txts'"):
        asyncio.run(made.run({"texts": ["a"], "txts": 1}))
    with pytest.raises(BadInput, match="did you mean"):
        catalog_tool("interpretation.lenz")
