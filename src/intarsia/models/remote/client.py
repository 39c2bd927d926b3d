"""`Client`: asking a server from async code, whole answers and streams."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from intarsia.errors import MissingExtra, first_line
from intarsia.models.remote.address import Address
from intarsia.models.remote.fields import Fields
from intarsia.models.remote.key import KEY_VARIABLE, head_with, read_key
from intarsia.models.remote.patience import attempts
from intarsia.models.remote.refusals import Unreachable, read_json, refusal, without

if TYPE_CHECKING:
    import httpx2


class Client:
    """A server, asked from async code.

    - key_variable: the environment variable that holds the key, read at every request.
    - timeout: seconds the server may be silent. tries, pause: how often a busy or failing server is asked, and the
      seconds before the second time, doubled every time after, and a little more by chance.
    - at_once: requests under way at a time, in each event loop. may_be: as `Fields`.
    - transport: what carries requests, where it is not the network: `httpx2.ASGITransport(app)`.

    It may be used from several event loops: each has its own connections. Raises `MissingExtra` without `remote`."""

    def __init__(
        self, address: Address, key_variable: str = KEY_VARIABLE, *, timeout: float = 120.0, tries: int = 5,
        pause: float = 1.0, at_once: int = 8, may_be: Mapping[str, str | None] = {},  # never changed
        transport: httpx2.AsyncBaseTransport | None = None,
    ):  # fmt: skip
        try:
            import httpx2  # noqa: F401
        except ImportError:
            raise MissingExtra("asking a server", "remote") from None
        self.address, self.key_variable = address, key_variable
        self.timeout, self.tries, self.pause, self.at_once = timeout, max(1, tries), pause, max(1, at_once)
        self.fields = Fields(may_be)
        self._transport = transport
        self._lines: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Line] = weakref.WeakKeyDictionary()

    async def get(self, end: str) -> Any:
        """What lies at `end`, as JSON. Raises as `post`."""
        return await self._asked("GET", end, None)

    async def post(self, end: str, body: Mapping[str, Any]) -> Any:
        """The answer to a request, as JSON. A field the server does not know is left out, or called as it wants.

        Raises `Refused`, `Unreachable`, `Nonsense`: one line each."""
        return await self._asked("POST", end, body)

    @contextlib.asynccontextmanager
    async def events(self, end: str, body: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[str]]:
        """The data of each event of a streamed answer, or the whole of it where the server does not stream.

        A busy or failing server is asked again until it begins to answer, and never after. Raises as `post`."""
        async with contextlib.AsyncExitStack() as stack:
            async for attempt in attempts(self.tries, self.pause):
                with attempt:
                    answer, key = await stack.enter_async_context(self._opened("POST", end, body))
            events = self._events(answer, key)
            stack.push_async_callback(events.aclose)
            yield events

    async def close(self) -> None:
        """Close the connections, when the requests that use them have ended or `timeout` seconds are over."""
        here = asyncio.get_running_loop()
        for loop, line in list(self._lines.items()):
            self._lines.pop(loop, None)
            if loop is here:
                await line.close(self.timeout)
            elif not loop.is_closed():
                closing = asyncio.run_coroutine_threadsafe(line.close(self.timeout), loop)
                await asyncio.wrap_future(closing)

    async def _asked(self, method: str, end: str, body: Mapping[str, Any] | None) -> Any:
        async for attempt in attempts(self.tries, self.pause):
            with attempt:
                async with self._opened(method, end, body) as (answer, key):
                    raw = await self._whole(answer, key)
        return read_json(raw, self.address.server, end)

    @contextlib.asynccontextmanager
    async def _opened(
        self, method: str, end: str, body: Mapping[str, Any] | None
    ) -> AsyncIterator[tuple[httpx2.Response, str]]:
        """An answer whose head has come and says that all is well, and the key that it was asked with."""
        line = self._line()
        async with line.free:
            while True:
                key = read_key(self.key_variable)
                sent = None if body is None else self.fields.put(body)
                request = line.http.build_request(method, self.address.at(end), json=sent, headers=head_with(key))
                with self._reaching(key):
                    answer = await line.http.send(request, stream=True)
                try:
                    if answer.is_success:
                        yield answer, key
                        return
                    try:
                        said = (await self._whole(answer, key)).decode("utf-8", "replace")
                    except Unreachable:
                        said = ""
                finally:
                    await answer.aclose()
                server, code = self.address.server, answer.status_code
                refused = refusal(server, code, answer.reason_phrase, said, answer.headers, key, self.key_variable)
                if sent is None or not self.fields.learn(refused, sent):
                    raise refused

    async def _whole(self, answer: httpx2.Response, key: str) -> bytes:
        with self._reaching(key):
            return await answer.aread()

    async def _events(self, answer: httpx2.Response, key: str) -> AsyncIterator[str]:
        import httpx2

        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
            yield (await self._whole(answer, key)).decode("utf-8", "replace")
            return
        with self._reaching(key):
            async for event in httpx2.EventSource(answer):
                yield event.data

    def _line(self) -> _Line:
        loop = asyncio.get_running_loop()
        if (line := self._lines.get(loop)) is None:
            line = self._lines[loop] = _Line(self.timeout, self.at_once, self._transport, not self.address.here)
        return line

    @contextlib.contextmanager
    def _reaching(self, key: str) -> Iterator[None]:
        """Turn what the network does into one line."""
        import httpx2

        server = self.address.server
        try:
            yield
        except httpx2.TimeoutException:
            raise Unreachable(f"{server} cannot be reached: no answer in {self.timeout:g} s", True) from None
        except httpx2.SSEError as error:
            raise Unreachable(f"{server} streams what cannot be read: {first_line(error, 200)}", False) from None
        except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            refused = isinstance(error, httpx2.ConnectError)  # nobody there: asking again does not help
            said = without(first_line(error, 200), key)
            broken = "cannot be reached" if refused else "broke off"
            raise Unreachable(f"{server} {broken}: {said}", not refused) from None
        except httpx2.HTTPError as error:
            raise Unreachable(f"{server} cannot be asked: {without(first_line(error, 200), key)}", False) from None


class _Line:
    """The connections of one event loop."""

    def __init__(self, timeout: float, at_once: int, transport: httpx2.AsyncBaseTransport | None, proxies: bool):
        import httpx2

        # A redirected request would take the key to a server that nobody named.
        self.http = httpx2.AsyncClient(
            timeout=httpx2.Timeout(timeout, pool=None), follow_redirects=False, transport=transport, trust_env=proxies,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=at_once),
        )  # fmt: skip
        self.free = asyncio.Semaphore(at_once)
        self.at_once = at_once

    async def close(self, patience: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for _ in range(self.at_once):
                    await self.free.acquire()
        await self.http.aclose()
