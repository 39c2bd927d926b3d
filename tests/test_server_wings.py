"""Routes beside OpenAI's: looking inside, documents, flows, jobs; and the same as tools for other programs."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
pytest.importorskip("mcp", reason="the extra 'server' is not installed")

from mcp import Client, StdioServerParameters

from intarsia.errors import BadInput
from intarsia.prompting.base import Backend
from intarsia.prompting.base.local import open_local
from intarsia.prompting.data.documents import SourceDocument
from intarsia.prompting.data.store import Store
from intarsia.prompting.execute.flows import ask_person, flow
from intarsia.server import documents, flowing, jobs, mounting, techniques
from intarsia.server.keys import Keys
from intarsia.server.late import Late
from intarsia.server.served import Served
from intarsia.server.service import Serving, service
from tests.server_help import Spelling, running, until
from tests.tiny import tiny

FLOWS = """
from pydantic import BaseModel
from intarsia.prompting.base import Backend
from intarsia.prompting.execute.flows import ask_person, flow
class Out(BaseModel):
    text: str
    times: int
@flow
async def say(words: str, times: int, backend: Backend) -> Out:
    "Say words, and what comes then."
    reply = await backend.generate(words)
    return Out(text=reply.text[:3], times=times)
@flow
async def hold(words: str) -> str:
    return words + await ask_person("May I?")
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store") / "handbook"
    made = Store.open(folder, None)
    for name, text in (("kettle", "The kettle has a warranty of two years."), ("lamp", "The lamp is green and warm.")):
        made.add(SourceDocument(text, name, title=name))
    return folder


@pytest.fixture(scope="module")
def url(store, tmp_path_factory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("flows")
    (folder / "served_flows.py").write_text(FLOWS)
    serving = Serving()
    for name, seed in (("one", 0), ("two", 1)):
        model = tiny("llama", seed)
        serving.registry.add(name, open_local(model, name=name, threads=1), more={"model": model})
    spelling = Spelling()
    serving.registry.add("spelling", spelling)

    async def backend() -> Backend:
        return spelling

    api = service(serving)
    techniques.add(api, serving, jobs.add(api, serving))
    late = Late(lambda: Store.open(store, None, create=False), "store")
    documents.add(api, late)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INTARSIA_CACHE", str(folder / "cache"))
        patch.setenv("INTARSIA_TRACES", str(folder / "traces.sqlite"))
        flowing.add(api, flowing.flows_of(str(folder / "served_flows.py")), {"backend": backend})
        mounting.add(api, serving, mounting.Mount(Served(serving, late)))
        with running(api) as address:
            yield address


def ended(url: str, answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 202, answer.text
    where = url + answer.headers["location"]
    assert until(lambda: httpx2.get(where).json()["status"] not in ("queued", "running"), 60)
    return httpx2.get(where).json()


def test_a_served_model_is_explained_as_in_python(url):
    from intarsia.interpretation import explain

    body = {"model": "one", "texts": ["abc"], "settings": {"method": "leave_one_out"}}
    job = ended(url, httpx2.post(f"{url}/v1/explain", json=body))
    assert job["status"] == "succeeded", job
    own = explain(tiny("llama", 0), texts=["abc"], method="leave_one_out")
    assert job["result"]["texts"][0]["scores"] == pytest.approx(list(own.texts[0].scores), abs=1e-5)


def test_two_served_models_are_compared(url):
    body = {"model": "two", "against": "one", "texts": ["abcdef", "ghijkl"], "settings": {"facts_lens": "logit"}}
    job = ended(url, httpx2.post(f"{url}/v1/diff", json=body))
    assert job["status"] == "succeeded" and job["kind"] == "interpretation.diff" and job["result"]
    assert job["id"] in [row["id"] for row in httpx2.get(f"{url}/v1/jobs").json()["data"]]


def test_what_cannot_look_is_refused(url):
    for path, body, word in [
        ("/v1/explain", {"model": "spelling", "texts": ["a"]}, "nothing can look inside"),
        ("/v1/explain", {"model": "none", "texts": ["a"]}, "no model"),
        ("/v1/explain", {"model": "one", "texts": ["a"], "settings": {"methd": 1}}, "methd"),
        ("/v1/techniques/compression.quantize", {"model": "one"}, "command line"),
        ("/v1/techniques/interpretation.dif", {"model": "one"}, "did you mean"),
        ("/v1/techniques/interpretation.diff", {"model": "one"}, "models.against"),
    ]:
        said = httpx2.post(url + path, json=body)
        assert said.status_code in (400, 404) and word in said.json()["error"]["message"], said.text
    rows = httpx2.get(f"{url}/v1/techniques").json()["data"]
    assert "interpretation.explain" in [row["id"] for row in rows] and all(row["source"] for row in rows)
    assert httpx2.get(f"{url}/v1/jobs/nothing").status_code == 404


def test_a_store_is_searched(url):
    said = httpx2.post(f"{url}/v1/store/search", json={"query": "how long is the warranty", "k": 1, "mode": "words"})
    (hit,) = said.json()["hits"]
    assert hit["source"] == "kettle" and "two years" in hit["text"] and hit["citation"].startswith("kettle:")
    assert httpx2.post(f"{url}/v1/store/search", json={"query": "a", "k": 0}).status_code == 400


def test_flows_run_wait_and_go_on(url):
    rows = {row["name"]: row for row in httpx2.get(f"{url}/flows").json()["data"]}
    assert rows["say"]["inputs"] == ["words", "times"] and "what comes then" in rows["say"]["about"]
    done = httpx2.post(f"{url}/flows/say", json={"inputs": {"words": "a", "times": 2}}).json()
    assert done["status"] == "done" and done["output"] == {"text": "bcd", "times": 2} and done["trace"]
    waits = httpx2.post(f"{url}/flows/hold", json={"inputs": {"words": "so "}})
    assert waits.status_code == 202 and waits.json()["question"] == "May I?"
    again = {"resume": waits.json()["trace"], "answers": ["yes"]}
    assert httpx2.post(f"{url}/flows/hold", json=again).json()["output"] == "so yes"
    for name, inputs, word in [
        ("say", {"words": "a", "times": "x"}, "times"),
        ("say", {"words": "a", "times": 1, "backend": "openai:http://evil/v1#m"}, "given by the server"),
        ("none", {}, "no flow"),
    ]:
        said = httpx2.post(f"{url}/flows/{name}", json={"inputs": inputs})
        assert said.status_code in (400, 404) and word in said.json()["error"]["message"]


@flow
async def alone(store: Store) -> str:
    return await ask_person(str(store))


def test_clients_open_nothing_by_its_name(tmp_path):
    with pytest.raises(BadInput, match="which the server does not have"):
        flowing._checked(alone, {"store": str(tmp_path)})
    with pytest.raises(BadInput, match="no @flow"):
        flowing.flows_of("json")


def test_jobs_have_owners_are_cancelled_and_told_of(tmp_path):
    from intarsia.progress import track

    keys = Keys(tmp_path / "keys", make=True)
    ann, ben = keys.add("ann", scopes=["chat"]), keys.add("ben", scopes=["chat"])
    serving, over, go = Serving(), [], threading.Event()
    api = service(serving, keys=keys)
    made = jobs.add(api, serving)

    def work() -> None:
        for _ in track(range(1000), "counting"):
            go.set()
            time.sleep(0.01)

    @api.post("/v1/chat/test")
    async def begin(request: jobs.Request) -> Any:
        return jobs.begun(made, request, "count", work, lambda: over.append(1))

    with running(api) as url:

        def ask(method: str, path: str, key: str) -> httpx2.Response:
            return httpx2.request(method, url + path, headers={"authorization": f"Bearer {key}"})

        first, second = (ask("POST", "/v1/chat/test", ann).json()["id"] for _ in range(2))
        assert go.wait(10) and ask("GET", f"/v1/jobs/{first}", ben).status_code == 404
        assert ask("GET", f"/v1/jobs/{second}", ann).json()["status"] == "queued"
        assert until(lambda: ask("GET", f"/v1/jobs/{first}", ann).json()["progress"]["done"] > 1)
        assert ask("DELETE", f"/v1/jobs/{second}", ann).json()["status"] == "cancelled"
        ask("DELETE", f"/v1/jobs/{first}", ann)
        assert until(lambda: ask("GET", f"/v1/jobs/{first}", ann).json()["status"] == "cancelled")
        assert until(lambda: len(over) == 2)
        third = ask("POST", "/v1/chat/test", ben).json()["id"]
        assert until(lambda: made.all[third].state == "running")
    assert until(lambda: made.all[third].state == "cancelled" and len(over) == 3)


async def call(client: Client, tool: str, **given: Any) -> Any:
    result = await client.call_tool(tool, given)
    return result.is_error, "".join(part.text for part in result.content)


def test_tools_over_http(url):
    async def talk() -> None:
        async with Client(f"{url}/mcp") as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["generate", "explain", "search"]
            assert await call(client, "generate", prompt="a", model="spelling", max_tokens=3) == (False, "bcd")
            failed, said = await call(client, "search", query="warranty", k=1)
            assert not failed and json.loads(said)["hits"][0]["source"] == "kettle"
            failed, said = await call(client, "generate", prompt="a", model="none")
            assert failed and "no model 'none'" in said
            failed, said = await call(client, "explain", text="ab", model="one")
            assert not failed and json.loads(said)["texts"][0]["tokens"]

    asyncio.run(talk())


def test_tools_over_standard_input(store):
    async def talk() -> None:
        command = ["-m", "intarsia", "mcp", "fake:echo", "--store", str(store)]
        async with Client(StdioServerParameters(command=sys.executable, args=command)) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert names == ["generate", "explain", "search"]
            assert await call(client, "generate", prompt="say this again") == (False, "say this again")
            failed, said = await call(client, "search", query="green", k=1)
            assert not failed and json.loads(said)["hits"][0]["source"] == "lamp"
            failed, said = await call(client, "explain", text="a")
            assert failed and "nothing can look inside" in said

    asyncio.run(talk())


def test_a_graph_is_asked_over_http_and_as_tools(tmp_path):
    pytest.importorskip("numba", reason="the extra 'knowledge' is not installed")
    from intarsia.data import Fact
    from intarsia.knowledge import KnowledgeGraph
    from intarsia.server import knowing

    graph = KnowledgeGraph.open(tmp_path / "atlas")
    graph.add([Fact("Bonn", "located in", "Germany"), Fact("Oslo", "located in", "Norway")])
    graph.close_snapshot("first")
    graph.close()
    late = Late(lambda: KnowledgeGraph.open(tmp_path / "atlas"), "graph")
    serving = Serving()
    api = service(serving)
    knowing.add(api, late)
    mounting.add(api, serving, mounting.Mount(Served(graph=late)))

    async def talk(url: str) -> None:
        async with Client(f"{url}/mcp") as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["ask_graph", "retrieve_facts"]
            failed, said = await call(client, "retrieve_facts", text="Who lives in Bonn?")
            assert not failed and json.loads(said)["facts"][0]["tail"] == "Germany"
            failed, said = await call(client, "ask_graph", head="Bonn", relation="located in")
            assert failed and "learned" in said

    with running(api) as url:
        found = httpx2.post(f"{url}/v1/knowledge/retrieve", json={"text": "Bonn", "hops": 1}, timeout=120).json()
        assert [(f["head"], f["relation"], f["tail"]) for f in found["facts"]] == [("Bonn", "located in", "Germany")]
        said = httpx2.post(f"{url}/v1/knowledge/ask", json={"head": "Bonn", "relation": "located in"}, timeout=120)
        assert said.status_code == 400 and "learned" in said.json()["error"]["message"]
        asyncio.run(talk(url))
