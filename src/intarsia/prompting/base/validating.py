"""Whether a text has a form, for models that cannot be held to it: servers that only promise, scripts of tests."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from intarsia.errors import BadInput, MissingExtra, first_line
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import InvalidOutput
from intarsia.prompting.base.masking import _grammar, check_constraint


def errors_of(text: str, constraint: Constraint) -> list[str]:
    """What is wrong with a text, none where it has the form. JSON may have its keys in any order, and any whitespace.

    Raises `BadInput` for a form that cannot be understood, `MissingExtra` for a JSON schema without `jsonschema`."""
    match constraint.kind:
        case "json":
            return _json_errors(text, constraint.source)
        case "choice":
            choices = json.loads(constraint.source)
            return [] if text in choices else [f"{_short(text)} is none of the {len(choices)} choices"]
        case "call":
            return [f"{_short(text)} calls no tool, and {told_of(constraint)} had to be called"]
    at = ByteMatcher(constraint)
    done = at.accept(text.encode())
    if done < len(text.encode()):
        return [f"what begins with {_short(text.encode()[done:].decode('utf-8', 'replace'))} is not allowed there"]
    return [] if at.may_end else [f"it ends too early, after {_short(text[-20:])}"]


def check_form(constraint: Constraint) -> None:
    """Raise as `errors_of` does for a form with which no text can be checked, before there is one."""
    if constraint.kind == "json":
        _validator(constraint.source)
    elif constraint.kind != "call":
        check_constraint(constraint)


def told_of(call: Constraint) -> str:
    """What has to be called, in words."""
    return "one" if call.source == "required" else call.source


def check(text: str, constraint: Constraint) -> None:
    """Raise `InvalidOutput` where a text has not the form."""
    if found := errors_of(text, constraint):
        raise InvalidOutput(text, found)


class ByteMatcher:
    """Where a text stands in a form, byte by byte: llguidance over a vocabulary that is the 256 bytes."""

    def __init__(self, constraint: Constraint):
        import llguidance

        check_constraint(constraint)
        self._at = llguidance.LLMatcher(_byte_tokenizer(), _grammar(constraint), log_level=0)

    def accept(self, data: bytes) -> int:
        """Go on as far as the bytes are allowed. Returns how many were."""
        if not data or self._at.is_stopped():
            return 0
        return self._at.try_consume_tokens(list(data))

    def allowed(self) -> bytes:
        """The bytes that may come next."""
        if self._at.is_stopped():
            return b""
        return bytes(i for i, bias in enumerate(self._at.compute_logit_bias()[:256]) if bias)

    @property
    def may_end(self) -> bool:
        """Whether an answer may end here."""
        return self._at.is_accepting()


@lru_cache(1)
def _byte_tokenizer() -> Any:
    import llguidance

    return llguidance.LLTokenizer("byte")


def _json_errors(text: str, schema: str) -> list[str]:
    try:
        value = json.loads(text)
    except ValueError as error:
        return [f"it is not JSON ({first_line(error, 120)})"]
    found = sorted(_validator(schema).iter_errors(value), key=lambda error: error.json_path)
    return [f"{error.json_path}: {first_line(ValueError(error.message), 160)}" for error in found]


@lru_cache(64)
def _validator(schema: str) -> Any:
    try:
        import jsonschema
        import referencing
    except ImportError:
        raise MissingExtra("checking an answer against a JSON schema", "remote") from None
    try:
        read = json.loads(schema)
        kind = jsonschema.validators.validator_for(read, jsonschema.Draft202012Validator)
        kind.check_schema(read)
    except (ValueError, jsonschema.SchemaError) as error:
        raise BadInput(f"this is no JSON schema: {first_line(error, 200)}") from None
    return kind(read, registry=referencing.Registry())  # a registry of its own fetches nothing


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
