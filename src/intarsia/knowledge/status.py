"""`knowledge.status`: what is in a graph, and how well it is learned."""

from __future__ import annotations

from intarsia.catalog import Config, technique
from intarsia.knowledge.grow import Growth
from intarsia.knowledge.store import KnowledgeGraph


class StatusConfig(Config):
    pass


@technique(
    "knowledge.status",
    kind="look",
    family="growing graphs",
    source="Cui et al. 2023, section on metrics",
    needs="facts",
    gives="Growth",
    extra="knowledge",
    example={"subject": "python"},
)
def status(graph: KnowledgeGraph, config: StatusConfig) -> Growth:
    """The snapshots of a graph, learned or not, with the figures and curves that were measured as each was learned.

    - GRAPH: the folder of a graph, or `python`."""
    from intarsia.knowledge.growing import standing

    return standing(graph)
