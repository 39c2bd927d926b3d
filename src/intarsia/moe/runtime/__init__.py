"""Expert parallelism: a mixture of experts run by several ranks, each of which holds some of the experts.

- `Runtime`: one rank; `Shard`: what it holds; `Wire`: its connection; `Request`, `Token`: what goes in and comes out.
- `Ranks`, `launch`, `joined`: processes on this machine, or those of torchrun; `RankFailure` when one is gone.
- `Traffic`, `Counters`, `Totals`, `totals`: what was sent; `replay`, `replay_trace`, `Sizes`: the same from routing.

- `Engine`: all of it behind one object (`Stream`, `Chunk`, `Completion`); `verify`, `Verified`: is it what the network
  gives?
- `choose`, `Choice`, `modelled`, `calibrate`, `Link`, `LINKS`, `link`: modelled times; `simulate`, `drawn`, `chain`,
  `Simulated`: more experts and devices than there are.

Modes: `vanilla` (states visit experts and come back), `home` (the same, requests living near their experts) and
`coherent` (tokens move and every rank has every context: Yao et al. 2024, ExFlow)."""

from intarsia.moe.runtime.commands import Kept
from intarsia.moe.runtime.costmodel import LINKS, Choice, Link, Modelled, calibrate, choose, link, modelled
from intarsia.moe.runtime.counters import Counters, Totals, Traffic, totals
from intarsia.moe.runtime.engine import Chunk, Completion, Engine, Stream
from intarsia.moe.runtime.exchange import Wire
from intarsia.moe.runtime.processes import Place, RankFailure, Ranks, joined, launch
from intarsia.moe.runtime.replay import Effort, Replayed, Sizes, replay, replay_trace
from intarsia.moe.runtime.request import Request, Token
from intarsia.moe.runtime.routed import Event, Routed
from intarsia.moe.runtime.running import MODES, Mode, Runtime
from intarsia.moe.runtime.shard import Memory, Shard
from intarsia.moe.runtime.simulation import Simulated, chain, drawn, simulate
from intarsia.moe.runtime.verifying import Verified, verify

__all__ = [
    "LINKS",
    "MODES",
    "Choice",
    "Chunk",
    "Completion",
    "Counters",
    "Effort",
    "Engine",
    "Event",
    "Kept",
    "Link",
    "Memory",
    "Mode",
    "Modelled",
    "Place",
    "RankFailure",
    "Ranks",
    "Replayed",
    "Request",
    "Routed",
    "Runtime",
    "Shard",
    "Simulated",
    "Sizes",
    "Stream",
    "Token",
    "Totals",
    "Traffic",
    "Verified",
    "Wire",
    "calibrate",
    "chain",
    "choose",
    "drawn",
    "joined",
    "launch",
    "link",
    "modelled",
    "replay",
    "replay_trace",
    "simulate",
    "totals",
    "verify",
]
