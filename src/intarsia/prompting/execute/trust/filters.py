"""Checks of texts on their way in and out: plain functions from a text to what they found in it.

A filter finds what is known, and misses what is not: it stands beside fences and `may_call`, never in their place.

    checks = [deny(phrases=["ignore all previous instructions"]), hidden(), at_most(20_000)]
    for flag in await flags(text, *checks): ...
    answer = await passed(reply.text, topics(backend, prompt, allowed=["kettles"]))     # or raises `Refused`"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.errors import BadInput
from intarsia.prompting.base import Backend, PromptingError
from intarsia.prompting.execute.trust.cleaning import hidden_in
from intarsia.prompting.execute.trust.fence import shadow
from intarsia.prompting.execute.trust.untrusted import plain

if TYPE_CHECKING:
    from intarsia.prompting.execute.prompt import Prompt


@dataclass(frozen=True)
class Flag:
    """Something a check found. rule: whose; start, end: characters of the text; why: in words. score: where a model
    judged, how sure it is, 0 to 1."""

    rule: str
    why: str
    start: int
    end: int
    score: float | None = None


Check = Callable[[str], Sequence[Flag] | Awaitable[Sequence[Flag]]]


class Refused(PromptingError):
    """A text did not pass. flags: what was found."""

    def __init__(self, flags: Sequence[Flag]):
        super().__init__(f"refused: {'; '.join(dict.fromkeys(flag.why for flag in flags))[:300]}")
        self.flags = tuple(flags)


async def flags(text: str, *checks: Check) -> list[Flag]:
    """What all checks find, in their order; they run one after another."""
    found: list[Flag] = []
    for check in checks:
        some = check(plain(text))
        found += await some if inspect.isawaitable(some) else some
    return found


async def passed(text: str, *checks: Check) -> str:
    """The text, where no check finds anything. Raises `Refused`."""
    if found := await flags(text, *checks):
        raise Refused(found)
    return text


def every(*checks: Check) -> Check:
    """Several checks as one."""

    async def check(text: str) -> Sequence[Flag]:
        return await flags(text, *checks)

    return check


def but(check: Check, *excuses: Check) -> Check:
    """What a check finds, but where an excuse finds something that covers it: deny a word, but not in this phrase."""

    async def excused(text: str) -> Sequence[Flag]:
        fine = await flags(text, *excuses)
        found = await flags(text, check)
        return [flag for flag in found if not any(e.start <= flag.start and flag.end <= e.end for e in fine)]

    return excused


def deny(patterns: Iterable[str] = (), phrases: Iterable[str] = (), *, rule: str = "deny") -> Check:
    """Find what must not be there.

    - patterns: regular expressions, searched for as they are. phrases: in any letters, spacing and look-alikes of
      letters, hidden characters not counted. Raises `BadInput` for a pattern that is none."""
    compiled = _compiled(patterns)
    wanted = {phrase: _folded(phrase)[0] for phrase in phrases}
    if empty := [phrase for phrase, folded in wanted.items() if not folded]:
        raise BadInput(f"{rule}: the phrase {empty[0]!r} has no letters to look for")

    def check(text: str) -> list[Flag]:
        found = [
            Flag(rule, f"{rule}: matches {expression.pattern}", *match.span())
            for expression in compiled
            for match in expression.finditer(text)
        ]
        if not wanted:
            return found
        folded, places = _folded(text)
        for phrase, letters in wanted.items():
            at = folded.find(letters)
            while at >= 0:
                span = places[at], places[at + len(letters) - 1] + 1
                found.append(Flag(rule, f"{rule}: says '{phrase}'", *span))
                at = folded.find(letters, at + len(letters))
        return sorted(found, key=lambda flag: (flag.start, flag.end))

    return check


def allow(patterns: Iterable[str] = (), phrases: Iterable[str] = (), *, rule: str = "allow") -> Check:
    """Find a text that has none of what it must have: one pattern that fits it whole, or one phrase."""
    compiled = _compiled(patterns)
    says = deny(phrases=phrases)

    def check(text: str) -> list[Flag]:
        if any(expression.fullmatch(text) for expression in compiled) or says(text):
            return []
        return [Flag(rule, f"{rule}: the text is none of what is allowed", 0, len(text))]

    return check


def at_most(characters: int, *, rule: str = "length") -> Check:
    """Find a text that is longer."""
    if characters < 0:
        raise BadInput(f"{rule}: {characters} characters: give 0 or more")

    def check(text: str) -> list[Flag]:
        if len(text) <= characters:
            return []
        return [Flag(rule, f"{rule}: {len(text)} characters, {characters} are allowed", characters, len(text))]

    return check


def hidden(*, rule: str = "hidden") -> Check:
    """Find characters that are not to be seen."""

    def check(text: str) -> list[Flag]:
        return [Flag(rule, f"{rule}: a {kind} character", at, at + 1) for at, kind in hidden_in(text)]

    return check


def topics(
    backend: Backend, prompt: Prompt, *, allowed: Sequence[str] = (), denied: Sequence[str] = (),
    others: Sequence[str] = (), threshold: float = 0.5, rule: str = "topic",
) -> Check:  # fmt: skip
    """Find a text whose topic is not allowed, as a model judges it: by the probability of each topic's name after the
    prompt, all of them together one; nothing is generated.

    - prompt: the caller's, with an input `text`: it asks which topic a text has. others: topics that are neither, so
      that a text can have one.
    - threshold: so much of the probability on denied topics is flagged; and where `allowed` names some, so little on
      those."""
    names = list(dict.fromkeys([*allowed, *denied, *others]))
    if len(names) < 2:
        raise BadInput(f"{rule}: name at least two topics between `allowed`, `denied` and `others`")
    if both := set(allowed) & set(denied):
        raise BadInput(f"{rule}: '{sorted(both)[0]}' is allowed and denied")
    if "text" not in prompt.inputs:
        raise BadInput(f"{rule}: {prompt.name} has no input 'text', which is what is judged")

    async def check(text: str) -> list[Flag]:
        scores = await backend.score(prompt.render(text=text, shape=names), names)
        most = max(scores)
        weights = {name: math.exp(score - most) for name, score in zip(names, scores, strict=True)}
        whole = sum(weights.values())
        bad, good = (sum(weights[name] for name in some) / whole for some in (denied, allowed))
        if denied and bad >= threshold:
            worst = max(denied, key=lambda name: weights[name])
            return [Flag(rule, f"{rule}: about {worst}", 0, len(text), bad)]
        if allowed and good < threshold:
            return [Flag(rule, f"{rule}: not about {' or '.join(allowed)}", 0, len(text), 1 - good)]
        return []

    return check


def _compiled(patterns: Iterable[str]) -> list[re.Pattern[str]]:
    out = []
    for pattern in patterns:
        try:
            out.append(re.compile(pattern))
        except re.error as error:
            raise BadInput(f"'{pattern}' is no regular expression: {error}") from None
    return out


def _folded(text: str) -> tuple[str, list[int]]:
    """Letters and digits alone, in plain small ones, and where each stands in the text."""
    unseen = {at for at, _ in hidden_in(text)}
    kept = [(c, at) for at, c in enumerate(shadow(text)) if at not in unseen and c.isalnum()]
    return "".join(c for c, _ in kept), [at for _, at in kept]
