"""Where a server is."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

from intarsia.errors import BadInput
from intarsia.models.remote.key import KEY_VARIABLE


@dataclass(frozen=True)
class Address:
    """A server and the path its API lies under. server: scheme, name and port, which is all that errors show."""

    parts: SplitResult

    @classmethod
    def read(cls, url: str, key_variable: str = KEY_VARIABLE) -> Address:
        """The address that a person gave: with the path before `/chat/completions`; `/v1` where it has none.

        Raises `BadInput` for one that is none, or holds a user or password."""
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a bracket that is not closed
            known = False
        if not known or not url.isprintable() or " " in url:
            raise BadInput("this address is no server's: give https://NAME/v1")
        if "@" in parts.netloc:
            raise BadInput(f"a key does not belong in an address: set {key_variable}")
        return cls(parts._replace(path=parts.path.rstrip("/").removesuffix("/chat/completions") or "/v1"))

    @property
    def server(self) -> str:
        """Scheme, host and port."""
        return f"{self.parts.scheme}://{self.parts.netloc}"

    @property
    def here(self) -> bool:
        """Whether it is on this machine: no proxy has to do with it, whatever the environment says."""
        host = self.parts.hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def at(self, end: str) -> str:
        """The whole address of what lies at `end`, `/chat/completions` say."""
        return urlunsplit(self.parts._replace(path=self.parts.path + end, fragment=""))


def server_and_model(spec: str) -> tuple[str, str]:
    """The server and the model of `https://server/v1#model`. Raises `BadInput` where it names no model."""
    url, _, model = spec.partition("#")
    if not model:
        raise BadInput(f"{url} does not say which model writes: add its name, {url}#MODEL")
    return url, model
