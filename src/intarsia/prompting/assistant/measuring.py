"""How good an assistant is on questions with the places that answer them, and on questions that nothing answers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput
from intarsia.progress import track
from intarsia.prompting.assistant.opening import Assistant
from intarsia.prompting.assistant.replies import Citation, Reply

AT = (1, 3, 5)


@dataclass(frozen=True)
class Asked:
    """One question and what came of it. place: of the first right place among those told, from 1; 0: none of them.
    cited: whether the answer itself rests on a right one."""

    question: str
    sources: tuple[str, ...]
    answer: str
    by: str
    place: int
    cited: bool
    seconds: float


@dataclass(frozen=True)
class MeasuredAssistant:
    """- right: share of answerable questions with a right place among the first 1, 3 and 5 told (those cited, then the
      nearest). cited: share whose answer cites a right place. refused: share of them that was refused.
    - kept: share of unanswerable questions that was refused; None without any. copied: share of answers in which words
      are marked as copied. by: how many were made of what. seconds: for a question: median and slowest."""

    questions: int
    right: dict[int, float]
    cited: float
    refused: float
    unanswerable: int
    kept: float | None
    copied: float
    by: dict[str, int]
    seconds: tuple[float, float]
    rows: tuple[Asked, ...]


async def measure(
    assistant: Assistant, questions: str | Path | None = None, unanswerable: str | Path | None = None
) -> MeasuredAssistant:  # fmt: skip
    """Ask an assistant every question of its sets, by its own flow `answer`.

    Lines of the sets: `{"question", "sources"}`, the sources citations as it gives them, documents, or facts word for
    word; `{"question"}` where nothing answers it. Raises `BadInput` with the line."""
    folder = assistant.folder
    given = read(Path(questions) if questions is not None else folder / "questions.jsonl", wants_sources=True)
    others_file = Path(unanswerable) if unanswerable is not None else folder / "unanswerable.jsonl"
    others = read(others_file, wants_sources=False) if unanswerable is not None or others_file.is_file() else []
    flow = assistant.flow("answer")
    rows, marked, answered = [], 0, 0
    for question, sources in track([*given, *others], "asking"):
        begun = time.perf_counter()
        reply: Reply = await flow.function(question)
        seconds = time.perf_counter() - begun
        told = [*reply.citations, *reply.nearest]
        place = next((i for i, one in enumerate(told, 1) if _right(one, sources)), 0)
        cited = any(_right(one, sources) for one in reply.citations)
        rows.append(Asked(question, sources, reply.answer, reply.by, place, cited, seconds))
        marked, answered = marked + bool(reply.copied), answered + (not reply.refused)
    asked, rest = rows[: len(given)], rows[len(given) :]
    times = sorted(row.seconds for row in rows)
    return MeasuredAssistant(
        questions=len(asked),
        right={k: _share(0 < row.place <= k for row in asked) for k in AT},
        cited=_share(row.cited for row in asked),
        refused=_share(row.by == "nothing" for row in asked),
        unanswerable=len(rest),
        kept=_share(row.by == "nothing" for row in rest) if rest else None,
        copied=marked / answered if answered else 0.0,
        by={by: sum(row.by == by for row in asked) for by in ("facts", "model", "quotes", "nothing")},
        seconds=(times[len(times) // 2], times[-1]),
        rows=tuple(rows),
    )


def read(file: Path, wants_sources: bool) -> list[tuple[str, tuple[str, ...]]]:
    """(question, sources) of each line."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); give a JSONL file of questions") from None
    out = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
            sources = row.get("sources", [])
            sources = [sources] if isinstance(sources, str) else sources
            question = row["question"]
        except (ValueError, AttributeError, KeyError):
            raise BadInput(f'{file}:{number}: wants {{"question": ..., "sources": [...]}}') from None
        if wants_sources and not sources:
            raise BadInput(f"{file}:{number}: no sources; what nothing answers belongs into unanswerable.jsonl")
        out.append((str(question), tuple(map(str, sources))))
    if wants_sources and not out:
        raise BadInput(f"{file}: no questions in it")
    return out


def _right(told: Citation, sources: Sequence[str]) -> bool:
    document = told.place.partition("#")[0].rpartition(":")[0] if "-" in told.place.rpartition(":")[2] else told.place
    return bool({told.place, told.about, document, told.place.partition("#")[0]} & set(sources))


def _share(values: Any) -> float:
    given = list(values)
    return sum(given) / len(given) if given else 0.0
