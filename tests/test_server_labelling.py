"""Labels over HTTP: what the model says itself, and every wrong request told of."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from intarsia.adaptation import dialogue, label
from intarsia.data import LabelledText, Turn
from intarsia.errors import BadInput
from intarsia.measure.labelling import label_scores
from tests.tiny import tiny

fastapi = pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
testclient = pytest.importorskip("fastapi.testclient", reason="the test client's own HTTP library is not installed")

TURNS = [Turn(f"{w} {i}", y, f"d{i}", speaker="AB"[n], number=n) for i in range(6) for n, (w, y) in
         enumerate([("good", "joy"), ("bad", "anger")])]  # fmt: skip


@pytest.fixture(scope="module")
def tuned():
    return dialogue(tiny("llama"), train=TURNS, dev=TURNS, labellers=("network",), max_steps=3, layers_from=2)


@pytest.fixture(scope="module")
def client(tuned):
    from intarsia.server.labelling import app

    return testclient.TestClient(app(tuned, "moods"))


def test_turns_are_labelled_as_in_python(tuned, client):
    asked = [{"speaker": t.speaker, "text": t.text} for t in TURNS[:2]]
    said = client.post("/v1/label", json={"turns": asked}).json()
    naive = label_scores(tuned, [Turn(t.text, "", "d", speaker=t.speaker, number=i) for i, t in enumerate(TURNS[:2])])
    assert said["model"] == "moods" and said["labels"] == ["anger", "joy"] and len(said["turns"]) == 2
    for row, p in zip(said["turns"], naive.probabilities, strict=True):
        np.testing.assert_allclose([row["probabilities"][name] for name in said["labels"]], p, atol=1e-6)
        assert row["label"] == said["labels"][int(p.argmax())]
    last = client.post("/v1/label", json={"turns": asked, "last": True}).json()
    assert last["turns"] == said["turns"][1:]


def test_texts_have_nothing_to_do_with_each_other(client):
    both = client.post("/v1/label", json={"texts": ["good 1", "bad 2"]}).json()["texts"]
    alone = client.post("/v1/label", json={"texts": ["bad 2"]}).json()["texts"]
    assert both[1]["probabilities"] == pytest.approx(alone[0]["probabilities"], abs=1e-5)


def test_a_model_of_label_tuning_is_served_too():
    from intarsia.server.labelling import app

    records = [LabelledText(t.text, t.label) for t in TURNS]
    served = testclient.TestClient(app(label(tiny("llama"), train=records, max_steps=2, layers_from=2), "topics"))
    said = served.post("/v1/label", json={"turns": [{"text": "good"}, {"text": "bad", "speaker": "A"}]}).json()
    assert [sum(t["probabilities"].values()) for t in said["turns"]] == pytest.approx([1, 1])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "give either turns (one dialogue) or texts"),
        ({"turns": [{"text": "a"}], "texts": ["a"]}, "give either turns"),
        ({"turns": []}, "turns"),
        ({"turns": [{"text": ""}]}, "turns.0.text"),
        ({"turns": [{"said": "a"}]}, "turns.0"),
        ({"texts": ["a"], "colour": 1}, "colour"),
    ],
)
def test_wrong_requests_are_told_of(client, body, words):
    answer = client.post("/v1/label", json=body)
    assert answer.status_code == 400 and words in answer.json()["error"]["message"]


def test_the_page_and_the_state(client):
    assert "<title>moods</title>" in client.get("/").text
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/v1/models").json()["data"][0]["id"] == "moods"


def test_a_model_without_labels_is_refused():
    from intarsia.server.labelling import app

    with pytest.raises(BadInput, match="plain has no labels: tune a model"):
        app(tiny("llama"), "plain")


def test_the_command_explains_itself():
    from intarsia.cli.serving import serve_labels

    said = CliRunner().invoke(serve_labels, ["--help"]).output
    assert "POST /v1/label" in said and "127.0.0.1" in said
