"""Models on this machine: many requests at once over one network, or over an engine that it was exported for.

backend = open_local("smollm2-135m", threads=2)
reply = await backend.generate([Message("user", "Hello")], Sampling(max_tokens=40))"""

from intarsia.prompting.base.local.backend import LocalBackend
from intarsia.prompting.base.local.opening import open_local

__all__ = ["LocalBackend", "open_local"]
