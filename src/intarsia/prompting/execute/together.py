"""Several prompts as one: what they end with, numbered, behind what they begin with alike; and a form for that many
answers.

Source: Cheng, Kasai and Yu 2023, "Batch Prompting: Efficient Inference with Large Language Model APIs", §2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from intarsia.errors import BadInput, first_line
from intarsia.prompting.base.constraint import Constraint
from intarsia.prompting.base.errors import InvalidOutput
from intarsia.prompting.base.messages import Input, Message
from intarsia.prompting.execute.shape import Shape
from intarsia.prompting.execute.trust import joined, plain

SHARED = ("$defs", "definitions")  # where a schema keeps what it refers to


MARK = "[{number}] "


def put_together(prompts: Sequence[Input], mark: str = MARK) -> tuple[Message, ...]:
    """One conversation of several that are alike but for their last message, which is the user's: what comes before it
    once, then the last messages, each behind its mark, a blank line between. Nothing else is said: what is asked of
    each numbered text belongs into the prompts themselves.

    - mark: what stands before each, with its `{number}`, from 1.

    Raises `BadInput` for prompts that are not so alike, and for a mark without a number."""
    if mark.format(number=1) == mark.format(number=2):
        raise BadInput(f"mark is {mark!r}: it needs {{number}}, so that texts can be told apart")
    talks = [_talk(prompt) for prompt in prompts]
    if not talks:
        raise BadInput("no prompts to put together: give one or more")
    head = [_said(message) for message in talks[0][:-1]]
    for number, talk in enumerate(talks):
        if [_said(message) for message in talk[:-1]] != head:
            raise BadInput(
                f"prompts 0 and {number} (from 0) differ before their last message, so they cannot be put together: "
                "make that the same in all (Prompt.render_many gives all the same marks around text from outside)"
            )
    parts: list[str] = []
    for number, talk in enumerate(talks, 1):
        parts += ["\n\n" if number > 1 else "", mark.format(number=number), talk[-1].content]
    return (*talks[0][:-1], Message("user", joined(parts)))


def _talk(prompt: Input) -> tuple[Message, ...]:
    talk = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
    if not talk or not all(isinstance(message, Message) for message in talk):
        raise BadInput("prompts that are put together are conversations or texts, not token ids")
    if talk[-1].role != "user":
        raise BadInput(f"prompts that are put together end with a message of the user, not of role {talk[-1].role}")
    return talk  # type: ignore[return-value]


def _said(message: Message) -> Message:
    return replace(message, content=plain(message.content))


class Answers:
    """The form of several answers of one form: a JSON list with exactly that many of them.

    - one: the form of each; None: any text. constraint: what a model is held to.

    Raises `BadInput` for a grammar, which has no place in JSON, and for a schema that refers to itself as a whole."""

    def __init__(self, one: Shape | None, count: int):
        self.one, self.count = one, count
        schema = schema_of(one)
        shared = {key: schema.pop(key) for key in SHARED if key in schema}
        whole = {**shared, "type": "array", "items": schema, "minItems": count, "maxItems": count}
        self.constraint = Constraint("json", json.dumps(whole, ensure_ascii=False), "answers")

    def read(self, text: str) -> list[tuple[Any, str]]:
        """Each answer's value and its text. Raises `InvalidOutput`."""
        try:
            items = json.loads(text)
        except ValueError as error:
            raise InvalidOutput(text, [f"it is not JSON ({first_line(error, 120)})"]) from None
        if not isinstance(items, list) or len(items) != self.count:
            found = f"{len(items)} are there" if isinstance(items, list) else "there is no list"
            raise InvalidOutput(text, [f"a list of {self.count} answers is wanted, {found}"])
        if self._bare and (wrong := [item for item in items if not isinstance(item, str)]):
            raise InvalidOutput(text, [f"{json.dumps(wrong[0])[:60]} is no text"])
        texts = [item if self._bare else json.dumps(item, ensure_ascii=False) for item in items]
        return [(item if self.one is None else self.one.parse(item), item) for item in texts]

    @property
    def _bare(self) -> bool:
        """Whether answers are texts, which JSON quotes."""
        return self.one is None or self.one.kind != "json"


def schema_of(shape: Shape | None) -> dict[str, Any]:
    """The JSON schema of an answer. Raises `BadInput` for what has none."""
    if shape is None or shape.constraint is None:
        return {"type": "string"}
    form = shape.constraint
    match form.kind:
        case "choice":
            return {"enum": json.loads(form.source)}
        case "regex":
            return {"type": "string", "pattern": f"^(?:{form.source})$"}
        case "json":
            schema = json.loads(form.source)
            if _refers_to_whole(schema):
                raise BadInput(f"the JSON schema of '{form.name}' refers to itself as a whole: name its parts in $defs")
            return schema
    raise BadInput("a grammar cannot be asked for several times in one request: give a type, a choice or a regex")


def _refers_to_whole(node: Any) -> bool:
    if isinstance(node, dict):
        where = node.get("$ref")
        if isinstance(where, str) and where.startswith("#") and where.split("/")[1:2] not in ([k] for k in SHARED):
            return True
        return any(map(_refers_to_whole, node.values()))
    return isinstance(node, list) and any(map(_refers_to_whole, node))
