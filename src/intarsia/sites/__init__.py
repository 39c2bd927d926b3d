"""Sites: the one engine that reads, edits and resumes a network. Nothing else registers a hook or patches a forward.

`site_map` says what there is; `read`, `run`, `generate`, `resume`, `unembed` and `sweep` work on it; `watching` tells
what any modules are given and give; `put_beside` adds modules to stay."""

from intarsia.sites.activations import Activations
from intarsia.sites.beside import Guest, exchange, guest_of, move_beside, put_beside, take_off
from intarsia.sites.edits import Add, Apply, Edit, Replace, Scale
from intarsia.sites.generation import Generation, generate
from intarsia.sites.inputs import Batch
from intarsia.sites.linearizing import linearized
from intarsia.sites.reading import read, run
from intarsia.sites.resuming import batch_of, resume, unembed, upper_cache
from intarsia.sites.sitemap import SiteMap, site_map
from intarsia.sites.sweeping import Sweep, source_states, sweep
from intarsia.sites.watching import watching

__all__ = [
    "Activations",
    "Add",
    "Apply",
    "Batch",
    "Edit",
    "Generation",
    "Guest",
    "Replace",
    "Scale",
    "SiteMap",
    "Sweep",
    "batch_of",
    "exchange",
    "generate",
    "guest_of",
    "linearized",
    "move_beside",
    "put_beside",
    "read",
    "resume",
    "run",
    "site_map",
    "source_states",
    "sweep",
    "take_off",
    "unembed",
    "upper_cache",
    "watching",
]
