"""Keys: who may ask what, and how much.

- `store.py`: the file; of a key it holds the sha256 alone. `limits.py`: how often and how many tokens.
- `callers.py`: the layer of a server that looks at each request's key."""

from intarsia.server.keys.limits import Limits, Rate
from intarsia.server.keys.store import SCOPES, Key, Keys

__all__ = ["SCOPES", "Key", "Keys", "Limits", "Rate"]
