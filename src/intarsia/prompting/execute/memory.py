"""A conversation within a budget of tokens: what is kept, what was dropped, and how it is found again.

Memory is no class: it is a window over the messages and, for what is to last, a store that is searched."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from intarsia.errors import BadInput
from intarsia.prompting.base import Backend, ContextOverflow, Message, Sampling
from intarsia.prompting.execute.trust import Untrusted, fenced, is_untrusted, plain, taint

if TYPE_CHECKING:
    from intarsia.prompting.execute.prompt import Prompt

TURNS = 2  # kept whatever the budget
Count = Callable[[Sequence[Message]], int]


@dataclass(frozen=True)
class Window:
    """What fits. messages: in their order. dropped: the others, in theirs. tokens: of `messages`, and of all that were
    given."""

    messages: tuple[Message, ...]
    dropped: tuple[Message, ...] = ()
    tokens: int = 0
    before: int = 0

    @property
    def summary_needed(self) -> bool:
        """Whether anything was said that the model will not see."""
        return bool(self.dropped)

    @property
    def note(self) -> str:
        """What was dropped, in a line for a log; empty where nothing was."""
        if not self.dropped:
            return ""
        roles = [message.role for message in self.dropped]
        told = ", ".join(f"{roles.count(role)} of {role}" for role in dict.fromkeys(roles))
        return f"{len(roles)} messages left out ({told}), {self.before} tokens became {self.tokens}"


def fit(
    messages: Sequence[Message], budget_tokens: int, *, count: Count, keep: int | Callable[[Message], bool] = TURNS
) -> Window:
    """The newest part of a conversation that fits, as few messages dropped as it takes.

    Kept in any case: the system's messages, and the last turns. A turn is a user's message and all that follows, up to
    the user's next. Older turns go first, whole, so that no answer stands without its question; then, inside the last
    turns, the oldest calls of tools. A call and its results stay or go together.

    - budget_tokens: for the prompt; leave room for the answer. count: tokens of messages: a backend's `count`.
    - keep: how many of the last turns are kept whole but for calls; or which messages are, beside the last turn.

    Raises `ContextOverflow` where what has to be kept does not fit."""
    if budget_tokens < 1:
        raise BadInput(f"budget_tokens is {budget_tokens}: give at least 1")
    if not callable(keep) and keep < 1:
        raise BadInput(f"keep is {keep}: the last turn is always kept, give at least 1")
    messages = tuple(messages)
    groups = _droppable(messages, keep)
    before = count(messages)

    def left(number: int) -> tuple[Message, ...]:
        gone = {place for group in groups[:number] for place in group}
        return tuple(message for place, message in enumerate(messages) if place not in gone)

    # Fewer messages are fewer tokens: the least number of groups is found by halves, as counting is dear.
    low, high, sizes = 0, len(groups), {0: before}
    while low < high:
        middle = (low + high) // 2
        sizes[middle] = before if middle == 0 else count(left(middle))
        if sizes[middle] <= budget_tokens:
            high = middle
        else:
            low = middle + 1
    tokens = sizes.get(low) or count(left(low))
    if tokens > budget_tokens:
        raise ContextOverflow(tokens, budget_tokens)
    kept = left(low)
    gone = {place for group in groups[:low] for place in group}
    return Window(kept, tuple(m for place, m in enumerate(messages) if place in gone), tokens, before)


def _droppable(messages: Sequence[Message], keep: int | Callable[[Message], bool]) -> list[list[int]]:
    """Groups of places that go together, the first to go first."""
    turns: list[list[int]] = [[]]
    for place, message in enumerate(messages):
        if message.role == "system":
            continue
        if message.role == "user" and turns[-1]:
            turns.append([])
        turns[-1].append(place)
    number = 1 if callable(keep) else keep
    old, last = turns[:-number], turns[-number:]
    groups: list[list[int]] = []
    for turn in old:
        if not callable(keep):
            groups.append(turn)
            continue
        for unit in _units(messages, turn):
            if not any(keep(messages[place]) for place in unit):
                groups.append(unit)
    # Of the last turns only finished calls go, and never the last one, whose results nobody has answered to yet.
    calls = [unit for turn in last for unit in _units(messages, turn) if messages[unit[0]].calls]
    if callable(keep):
        calls = [unit for unit in calls if not any(keep(messages[place]) for place in unit)]
    return groups + calls[:-1] if calls and calls[-1][-1] == len(messages) - 1 else groups + calls


def _units(messages: Sequence[Message], turn: Sequence[int]) -> list[list[int]]:
    """Single messages, and calls with their results."""
    units: list[list[int]] = []
    for place in turn:
        if messages[place].role == "tool" and units and (messages[units[-1][0]].calls or len(units[-1]) > 1):
            units[-1].append(place)
        else:
            units.append([place])
    return units


async def summarised(
    window: Window, prompt: Prompt, backend: Backend, sampling: Sampling | None = None, **inputs: Any
) -> Window:
    """The window with a summary of what it dropped, after the system's messages, as the user's.

    - prompt: the caller's, with an input `messages`: those that were dropped. inputs: its others.
    - sampling: default: the prompt's. Its `max_tokens` is what the budget of `fit` has to leave free.

    A summary of text from outside is from outside: it is fenced. A window that dropped nothing comes back as it is."""
    if not window.dropped:
        return window
    if "messages" not in prompt.inputs:
        raise BadInput(f"{prompt.name}: a prompt for summaries needs an input 'messages'")
    made = prompt.render(messages=list(window.dropped), **inputs)
    reply = await backend.generate(made, sampling or made.sampling)
    text = reply.text.strip()
    if is_untrusted(window.dropped) or is_untrusted(made.messages):
        text = fenced(taint(text))[0]
    at = next((i for i, m in enumerate(window.messages) if m.role != "system"), len(window.messages))
    messages = (*window.messages[:at], Message("user", text), *window.messages[at:])
    return replace(window, messages=messages, tokens=backend.count(messages))


# ---- what lasts


class Searchable(Protocol):
    """What memory asks of a store: `intarsia.prompting.data.Store` is one."""

    def search(self, query: str, k: int = 5) -> Any:
        """What has to do with a question, the best first: `hits`, each with `text` and `citation`."""
        ...


@dataclass(frozen=True)
class Recalled:
    """Something that was found again. text: untrusted, whoever said it then: it is quoted now. source: its citation."""

    text: Untrusted
    source: str = ""
    score: float = 0.0


def recall(store: Searchable, query: str, k: int = 5, **how: Any) -> list[Recalled]:
    """The k passages of a store that fit a question best, best first. how: as the store's `search` takes it (`where`,
    `mode`)."""
    if not query.strip():
        return []
    return [
        Recalled(Untrusted(plain(hit.text)), getattr(hit, "citation", ""), float(getattr(hit, "score", 0.0)))
        for hit in store.search(plain(query), k, **how)
    ]


def remember(store: Any, messages: Sequence[Message], *, conversation: str = "", **metadata: Any) -> int:
    """Put what was said into a store, a document a message, to be searched by `conversation`, `role` and `metadata`;
    how many were put there. The system's messages and those without words are left out; the same message again changes
    nothing.

    - store: `add` takes documents, as `intarsia.prompting.data.Store`'s."""
    from intarsia.prompting.data import SourceDocument

    if clash := {"conversation", "role", "untrusted"} & set(metadata):
        raise BadInput(f"remember: '{sorted(clash)[0]}' is filled in already; call yours otherwise")
    documents = []
    for number, message in enumerate(messages):
        text = plain(message.content)
        if message.role == "system" or not text.strip():
            continue
        told = json.dumps([conversation, number, message.role, text], ensure_ascii=False)
        key = hashlib.sha256(told.encode(errors="surrogatepass")).hexdigest()[:16]
        known = {"conversation": conversation, "role": message.role, "untrusted": is_untrusted(message)}
        documents.append(SourceDocument(text, f"said:{key}", metadata={**metadata, **known}))
    if documents:
        store.add(documents)
    return len(documents)
