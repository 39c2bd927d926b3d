"""May a model's call of a tool go through? Not one that changes something, once text from outside had a say in it.

Sources: Willison 2023, "The Dual LLM pattern"; Debenedetti et al. 2025, "Defeating Prompt Injections by Design" (data
flow, not the model's judgement, decides)."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from intarsia.prompting.execute.trust.untrusted import is_untrusted

Confirm = Callable[[str, Mapping[str, Any], Sequence[str]], bool | Awaitable[bool]]
"""Asks a person: name of the tool, its arguments, why it is asked. True: do it."""


@dataclass(frozen=True)
class Decision:
    """Whether a call may go through. reasons: why a person has to be asked, empty where none has; confirmed: whether
    one was asked and said yes."""

    allowed: bool
    reasons: tuple[str, ...] = ()
    confirmed: bool = False


def reasons(
    flags: Any, arguments: Mapping[str, Any], conversation: Sequence[Any] = (), *, guarded: Sequence[str] = ("writes",)
) -> tuple[str, ...]:
    """Why a person has to be asked before a tool is called.

    - flags: what the tool says of itself: an object or mapping with `writes`, `network`, `confirm`; `confirm` always
      asks. guarded: flags that ask where text from outside had a say: in the arguments, or anywhere in the
      conversation before. Add `network` where what is said must not leak.
    - conversation: messages; their contents, and the arguments of their calls, tell their origin (`Untrusted`)."""

    def set_(name: str) -> bool:
        return bool(flags.get(name) if isinstance(flags, Mapping) else getattr(flags, name, False))

    found = ["the tool asks for it"] if set_("confirm") else []
    dangerous = [name for name in guarded if set_(name)]
    if dangerous:
        what = " and ".join(dangerous)
        if tainted := [name for name, value in arguments.items() if is_untrusted(name) or is_untrusted(value)]:
            found.append(f"it {what}, and {', '.join(map(str, tainted))} came from outside")
        if places := [number for number, message in enumerate(conversation) if is_untrusted(message)]:
            found.append(f"it {what}, and text from outside stands in message {places[0] + 1} of the conversation")
    return tuple(found)


async def may_call(
    flags: Any, arguments: Mapping[str, Any], conversation: Sequence[Any] = (), confirm: Confirm | None = None, *,
    name: str = "", guarded: Sequence[str] = ("writes",),
) -> Decision:  # fmt: skip
    """Decide on a call of a tool, asking a person where that is needed. Nobody to ask: not allowed.

    - confirm: gets the tool's name, its arguments and the reasons; a plain or an async function. Others: `reasons`."""
    why = reasons(flags, arguments, conversation, guarded=guarded)
    if not why:
        return Decision(True)
    if confirm is None:
        return Decision(False, why)
    answer = confirm(name or str(getattr(flags, "name", "")), arguments, why)
    if inspect.isawaitable(answer):
        answer = await answer
    # Only a plain yes is one: a text that a model or a form gives back is not.
    return Decision(answer is True, why, answer is True)
