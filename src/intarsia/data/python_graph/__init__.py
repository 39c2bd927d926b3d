"""The embedded growing knowledge graph: the standard library of the installed Python as facts. Nothing is downloaded.

- `python_graph(seed)`: the snapshots, by the version of Python that added each thing.
- `questions(snapshots, most)`: questions from the test splits that a Python programmer can check.
- `QUESTIONS`: the relations one can ask about, each with its question."""

from __future__ import annotations

from intarsia.data.python_graph.questions import Question, questions
from intarsia.data.python_graph.relations import QUESTIONS, library_facts
from intarsia.data.python_graph.sources import read_library
from intarsia.data.python_graph.timeline import snapshots_of
from intarsia.data.python_graph.versions import Versions
from intarsia.data.snapshots import FactSnapshot

__all__ = ["QUESTIONS", "Question", "python_graph", "questions"]


def python_graph(seed: int = 0) -> list[FactSnapshot]:
    """What the standard library of the running interpreter consists of, in snapshots: "up to 3.2", "3.3", "3.4", ...

    Entities have the names a programmer knows (`json.JSONDecoder`, `pathlib.Path.exists`, `FileNotFoundError`,
    `parameter timeout`, `Python 3.8`). A fact belongs to the snapshot of its latest entity. Within a snapshot about a
    tenth of the facts each go to `valid` and `test`, chosen by `seed`; what can be read off the names (`member_of`) and
    what brings an entity or a relation that no train split has yet goes to `train`.

    Takes some seconds. Source files are parsed, not run; of modules written in C, the members are listed. Equal for
    equal interpreters on equal platforms; what an interpreter lacks is not in its graph."""
    versions = Versions()
    facts, descriptions = library_facts(read_library(), versions)
    return snapshots_of(facts, descriptions, versions, seed)
