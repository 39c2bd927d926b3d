"""A dialogue as tokens: every turn is a line, its text and its speaker, with a cue behind it, and the turn's label is
read from the state at the cue's end.

A causal network that reads a dialogue once has a state behind every turn that knows all turns before it, and none
after: one row of tokens serves as many examples as the dialogue has turns, each with its whole past. Where the past is
to be limited, or later turns are to be seen, each turn gets a row of its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from intarsia.errors import BadInput, Note

if TYPE_CHECKING:
    from intarsia.adaptation.dialogue.technique import DialogueConfig
    from intarsia.data import Turn
    from intarsia.models import Model

Speakers = Literal["name", "local", "none"]


@dataclass(frozen=True)
class Writing:
    """How dialogues are written.

    - speakers: `name`: as the data has them; `local`: Speaker_1, Speaker_2 as they appear in the dialogue; `none`.
    - speaker_last: `text - Speaker` in place of `Speaker: text`. Behind the text, a causal network can then be asked
      who says it; before the text, it cannot be asked what a known speaker will feel.
    - cue: behind a turn whose label is read. gap: a line where turns are missing.
    - past: turns before one that are seen; None: all. future: turns after it.
    - longest: tokens of a row; longer dialogues are divided, each part beginning with turns of the one before."""

    speakers: Speakers = "name"
    speaker_last: bool = False
    cue: str = " (feels"
    gap: str = "..."
    past: int | None = None
    future: int = 0
    longest: int = 1024

    @staticmethod
    def of(config: DialogueConfig, model: Model) -> Writing:
        """As a technique's settings say, in rows that the model can read."""
        longest = min(config.max_tokens, model.context_length or config.max_tokens)
        return Writing(
            config.speakers, config.speaker_last, config.cue, config.gap, config.past, config.future, longest
        )


@dataclass(frozen=True)
class Script:
    """One row of tokens.

    - ids: the tokens. turns: numbers of the turns (in the data) whose label is read here.
    - reads: for each of them the position of the state it is read from. heads: the last position before its text
      (where its speaker is known, if it stands first); -1 at the very beginning.
    - asks: the position after its text and before its speaker, -1 where there is none; names: the tokens of its
      speaker's name.
    - spans: first and last position (and one more) of its text and a speaker that stands last."""

    ids: tuple[int, ...]
    turns: tuple[int, ...]
    reads: tuple[int, ...]
    heads: tuple[int, ...]
    asks: tuple[int, ...]
    names: tuple[tuple[int, ...], ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Line:
    """A turn in tokens: before the text, the text, what leads to a speaker that stands last, the speaker.

    - name: the tokens of the speaker."""

    head: list[int]
    text: list[int]
    lead: list[int]
    tail: list[int]
    name: tuple[int, ...]

    @property
    def ids(self) -> list[int]:
        return [*self.head, *self.text, *self.lead, *self.tail]

    def __len__(self) -> int:
        return len(self.ids)


class Writer:
    """Dialogues to scripts, with one tokenizer."""

    def __init__(self, tokenizer: Any, writing: Writing):
        self.tokenizer, self.writing = tokenizer, writing
        self.cue = self._ids(writing.cue)
        if not self.cue:
            raise BadInput("the cue has no tokens: give a word or a sign that a label follows")
        self.end = self._ids("\n")
        bare, first = self._ids("a"), list(tokenizer("a", verbose=False)["input_ids"])
        self.begin = first[: len(first) - len(bare)] if first[-len(bare) :] == bare else []
        self.cut = 0

    def write(self, turns: Sequence[Turn]) -> list[Script]:
        """Scripts of all dialogues among `turns` (by `group`; without one, a turn stands alone), in which every turn is
        read once. What is too long for a row is cut at the end of its text; a warning says how many turns that was."""
        self.cut = 0
        out: list[Script] = []
        for numbers in by_dialogue(turns):
            some = [turns[i] for i in numbers]
            lines = self._lines(some)
            if self.writing.past is None and not self.writing.future:
                out += self._rows(numbers, lines)
            else:
                out += [self._window(numbers, lines, i) for i in range(len(lines))]
        if self.cut:
            warnings.warn(f"{self.cut} turns were cut to fit rows of {self.writing.longest} tokens", Note, stacklevel=2)
        return out

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    def _lines(self, turns: Sequence[Turn]) -> list[Line]:
        names: dict[str, str] = {}
        out, writing = [], self.writing
        room = max(8, writing.longest // 2 - len(self.cue) - len(self.end) - len(self.begin))
        for i, turn in enumerate(turns):
            if writing.speakers == "local" and turn.speaker:
                name = names.setdefault(turn.speaker, f"Speaker_{len(names) + 1}")
            else:
                name = turn.speaker if writing.speakers == "name" else ""
            missing = i > 0 and turn.number - turns[i - 1].number > 1
            head = self._ids(writing.gap + "\n") if missing and writing.gap else []
            if turn.about:
                head += self._ids(f"[{turn.about}]\n")
            first = bool(name) and not writing.speaker_last
            lead: list[int] = []
            tail: list[int] = []
            if first:
                head += self._ids(f"{name}:")
            elif name:
                lead, tail = self._ids(" -"), self._ids(f" {name}")
            text = self._ids(f" {turn.text}" if first else turn.text)
            if len(head) + len(text) + len(lead) + len(tail) > room:
                self.cut += 1
                head, tail = head[-(room // 4) :], tail[: room // 4]
                text = text[: room - len(head) - len(lead) - len(tail)]
            out.append(Line(head, text, lead, tail, tuple(self._ids(f" {name}")) if name else ()))
        return out

    def _rows(self, numbers: Sequence[int], lines: Sequence[Line]) -> list[Script]:
        """The dialogue in rows of at most `longest` tokens; a row begins with as many turns of the one before as fit
        half of it."""
        extra = len(self.cue) + len(self.end)
        sizes = [len(line) + extra for line in lines]
        out, done = [], 0
        while done < len(lines):
            start, used = done, len(self.begin)
            most = min(self.writing.longest // 2, self.writing.longest - sizes[done])
            while start > 0 and out and used + sizes[start - 1] <= most:
                start -= 1
                used += sizes[start]
            end = done
            while end < len(lines) and (end == done or used + sizes[end] <= self.writing.longest):
                used += sizes[end]
                end += 1
            ids, places = list(self.begin), []
            for i in range(start, end):
                places.append(self._place(lines[i], len(ids)))
                ids += [*lines[i].ids, *self.cue, *self.end]
            read, head, ask, spans = zip(*places[done - start :], strict=True)
            names = tuple(line.name for line in lines[done:end])
            out.append(Script(tuple(ids[: read[-1] + 1]), tuple(numbers[done:end]), read, head, ask, names, spans))
            done = end
        return out

    def _place(self, line: Line, at: int) -> tuple[int, int, int, tuple[int, int]]:
        """(read, head, ask, span) of a line that begins at a position."""
        ask = at + len(line.head) + len(line.text) + len(line.lead) - 1 if line.tail else -1
        span = at + len(line.head), at + len(line)
        return at + len(line) + len(self.cue) - 1, at + len(line.head) - 1, ask, span

    def _window(self, numbers: Sequence[int], lines: Sequence[Line], i: int) -> Script:
        """One turn with its past and future. With turns after it, it is said again at the end, where it is asked."""
        past, future = self.writing.past, self.writing.future
        before = [[*line.ids, *self.end] for line in lines[(0 if past is None else max(0, i - past)) : i]]
        after = [[*self.end, *line.ids] for line in lines[i + 1 : i + 1 + future]]
        mine = lines[i]
        again = [*self.end, *mine.ids] if after else []
        left = self.writing.longest - len(self.begin) - len(mine) - len(again) - len(self.cue)
        while before and sum(map(len, before)) + sum(map(len, after)) > left:
            before.pop(0)
        while after and sum(map(len, after)) > left:
            after.pop()
        again = again if after else []
        ids = [*self.begin, *(t for line in before for t in line)]
        _, head, ask, span = self._place(mine, len(ids))
        ids += [*mine.ids, *(t for line in after for t in line), *again, *self.cue]
        if again:  # what was said, where it is known what came after
            span = len(ids) - len(self.cue) - len(mine) + len(mine.head), len(ids) - len(self.cue)
        return Script(tuple(ids), (numbers[i],), (len(ids) - 1,), (head,), (ask,), (mine.name,), (span,))


def by_dialogue(turns: Sequence[Turn]) -> list[list[int]]:
    """Numbers of the turns of each dialogue, in the order of their places in it; dialogues as they first appear."""
    groups: dict[object, list[int]] = {}
    for i, turn in enumerate(turns):
        groups.setdefault(turn.group if turn.group is not None else (i,), []).append(i)
    return [sorted(numbers, key=lambda i: turns[i].number) for numbers in groups.values()]
