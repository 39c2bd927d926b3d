"""Verdicts over HTTP: those of Python, and every wrong request told of."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from intarsia.data import Document
from intarsia.detection import Documents, train
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
    assert "Passages of text" in client.post("/report", json={"text": given, "domain": "letters"}).text
    assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({}, 422, "text"),
        ({"text": "a", "alpha": 2}, 422, "alpha"),
        ({"text": "a", "retain": True}, 422, "retain"),
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


def test_the_command_says_what_is_wrong(tmp_path):
    from intarsia.cli.serving import serve_detector

    made = CliRunner().invoke(serve_detector, [str(tmp_path / "none")])
    assert "no detector there" in str(made.exception)
