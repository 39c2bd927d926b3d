"""Assistants from the command line and over HTTP, and with a real model."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from intarsia.cli.app import run
from intarsia.prompting.assistant import Assistant, new_assistant
from intarsia.prompting.assistant.measuring import read
from intarsia.prompting.assistant.opening import _opened
from intarsia.prompting.assistant.python_names import describe
from intarsia.prompting.assistant.scaffolding import PYTHON_RELATIONS
from tests.assistant_help import handbook, made


@pytest.fixture(autouse=True)
def traces(tmp_path, monkeypatch):
    monkeypatch.setenv("INTARSIA_TRACE", str(tmp_path / "traces.sqlite"))
    yield
    _opened.clear()


def said(capsys, *arguments, code=0):
    assert run(list(arguments)) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_from_a_folder_to_an_answer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(handbook(tmp_path))
    out = said(capsys, "new", "assistant", "helper", "--documents", "handbook", "--graph", "facts.tsv", "--encoder",
               "none", "--model", "fake:")  # fmt: skip
    assert out == "helper: 2 documents, 3 facts; `intarsia assistant ask helper QUESTION`\n"
    assert "is there already" in said(capsys, "new", "assistant", "helper", "--documents", "handbook", code=2)
    out = said(capsys, "assistant", "ask", "helper", "How long is the warranty of the kettle?")
    assert "“The warranty of the kettle is two years" in out and "[1] handbook/kettle.md#warranty" in out
    found = json.loads(said(capsys, "assistant", "ask", "helper", "Who is the Kettle made by?", "--json"))
    assert found["answer"] == "Kettle made by Smith and Sons. [E1]" and found["by"] == "facts" and found["trace"]
    assert "The documents do not say" in said(capsys, "assistant", "ask", "helper", "How deep is Lake Baikal?")
    monkeypatch.setattr("sys.stdin", io.StringIO("How do I descale the kettle?\nAnd wash the pan?\n\nnot read\n"))
    out = said(capsys, "assistant", "chat", "helper")
    assert out.index("50 ml of vinegar") < out.index("by hand") and "not read" not in out
    (tmp_path / "handbook" / "oven.md").write_text("# Oven\n\nThe oven is cleaned with soda and a wet cloth.\n")
    assert said(capsys, "assistant", "update", "helper") == (
        "helper: 1 new, 0 changed, 2 unchanged, 0 removed; 0 new facts\n"
    )
    lines = said(capsys, "assistant", "measure", "helper").splitlines()
    assert lines[1].split() == ["a", "right", "place", "among", "the", "first", "1", "1.00"]
    assert lines[-1].startswith("4 questions: 4 by quotes; ")
    figures = json.loads(said(capsys, "assistant", "measure", "helper", "--json"))
    assert figures["right"] == {"1": 1.0, "3": 1.0, "5": 1.0} and figures["kept"] == 1.0
    assert "no assistant there" in said(capsys, "assistant", "ask", "handbook", "Why?", code=2)


def test_over_http(tmp_path):
    from fastapi.testclient import TestClient

    from intarsia.server.setting_up import Wanted, set_up

    helper = made(tmp_path)
    app, _ = set_up(Wanted(flows=str(helper.folder / "flow.py"), mcp=False))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        listed = {one["name"]: one for one in client.get("/flows").json()["data"]}
        assert "question" in listed["answer"]["inputs"]
        asked = {"question": "How do I descale the kettle?",
                 "history": [{"question": "Whose is the kettle?", "answer": "Yours."}]}  # fmt: skip
        got = client.post("/flows/answer", json={"inputs": asked}).json()
        assert got["status"] == "done" and "50 ml of vinegar" in got["output"]["answer"]
        assert got["output"]["citations"][0]["place"] == "handbook/kettle.md#descaling"
        # A client cannot have the server open what it likes.
        wrong = client.post("/flows/answer", json={"inputs": {"question": "Why?", "store": "/etc"}})
        assert wrong.status_code == 400


def test_the_example_of_pythons_documentation(tmp_path, monkeypatch):
    """Its project, over a corner of the documentation and of the facts: the whole takes minutes."""
    from intarsia.data import Fact, FactSnapshot
    from intarsia.prompting.assistant import documents
    from intarsia.prompting.data import python_manual

    monkeypatch.setattr(python_manual, "CHAPTER_OF", dict.fromkeys(("json", "heapq"), "Data"))
    facts = [
        Fact("json.JSONDecodeError", "inherits_from", "ValueError"),
        Fact("functools.cache", "added_in", "Python 3.9"),
    ]
    monkeypatch.setitem(documents.known_graphs(), "python", lambda: [FactSnapshot("all", facts)])
    helper = new_assistant(tmp_path / "python", python=True, encoder=None, model="fake:")
    assert helper.settings.relations == PYTHON_RELATIONS and helper.settings.documents == ["python-docs"]
    questions = read(helper.folder / "questions.jsonl", wants_sources=True)
    assert len(questions) == 46

    def asked(question):
        return helper.flow().run_now({"question": question}).value

    reply = asked("How do I read a JSON file?")
    assert reply.citations[0].place == "python:json#load" and "Deserialize" in reply.answer
    assert asked("What is the base class of json.JSONDecodeError?").answer.startswith(
        "json.JSONDecodeError inherits from"
    )
    assert asked("In which version was functools.cache added?").answer == "functools.cache added in Python 3.9. [E2]"
    lookup = next(one for one in helper.tools() if one.name == "lookup")
    assert lookup("json.loads").startswith("json.loads(s, *, cls=None")


def test_names_are_looked_up_and_nothing_else():
    from intarsia.errors import BadInput

    assert describe("os.path.join()").startswith("os.path.join(a, *p)")
    assert describe("len").startswith("len(obj, /)") and "FileNotFoundError" in describe("FileNotFoundError")
    for wrong in ("antigravity", "numpy.array", "json.nothing", "os.system('ls')", "", "len.__self__"):
        with pytest.raises(BadInput):
            describe(wrong)


@pytest.mark.real
@pytest.mark.slow
def test_a_real_model_answers_or_quotes(tmp_path):
    handbook(tmp_path)
    helper = new_assistant(tmp_path / "helper", [tmp_path / "handbook"], encoder=None)

    async def both():
        flow = helper.flow().function
        found = [await flow(q) for q in ("How long is the warranty of the kettle?", "Who painted the ceiling?")]
        await helper.close()
        return found

    first, second = asyncio.run(both())
    assert first.by in ("model", "quotes") and "two years" in first.answer
    assert first.citations[0].place == "handbook/kettle.md#warranty"
    assert second.refused
    assert Assistant.open(helper.folder).settings == helper.settings
