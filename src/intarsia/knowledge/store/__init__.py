"""The durable graph: names, facts, snapshots and what was learned of them, in one folder."""

from intarsia.knowledge.store.store import Added, KnowledgeGraph, Stage

__all__ = ["Added", "KnowledgeGraph", "Stage"]
