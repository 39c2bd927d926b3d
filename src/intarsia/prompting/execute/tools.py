"""`tool`: a typed function that a model may call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import re
import typing
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

from intarsia.errors import BadInput, first_line
from intarsia.prompting.base.errors import ToolError
from intarsia.prompting.base.messages import ToolSpec
from intarsia.prompting.execute.schemas import adapter_of, schema_of
from intarsia.prompting.execute.tool_docs import said_of
from intarsia.prompting.execute.trust import Untrusted, is_untrusted, plain

F = TypeVar("F", bound=Callable[..., Any])
LIMIT = 8000
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class Tool:
    """A tool. It is called like the function that it was made of; `run` is how a model's call is done.

    - parameters: JSON schema of its arguments.
    - network: it reaches other machines. writes: it changes something that stays. confirm: a person is asked first.
    - timeout: seconds one call may take. limit: characters of a result that a model is given.
    - trusted: what it gives back is as good as the program's own text; else it is `Untrusted`."""

    name: str
    description: str
    parameters: dict[str, Any]
    function: Callable[..., Any] = field(repr=False)
    check: Callable[[Mapping[str, Any]], dict[str, Any]] = field(repr=False)
    network: bool = False
    writes: bool = False
    confirm: bool = False
    timeout: float | None = None
    trusted: bool = False
    limit: int = LIMIT

    @property
    def spec(self) -> ToolSpec:
        """What a model is told of it."""
        return ToolSpec(self.name, self.description, self.parameters)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    async def run(self, arguments: Mapping[str, Any]) -> str:
        """Check the arguments, call it, and give back what a model is to read.

        Text stays text, everything else becomes JSON; what is longer than `limit` is cut, and says so. A plain function
        runs in a thread of its own, which goes on in the background where its time is over: Python cannot stop it.

        Raises `ToolError` for arguments that do not fit, for whatever goes wrong inside, and when time is over."""
        given = self.check(arguments)
        try:
            value = await asyncio.wait_for(self._called(given), self.timeout)
        except ToolError:
            raise
        except TimeoutError:
            limit = "" if self.timeout is None else f" ({self.timeout:g} seconds)"
            raise ToolError(self.name, f"its time is over{limit}") from None
        except Exception as error:
            raise ToolError(self.name, f"{type(error).__name__}: {first_line(error)}") from error
        text = shortened(written(value), self.limit)
        return text if self.trusted and not is_untrusted(value) else Untrusted(plain(text))

    async def _called(self, given: dict[str, Any]) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**given)
        value = await asyncio.to_thread(functools.partial(self.function, **given))
        return await value if isinstance(value, Awaitable) else value


@overload
def tool(function: F, /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, network: bool = False, writes: bool = False,
    confirm: bool = False, timeout: float | None = None, trusted: bool = False, limit: int = LIMIT,
) -> Callable[[Callable[..., Any]], Tool]: ...  # fmt: skip
def tool(
    function: Any = None, /, *, name: str | None = None, description: str | None = None, network: bool = False,
    writes: bool = False, confirm: bool = False, timeout: float | None = None, trusted: bool = False,
    limit: int = LIMIT,
) -> Any:  # fmt: skip
    """Make a tool of a function, async or not: `@tool`, or `@tool(writes=True)`.

    Each parameter needs a type; the docstring says what the tool does and, in Google's, NumPy's or Sphinx's way or as
    `- name: text`, what each parameter is. Flags: as of `Tool`. Raises `BadInput` where a type or the docstring is
    missing."""

    def make(function: Callable[..., Any]) -> Tool:
        called = name or getattr(function, "__name__", "")
        if not _NAME.fullmatch(called):
            raise BadInput(f"a tool's name is 1 to 64 letters, digits, _ and -, not '{called}': give name=")
        parameters = _parameters(function, called)
        text, told = said_of(inspect.getdoc(function) or "", list(parameters))
        if not (description or text):
            raise BadInput(f"the tool {called} has no docstring: say what it does, models read it")
        reader = _reader(called, parameters, told)
        schema = schema_of(reader, called)
        schema.pop("title", None)
        for one in schema.get("properties", {}).values():
            one.pop("title", None)
        check = functools.partial(_checked, reader, called)
        return Tool(
            called, description or text, {"properties": {}, **schema}, function, check, network, writes, confirm,
            timeout, trusted, limit,
        )  # fmt: skip

    return make if function is None else make(function)


def _parameters(function: Callable[..., Any], name: str) -> dict[str, tuple[Any, Any]]:
    """Name -> type and default (`...`: none)."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise BadInput(f"the types of the tool {name} cannot be read: {first_line(error)}") from None
    out = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise BadInput(f"the tool {name} takes '{parameter}': each parameter needs a name of its own")
        if parameter.name not in hints:
            raise BadInput(f"the parameter '{parameter.name}' of the tool {name} has no type: annotate it")
        default = ... if parameter.default is parameter.empty else parameter.default
        out[parameter.name] = (hints[parameter.name], default)
    return out


def _reader(name: str, parameters: dict[str, tuple[Any, Any]], told: dict[str, str]) -> Any:
    """pydantic's reader of a call's arguments."""
    import pydantic

    fields: dict[str, Any] = {}
    for key, (kind, default) in parameters.items():
        about = {"description": told[key]} if told.get(key) else {}
        # By an alias, since pydantic keeps some names of fields to itself.
        fields[f"p_{key}"] = (kind, pydantic.Field(default, alias=key, **about))
    try:
        model = pydantic.create_model(name, __config__=pydantic.ConfigDict(extra="forbid"), **fields)
    except (pydantic.errors.PydanticUserError, TypeError) as error:
        raise BadInput(f"the tool {name}: {first_line(error)}") from None
    return adapter_of(model)


def _checked(reader: Any, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    import pydantic

    try:
        made = reader.validate_python(dict(arguments))
    except pydantic.ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors(include_url=False)
        ]
        raise ToolError(name, "; ".join(wrong)[:500]) from None
    return {key.removeprefix("p_"): getattr(made, key) for key in made.model_fields_set}


def written(value: Any) -> str:
    """A result as a text for a model."""
    if isinstance(value, str):
        return value
    if value is None:
        return "done"
    if hasattr(value, "to_json") and callable(value.to_json):  # a Finding says it itself
        made = value.to_json()
        return made if isinstance(made, str) else json.dumps(made, ensure_ascii=False)
    import pydantic_core

    try:
        return pydantic_core.to_json(value).decode()
    except pydantic_core.PydanticSerializationError:
        return str(value)


def shortened(text: str, limit: int) -> str:
    """A text of at most `limit` characters; where more were there, it says so."""
    if len(text) <= limit:
        return text
    return text[:limit] + f"\n[cut: the first {limit} of {len(text)} characters]"
