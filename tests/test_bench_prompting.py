"""The benchmark of prompting: requests are counted exactly, tasks are judged right, and what is missing is left out."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys

import httpx2
import pytest

from bench.common import parser
from bench.prompting import __main__ as command
from bench.prompting import counting, langchain, langchain_peer, questions, retrieval, shapes, support, tasks
from bench.prompting.counting import Counting, Counts, Server, usage_in
from intarsia.prompting.base import BackendError, Call, FakeBackend
from intarsia.prompting.data import Store
from intarsia.server.service import Serving, service
from tests.server_help import running
from tests.store_help import HashedWords, manual_of

TEXTS = {
    "stack.push": "Put a thing on top of all other things here.\n\nRaises ValueError where there is no room left, or "
    "OverflowError where there will never be any, and gives back nothing.",
    "stack.pop": "Take the thing that came last away from its place.\n\nRaises IndexError where nothing is there; what "
    "it took is given back, so that somebody may use it again, or put it elsewhere.",
    "stack.peek": "Look at what came last without moving it away.\n\nRaises IndexError where there is nothing to be "
    "seen, and leaves all as it was; so it may be done as often as anybody wants to.",
}


manual = manual_of(TEXTS, "stack")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(tasks, "python_manual", manual)
    monkeypatch.setattr(questions, "python_manual", manual)


@contextlib.contextmanager
def served(backend):
    serving = Serving()
    serving.registry.add("fake", backend)
    with running(Counting(service(serving))) as address:
        yield Server(f"{address}/v1", "fake")


LABELS = tasks.Labelling(("so glad", "so sad"), ("joy", "grief"), ("grief", "joy"), "emotion")


def test_every_request_and_token_is_counted():
    backend = FakeBackend(["one two three", "four five", BackendError("no")])
    talk = {"model": "fake", "messages": [{"role": "user", "content": "Say it."}]}
    with served(backend) as server:
        before = server.counts()
        said = httpx2.post(f"{server.url}/chat/completions", json=talk).json()
        assert server.counts().calls - before.calls == 1
        stream = {**talk, "stream": True, "stream_options": {"include_usage": True}}
        assert "five" in httpx2.post(f"{server.url}/chat/completions", json=stream).text
        assert httpx2.post(f"{server.url}/chat/completions", json=talk).status_code >= 500
        assert httpx2.post(f"{server.url}/chat/completions", json={"model": "none"}).status_code == 400
        choices = {"model": "fake", "prompt": "a b", "choices": ["c d e", "f"]}
        scored = httpx2.post(f"{server.url}/score", json=choices).json()
        httpx2.get(f"{server.url}/models")
        found = server.counts() - before
    prompt = said["usage"]["prompt_tokens"]
    assert (found.calls, found.failed) == (5, 2)
    assert found.completion == 3 + 2
    assert found.prompt == 2 * prompt + scored["usage"]["prompt_tokens"]
    assert scored["usage"]["prompt_tokens"] == 2 + 2 and found.seconds > 0  # "c d" is read, and no choice's last token


def test_usage_of_answers_and_of_events():
    assert usage_in(b'{"usage": {"prompt_tokens": 3}}') == {"prompt_tokens": 3}
    assert usage_in(b'{"data": []}') == {}
    events = b'data: {"usage": null}\n\ndata: {"choices": [], "usage": {"prompt_tokens": 7}}\n\ndata: [DONE]\n\n'
    assert usage_in(events) == {"prompt_tokens": 7}


def test_labels_are_scored_without_a_token_made():
    backend = FakeBackend(scores=lambda prompt, choice: float((choice == "joy") == ("glad" in prompt[-1].content)))
    values = asyncio.run(tasks.label(backend, LABELS))
    assert values == ["joy", "grief"] and LABELS.judge(values) == 1 and LABELS.judge(["joy", None]) == 0.5
    assert [request.kind for request in backend.requests] == ["score", "score"]


def test_labels_of_many_texts_are_scored_each_by_itself_or_written_as_a_list():
    backend = FakeBackend(scores=lambda prompt, choice: float((choice == "joy") == ("glad" in prompt[-1].content)))
    assert asyncio.run(tasks.label_many(backend, LABELS)) == ["joy", "grief"]
    assert {request.prompt[0].content for request in backend.requests} == {LABELS.system}
    written = FakeBackend({r"^\[1\] so glad\n\n\[2\] so sad$": '["joy", "grief"]'})
    assert asyncio.run(tasks.label_together(written, LABELS)) == ["joy", "grief"]
    assert [request.kind for request in written.requests] == ["generate"]
    failing = FakeBackend(errors={1: BackendError("no"), 2: BackendError("no"), 3: BackendError("no")})
    assert asyncio.run(tasks.label_together(failing, LABELS)) == [None, None]


def test_entries_are_extracted_together():
    task = tasks.extraction(3)
    backend = FakeBackend([json.dumps([entry.model_dump() for entry in task.gold])])
    assert task.judge(asyncio.run(tasks.extract_together(backend, task))) == 1
    assert all(f"[{number}] stack." in backend.requests[0].prompt[-1].content for number in (1, 2, 3))


def test_entries_are_extracted_and_judged_by_field():
    task = tasks.extraction(3)
    gold = {entry.name: entry for entry in task.gold}
    assert gold["push"] == tasks.Entry(module="stack", name="push", exceptions=["ValueError", "OverflowError"])
    answers = {entry.name: entry.model_dump_json() for entry in task.gold}
    wrong = '{"module": "stack", "name": "x", "exceptions": ["OverflowError", "ValueError"]}'
    backend = FakeBackend({f"^stack.{name}\\n": text for name, text in {**answers, "push": wrong}.items()})
    values = asyncio.run(tasks.extract(backend, task))
    assert task.judge(values) == pytest.approx(8 / 9) and task.judge([None] * 3) == 0


def test_what_has_not_the_form_is_no_answer():
    values = asyncio.run(tasks.extract(FakeBackend(lambda _: "no JSON"), tasks.extraction(2)))
    assert values == [None, None]


@pytest.fixture
def asking(tmp_path):
    made = tasks.asking(3, tmp_path / "store", sections=10, encoder=HashedWords())
    with made.store:
        yield made


def test_questions_are_answered_with_the_passage_that_was_meant(asking):
    def first(prompt):
        assert "[1] " in prompt[-1].content and prompt[-1].content.count("\n\nQuestion: What does this: ") == 1
        return '{"passage": "1", "answer": "it"}'

    values = asyncio.run(tasks.answer(FakeBackend(first), asking))
    best = [asking.store.search(text, 1)[0] for text in asking.texts]
    assert values == [(hit.source, hit.anchor) for hit in best]
    gold = [(question.source, question.anchor) for question in asking.questions]
    assert len(gold) == 3 and asking.judge(values) == sum(a == b for a, b in zip(values, gold, strict=True)) / 3


def test_an_agent_searches_and_then_cites(asking):
    def script(prompt):
        if prompt[-1].role == "tool":
            assert prompt[-1].content.startswith("[1] ")
            return '{"passage": "2", "answer": "it"}'
        return Call("search_documentation", {"query": prompt[-1].content})

    backend = FakeBackend(script)
    values = asyncio.run(tasks.answer_by_agent(backend, asking))
    second = [asking.store.search(text, 3)[1] for text in asking.texts]
    assert values == [(hit.source, hit.anchor) for hit in second] and len(backend.requests) == 6
    silent = FakeBackend(lambda _: '{"passage": "2", "answer": "it"}')
    assert asyncio.run(tasks.answer_by_agent(silent, asking)) == [None] * 3  # cited what it never saw
    made = FakeBackend(script)
    assert asyncio.run(tasks.answer_by_agent_that_searches(made, asking)) == values and len(made.requests) == 6
    forced = [request.constraint and request.constraint.kind for request in made.requests]
    assert forced.count("call") == 3


def test_questions_are_answered_together(asking):
    def second(prompt):
        assert [f"Part {number}:\n[1] " in prompt[-1].content for number in (1, 2, 3)] == [True] * 3
        return json.dumps([{"passage": "2", "answer": "it"}] * 3)

    backend = FakeBackend(second)
    values = asyncio.run(tasks.answer_together(backend, asking))
    seconds = [asking.store.search(text, 3)[1] for text in asking.texts]
    assert values == [(hit.source, hit.anchor) for hit in seconds] and len(backend.requests) == 1


def test_texts_to_label_are_of_all_labels_and_differ(tmp_path, monkeypatch):
    rows = "".join(f"{n},0,A,text number {n // 2} is here,{label},1,1,1,0,0\n" for n, label in enumerate("aabbab" * 5))
    head = "dialogue_id,utterance_id,speaker,utterance,emotion,sentiment,season,episode,start,end\n"
    (tmp_path / "dialogue" / "meld").mkdir(parents=True)
    for split in ("train", "dev", "test"):
        (tmp_path / "dialogue" / "meld" / f"{split}.csv").write_text(head + rows)
    monkeypatch.setenv("INTARSIA_DATA", str(tmp_path))
    made = tasks.labelling(8)
    assert made.labels == ("a", "b") and len(set(made.texts)) == len(made.texts) == 8
    assert made.gold.count("a") == 4 and made == tasks.labelling(8) != tasks.labelling(8, seed=1)


ROWS = [
    langchain.Row("t", "mine", True, Counts(10, 0, 900, 0, 100), 1, 1, 1, 1, Counts()),
    langchain.Row("t", "agent", False, Counts(20, 0, 1500, 0, 500), 1, 1, 1, 1, Counts(3)),
    langchain.Row("t", "chain", False, Counts(10, 0, 1000, 0, 200), 1, 1, 1, 1, Counts()),
    langchain.Row("u", "mine", True, Counts(10, 0, 500, 0, 0), 1, 1, 1, 1, Counts()),
    langchain.Row("u", "other", True, Counts(90, 0, 9000, 0, 0), 1, 1, 1, 1, Counts()),
    langchain.Row("u", "agent", False, Counts(40, 0, 500, 0, 0), 1, 1, 1, 1, Counts()),
]


def test_ratios_are_means_of_tasks():
    found = langchain.figures(ROWS)
    assert found["calls_ratio_langchain"] == 3 and found["tokens_ratio_langchain"] == 1.5
    assert found["calls_ratio_langchain_best"] == 2.5 and found["tokens_ratio_langchain_best"] == 1.1
    assert found["t.langchain_agent.calls_again"] == 3 and found["u.ours_other.prompt_tokens"] == 9000
    alone = langchain.figures([row for row in ROWS if row.ours])
    assert "calls_ratio_langchain" not in alone and alone["t.ours_mine.calls"] == 10


def test_what_does_the_same_work_is_set_side_by_side():
    counts = Counts(10, 0, 900, 0, 100)
    made = [
        langchain.Row("questions", "flow", True, counts, 1, 1, 1, 1, Counts()),
        langchain.Row("questions", "chain", False, Counts(20, 0, 2500, 0, 500), 1, 1, 1, 1, Counts()),
        langchain.Row("questions", "agent", False, counts, 1, 1, 1, 1, Counts()),
    ]
    assert langchain.alike(made) == {("questions", "flow", "chain"): (2, 3)}
    assert langchain.figures(made)["questions.like_flow_and_chain.tokens_ratio"] == 3
    assert langchain.alike(made[:1]) == {}
    names = {task: set(contenders) for task, contenders in tasks.OURS.items()}
    assert all(mine in names[task] for task, pairs in langchain.LIKE.items() for mine, _ in pairs)


def tiny(sizes, folder):
    store = Store.open(folder / "store", HashedWords())
    documents, asked = questions.python_docs(3)
    store.add(documents)
    return {
        "labelling": LABELS,
        "extraction": tasks.extraction(2),
        "questions": tasks.Asking(tuple(q for q in asked if q.kind == "sentence")[:2], store),
    }


def quick():
    return parser("").parse_args(["--quick"])


def test_ours_is_counted_where_langchain_is_not_there(monkeypatch, capsys):
    def absent(folder):
        raise ImportError("No module named 'langchain'")

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(langchain_peer, "here", absent)
    monkeypatch.setattr(langchain, "made", tiny)
    found = langchain.run(quick(), lambda: served(FakeBackend()))
    told = capsys.readouterr().out
    assert "LangChain is left out (No module named 'langchain')" in told and "intarsia, score" in told
    assert found["labelling.ours_score.calls"] == 2 and found["labelling.ours_score.completion_tokens"] == 0
    assert found["labelling.ours_score_10_a_request.calls"] == found["labelling.ours_written_together.calls"] == 1
    assert found["labelling.ours_score_10_a_request.prompt_tokens"] == found["labelling.ours_score.prompt_tokens"]
    assert found["questions.ours_agent_search_first.valid_share"] == 1
    assert found["extraction.ours_ask.calls"] == 2 and found["extraction.ours_ask.valid_share"] == 1
    assert found["questions.ours_flow.calls"] == 2
    assert not any(value for name, value in found.items() if name.endswith("calls_again"))
    assert not any("langchain" in name for name in found)


def test_langchain_is_counted_where_it_is(monkeypatch):
    pytest.importorskip("langchain_openai", reason="LangChain is not installed")
    pytest.importorskip("langchain", reason="LangChain is not installed")
    monkeypatch.setattr(langchain, "made", tiny)
    found = langchain.run(quick(), lambda: served(FakeBackend()))
    assert found["extraction.langchain_structured.calls"] == 2
    assert found["extraction.langchain_structured.valid_share"] == 1
    assert found["questions.langchain_chain.calls"] == 2 and found["questions.langchain_chain.calls_again"] == 0
    assert found["questions.langchain_agent_search_first.calls"] >= 4
    assert found["questions.like_flow_and_chain.calls_ratio"] == 1
    assert found["calls_ratio_langchain"] > 0 and found["calls_ratio_langchain_best"] > 0


def test_where_langchain_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "langchain_openai", None)
    with pytest.raises(ImportError):
        langchain_peer.here(tmp_path)
    assert sys.path[-1] == str(tmp_path)


def test_parts_are_joined_and_written(monkeypatch, tmp_path):
    asked = {}
    monkeypatch.setattr(shapes, "run", lambda **given: asked.update(given) or {"valid_schema_share": 1.0, "mask_us": 2})
    monkeypatch.setattr(
        retrieval, "run", lambda sets, **_: {"hybrid_minus_best_single_recall5": 0.1, f"{sets[0]}.chunks": 5}
    )
    monkeypatch.setattr(langchain, "run", lambda _: {"calls_ratio_langchain": 2.0, "labelling.ours_score.calls": 3})
    monkeypatch.setattr(support, "run", lambda most: {"support.same.refused": float(most)})
    file = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["prompting", "--quick", "--threads", "1", "--json", str(file)])
    command.main()
    assert asked == {"quick": True}
    assert json.loads(file.read_text()) == {
        "valid_schema_share": 1.0, "shapes.mask_us": 2, "hybrid_minus_best_single_recall5": 0.1,
        "retrieval.python.chunks": 5, "calls_ratio_langchain": 2.0, "langchain.labelling.ours_score.calls": 3,
        "support.support.same.refused": float(support.QUICK),
    }  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["prompting", "--threads", "1", "--json", str(file), "--parts", "langchain"])
    command.main()
    assert set(json.loads(file.read_text())) == {"calls_ratio_langchain", "langchain.labelling.ours_score.calls"}


def test_a_server_that_does_not_start_is_told(monkeypatch):
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RuntimeError, match="did not start"), counting.running("no-such-model-at-all"):
        pass
