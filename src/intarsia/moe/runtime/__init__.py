"""Expert parallelism: a mixture of experts run by several ranks, each of which holds some of the experts.

- `Runtime`: one rank; `Shard`: what it holds; `Wire`: its connection; `Request`, `Token`: what goes in and comes out.
- `Ranks`, `launch`, `joined`: processes on this machine, or those of torchrun; `RankFailure` when one is gone.
- `Traffic`, `Counters`, `Totals`, `totals`: what was sent; `replay`, `replay_trace`, `Sizes`: the same from routing.

Modes: `vanilla` (states visit experts and come back), `home` (the same, requests living near their experts) and
`coherent` (tokens move and every rank has every context: Yao et al. 2024, ExFlow)."""

from intarsia.moe.runtime.counters import Counters, Totals, Traffic, totals
from intarsia.moe.runtime.exchange import Wire
from intarsia.moe.runtime.processes import Place, RankFailure, Ranks, joined, launch
from intarsia.moe.runtime.replay import Sizes, replay, replay_trace
from intarsia.moe.runtime.request import Request, Token
from intarsia.moe.runtime.running import MODES, Mode, Runtime
from intarsia.moe.runtime.shard import Memory, Shard

__all__ = [
    "MODES",
    "Counters",
    "Memory",
    "Mode",
    "Place",
    "RankFailure",
    "Ranks",
    "Request",
    "Runtime",
    "Shard",
    "Sizes",
    "Token",
    "Totals",
    "Traffic",
    "Wire",
    "joined",
    "launch",
    "replay",
    "replay_trace",
    "totals",
]
