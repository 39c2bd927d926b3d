"""Matching: which rows of a stream are merged into which.

All matchers have one signature, on padded batches, without gradients; see `dominance`.

- `dominance`: local dominance, the default: close to greedy.
- `complete`: CrossGET's complete graph; `bipartite`: ToMe's halves; `randomly`: the floor. `greedy`: slow reference.
- `MATCHERS`: those that a user may name. `Pairs`: what they answer.
- `prune`: no matching: the least important rows are dropped."""

from collections.abc import Callable

from intarsia.tokens.matching.bipartite import bipartite
from intarsia.tokens.matching.complete import complete
from intarsia.tokens.matching.dominance import dominance
from intarsia.tokens.matching.greedy import greedy
from intarsia.tokens.matching.pairs import Pairs
from intarsia.tokens.matching.pruning import prune
from intarsia.tokens.matching.randomly import randomly

MATCHERS: dict[str, Callable[..., Pairs]] = {
    "dominance": dominance,
    "complete": complete,
    "bipartite": bipartite,
    "random": randomly,
}

__all__ = ["MATCHERS", "Pairs", "bipartite", "complete", "dominance", "greedy", "prune", "randomly"]
