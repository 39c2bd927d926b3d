"""A server whose requests are counted: Intarsia's application in a process of its own, behind a layer that counts what
comes in and what the server says it used.

    python -m bench.prompting.counting smollm2-135m [--threads N]

Tokens that were read: those of prompts, templates included, and of what choices that are scored begin with; whether a
cache of beginnings saved them is counted beside."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx2

COUNTS, FORGET = "/counts", "/forget"


@dataclass
class Counts:
    """- calls: requests for answers or scores, those that failed included. failed: with an error's status.
    - prompt: tokens that were read; cached: those of them that were known. completion: tokens that were made.
    - seconds: of the server's processor."""

    calls: int = 0
    failed: int = 0
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    seconds: float = 0.0

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) - getattr(other, name) for name in self.__dataclass_fields__))


class Counting:
    """An ASGI layer that counts every POST under `/v1/`, and tells at `GET /counts`. A request is counted when it
    comes, its tokens before the last piece of the answer is passed on: whoever has an answer finds it counted.

    forget: what `GET /forget` does: it empties the cache of beginnings, so that what is
    measured next begins as the first did."""

    def __init__(self, app: Any, forget: Callable[[], None] = lambda: None):
        self.app, self.forget, self.counts = app, forget, Counts()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif scope["path"] in (COUNTS, FORGET):
            if scope["path"] == FORGET:
                self.forget()
            self.counts.seconds = time.process_time()
            await send({"type": "http.response.start", "status": 200,
                        "headers": [(b"content-type", b"application/json")]})  # fmt: skip
            await send({"type": "http.response.body", "body": json.dumps(asdict(self.counts)).encode()})
        elif scope["method"] == "POST" and scope["path"].startswith("/v1/"):
            await self._counted(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _counted(self, scope: Any, receive: Any, send: Any) -> None:
        self.counts.calls += 1
        said, status = bytearray(), 0

        async def passed(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                said.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    self._used(bytes(said), status)
            await send(message)

        await self.app(scope, receive, passed)

    def _used(self, said: bytes, status: int) -> None:
        if status >= 400:
            self.counts.failed += 1
            return
        usage = usage_in(said)
        self.counts.prompt += usage.get("prompt_tokens") or 0
        self.counts.completion += usage.get("completion_tokens") or 0
        self.counts.cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0


def usage_in(said: bytes) -> Mapping[str, Any]:
    """The usage that an answer tells, whole or as a stream of events (the last one that tells any)."""
    found: Mapping[str, Any] = {}
    lines = said.decode().splitlines()
    events = [line.removeprefix("data:") for line in lines if line.startswith("data:")]
    for text in events or [said.decode()]:
        if text.strip() not in ("", "[DONE]"):
            found = json.loads(text).get("usage") or found
    return found


@dataclass(frozen=True)
class Server:
    """A counted server that runs. url: with `/v1`."""

    url: str
    model: str

    def counts(self) -> Counts:
        return self._told(COUNTS)

    def forget(self) -> Counts:
        """Its counts, after it has forgotten all beginnings. Nothing may be under way."""
        return self._told(FORGET)

    def _told(self, end: str) -> Counts:
        return Counts(**httpx2.get(self.url.removesuffix("/v1") + end, timeout=60, trust_env=False).json())

    def warm(self) -> None:
        """Some answers and scores, so that nothing is measured that only the first request of its size has to do."""
        texts = [" ".join(["Hello, who is there?"] * times) for times in (1, 4, 16, 48)]
        talks = [[{"role": "user", "content": text}] for text in texts for _ in range(8)]
        for end, body in (
            ("chat/completions", {"messages": talks[0], "max_tokens": 8}),
            ("score", {"prompts": talks, "choices": ["yes", "no", "not yet", "not at all"]}),
        ):
            asked = {"model": self.model, **body}
            httpx2.post(f"{self.url}/{end}", json=asked, timeout=300, trust_env=False).raise_for_status()


@contextlib.contextmanager
def running(model: str, threads: int = 1) -> Iterator[Server]:
    """A counted server of a model, warm; ended afterwards."""
    command = [sys.executable, "-m", "bench.prompting.counting", model, "--threads", str(threads)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        if not line.startswith("http"):
            raise RuntimeError(f"the server of {model} did not start: see above")
        server = Server(line, model)
        server.warm()
        yield server
    finally:
        process.terminate()
        process.wait(60)
        process.stdout.close()


def main() -> None:
    """Serve, and say where."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("model")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    from intarsia.prompting.base.local import open_local
    from intarsia.server.listening import listening
    from intarsia.server.running import serve
    from intarsia.server.service import Serving, service

    # Small models' templates know no tools: then the server describes them in the system message.
    backend = open_local(options.model, threads=options.threads, describe_tools=True)
    serving = Serving()
    serving.registry.add(options.model, backend)
    app = Counting(
        service(serving),
        lambda: backend.engine.runner._prefixes.clear(),  # (nobody else needs to, so there is no public way)
    )
    listener = listening("127.0.0.1", 0)
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", flush=True)
    serve(app, serving, listener)


if __name__ == "__main__":
    main()
