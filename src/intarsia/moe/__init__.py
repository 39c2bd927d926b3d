"""Mixture of experts: where its tokens go, and experts placed so that tokens seldom have to change device.

- `trace`, `affinity`: record routing (`routing/`), and see how much one layer's expert says of the next.
- `plan`, `place`: experts on devices (`placement/`: solvers, bounds, load, copies, what is saved).
- `permute`, `export`: a placement handed on to engines (`handover/`).
- `run`: several processes that hold some experts each (`runtime/`: ranks, exchanges, counters, cost model)."""

from intarsia.lazy import lazily
from intarsia.moe.affinity import Affinity, AffinityConfig, affinity
from intarsia.moe.checkpoint import Checkpoint
from intarsia.moe.handover.export import ExportConfig, PlacementExport, export
from intarsia.moe.handover.permute import PermuteConfig, permute
from intarsia.moe.placement.placement import Placement
from intarsia.moe.plan import PlaceConfig, Plan, PlanConfig, place, plan
from intarsia.moe.record import TraceConfig, trace
from intarsia.moe.routing.trace import Trace
from intarsia.moe.run import ExpertRun, RunConfig, run

_HOMES = {
    "Counts": "routing.counts",
    "Engine": "runtime",
    "Problem": "placement.problem",
    "contiguous": "placement.placement",
    "solve": "placement.solving",
    "verify": "runtime",
}

__all__ = [
    "Affinity",
    "AffinityConfig",
    "Checkpoint",
    "Counts",
    "Engine",
    "ExpertRun",
    "ExportConfig",
    "PermuteConfig",
    "PlaceConfig",
    "Placement",
    "PlacementExport",
    "Plan",
    "PlanConfig",
    "Problem",
    "RunConfig",
    "Trace",
    "TraceConfig",
    "affinity",
    "contiguous",
    "export",
    "permute",
    "place",
    "plan",
    "run",
    "solve",
    "trace",
    "verify",
]

__getattr__ = lazily(__name__, _HOMES)
