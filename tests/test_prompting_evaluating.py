"""Evaluation: figures against naive ones, gates, paired changes, judges, replays, stops, and searches."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from intarsia.errors import BadInput, Note, OutOfBudget
from intarsia.prompting.base import BackendError, Reply, Sampling
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.evaluating import EvalFinding, Evaluation, RetrievalEvaluation, earlier, metric_of
from intarsia.prompting.execute.evaluating.cases import labels_of
from intarsia.prompting.execute.evaluating.gates import gates_of
from intarsia.prompting.execute.evaluating.retrieval import places_of
from intarsia.prompting.execute.flows import SomeFailed
from intarsia.prompting.execute.prompt import Prompt
from intarsia.report import Finding, render_finding

EMOTION = "---\ninputs:\n  turn: str\n---\n{% user %}Emotion of: {{ turn }}{% enduser %}\n"
WORDS = ["joy", "anger", "fear"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "emotion.md.j2").write_text(EMOTION)
    rng = np.random.default_rng(0)
    rows = [{"turn": f"turn {i}", "label": WORDS[int(rng.integers(3))], "dialogue_id": f"d{i // 4}"} for i in range(40)]
    (tmp_path / "set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def rows_of(place: Path) -> list[dict]:
    return [json.loads(line) for line in (place / "set.jsonl").read_text().splitlines()]


def scorer(place: Path, wrong: int = 3, name: str = "fake") -> FakeBackend:
    """Takes the wanted label, but for every `wrong`-th turn, where it takes another one."""
    gold = {row["turn"]: row["label"] for row in rows_of(place)}

    def score(prompt, choice):
        turn = prompt[-1].content.removeprefix("Emotion of: ").strip()
        number = int(turn.split()[1])
        said = gold[turn] if number % wrong else WORDS[(WORDS.index(gold[turn]) + 1) % 3]
        return 0.0 if choice == said else -3.0

    return FakeBackend(scores=score, name=name)


def answers_of(place: Path, wrong: int = 3) -> list[str]:
    return [
        row["label"] if i % wrong else WORDS[(WORDS.index(row["label"]) + 1) % 3]
        for i, row in enumerate(rows_of(place))
    ]


def measured(evaluation: Evaluation, backend, **options) -> EvalFinding:
    return asyncio.run(evaluation.run(backend, **options))


def emotion(*metrics: str, **options) -> Evaluation:
    return Evaluation("set.jsonl", Prompt.load("emotion.md.j2"), metrics or ("accuracy",), **options)


def test_figures_equal_the_naive_ones_and_lie_in_their_intervals(place):
    backend = scorer(place)
    found = measured(emotion("accuracy", "macro_f1", "wf1"), backend)
    gold, said = [row["label"] for row in rows_of(place)], answers_of(place)
    assert [row.answer for row in found.rows] == said and found.labels == sorted(WORDS)
    expected = {
        "accuracy": sk.accuracy_score(gold, said), "macro_f1": sk.f1_score(gold, said, average="macro"),
        "wf1": sk.f1_score(gold, said, average="weighted"),
    }  # fmt: skip
    for name, value in expected.items():
        got, low, high = found.metrics[name]
        assert got == pytest.approx(value) and low < got < high
    assert {r.kind for r in backend.requests} == {"score"} and len(backend.requests) == 40
    assert found.confusion == sk.confusion_matrix(gold, said, labels=found.classes).tolist()
    assert found.rows[0].group == "d0" and found.rows[0].probability == pytest.approx(1 / (1 + 2 * np.exp(-3)))


def test_written_answers_are_classes_where_labels_are_not_scored(place):
    gold = rows_of(place)
    said = [" Joy. ", "ANGER", "no idea", *(row["label"] for row in gold[3:])]
    backend = FakeBackend(said)
    found = measured(emotion("accuracy", "wf1", labels=[]), backend, at_once=1)
    classes = ["joy", "anger", "(another)", *(row["label"] for row in gold[3:])]
    truth = [row["label"] for row in gold]
    assert found.metrics["accuracy"][0] == pytest.approx(sk.accuracy_score(truth, classes))
    assert found.metrics["wf1"][0] == pytest.approx(sk.f1_score(truth, classes, average="weighted", zero_division=0))
    assert {r.kind for r in backend.requests} == {"generate"}


class Unscored(FakeBackend):
    async def score(self, prompt, choices):
        raise BadInput("it does not score")


def test_labels_asked_together_are_scored_as_one_by_one(place):
    together, apart = scorer(place), scorer(place)
    found = measured(emotion(), together, together=7)
    assert found.metrics == measured(emotion(), apart).metrics
    assert {request.kind for request in together.requests} == {"score"}


def test_records_asked_together_are_measured_kept_and_replayed(place):
    said, changed = answers_of(place), []

    def script(prompt):
        turns = [int(n) for n in re.findall(r"(?m)^\[\d+\] Emotion of: turn (\d+)$", prompt[-1].content)]
        return json.dumps(["fear" if said[turn] in changed else said[turn] for turn in turns])

    backend = Unscored(script)
    found = measured(emotion(), backend, together=9, at_once=2, out=place / "out")
    assert [row.answer for row in found.rows] == said and len(backend.requests) == 5  # 4 of nine, one of four
    assert found.metrics["accuracy"][0] == measured(emotion(), scorer(place)).metrics["accuracy"][0]
    assert "9 records were asked together" in found.notes[-1] and found.tokens > 0
    again = measured(emotion(), Unscored(script), together=9, out=place / "out", replay=True)
    assert again.metrics == found.metrics and "40 answers were taken from the record" in again.notes
    # Asked otherwise, they are other answers.
    apart = scorer(place)
    measured(emotion(), apart, out=place / "out", replay=True)
    assert len(apart.requests) == 40
    changed.append("joy")
    found = measured(emotion(), Unscored(script), together=9, out=place / "out", check=True)
    assert len(found.differing) == said.count("joy")


def test_a_group_that_was_stopped_is_asked_again_whole(place):
    said = answers_of(place)
    first = Unscored([json.dumps(said[:20]), BackendError("down", retryable=True)])
    with pytest.raises(SomeFailed, match="down"):
        measured(emotion(), first, together=20, at_once=1, out=place / "out")

    rest = Unscored(["no list", *(Reply(word) for word in ["joy", "no emotion", *said[22:]])])
    rest.fingerprint = first.fingerprint  # the same model, up again
    found = measured(emotion(), rest, together=20, at_once=1, out=place / "out")
    assert [row.answer for row in found.rows] == [*said[:20], "joy", "no emotion", *said[22:]]
    assert [bool(row.error) for row in found.rows].count(True) == 1 and len(rest.requests) == 21


MINE = """
def same(answer, gold):
    return answer == gold

def third(answer, gold, row):
    return row["w"]

def bad(answer):
    return 1

def fails(answer, gold):
    1 / 0
"""


def one(metric: str, answer: str, gold: str = "", row=None) -> float:
    return metric_of(metric).each(answer, gold, row or {})


def test_metrics_of_single_answers(place):
    assert one("exact", " a  b", "a b") == 1 and one("exact", "a b c", "a b") == 0
    assert one("exact", '{"b": 2, "a": 1}', '{"a": 1, "b": 2}') == 1 and one("exact", "{", '{"a": 1}') == 0
    assert one("contains", "It is Paris, I think", "paris") == 1 and one("contains", "Parisian", "paris") == 0
    assert one("rouge", "the cat sat", "the cat sat") == 1 and 0 < one("rouge", "the cat", "the cat sat") < 1
    assert one("regex", "call 555-1234", r"\d{3}-\d{4}") == 1 and one("regex:^no$", "not") == 0
    assert one("json_valid", '{"a": [1]}') == 1 and one("json_valid", "{a}") == 0
    (place / "mine.py").write_text(MINE)
    assert one("python:mine.py:same", "x", "x") == 1 and one("python:mine:third", "", "", {"w": 0.25}) == 0.25
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        one("python:mine.py:fails", "x", "x")
    for name, words in {
        "acuracy": r"no metric 'acuracy' \(did you mean accuracy", "regex:(": "no regular expression",
        "python:x": "give python:module:function", "python:mine.py:none": "no function 'none'",
        "python:nowhere.none:f": "cannot be imported", "python:mine.py:bad": "takes 1 parameters",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=words):
            metric_of(name)


def test_paired_changes_know_more_than_two_intervals(place):
    first = measured(emotion("accuracy", "wf1"), scorer(place, 3, "old"), out="old")
    again = emotion("accuracy", "wf1", against="old", gates=["change:accuracy>=0", "wf1>=0.1"])
    second = measured(again, scorer(place, 5, "new"))
    gold = [row["label"] for row in rows_of(place)]
    before, after = (np.array(answers_of(place, n)) == gold for n in (3, 5))
    value, low, high = second.changes["accuracy"]
    assert value == pytest.approx(after.mean() - before.mean()) and low <= value <= high and second.common == 40
    # The naive paired bootstrap over dialogues, the same draws.
    groups = np.arange(40) // 4
    difference = np.array([(after.astype(float) - before)[groups == g].sum() for g in range(10)])
    drawn = np.random.default_rng(0).multinomial(10, np.full(10, 0.1), size=2000)
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn @ difference / 40, [0.025, 0.975])))
    assert measured(emotion(against="old"), scorer(place, 3, "old")).changes["accuracy"] == (0, 0, 0)
    assert first.metrics["wf1"] != second.metrics["wf1"] and second.passed
    assert "change" in str(second) and "+" in str(second)


def test_gates_pass_or_end_with_the_finding(place):
    found = measured(emotion(gates=["accuracy>=0.5", "accuracy<1"]), scorer(place))
    assert [g.passed for g in found.gates] == [True, True]
    value, low, _ = found.metrics["accuracy"]
    between = (value + low) / 2
    measured(emotion(gates=[f"accuracy>={between}"]), scorer(place))
    with pytest.raises(OutOfBudget, match=r"^missed: accuracy>=.* \(is 0\.") as caught:
        measured(emotion(gates=[f"accuracy>={between}"], gate_on="lower"), scorer(place), out="missed")
    assert caught.value.exit_code == 3 and not caught.value.finding.passed
    assert earlier("missed").gates[0].value == pytest.approx(low) and Path("missed/report.html").is_file()
    for text, words in {
        "accuracy": "is no gate", "accuracy=>1": "is no gate", "wf1>=1": "'wf1' is not measured",
        "change:accuracy>0": "is not measured", "accuracy>=x": "is no gate",
    }.items():  # fmt: skip
        with pytest.raises(BadInput, match=words):
            gates_of([text], ["accuracy"])
    assert [str(g) for g in gates_of(["regex:a>=b > 0.5"], ["regex:a>=b"])] == ["regex:a>=b>0.5"]


def test_a_replay_asks_nothing_and_gives_every_number_again(place):
    backend = scorer(place)
    first = measured(emotion("accuracy", "wf1"), backend, out="out")
    with pytest.raises(BadInput, match="holds results already: --replay takes their answers, --force begins anew"):
        measured(emotion("accuracy", "wf1"), backend, out="out")
    asked = len(backend.requests)
    again = measured(emotion("accuracy", "wf1"), backend, out="out", replay=True)
    assert len(backend.requests) == asked and again.metrics == first.metrics
    assert again.notes == ["40 answers were taken from the record"]
    plain = {"notes", "tokens"}
    assert again.model_dump(exclude=plain) == first.model_dump(exclude=plain)
    other = scorer(place, name="other")  # another model: other keys
    assert measured(emotion("accuracy"), other, out="out", replay=True).metrics["accuracy"] == first.metrics["accuracy"]
    assert len(other.requests) == 40
    Path("emotion.md.j2").write_text(EMOTION.replace("Emotion of", "The emotion of"))
    changed = FakeBackend(scores=lambda prompt, choice: -float(len(choice)))
    changed.fingerprint = backend.fingerprint
    measured(emotion("accuracy"), changed, out="out", replay=True)
    assert len(changed.requests) == 40  # another prompt: other keys


def test_a_check_says_which_answers_differ(place):
    measured(emotion(), scorer(place), out="out")
    changed = scorer(place, 4)
    changed.fingerprint = scorer(place).fingerprint
    with pytest.warns(Note, match="answers are others than were kept"):
        found = measured(emotion(), changed, out="out", check=True)
    wrong = [i for i, (a, b) in enumerate(zip(answers_of(place, 3), answers_of(place, 4), strict=True)) if a != b]
    assert {found.rows[i].key for i in wrong} == set(found.differing) and wrong
    assert any(note.startswith("accuracy was 0.") for note in found.notes)
    with pytest.raises(BadInput, match="give --out"):
        measured(emotion(), changed, replay=True)
    with pytest.raises(BadInput, match="no answers that could be replayed"):
        measured(emotion(), changed, out="nowhere", replay=True)


def test_what_failed_is_said_and_what_was_answered_is_kept(place):
    backend = scorer(place)
    backend.errors = {7: BackendError("the server is gone"), 9: BackendError("the server is gone")}
    with pytest.raises(SomeFailed, match=r"2 of 40 items failed: .* the server is gone"):
        measured(emotion(), backend, out="out")
    assert not Path("out/results.json").exists()
    asked = len(backend.requests)
    found = measured(emotion(), backend, out="out")
    assert len(backend.requests) - asked == 2 and len(found.rows) == 40


KILLED = """
import asyncio, sys, time
sys.path.insert(0, "tests")
from intarsia.prompting.base.fake import FakeBackend
from intarsia.prompting.execute.evaluating import Evaluation
from intarsia.prompting.execute.prompt import Prompt

def score(prompt, choice):
    if "turn 20" in prompt[-1].content and len(sys.argv) < 2:
        print("ready", flush=True)
        time.sleep(60)
    return -float(len(choice))

backend = FakeBackend(scores=score)
found = asyncio.run(Evaluation("set.jsonl", Prompt.load("emotion.md.j2")).run(backend, out="out", at_once=1))
print(len(backend.requests), found.metrics["accuracy"][0])
"""


def test_a_killed_run_goes_on_where_it_was(place):
    (place / "run.py").write_text(KILLED)
    process = subprocess.Popen([sys.executable, "run.py"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with Path("out/rows.jsonl").open("a") as file:
        file.write('["cut off by the k')
    done = subprocess.run([sys.executable, "run.py", "go"], capture_output=True, text=True, check=True)
    asked, value = done.stdout.split()
    gold = [row["label"] for row in rows_of(place)]
    assert int(asked) == 20 and float(value) == pytest.approx(np.mean([label == "joy" for label in gold]))


JUDGE = (
    "---\ninputs:\n  answer: str\n  gold: str\n  turn: str\nshape: [good, fair, bad]\n---\n"
    "{% user %}{{ turn }} wanted {{ gold }}, said {{ answer }}: {{ shape }}{% enduser %}\n"
)
PAIR = (
    "---\ninputs:\n  first: str\n  second: str\nshape: [first, second, tie]\n---\n"
    "{% user %}A: {{ first }} B: {{ second }}{% enduser %}\n"
)


def test_a_judge_says_what_its_prompt_asks_for(place):
    Path("judge.md.j2").write_text(JUDGE)
    gold = [row["label"] for row in rows_of(place)]

    def verdict(prompt, choice):
        text = prompt[-1].content
        wanted, said = text.split("wanted ")[1].split(",")[0], text.split("said ")[1].split(":")[0]
        return 0.0 if choice == ("good" if wanted == said else "fair" if said == "joy" else "bad") else -9.0

    judge = FakeBackend(scores=verdict, name="judge")
    found = measured(
        emotion("accuracy", "judge", judge=Prompt.load("judge.md.j2")), scorer(place), judge=judge, out="out"
    )
    said = answers_of(place)
    expected = [1.0 if a == g else 0.5 if a == "joy" else 0.0 for a, g in zip(said, gold, strict=True)]
    assert [row.values["judge"] for row in found.rows] == expected
    assert found.metrics["judge"][0] == pytest.approx(np.mean(expected))
    asked = len(judge.requests)
    measured(
        emotion("accuracy", "judge", judge=Prompt.load("judge.md.j2")),
        scorer(place),
        judge=judge,
        out="out",
        replay=True,
    )
    assert len(judge.requests) == asked == 40


def test_a_judge_of_pairs_hears_both_orders(place):
    Path("pair.md.j2").write_text(PAIR)
    old = measured(emotion(), scorer(place, 3), out="old")

    def always_first(prompt, choice):  # a judge that only looks at the place is worth nothing
        return 0.0 if choice == "first" else -9.0

    def for_joy(prompt, choice):
        first = prompt[-1].content.split("A: ")[1].startswith("joy")
        second = prompt[-1].content.split("B: ")[1].startswith("joy")
        return 0.0 if choice == ("first" if first > second else "second" if second > first else "tie") else -9.0

    pair = Prompt.load("pair.md.j2")
    for verdict, expected in (
        (always_first, lambda a, b: 0.5),
        (for_joy, lambda a, b: 0.5 + ((a == "joy") - (b == "joy")) / 2),
    ):
        judge = FakeBackend(scores=verdict)
        found = measured(emotion("judge", judge=pair, against="old", labels=WORDS), scorer(place, 4), judge=judge)
        pairs = list(zip(answers_of(place, 4), answers_of(place, 3), strict=True))
        assert [row.values["judge"] for row in found.rows] == [0.5 if a == b else expected(a, b) for a, b in pairs]
        assert len(judge.requests) == 2 * sum(a != b for a, b in pairs) and not found.changes
    assert old.rows


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (JUDGE.replace("shape: [good, fair, bad]\n", ""), "names its verdicts"),
        (EMOTION, "takes `answer`, or `first` and `second`"),
        (PAIR.replace("[first, second, tie]", "[a, b]"), "are `first` and `second`"),
        (JUDGE.replace("turn: str", "colour: str").replace("{{ turn }}", "{{ colour }}"), "no column 'colour'"),
    ],
)
def test_a_judges_prompt_that_cannot_judge_is_refused(source, words):
    Path("judge.md.j2").write_text(source)
    with pytest.raises(BadInput, match=words):
        emotion("judge", judge=Prompt.load("judge.md.j2"))


def test_answers_held_to_a_form(place):
    rows = [{"turn": f"t{i}", "answer": {"n": i}} for i in range(6)]
    Path("set.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    said = ['{"n": 0}', '{ "n": 1 }', '{"n": 9}', '{"n": 3}', '{"n": 4}', '{"n": 5}']
    found = measured(emotion("exact", "json_valid", shape=schema), FakeBackend(said), at_once=1)
    assert found.metrics["exact"][0] == pytest.approx(5 / 6) and found.metrics["json_valid"][0] == 1
    loose = FakeBackend(['{"n": 0}', "[", '{"n": 2}', "x", "y", "z"])  # a server that does not hold its models to it
    found = measured(emotion("exact", "json_valid", shape=schema), loose, at_once=1)
    assert (
        found.metrics["json_valid"][0] == pytest.approx(1 / 3) and found.rows[1].error and found.rows[1].answer == "["
    )
    assert "4 answers have not the wanted form" in found.notes


def test_limits_are_drawn_by_the_seed_and_labels_are_found_where_they_are_few(place):
    some = [emotion(limit=10, seed=seed).cases for seed in (1, 1, 2)]
    assert [c.key for c in some[0]] == [c.key for c in some[1]] != [c.key for c in some[2]] and len(some[0]) == 10
    assert labels_of(emotion().cases) == sorted(WORDS) and labels_of(emotion().cases[:3]) == []
    assert emotion("exact").labels == [] and emotion(labels=["fear", "anger", "joy"]).labels == ["fear", "anger", "joy"]
    Path("emotion.md.j2").write_text(EMOTION.replace("inputs:", "shape: [joy, anger, fear, calm]\ninputs:"))
    assert emotion().labels == ["joy", "anger", "fear", "calm"]


def test_the_finding_is_a_page_and_is_read_again(place):
    found = measured(emotion("accuracy", "wf1", gates=["wf1>=0.1"]), scorer(place), out="out")
    page, text = render_finding(found), str(found)
    for words in ("Worst answers", "Gates", "turn 0", "Figures with their intervals", "Wanted and answered"):
        assert words in page and words in text
    assert Finding.from_json(Path("out/results.json").read_text()) == found == earlier("out")
    assert [row.values["right"] for row in found.worst()] == [0.0] * 10
    assert Path("out/report.html").read_text() == page
    keys = {row.key for row in found.rows}
    kept = [json.loads(line)[0] for line in Path("out/rows.jsonl").read_text().splitlines()[1:]]
    assert set(kept) == keys and len(keys) == 40


@dataclass
class Hit:
    source: str
    citation: str


class Library:
    def search(self, question, k):
        number = int(question.split()[1])
        return [Hit(f"s{(number + j) // 2 % 9}", f"s{(number + j) // 2 % 9}#{j}") for j in range(k)]


def test_searches_are_measured_by_recall_and_rank(place):
    rows = [{"question": f"q {i}", "sources": [f"s{i % 9}", "s0"]} for i in range(12)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = RetrievalEvaluation("q.jsonl", ["recall@2", "recall@5", "mrr@3"]).run(
        Library(), name="library", out="found"
    )

    def naive(i):
        order = list(dict.fromkeys(h.source for h in Library().search(f"q {i}", 30)))
        gold = list(dict.fromkeys(rows[i]["sources"]))
        places = [order.index(g) + 1 if g in order else 99 for g in gold]
        return [np.mean([p <= k for p in places]) for k in (2, 5)] + [1 / min(places) if min(places) <= 3 else 0.0]

    expected = np.mean([naive(i) for i in range(12)], axis=0)
    assert [found.metrics[n][0] for n in ("recall@2", "recall@5", "mrr@3")] == pytest.approx(expected.tolist())
    assert "questions" in found.summary and found.rows[0].gold == "s0"
    with pytest.raises(OutOfBudget):
        RetrievalEvaluation("q.jsonl", ["mrr"], gates=["mrr>=1"]).run(Library())
    better = RetrievalEvaluation("q.jsonl", ["mrr@3"], against="found", gates=["change:mrr@3>=0"]).run(Library())
    assert better.changes["mrr@3"] == (0, 0, 0)
    assert places_of(["a#2", "c", "z"], [Hit("a", "a#1"), Hit("a", "a#2"), Hit("c", "c#9")]) == [1, 2, 0]
    for metrics, words in ((["recall"], None), (["recall@0"], "at least 1"), (["ndcg"], "no metric of a search")):
        if words is None:
            RetrievalEvaluation("q.jsonl", metrics)
            continue
        with pytest.raises(BadInput, match=words):
            RetrievalEvaluation("q.jsonl", metrics)


RUN = ("eval", "set.jsonl", "--model", "fake:tiny", "--prompt", "emotion.md.j2")


def test_the_command_measures_gates_compares_and_replays(place, cli):
    code, out, errors = cli(*RUN, "--metric", "wf1", "--metric", "accuracy", "--out", "a")
    assert code == 0 and "Figures" in out and "results: a/results.json" in errors
    shown = json.loads(cli(*RUN, "--metric", "wf1", "--metric", "accuracy", "--out", "a", "--replay", "--json")[1])
    assert shown["type"] == "EvalFinding" and shown["metrics"]["wf1"] == list(earlier("a").metrics["wf1"])
    code, out, errors = cli(*RUN, "--metric", "wf1", "--gate", "wf1>=0.99", "--against", "a", "--out", "b")
    assert (
        code == 3
        and "Gates" in out
        and "change" in out
        and errors.splitlines()[-1].startswith("intarsia: missed: wf1>=0.99")
    )
    code, _, errors = cli(*RUN, "--out", "b")
    assert code == 2 and "--force begins anew" in errors
    assert cli(*RUN, "--out", "b", "--force", "--quiet")[0] == 0 and list(earlier("b").metrics) == ["accuracy"]
    code, out, _ = cli(
        *RUN, "--metric", "contains", "--limit", "5", "--temperature", "1", "--max-tokens", "4", "--json"
    )
    assert code == 0 and len(json.loads(out)["rows"]) == 5 and "seed=0" in json.loads(out)["provenance"]["sampling"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jsonl", *RUN[2:]], "nowhere.jsonl"),
        (["empty.jsonl", *RUN[2:]], "empty.jsonl: the set is empty"),
        (["set.jsonl", "--model", "fake:"], "give --model and --prompt"),
        ([*RUN[1:], "--metric", "acuracy"], "did you mean accuracy"),
        ([*RUN[1:], "--gate", "wf1>=0.5"], "'wf1' is not measured"),
        ([*RUN[1:], "--gold", "lable"], "set.jsonl: line 1: no column 'lable' (--gold) (did you mean label?)"),
        ([*RUN[1:], "--labels", "joy,anger"], "'fear' is not among the labels"),
        ([*RUN[1:], "--labels", "joy"], "give two or more"),
        (["set.jsonl", "--model", "fake:", "--prompt", "other.md.j2"],
         "line 1: no column 'trun', which other.md.j2 takes (did you mean turn?)"),
        (["typed.jsonl", *RUN[2:]], "typed.jsonl: line 1: emotion.md.j2: input 'turn'"),
        (["ungold.jsonl", *RUN[2:]], "ungold.jsonl: line 2: its 'label' is empty"),
        (["nogold.jsonl", *RUN[2:]], "nogold.jsonl: line 1: it has no answer: name the column by --gold"),
        ([*RUN[1:], "--metric", "judge"], "the metric judge needs its prompt"),
        ([*RUN[1:], "--judge", "emotion.md.j2"], "no metric asks for it"),
        ([*RUN[1:], "--against", "nowhere"], "no earlier result there"),
        ([*RUN[1:], "--against", "set.jsonl"], "set.jsonl: no result of `intarsia eval`"),
        ([*RUN[1:], "--shape", "nowhere.json"], "nowhere.json: cannot be read (No such file"),
        ([*RUN[1:], "--shape", "thing"], "give schema.json, or FILE.py:TYPE"),
        ([*RUN[1:], "--replay"], "give --out"),
        ([*RUN[1:], "--out", "set.jsonl"], "set.jsonl is a file"),
        ([*RUN[1:], "--out", "."], "holds other things"),
        ([*RUN[1:], "--store", "x"], "leave --model, --prompt and what belongs to them out"),
        (["set.jsonl", "--store", "nowhere", "--question", "turn", "--gold", "label"], "no store there"),
        (["set.jsonl", "--store", "nowhere", "--metric", "accuracy"], "'accuracy' is no metric of a search"),
        ([*RUN[1:], "--question", "turn"], "--question is of --store"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_before_any_model_is_loaded(place, cli, monkeypatch, arguments, words):
    import intarsia.prompting.base.opening as opening

    monkeypatch.setattr(opening, "open_backend", lambda *given, **named: pytest.fail("a model was opened"))
    Path("empty.jsonl").write_text("")
    Path("typed.jsonl").write_text('{"turn": 5, "label": "joy"}\n')
    Path("ungold.jsonl").write_text('{"turn": "a", "label": "joy"}\n{"turn": "b", "label": null}\n')
    Path("nogold.jsonl").write_text('{"turn": "a", "colour": "joy"}\n')
    Path("other.md.j2").write_text(EMOTION.replace("turn", "trun"))
    code, out, errors = cli("eval", *arguments)
    assert (code, out) == (2, "") and words in errors and errors.count("\n") == 1


def test_a_set_of_other_records_is_not_compared(place, cli):
    measured(emotion(), scorer(place), out="a")
    Path("set.jsonl").write_text('{"turn": "new", "label": "joy"}\n{"turn": "newer", "label": "fear"}\n')
    code, _, errors = cli(*RUN, "--against", "a")
    assert code == 2 and "was measured on other records" in errors


def test_the_command_measures_a_store(place, cli):
    from intarsia.prompting.data import Store

    docs = place / "docs"
    docs.mkdir()
    for name in ("kettle", "toaster", "lamp"):
        (docs / f"{name}.md").write_text(f"# {name}\n\nThe {name} has a warranty and a {name} cord.\n")
    Store.open(place / "store", encoder=None).add(docs)
    sources = {d.title.lower() or d.source: d.source for d in Store.open(place / "store", encoder=None).documents()}
    rows = [{"question": f"Which cord has the {name}?", "source": source} for name, source in sources.items()]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, errors = cli(
        "eval", "q.jsonl", "--store", "store", "--metric", "recall@1", "--gate", "recall@1>=1", "--json"
    )
    assert code == 0, errors
    assert json.loads(out)["metrics"]["recall@1"] == [1.0, 1.0, 1.0]


def test_sampling_is_part_of_what_is_asked(place):
    backend = FakeBackend()
    keys = []
    for sampling in (None, Sampling(max_tokens=3), Sampling(temperature=1.0, seed=1)):
        keys.append([row.key for row in measured(emotion("contains", sampling=sampling), backend).rows])
    assert len({key for some in keys for key in some}) == 120


def test_evaluation_imports_no_heavy_library():
    code = (
        "import sys, intarsia.prompting.execute.evaluating, intarsia.cli.evaluation;"
        "print({'torch', 'transformers', 'numpy', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
