"""PNN: what is old is frozen, only new rows learn."""

from intarsia.knowledge.learning.parts import Growing, Method, Part


class Frozen(Part):
    """Old rows have no gradient."""

    def adjust(self, growing: Growing) -> None:
        growing.tables.to_entities[: growing.old_entities] = 0
        growing.tables.to_relations[: growing.old_relations] = 0


PNN = Method(
    name="pnn",
    summary="old rows are frozen, only new ones learn",
    source="Rusu et al. 2016 (progressive networks), as in Cui et al. 2023",
    family="architecture",
    parts=lambda settings: [Frozen()],
)
