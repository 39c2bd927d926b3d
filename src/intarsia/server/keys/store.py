"""The file of keys, SQLite that its owner alone may read. A key itself is shown once, and kept nowhere."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from intarsia.errors import BadInput, did_you_mean
from intarsia.server.keys.limits import Rate

PREFIX = "ia-"
SCOPES = (
    "chat", "embed", "detect", "label", "explain", "knowledge", "store", "techniques", "flows", "mcp", "metrics",
    "admin",
)  # fmt: skip
"""Groups of routes. `admin` is over versions of models; it opens nothing else."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TABLES = """
CREATE TABLE IF NOT EXISTS keys (
    name TEXT PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, scopes TEXT NOT NULL, models TEXT NOT NULL,
    rate TEXT NOT NULL, tokens_per_day INTEGER, made REAL NOT NULL);
CREATE TABLE IF NOT EXISTS used (name TEXT NOT NULL, day TEXT NOT NULL, tokens INTEGER NOT NULL,
    PRIMARY KEY (name, day));
"""


@dataclass(frozen=True)
class Key:
    """What a key may. models: their names; none: all. tokens_per_day: read and made, by the day in UTC; None: any."""

    name: str
    sha256: str
    scopes: tuple[str, ...]
    models: tuple[str, ...] = ()
    rate: Rate | None = None
    tokens_per_day: int | None = None
    made: float = 0.0


class Keys:
    """Keys in a file. Any thread may use it; what another process changes is seen at the next request.

    make: whether a file that is not there is made (readable by its owner alone). Raises `BadInput` otherwise, and for
    a file that others may read."""

    def __init__(self, path: str | Path, *, make: bool = False):
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            if not make:
                raise BadInput(f"no keys in {self.path}: make one with `intarsia keys add NAME --file {self.path}`")
            self.path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        if os.name == "posix" and self.path.stat().st_mode & 0o077:
            raise BadInput(f"{self.path} can be read by others: chmod 600 {self.path}")
        self._lock = threading.Lock()
        try:
            self._file = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None, timeout=10)
            self._file.executescript(_TABLES)
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{self.path} is no file of keys ({error})") from None
        self._version: int | None = None
        self._known: list[Key] = []

    def add(
        self, name: str, *, scopes: Sequence[str] = ("chat", "embed"), models: Sequence[str] = (),
        rate: Rate | None = None, tokens_per_day: int | None = None,
    ) -> str:  # fmt: skip
        """A new key, the only time that it is given. Raises `BadInput` for a name that is taken or cannot be one."""
        if not _NAME.fullmatch(name):
            raise BadInput(f"'{name}' cannot be a key's name: letters, digits and ._@- are wanted, 64 at most")
        for scope in scopes:
            if scope not in SCOPES:
                hint = did_you_mean(scope, SCOPES) or f": there are {', '.join(SCOPES)}"
                raise BadInput(f"no scope '{scope}'{hint}")
        if not scopes:
            raise BadInput(f"a key without scopes opens nothing: give some of {', '.join(SCOPES)}")
        if tokens_per_day is not None and tokens_per_day < 1:
            raise BadInput(f"tokens a day: {tokens_per_day} given, 1 or more wanted")
        made = PREFIX + secrets.token_urlsafe(32)
        row = (name, hashed(made), ",".join(scopes), "\n".join(models), str(rate or ""), tokens_per_day, time.time())
        try:
            with self._lock:
                self._file.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", row)
                self._version = None
        except sqlite3.IntegrityError:
            raise BadInput(f"there is a key '{name}' already: remove it first, or take another name") from None
        return made

    def remove(self, name: str) -> None:
        """A key opens nothing any more. Raises `BadInput` for a name that is not there."""
        with self._lock:
            gone = self._file.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount
            self._version = None
        if not gone:
            known = [key.name for key in self.rows()]
            raise BadInput(f"no key '{name}'{did_you_mean(name, known)}")

    def rows(self) -> list[Key]:
        """All keys."""
        with self._lock:
            (version,) = self._file.execute("PRAGMA data_version").fetchone()
            if version != self._version:
                rows = self._file.execute("SELECT * FROM keys ORDER BY made").fetchall()
                self._known = [
                    Key(name, sha, tuple(scopes.split(",")), tuple(filter(None, models.split("\n"))),
                        Rate.parse(rate) if rate else None, day, made)
                    for name, sha, scopes, models, rate, day, made in rows
                ]  # fmt: skip
                self._version = version
            return self._known

    def find(self, given: str) -> Key | None:
        """What a key may; None: nobody's. Takes as long for any."""
        digest, found = hashed(given), None
        for key in self.rows():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def used(self, name: str, day: str) -> int:
        """Tokens of a day."""
        with self._lock:
            row = self._file.execute("SELECT tokens FROM used WHERE name = ? AND day = ?", (name, day)).fetchone()
        return row[0] if row else 0

    def use(self, spent: dict[tuple[str, str], int]) -> None:
        """Add tokens by name and day."""
        with self._lock, self._writing():
            for (name, day), tokens in spent.items():
                self._file.execute(
                    "INSERT INTO used VALUES (?, ?, ?) ON CONFLICT (name, day) DO UPDATE SET tokens = tokens + ?",
                    (name, day, tokens, tokens),
                )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        self._file.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._file.execute("ROLLBACK")
            raise
        self._file.execute("COMMIT")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def hashed(key: str) -> str:
    """What is kept of a key: it has 256 random bits, so a plain hash cannot be turned back."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def default_file() -> Path:
    """Where keys are where nobody says."""
    import platformdirs

    given = os.environ.get("INTARSIA_KEYS")
    return Path(given) if given else platformdirs.user_config_path("intarsia") / "keys.sqlite"
