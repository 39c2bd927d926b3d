"""Knowledge: a graph of facts that grows is learned in seconds, without forgetting, and can be asked.

- `grow`, `status`, `compare`, `export`: learn what is new (`learning/` the loop, `methods/` what keeps the old, a file
  each, `objectives/` losses, `scorers/` TransE and its kin, `kernels/` compiled loops), measure it (`evaluation/`).
- `ask`, `nearest`, `explain`, `retrieve`, `map_entities`: what is likely, what is alike, why, what is around a text,
  and a picture (`asking/`).
- `KnowledgeGraph`: the durable graph (`store/`); `GrowingGraph`: the same as arrays (`graph/`)."""

from intarsia.knowledge.ask import AskConfig, Asked, ask
from intarsia.knowledge.compare import CompareConfig, GrowthComparison, compare
from intarsia.knowledge.explain import ExplainConfig, PredictionExplained, explain
from intarsia.knowledge.export import ExportConfig, export
from intarsia.knowledge.grow import GrowConfig, Growth, grow
from intarsia.knowledge.map import GraphMap, MapConfig, map_entities
from intarsia.knowledge.nearest import Nearest, NearestConfig, nearest
from intarsia.knowledge.retrieve import RetrieveConfig, Subgraph, retrieve
from intarsia.knowledge.status import StatusConfig, status
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.lazy import lazily

# These need torch, which the catalog must not wait for.
_HOMES = {
    "Asker": "asking.asker",
    "GrowingGraph": "graph.growing",
    "Learner": "learning.learner",
    "METHODS": "methods",
    "SCORERS": "scorers",
    "Scorer": "scorers",
    "Settings": "learning.settings",
}

__all__ = [
    "METHODS",
    "SCORERS",
    "AskConfig",
    "Asked",
    "Asker",
    "CompareConfig",
    "ExplainConfig",
    "ExportConfig",
    "GraphMap",
    "GrowConfig",
    "GrowingGraph",
    "Growth",
    "GrowthComparison",
    "KnowledgeGraph",
    "Learner",
    "MapConfig",
    "Nearest",
    "NearestConfig",
    "PredictionExplained",
    "RetrieveConfig",
    "Scorer",
    "Settings",
    "StatusConfig",
    "Subgraph",
    "ask",
    "compare",
    "explain",
    "export",
    "grow",
    "map_entities",
    "nearest",
    "retrieve",
    "status",
]

__getattr__ = lazily(__name__, _HOMES)
