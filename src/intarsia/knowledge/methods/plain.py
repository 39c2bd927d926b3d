"""What needs no idea: fine-tuning on what is new, starting afresh on it, and training again on everything."""

from intarsia.knowledge.learning.parts import Method

FINETUNE = Method(
    name="finetune",
    summary="keeps all vectors and trains on the new facts; new rows start at random",
    source="baseline of Cui et al. 2023",
    family="baseline",
)
RETRAIN = Method(
    name="retrain",
    summary="starts afresh at each snapshot, on all facts so far: the costly upper bound",
    source="baseline of Cui et al. 2023",
    family="baseline",
    keeps=False,
    learns="all",
)
SNAPSHOT = Method(
    name="snapshot",
    summary="starts afresh at each snapshot, on its own facts",
    source="baseline of Cui et al. 2023",
    family="baseline",
    keeps=False,
)
