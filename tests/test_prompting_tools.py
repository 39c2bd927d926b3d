"""Tools: functions with types that a model may call."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import Annotated, Literal

import pydantic
import pytest
from jsonschema import validate

from intarsia.errors import BadInput
from intarsia.prompting.base import ToolError
from intarsia.prompting.base.call_forms import calls_constraint
from intarsia.prompting.base.calling import call_format
from intarsia.prompting.base.masking import check_constraint
from intarsia.prompting.execute.tool_docs import said_of
from intarsia.prompting.execute.tools import Tool, tool
from intarsia.prompting.execute.trust import Untrusted, is_untrusted


class Place(pydantic.BaseModel):
    city: str
    country: str | None = None


@tool
def weather(place: Place, unit: Literal["C", "F"] = "C", days: Annotated[int, pydantic.Field(ge=1, le=3)] = 1) -> dict:
    """The weather of a place.

    Args:
        place: where, as people
            call it
        unit (str): of temperatures
        days: how many: one to three

    Returns:
        temperatures
    """
    return {"city": place.city, "unit": unit, "days": [1.5] * days}


def run(made: Tool, **arguments) -> str:
    return asyncio.run(made.run(arguments))


def test_a_tool_of_a_function():
    assert weather.name == "weather" and weather.description == "The weather of a place."
    schema = weather.parameters
    assert schema["required"] == ["place"] and schema["additionalProperties"] is False
    told = schema["properties"]
    assert told["unit"] == {"default": "C", "description": "of temperatures", "enum": ["C", "F"], "type": "string"}
    assert told["days"]["description"] == "how many: one to three"
    validate({"place": {"city": "Bern"}}, schema)
    check_constraint(calls_constraint([weather.spec], form=call_format("<tool_call>")))
    assert weather(Place(city="Bern"), days=2)["days"] == [1.5, 1.5]  # still the function
    result = run(weather, place={"city": "Bern"}, unit="F")
    assert json.loads(result) == {"city": "Bern", "unit": "F", "days": [1.5]}
    assert is_untrusted(result)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "place: Field required"),
        ({"place": {"city": 3}}, "place.city: Input should be a valid string"),
        ({"place": {"city": "a"}, "unit": "K"}, "unit: Input should be 'C' or 'F'"),
        ({"place": {"city": "a"}, "days": 9}, "less than or equal to 3"),
        ({"place": {"city": "a"}, "when": 1}, "when: Extra inputs"),
    ],
)
def test_arguments_are_checked(arguments, said):
    with pytest.raises(ToolError) as error:
        run(weather, **arguments)
    assert said in str(error.value) and str(error.value).startswith("weather: ")


def test_names_that_pydantic_keeps_to_itself():
    @tool
    def odd(schema: int, copy: bool, model_config: str, _x: int = 0) -> str:
        """Odd names."""
        return f"{schema} {copy} {model_config} {_x}"

    assert run(odd, schema=1, copy=True, model_config="a") == "1 True a 0"
    assert set(odd.parameters["properties"]) == {"schema", "copy", "model_config", "_x"}


def test_async_functions_and_results_of_every_kind():
    @dataclass
    class Found:
        a: int
        b: tuple[str, ...]

    @tool(trusted=True)
    async def look(kind: str) -> object:
        """Looks."""
        await asyncio.sleep(0)
        return {
            "none": None,
            "data": Found(1, ("x",)),
            "text": "é",
            "odd": threading.Lock(),
            "out": ["a", Untrusted("b")],
        }[kind]

    assert run(look, kind="none") == "done"
    assert run(look, kind="data") == '{"a":1,"b":["x"]}'
    assert run(look, kind="text") == "é" and not is_untrusted(run(look, kind="text"))
    assert "lock" in run(look, kind="odd")
    assert is_untrusted(run(look, kind="out"))  # trusted as it is, it passes on what is not


def test_long_results_are_cut_and_say_so():
    @tool(limit=10)
    def long() -> str:
        """Long."""
        return "0123456789abc"

    assert run(long) == "0123456789\n[cut: the first 10 of 13 characters]"


def test_errors_and_time():
    @tool
    def breaks() -> str:
        """Breaks."""
        raise ValueError("no luck\nwith a second line")

    @tool(timeout=0.05)
    async def waits() -> str:
        """Waits."""
        await asyncio.sleep(5)
        return ""

    @tool(timeout=0.05)
    def sleeps() -> str:
        """Sleeps."""
        time.sleep(0.3)
        return ""

    with pytest.raises(ToolError, match=r"^breaks: ValueError: no luck$"):
        run(breaks)
    for made in (waits, sleeps):
        with pytest.raises(ToolError, match=r"its time is over \(0.05 seconds\)"):
            run(made)


def test_functions_that_are_no_tools():
    with pytest.raises(BadInput, match="no docstring"):

        @tool
        def silent(a: int) -> int:
            return a

    with pytest.raises(BadInput, match="'a' of the tool untyped has no type"):

        @tool
        def untyped(a):
            """Says."""

    with pytest.raises(BadInput, match="a name of its own"):

        @tool
        def many(*args: int):
            """Says."""

    with pytest.raises(BadInput, match="a tool's name"):
        tool(lambda: 1)

    with pytest.raises(BadInput, match="the tool takes: Unable"):

        @tool
        def takes(a: threading.Thread):
            """Says."""


ABOUT = "What it does.\n\nMore of it."
DOCS = {
    "google": "Args:\n    a: first\n        and more\n    b (int): second\n\nReturns:\n    a: no\n",
    "numpy": "Parameters\n----------\na : int\n    first\n    and more\nb\n    second\n\nReturns\n-------\na\n    no\n",
    "sphinx": ":param a: first\n    and more\n:param int b: second\n:returns: no\n",
    "list": "- a: first\n  and more\n- b: second\n",
}


@pytest.mark.parametrize("way", DOCS)
def test_ways_of_writing_docstrings(way):
    assert said_of(f"{ABOUT}\n\n{DOCS[way]}", ["a", "b", "c"]) == (ABOUT, {"a": "first and more", "b": "second"})
