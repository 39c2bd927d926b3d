"""`RemoteWriter`: a model behind an OpenAI-compatible server writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from intarsia.detection.writing.seeds import mixed_seed
from intarsia.detection.writing.writer import check_drawing
from intarsia.errors import IntarsiaError
from intarsia.models.remote import KEY_VARIABLE, Address, Caller, Refused
from intarsia.models.remote.contents import text_of
from intarsia.progress import track

MAY_BE = {"max_tokens": "max_completion_tokens", "seed": None}  # what some servers do not know
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
        self, url: str, model: str, key_variable: str = KEY_VARIABLE, *, timeout: float = 120.0, tries: int = 5,
        pause: float = 1.0, at_once: int = 4,
    ):  # fmt: skip
        """Raises `BadInput` for an address that is none, or holds a user or password."""
        address = Address.read(url, key_variable)
        self.name = self.model = model
        self.server = address.server
        self.at_once = max(1, at_once)
        self._caller = Caller(address, key_variable, timeout=timeout, tries=tries, pause=pause, may_be=MAY_BE)
        self._plain = True  # whether the server goes on with a text, until it has said that it does not

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
        return text_of(message.get("content"))

    def _gone_on(self, text: str, settings: Mapping[str, Any]) -> str:
        if self._plain:
            try:
                return text_of(self._choice("/completions", {**settings, "prompt": text}).get("text"))
            except Refused as refusal:
                if refusal.code not in (404, 405, 501):
                    raise
                self._plain = False
        said = self._said(GO_ON.replace("{text}", text), settings).strip()
        return said if text[-1:].isspace() else f" {said}"

    def _choice(self, end: str, body: dict[str, Any]) -> dict[str, Any]:
        """The first choice of an answer."""
        answer = self._caller.post(end, body)
        choices = answer.get("choices") if isinstance(answer, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise IntarsiaError(f"{self.server} answered without a choice: is {end} OpenAI's API there?")
        return choices[0]
