"""CWR: a model of its own for each snapshot, merged into a consolidated one."""

from __future__ import annotations

import torch

from intarsia.knowledge.learning.counts import occurrences
from intarsia.knowledge.learning.parts import Growing, Method, Part


class Consolidated(Part):
    """After a snapshot the consolidated rows are the means of theirs and the snapshot's, weighted by their facts.

    What a snapshot does not mention keeps its consolidated row (Lomonaco & Maltoni 2017). The snapshots' models start
    at random, apart from each other: nothing says that their spaces agree."""

    def end(self, growing: Growing) -> None:
        new = occurrences(growing.graph, growing.index, growing.index)
        tables = growing.tables
        for name, table, count in (("entities", tables.entities, new[0]), ("relations", tables.relations, new[1])):
            now, count = table.detach().clone(), count.to(table)[:, None]
            if (had := self.state.get(name)) is not None:
                past = self.state[f"{name}.count"]
                share = past / (past + count[: len(past)]).clamp_min(1)
                now[: len(had)] = share * had + (1 - share) * now[: len(had)]
                count[: len(past)] += past
            self.state[name], self.state[f"{name}.count"] = now, count
            with torch.no_grad():
                table.copy_(now)


CWR = Method(
    name="cwr",
    summary="a model a snapshot, merged by the numbers of facts",
    source="Lomonaco & Maltoni 2017, as in Cui et al. 2023",
    family="architecture",
    keeps=False,
    parts=lambda settings: [Consolidated()],
)
