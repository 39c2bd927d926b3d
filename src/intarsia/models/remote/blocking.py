"""`Caller`: asking a server, and waiting for the answer."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from intarsia.models.remote.address import Address
from intarsia.models.remote.fields import Fields
from intarsia.models.remote.key import KEY_VARIABLE, head_with, read_key
from intarsia.models.remote.patience import waiting
from intarsia.models.remote.refusals import Refused, Unreachable, read_json, refusal


class Caller:
    """A server, asked from plain code with what Python itself has.

    - key_variable: the environment variable that holds the key, read at every request.
    - timeout: seconds the server may be silent. tries, pause: how often a busy or failing server is asked, and the
      seconds before the second time, doubled every time after.
    - may_be: as `Fields`."""

    def __init__(
        self, address: Address, key_variable: str = KEY_VARIABLE, *, timeout: float = 120.0, tries: int = 5,
        pause: float = 1.0, may_be: Mapping[str, str | None] = {},  # never changed
    ):  # fmt: skip
        self.address, self.key_variable = address, key_variable
        self.timeout, self.tries, self.pause = timeout, max(1, tries), pause
        self.fields = Fields(may_be)
        direct = [urllib.request.ProxyHandler({})] if address.here else []
        self._opener = urllib.request.build_opener(_StayHere, *direct)

    def post(self, end: str, body: Mapping[str, Any]) -> Any:
        """The answer to a request, as JSON. A field the server does not know is left out, or called as it wants.

        Raises `Refused`, `Unreachable`, `Nonsense`: one line each."""
        while True:
            sent = self.fields.put(body)
            try:
                return self._patiently(end, sent)
            except Refused as refused:
                if not self.fields.learn(refused, sent):
                    raise

    def _patiently(self, end: str, body: Mapping[str, Any]) -> Any:
        key = read_key(self.key_variable)
        data = json.dumps(body).encode()
        for number in range(self.tries):
            try:
                return read_json(self._once(end, data, key), self.address.server, end)
            except (Refused, Unreachable) as error:
                if number + 1 == self.tries or not error.retryable:
                    raise
                wait = waiting(number, self.pause, error.after)
            time.sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _once(self, end: str, data: bytes, key: str) -> bytes:
        head = {"Content-Type": "application/json"} | head_with(key)
        server = self.address.server
        try:
            request = urllib.request.Request(self.address.at(end), data, head, method="POST")
            with self._opener.open(request, timeout=self.timeout) as answer:
                return answer.read()
        except urllib.error.HTTPError as error:
            with error:
                try:
                    said = error.read().decode("utf-8", "replace")
                except (OSError, http.client.HTTPException):
                    said = ""
            raise refusal(server, error.code, error.reason, said, error.headers, key, self.key_variable) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            passing = isinstance(reason, TimeoutError | ConnectionResetError | http.client.HTTPException)
            said = f"no answer in {self.timeout:g} s" if isinstance(reason, TimeoutError) else reason
            raise Unreachable(f"{server} cannot be reached: {said}", passing) from None


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A redirected request would take the key to a server that nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
