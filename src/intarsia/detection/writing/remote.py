"""`RemoteWriter`: a model behind an OpenAI-compatible server writes."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from intarsia.detection.writing.seeds import mixed_seed
from intarsia.detection.writing.writer import check_drawing
from intarsia.errors import BadInput, IntarsiaError, first_line
from intarsia.progress import track

LONGEST_WAIT = 60.0  # seconds, whatever a server asks for
GO_ON = "Continue this text. Write only what comes next, and nothing else.\n\n{text}"


class RemoteWriter:
    """A model by its name on any server that speaks OpenAI's API.

    - url: the server, with the path before `/chat/completions`: `https://api.openai.com/v1`; `/v1` where it has none.
    - key_variable: the environment variable that holds the key. It is read when something is asked, sent to the server
      alone, and shown nowhere; without it the server is asked without a key.
    - timeout: seconds for one answer. tries, pause: how often a busy or failing server is asked, and the seconds before
      the second time, doubled every time after. at_once: prompts under way at a time.

    The seed goes along, but it is the server that decides what it is worth."""

    def __init__(
        self, url: str, model: str, key_variable: str = "OPENAI_API_KEY", *, timeout: float = 120.0, tries: int = 5,
        pause: float = 1.0, at_once: int = 4,
    ):  # fmt: skip
        """Raises `BadInput` for an address that is none, or holds a user or password."""
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a bracket that is not closed
            known = False
        if not known or not url.isprintable() or " " in url:
            raise BadInput("this address is no server's: give https://NAME/v1")
        if "@" in parts.netloc:
            raise BadInput(f"a key does not belong in an address: set {key_variable}")
        self._parts = parts._replace(path=parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1")
        self.name = self.model = model
        self.server = f"{parts.scheme}://{parts.netloc}"
        self.key_variable, self.timeout, self.tries = key_variable, timeout, max(1, tries)
        self.pause, self.at_once = pause, max(1, at_once)
        self._plain = True  # whether the server goes on with a text, until it has said that it does not
        self._unknown: dict[str, str | None] = {}  # fields it refused, and what to call them
        self._opener = urllib.request.build_opener(_StayHere)

    def write(
        self, prompts: Sequence[str], *, most_tokens: int, temperature: float = 1.0, top_p: float = 1.0, seed: int = 0,
        chat: bool = True,
    ) -> list[str]:  # fmt: skip
        """As `Writer.write`. Without `chat` the server's `/completions` go on with the prompt; where it has none for
        this model, the model is asked in words to go on.

        Raises `IntarsiaError` with one line for a server that cannot be reached, refuses, or answers nonsense."""
        check_drawing(most_tokens, temperature, top_p)
        settings: dict[str, Any] = {"model": self.model, "max_tokens": most_tokens}
        # What is the API's own is not sent: some models take nothing else, and refuse to be told.
        settings |= {k: v for k, v in (("temperature", temperature), ("top_p", top_p)) if v != 1}

        def one(number: int, prompt: str) -> str:
            asked = settings | {"seed": mixed_seed(seed, number)}
            return self._said(prompt, asked) if chat else self._gone_on(prompt, asked)

        pool = ThreadPoolExecutor(self.at_once)
        try:
            going = [pool.submit(one, number, prompt) for number, prompt in enumerate(prompts)]
            return [each.result() for each in track(going, "writing")]
        finally:
            pool.shutdown(cancel_futures=True)

    def _said(self, prompt: str, settings: Mapping[str, Any]) -> str:
        messages = [{"role": "user", "content": prompt}]
        choice = self._choice("/chat/completions", {**settings, "messages": messages})
        message = choice.get("message")
        if not isinstance(message, dict):
            raise IntarsiaError(f"{self.server} answered without a message")
        return _words(message.get("content"))

    def _gone_on(self, text: str, settings: Mapping[str, Any]) -> str:
        if self._plain:
            try:
                return _words(self._choice("/completions", {**settings, "prompt": text}).get("text"))
            except Refused as refusal:
                if refusal.code not in (404, 405, 501):
                    raise
                self._plain = False
        said = self._said(GO_ON.replace("{text}", text), settings).strip()
        return said if text[-1:].isspace() else f" {said}"

    def _choice(self, end: str, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of an answer; a field the server does not know is left out, or called as it wants."""
        while True:
            known = {self._unknown.get(k, k): v for k, v in body.items() if self._unknown.get(k, k) is not None}
            try:
                answer = self._post(end, known)
                break
            except Refused as refusal:
                if not self._learned(refusal, known):
                    raise
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise IntarsiaError(f"{self.server} answered without a choice: is {end} OpenAI's API there?")
        return choices[0]

    def _learned(self, refusal: Refused, body: Mapping[str, Any]) -> bool:
        if refusal.code not in (400, 422):
            return False
        for field, instead in (("max_tokens", "max_completion_tokens"), ("seed", None)):
            if field in body and (instead or field) in str(refusal):
                self._unknown[field] = instead
                return True
        return False

    def _post(self, end: str, body: Mapping[str, Any]) -> Any:
        """The answer to a request, as JSON. A busy or failing server is asked again, later every time."""
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):  # an error further down would show it
            raise BadInput(f"the key in {self.key_variable} holds characters that no key has")
        head = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        url = urlunsplit(self._parts._replace(path=self._parts.path + end, fragment=""))
        data = json.dumps(body).encode()
        for number in range(self.tries):
            last = number + 1 == self.tries
            wait = self.pause * 2**number
            try:
                request = urllib.request.Request(url, data, head, method="POST")
                with self._opener.open(request, timeout=self.timeout) as answer:
                    raw = answer.read()
            except urllib.error.HTTPError as error:
                refusal = self._refusal(error, key)
                if last or not (refusal.code == 429 or refusal.code >= 500) or refusal.code == 501:
                    raise refusal from None
                wait = max(wait, _seconds(error.headers.get("Retry-After")))
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                passing = isinstance(reason, TimeoutError | ConnectionResetError | http.client.HTTPException)
                if last or not passing:
                    said = f"no answer in {self.timeout:g} s" if isinstance(reason, TimeoutError) else reason
                    raise IntarsiaError(f"{self.server} cannot be reached: {said}") from None
            else:
                try:
                    return json.loads(raw)
                except ValueError:
                    raise IntarsiaError(f"{self.server} answered no JSON: is {end} OpenAI's API there?") from None
            time.sleep(min(wait, LONGEST_WAIT))
        raise AssertionError("the last try returns or raises")

    def _refusal(self, error: urllib.error.HTTPError, key: str) -> Refused:
        with error:
            try:
                said = error.read().decode("utf-8", "replace")
            except (OSError, http.client.HTTPException):
                said = ""
        if error.code in (401, 403):  # what servers say here may hold a part of the key
            mend = f"refused the key in {self.key_variable}" if key else f"wants a key: set {self.key_variable}"
            return Refused(f"{self.server} {mend} ({error.code})", error.code)
        if 300 <= error.code < 400:
            return Refused(f"{self.server} sends elsewhere ({error.code}): give the address itself", error.code)
        message = _message(said) or error.reason or "no reason given"
        message = message.replace(key, "...") if key else message
        return Refused(f"{self.server}: {error.code} {first_line(ValueError(message), 200)}", error.code)


class Refused(IntarsiaError):
    """A server's refusal, with the HTTP status."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


class _StayHere(urllib.request.HTTPRedirectHandler):
    """A redirected request would take the key to a server that nobody named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _message(said: str) -> str:
    """What an error's body says: OpenAI's `error.message`, or what others put in its place."""
    try:
        found = json.loads(said)
    except ValueError:
        return said
    while isinstance(found, dict):
        found = next((found[key] for key in ("error", "message", "detail") if found.get(key)), said)
    return found if isinstance(found, str) else said


def _words(content: Any) -> str:
    """A message's text, also where it comes in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _seconds(said: str | None) -> float:
    try:
        return float(said or 0)
    except ValueError:  # a date
        return 0.0
