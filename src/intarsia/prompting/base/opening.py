"""`open_backend`: one door to a backend, whatever runs the model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from intarsia.errors import BadInput, did_you_mean
from intarsia.models.remote.address import server_and_model
from intarsia.models.remote.key import KEY_VARIABLE
from intarsia.prompting.base.backend import Backend
from intarsia.prompting.base.budget import Budget, Price

if TYPE_CHECKING:
    from intarsia.models import Model

PREFIXES = ("fake:", "openai:", "wheel:")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_+-]+:")  # two characters or more: not a drive


def open_backend(
    name: str | Path | Model, *, adapter: str | Path | None = None, cache: str | Path | None = None,
    budget: Budget | None = None, price: Price | None = None, trace: bool = True, key_variable: str = KEY_VARIABLE,
    threads: int | None = None,
) -> Backend:  # fmt: skip
    """The backend that `name` names. Nothing is sent anywhere unless a server is named.

    - name: a known model, a hub id, a folder, a `.gguf` file or `wheel:NAME`, as `intarsia.load`; the folder of a model
      exported for another engine; `openai:http://host/v1#model` for a model behind an OpenAI-compatible server (also
      without `openai:`); `fake:` for no model at all (`FakeBackend`). Or a `Model` that is in memory.
    - adapter: of a local model: a folder, or the name it is known by. A server's adapters are models: name one after #.
    - cache: a file, made where there is none, that keeps answers: see `Cached`.
    - budget, price: what may be used, and what it costs: see `Metered`.
    - trace: whether what is asked and answered is written to the trace that is open then, if one is: see `Traced`.
    - key_variable: the environment variable that holds a server's key. threads: of a local model.

    From the outside in: trace, cache, budget, model. So everything that is asked is in the trace, also what the cache
    answers; and what the cache answers costs nothing. Retries are the innermost, and count as one call.

    Raises `BadInput` for what is no name, `MissingExtra` where what runs it is not installed, else as `load`."""
    if budget is not None and price is None and budget.wants_price:
        raise BadInput("a budget of cost needs to know what tokens cost: give price=Price(...)")  # before any loading
    backend = _opened(str(name) if isinstance(name, Path) else name, adapter, key_variable, threads)
    if budget is not None or price is not None:
        from intarsia.prompting.base.metered import Metered

        backend = Metered(backend, budget, price=price)
    if cache is not None:
        from intarsia.prompting.base.cache import Cached

        backend = Cached(backend, cache)
    if trace:
        from intarsia.prompting.base.traced import Traced

        backend = Traced(backend)
    return backend


def is_remote(name: str) -> bool:
    """Whether a name means a model behind a server."""
    return name.startswith("openai:") or name.lower().startswith(("http://", "https://"))


def _opened(name: str | Model, adapter: str | Path | None, key_variable: str, threads: int | None) -> Backend:
    if not isinstance(name, str):
        return _local(name, adapter, threads)
    if name.startswith("fake:"):
        from intarsia.prompting.base.fake import FakeBackend

        _refuse(name, "a fake model", adapter=adapter, threads=threads)
        return FakeBackend(name=name.removeprefix("fake:") or "fake")
    if is_remote(name):
        from intarsia.prompting.base.openai_compatible import OpenAICompatible

        url, model = server_and_model(name.removeprefix("openai:"))
        _refuse(name, "a model behind a server", adapter=adapter, threads=threads)
        return OpenAICompatible(url, model, key_variable=key_variable)
    found = _PREFIX.match(name)
    if found and found[0] not in PREFIXES and not Path(name).exists():
        raise BadInput(
            f"no kind of model '{found[0]}'{did_you_mean(found[0], PREFIXES)}: give {', '.join(PREFIXES)} or the plain "
            "name of a model here"
        )
    return _local(name, adapter, threads)


def _local(name: str | Model, adapter: str | Path | None, threads: int | None) -> Backend:
    from intarsia.prompting.base.local import open_local

    return open_local(name, adapter=adapter, threads=threads)


def _refuse(name: str, what: str, **given: object) -> None:
    for option, value in given.items():
        if value is not None:
            mend = f": name the adapter as the model, after # in {name}" if option == "adapter" and "#" in name else ""
            raise BadInput(f"{what} takes no {option}{mend}")
