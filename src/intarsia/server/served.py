"""What is served beside models, and given to other programs as tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from intarsia.server.late import Late
from intarsia.server.serving import Serving

if TYPE_CHECKING:
    from intarsia.detection import Detector
    from intarsia.knowledge import KnowledgeGraph
    from intarsia.prompting.data.store import Store


@dataclass
class Served:
    """What tools are made of; None: not served."""

    serving: Serving | None = None
    store: Late[Store] | None = None
    graph: Late[KnowledgeGraph] | None = None
    detector: Late[Detector] | None = None
