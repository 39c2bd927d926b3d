"""What it takes to ask a model behind an OpenAI-compatible server: address and key, patience, refusals in one line.

The rules are the same for everybody who asks. `Caller` waits for the answer and needs nothing installed; `Client` is
for async code, streams, and needs the extra `remote`."""

from __future__ import annotations

from intarsia.lazy import lazily
from intarsia.models.remote.address import Address, server_and_model
from intarsia.models.remote.fields import Fields
from intarsia.models.remote.key import KEY_VARIABLE
from intarsia.models.remote.refusals import Refused, Unreachable

_HOMES = {"Caller": "blocking", "Client": "client"}
__all__ = ["KEY_VARIABLE", "Address", "Caller", "Client", "Fields", "Refused", "Unreachable", "server_and_model"]

__getattr__ = lazily(__name__, _HOMES)
