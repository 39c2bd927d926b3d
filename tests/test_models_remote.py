"""The rules that everybody keeps who asks a server."""

import asyncio
import time
from email.utils import formatdate
from types import SimpleNamespace

import pytest

from intarsia.errors import BadInput
from intarsia.models import remote
from intarsia.models.remote import Address, Caller, Client, Fields, Refused, Unreachable
from intarsia.models.remote.contents import text_of
from intarsia.models.remote.patience import may_pass, seconds, waiting
from intarsia.models.remote.refusals import Nonsense, refusal, words_of
from tests.remote_help import serving


def test_where_a_path_lies():
    assert Address.read("http://host").at("/models") == "http://host/v1/models"
    assert Address.read("https://host:8/api/v2/?x=1#y").at("/models") == "https://host:8/api/v2/models?x=1"
    assert Address.read("https://host:8/api").server == "https://host:8"


def test_what_may_pass():
    assert [code for code in (400, 401, 404, 408, 429, 500, 501, 502, 503, 504) if may_pass(code)] == [
        429, 500, 502, 503, 504,
    ]  # fmt: skip


def test_what_retry_after_says():
    assert [seconds(said) for said in (None, "", "3", "0.5", "-2", "soon")] == [0, 0, 3, 0.5, 0, 0]
    assert 25 < seconds(formatdate(time.time() + 30, usegmt=True)) <= 30
    assert seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_waits_double_up_to_a_minute():
    assert [waiting(number, 1.0) for number in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert waiting(0, 1.0, after=7) == 7 and waiting(3, 1.0, after=7) == 8 and waiting(0, 1.0, after=999) == 60


def test_fields_are_learned_from_what_was_sent():
    fields = Fields({"old": "new", "extra": None})
    said = SimpleNamespace(code=400, said="unknown field 'extra'")
    assert not fields.learn(said, {"old": 1})  # it was not sent
    assert fields.learn(said, {"old": 1, "extra": 2}) and fields.put({"old": 1, "extra": 2}) == {"old": 1}
    assert fields.learn(SimpleNamespace(code=422, said="use 'new'"), {"old": 1}) and fields.put({"old": 1}) == {
        "new": 1
    }
    assert not fields.learn(SimpleNamespace(code=500, said="old new"), {"old": 1})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('{"error": {"message": "a"}}', "a"), ('{"detail": "b"}', "b"), ('{"error": "c"}', "c"), ("plain", "plain"),
        ('{"other": 1}', '{"other": 1}'), ('{"detail": [1]}', '{"detail": [1]}'),
    ],
)  # fmt: skip
def test_words_of_an_error(body, words):
    assert words_of(body) == words


def test_a_refusal_shows_no_key():
    told = refusal("http://host", 429, "Busy", '{"error": "wait, KEY"}', {"Retry-After": "4"}, "KEY", "VARIABLE")
    assert (str(told), told.after, told.retryable) == ("http://host: 429 wait, ...", 4, True)
    assert "VARIABLE" in str(refusal("http://host", 401, "", "KEY", {}, "KEY", "VARIABLE"))


def test_text_of_a_message():
    assert [text_of(said) for said in (None, "a", [{"text": "a"}, {"text": "b"}, "c"], 3)] == ["", "a", "ab", ""]


def test_both_ways_of_asking_keep_the_same_rules(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def ask(server, way, **more):
        address = Address.read(server.url)
        settings = {"pause": 0.001, "tries": 3, **more}
        if way is Caller:
            return Caller(address, **settings).post("/x", {"a": 1})

        async def whole():
            client = Client(address, **settings)
            try:
                return await client.post("/x", {"a": 1})
            finally:
                await client.close()

        return asyncio.run(whole())

    for way in (Caller, Client):
        answers = iter([(503, {}), (429, {}), (200, {"fine": True})])
        with serving(lambda *_, answers=answers: next(answers)) as server:
            assert ask(server, way) == {"fine": True} and [path for path, *_ in server.asked] == ["/v1/x"] * 3
        for status, body, error, times in [
            (503, {}, Refused, 3), (501, {}, Refused, 1), (302, {}, Refused, 1), (200, b"<html>", Nonsense, 1),
        ]:  # fmt: skip
            with serving(lambda *_, s=status, b=body: (s, b, {"Location": "/elsewhere"})) as server:
                with pytest.raises(error):
                    ask(server, way)
                assert len(server.asked) == times
        with pytest.raises(Unreachable, match="cannot be reached"):
            ask(server, way, pause=100)


def test_no_proxy_comes_between_us_and_this_machine(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with serving(lambda *_: (200, {"fine": True})) as server:
        address = Address.read(server.url)
        assert Caller(address).post("/x", {}) == asyncio.run(Client(address).post("/x", {})) == {"fine": True}
    urls = [
        "http://localhost",
        "http://127.3.0.1:1",
        "http://[::1]/v1",
        "http://host",
        "http://10.0.0.1",
        "http://localhost.org",
    ]
    assert [Address.read(url).here for url in urls] == [True, True, True, False, False, False]


def test_closing_waits_for_what_is_under_way():
    async def whole(server):
        client = Client(Address.read(server.url))
        job = asyncio.create_task(client.post("/x", {}))
        while not server.asked:
            await asyncio.sleep(0.001)
        await client.close()
        assert await job == {"fine": True}
        assert await client.post("/x", {}) == {"fine": True}  # it opens again
        await client.close()

    def slowly(*_):
        time.sleep(0.1)
        return 200, {"fine": True}

    with serving(slowly) as server:
        asyncio.run(whole(server))


def test_the_public_names_are_there():
    for name in remote.__all__:
        assert getattr(remote, name) is not None
    with pytest.raises(AttributeError):
        _ = remote.nonsense
    with pytest.raises(BadInput, match="which model"):
        remote.server_and_model("http://host/v1")
