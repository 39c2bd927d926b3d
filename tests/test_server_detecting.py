"""Verdicts over HTTP: those of Python, and every wrong request told of."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from intarsia.data import Document
from intarsia.detection import Detector, Documents, train
from intarsia.detection.checking.checker import Checker
from tests.test_detection_check import documents, text
from tests.tiny import tiny

fastapi = pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
testclient = pytest.importorskip("fastapi.testclient", reason="the test client's own HTTP library is not installed")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """What tiny models read is not kept among what real ones did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTARSIA_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    tiny("llama").save(folder / "scorer")
    tiny("bert-encoder").save(folder / "encoder")
    made = train(Documents("x", documents(False, 60) + documents(True, 60)), scorer=str(folder / "scorer"), tokens=48)
    made.save(folder / "mine")
    return made


@pytest.fixture(scope="module")
def client(detector):
    from intarsia.server.detecting import app

    return testclient.TestClient(app(detector, "mine", str(detector.folder.parent / "encoder")))


def test_a_verdict_is_that_of_python(client, detector):
    given = text("letters", 800, True)
    said = client.post("/v1/detect", json={"text": given, "domain": "letters", "alpha": 0.05}).json()
    (naive,) = Checker(detector, detector.bank("letters"), 0.05, passages=20)([Document(given, name="text")])
    assert said["verdict"] == naive.verdict and said["score"] == pytest.approx(naive.score)
    assert said["p_human"] == naive.p_human and said["certified"] and said["watermark"] is None
    assert [p["start"] for p in said["passages"]] == [p.start for p in naive.passages] and "who wrote" in said[
        "statement"
    ]


def test_many_are_answered_line_by_line(client):
    texts = [text("letters", 801, True), "short", text("letters", 802, False)]
    said = client.post("/v1/detect/batch", json={"texts": texts, "domain": "letters", "alpha": 0.05, "passages": 0})
    rows = [json.loads(line) for line in said.text.splitlines()]
    assert [row["name"] for row in rows] == ["0", "1", "2"] and rows[1]["verdict"] == "too_short"


def test_references_banks_and_pages(client):
    given, near = text("letters", 803, True), text("letters", 803, True).replace("harbour", "market") + " So."
    said = client.post("/v1/detect", json={"text": given, "domain": "letters", "references": [near]}).json()
    assert said["references"][0]["shared"]
    banks = client.get("/v1/profiles").json()["banks"]
    assert banks[0]["domain"] == "letters" and banks[0]["smallest_alpha"] == 1 / (banks[0]["texts"] + 1)
    page = client.get("/").text
    assert "<option>letters</option>" in page and "{{" not in page
    assert "Passages of text" in client.post("/v1/report", json={"text": given, "domain": "letters"}).text
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, 400, "text"),
        ({"text": "a", "alpha": 2}, 400, "alpha"),
        ({"text": "a", "keep": True}, 400, "keep"),
        ({"text": "a " * 60, "domain": "leters"}, 400, "did you mean letters?"),
    ],
)
def test_wrong_requests_are_told_of(client, body, code, words):
    said = client.post("/v1/detect", json=body)
    assert said.status_code == code and words in said.json()["error"]["message"]


def test_a_reference_that_is_the_text_itself_is_refused(client):
    given = text("letters", 804, True)
    said = client.post("/v1/detect", json={"text": given, "domain": "letters", "references": [given]})
    assert said.status_code == 400 and "itself" in said.json()["error"]["message"]


def test_a_report_is_kept_where_that_is_asked_for(client):
    given = {"text": text("letters", 805, True), "domain": "letters"}
    assert "id" not in client.post("/v1/detect", json=given).json()
    number = client.post("/v1/detect", json={**given, "retain": True}).json()["id"]
    assert "Passages of text" in client.get(f"/v1/report/{number}").text
    assert client.delete(f"/v1/report/{number}").json() == {"id": number, "deleted": True}
    for gone in (client.get(f"/v1/report/{number}"), client.delete(f"/v1/report/{number}")):
        assert gone.status_code == 404 and number in gone.json()["error"]["message"]


def test_a_bank_that_is_sent_is_judged_by_and_stays(client, detector):
    texts = [text("reports", 900 + i, False) for i in range(30)]
    said = client.post("/v1/calibrate", json={"domain": "reports", "texts": texts}).json()
    assert said["texts"] == 30 and said["lasting"] and said["reach"] == pytest.approx(1 / 31)
    assert Detector.open(detector.folder).bank("reports").texts == 30
    judged = client.post("/v1/detect", json={"text": text("reports", 990, True), "domain": "reports", "alpha": 0.05})
    assert judged.json()["bank"]["domain"] == "reports"
    again = client.post("/v1/calibrate", json={"domain": "reports", "texts": texts})
    assert again.status_code == 400 and "already" in again.json()["error"]["message"]
    few = client.post("/v1/calibrate", json={"domain": "few", "texts": texts[:3]})
    assert few.status_code == 400 and "3 texts" in few.json()["error"]["message"]
    odd = client.post("/v1/calibrate", json={"domain": "odd", "texts": texts, "writers": ["a"]})
    assert odd.status_code == 400 and "1 for 30" in odd.json()["error"]["message"]


class Copying:
    """Writes its prompt."""

    name = "copying"

    def write(self, prompts, *, most_tokens, temperature=1.0, top_p=1.0, seed=0, chat=True):
        return [f"{prompt} " * 4 for prompt in prompts]


def test_a_machine_writes_on_a_topic(detector):
    from intarsia.server.detecting import app

    client = testclient.TestClient(app(detector, "mine", writer=Copying()))
    asked = {"task": "Should school start later?", "count": 2, "words": 50}
    said = client.post("/v1/references", json=asked).json()["references"]
    assert len(said) == 2 and {r["generator"] for r in said} == {"copying"} and said[0]["text"] != said[1]["text"]
    assert all("Should school start later?" in r["text"] and r["prompt"] for r in said)
    assert client.post("/v1/references", json={"task": ""}).status_code == 400


def test_without_a_writer_the_detectors_model_writes(client):
    said = client.post("/v1/references", json={"task": "Should school start later?", "count": 1, "words": 50})
    # Its context is too short for this: that it was asked is what is told.
    assert said.status_code == 400 and said.json()["error"]["message"].startswith("tiny-llama: a prompt of")


def test_the_command_says_what_is_wrong(tmp_path):
    from intarsia.cli.serving import serve_detector

    made = CliRunner().invoke(serve_detector, [str(tmp_path / "none")])
    assert "no detector there" in str(made.exception)
