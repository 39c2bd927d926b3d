"""Three tasks that applications give a model, as they are written with Intarsia, and how good what comes of them is.

- `labelling`: the emotion of an utterance (MELD's test turns, as many of each emotion; where that is not there, the
  chapter of a text of Python's documentation). Scored, no token being made, one by one or several utterances in a
  request, each read by itself; or several put together and written as a list.
- `extraction`: name, module and exceptions out of a docstring of Python's documentation, into a pydantic model; one by
  one, or several in a request.
- `questions`: what a function is called, from a sentence that says what it does, over a store of the documentation: an
  answer and the passage it is from. A flow (search, ask), the same with several questions in a request, and an agent
  with a tool that searches, free to answer at once or made to search first."""

from __future__ import annotations

import itertools
import random
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from bench.prompting.questions import Question, python_docs
from intarsia.data import load_data, shared_data
from intarsia.prompting.base import Backend, Message, PromptingError, Sampling
from intarsia.prompting.data import Store
from intarsia.prompting.data.python_manual import python_manual
from intarsia.prompting.execute import agent, ask, ask_many, map_many, tool

AT_ONCE = 4
"""Requests under way at a time, on both sides."""
SAMPLING = Sampling(max_tokens=120)
TOGETHER = {"labelling": 10, "extraction": 4, "questions": 4}
"""Texts in a request, where several are asked together."""
HITS, STEPS = 3, 5
EXTRACT = "Read the entry of Python's documentation and fill in what it says."
EXTRACT_ALL = "Read each of the numbered entries of Python's documentation and fill in what it says."
ASK = "Answer the question about Python from the numbered passages, and name the one passage that the answer is from."
ASK_ALL = (
    "Answer each of the questions about Python from the numbered passages before it, and name the one passage that the "
    "answer is from."
)
MARK = "Part {number}:\n"  # passages have numbers of their own
SEARCH = (
    "Answer the question about Python. First search the documentation; then answer from the numbered passages that "
    "come back, and name the one passage that the answer is from."
)
_EXCEPTION = re.compile(r"\b[A-Z]\w*(?:Error|Exception|Warning)\b")


class Entry(BaseModel):
    """An entry of Python's documentation."""

    module: str = Field(description="the module, dots included", max_length=40)
    name: str = Field(description="the function, class or method, without the module", max_length=60)
    exceptions: list[str] = Field(description="exceptions that the entry names", max_length=4)


class Cited(BaseModel):
    """An answer and the passage it is from."""

    passage: Literal["1", "2", "3"] = Field(description="number of the passage that the answer is from")
    answer: str = Field(description="the answer, a few words", max_length=120)


Query = Annotated[str, Field(max_length=100)]
"""What a model searches for, on both sides: a small one that is held to a call never ends a text without bounds."""


@dataclass(frozen=True)
class Labelling:
    texts: tuple[str, ...]
    gold: tuple[str, ...]
    labels: tuple[str, ...]
    kind: str

    @property
    def system(self) -> str:
        return f"Name the {self.kind} of the text, one of: {', '.join(self.labels)}."

    @property
    def system_for_all(self) -> str:
        return f"Name the {self.kind} of each of the numbered texts, one of: {', '.join(self.labels)}."

    def judge(self, values: Sequence[Any]) -> float:
        """Share of right labels; values: labels, None where there is none."""
        return sum(a == b for a, b in zip(values, self.gold, strict=True)) / len(self.gold)


@dataclass(frozen=True)
class Extraction:
    texts: tuple[str, ...]
    gold: tuple[Entry, ...]

    def judge(self, values: Sequence[Any]) -> float:
        """Share of right fields; exceptions are right as a set."""
        right = 0
        for value, gold in zip(values, self.gold, strict=True):
            if value is not None:
                right += (value.module == gold.module) + (value.name == gold.name)
                right += set(value.exceptions) == set(gold.exceptions)
        return right / (3 * len(self.gold))


@dataclass(frozen=True)
class Asking:
    """store: what both sides search."""

    questions: tuple[Question, ...]
    store: Store

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(f"What does this: {question.text}" for question in self.questions)

    def judge(self, values: Sequence[Any]) -> float:
        """Share of answers whose passage is of the right section; values: (source, anchor) of what was cited."""
        gold = [(question.source, question.anchor) for question in self.questions]
        return sum(a == b for a, b in zip(values, gold, strict=True)) / len(gold)


def labelling(count: int, seed: int = 0) -> Labelling:
    """`count` texts, as many of each label as can be, no text twice."""
    folder = shared_data("dialogue/meld")
    rows = load_data(folder)["test"] if folder is not None else load_data("python-docs")["test"]
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.label and len(row.text.split()) > 3 and row.text not in by_label[row.label]:
            by_label[row.label].append(row.text)
    labels = sorted(sorted(by_label, key=lambda label: -len(by_label[label]))[:7])
    draw = random.Random(seed)
    for label in labels:
        draw.shuffle(by_label[label])
    mixed = [(text, label) for some in itertools.zip_longest(*(by_label[label] for label in labels))
             for text, label in zip(some, labels, strict=True) if text is not None]  # fmt: skip
    unique = dict(mixed[::-1])  # (a text with two labels keeps the first)
    chosen = list(dict.fromkeys(text for text, _ in mixed))[:count]
    kind = "emotion" if folder is not None else "chapter"
    return Labelling(tuple(chosen), tuple(unique[text] for text in chosen), tuple(labels), kind)


def extraction(count: int, seed: int = 0) -> Extraction:
    """`count` docstrings of a few lines that name one to four exceptions."""
    rows = []
    for document in python_manual():
        for section in document.sections if document.metadata["kind"] == "module" else ():
            text = document.text[section.start : section.end].strip()
            named = list(dict.fromkeys(_EXCEPTION.findall(text.partition("\n\n")[2])))
            if 150 <= len(text) <= 900 and 1 <= len(named) <= 4 and len(section.anchor) <= 60:
                rows.append((text, Entry(module=document.title, name=section.anchor, exceptions=named)))
    random.Random(seed).shuffle(rows)
    return Extraction(tuple(text for text, _ in rows[:count]), tuple(entry for _, entry in rows[:count]))


def asking(count: int, place: Path, sections: int = 300, seed: int = 0, **store: Any) -> Asking:
    """`count` questions over so many sections of the documentation, put into a store at `place`.

    store: options of `Store.open`."""
    documents, questions = python_docs(count, sections, seed)
    opened = Store.open(place, **store)
    opened.add(documents)
    return Asking(tuple(q for q in questions if q.kind == "sentence")[:count], opened)


def conversation(system: str, text: str) -> list[Message]:
    return [Message("system", system), Message("user", text)]


def numbered(texts: Sequence[str]) -> str:
    """Passages as both sides show them to a model."""
    return "\n\n".join(f"[{number}] {text}" for number, text in enumerate(texts, 1))


def with_passages(question: str, texts: Sequence[str]) -> str:
    """A question with what was found for it, as both sides ask."""
    return f"{numbered(texts)}\n\nQuestion: {question}"


async def label(backend: Backend, task: Labelling) -> list[Any]:
    """Each text's label, by the likelihood of all of them."""
    form = Literal[task.labels]

    async def one(text: str) -> Any:
        return (await ask(backend, conversation(task.system, text), shape=form)).value

    return await _each(one, task.texts)


async def label_many(backend: Backend, task: Labelling) -> list[Any]:
    """Each text's label, by likelihood, several texts in a request: the same scores."""
    prompts = [conversation(task.system, text) for text in task.texts]
    return await _together(backend, prompts, Literal[task.labels], TOGETHER["labelling"])


async def label_together(backend: Backend, task: Labelling) -> list[Any]:
    """Each text's label, several texts put together in a prompt, their labels written as a list."""
    prompts = [conversation(task.system_for_all, text) for text in task.texts]
    return await _together(backend, prompts, {"enum": list(task.labels)}, TOGETHER["labelling"])


async def extract(backend: Backend, task: Extraction) -> list[Any]:
    """Each text's entry, held to its form."""

    async def one(text: str) -> Any:
        return (await ask(backend, conversation(EXTRACT, text), shape=Entry, sampling=SAMPLING)).value

    return await _each(one, task.texts)


async def extract_together(backend: Backend, task: Extraction) -> list[Any]:
    """Each text's entry, several texts in a request."""
    prompts = [conversation(EXTRACT_ALL, text) for text in task.texts]
    return await _together(backend, prompts, Entry, TOGETHER["extraction"])


async def answer(backend: Backend, task: Asking) -> list[Any]:
    """Each question's cited section: searched for, then asked once."""

    async def one(question: str) -> tuple[str, str] | None:
        hits = task.store.search(question, HITS)
        prompt = conversation(ASK, with_passages(question, [hit.text for hit in hits]))
        return place_of((await ask(backend, prompt, shape=Cited, sampling=SAMPLING)).value, hits)

    return await _each(one, task.texts)


async def answer_together(backend: Backend, task: Asking) -> list[Any]:
    """Each question's cited section: all searched for, then several asked in a request."""
    found = [task.store.search(question, HITS) for question in task.texts]
    prompts = [
        conversation(ASK_ALL, with_passages(question, [hit.text for hit in hits]))
        for question, hits in zip(task.texts, found, strict=True)
    ]
    values = await _together(backend, prompts, Cited, TOGETHER["questions"], mark=MARK)
    return [place_of(value, hits) for value, hits in zip(values, found, strict=True)]


def place_of(cited: Cited | None, hits: Sequence[Any]) -> tuple[str, str] | None:
    """The section that an answer cites; None where it cites none that was found."""
    number = 0 if cited is None else int(str(cited.passage))
    return (hits[number - 1].source, hits[number - 1].anchor) if 0 < number <= len(hits) else None


async def answer_by_agent(backend: Backend, task: Asking, **made: Any) -> list[Any]:
    """Each question's cited section, by a model that searches itself. made: options of `agent`."""

    async def one(question: str) -> tuple[str, str] | None:
        last: list[Any] = []

        @tool(trusted=True)
        def search_documentation(query: Query) -> str:
            """Search Python's documentation.

            Args:
                query: what to look for.
            """
            last[:] = task.store.search(query, HITS)
            return numbered([hit.text for hit in last])

        prompt = conversation(SEARCH, question)
        done = await agent(
            backend, [search_documentation], prompt, shape=Cited, sampling=SAMPLING, steps=STEPS, fence=False, **made
        )  # fmt: skip
        return place_of(done.answer, last)

    return await _each(one, task.texts)


async def answer_by_agent_that_searches(backend: Backend, task: Asking) -> list[Any]:
    """The same by one that has to search before it answers, and answers in its last step."""
    return await answer_by_agent(backend, task, first="search_documentation", conclude=True)


async def _together(backend: Backend, prompts: Sequence[Any], shape: Any, together: int, **more: Any) -> list[Any]:
    """Values; None where an answer had not the form, or there was none."""
    found = await ask_many(
        backend, prompts, shape=shape, together=together, sampling=SAMPLING, at_once=AT_ONCE, keep_going=True, **more
    )
    return [getattr(one, "value", None) for one in found]


async def _each(one: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    """None where an answer had not the form, or there was none."""

    async def tried(text: str) -> Any:
        try:
            return await one(text)
        except PromptingError:
            return None

    return await map_many(tried, texts, AT_ONCE)


OURS: dict[str, dict[str, Callable[[Backend, Any], Any]]] = {
    "labelling": {"score, 10 a request": label_many, "score": label, "written together": label_together},
    "extraction": {"ask": extract, "together": extract_together},
    "questions": {
        "flow, together": answer_together, "flow": answer, "agent, search first": answer_by_agent_that_searches,
        "agent": answer_by_agent,
    },
}  # fmt: skip
"""What is measured, by task; the first of a task is what its figures are of: the fewest calls among those whose answers
were no worse than one by one."""
