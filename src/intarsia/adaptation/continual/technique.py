"""`adaptation.continual`: one model that takes on task after task and keeps them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.training.lora import LoraConfig

if TYPE_CHECKING:
    from intarsia.data import TaskPair
    from intarsia.models import Model

MethodName = Literal[
    "transfer", "sapt", "snapshot", "oracle", "sequential", "replay", "ewc", "olora", "inclora", "multitask",
    "sapt-prompt", "epi", "progprompt", "l2p", "lfpt5",
]  # fmt: skip


class ContinualConfig(LoraConfig):
    """Settings of continual tuning: LoRA's, the stream, the method."""

    method: MethodName = Field(
        "transfer",
        description="transfer: blocks mixed by a learned row of weights a task, chosen by a classifier in closed form; "
        "sapt: the paper's shared attention; the others: baselines",
    )
    variant: Literal["lora"] = Field("lora", description="blocks are plain low-rank updates: they have to add up")
    rank: int = Field(8, ge=1, description="rank of the update of each matrix, a task")
    targets: tuple[str, ...] = Field(
        ("auto",), description="names of the linear layers to adapt; auto: queries and values, as in the paper"
    )
    layers_from: float = Field(
        0.667,
        ge=0,
        description="adapt only blocks from this one up; below 1: a share of the depth; 0: all, as the paper",
    )
    schedule: str = Field("constant", pattern="^(linear|cosine|constant)$", description="linear, cosine or constant")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of a task's steps over which the learning rate rises")
    epochs: float = Field(2, gt=0, description="times through a task's training examples")
    template: str = Field(
        "{instruction}\n{input}\nOutput:", description="prompt with {instruction} and {input}; the answer follows"
    )
    max_tokens: int | None = Field(None, ge=8, description="longest prompt; longer inputs are cut")
    max_answer: int = Field(50, ge=1, description="longest answer, in tokens")
    order: tuple[str, ...] = Field((), description="tasks in the order to learn them; default: as the stream has them")
    unseen: tuple[str, ...] = Field((), description="tasks that are never learned, only judged")
    train_limit: int | None = Field(None, ge=4, description="most training examples of a task")
    dev_limit: int | None = Field(64, ge=1, description="most examples of a task to choose and calibrate by")
    test_limit: int | None = Field(None, ge=1, description="most examples of a task to judge by")
    judge: Literal["auto", "exact", "match", "rouge"] = Field(
        "auto",
        description="exact: whether the answer is, token by token, what the model finds most likely; match: whether "
        "what it writes is a right answer but for case, punctuation and blanks; rouge: ROUGE-L of what it writes; "
        "auto: exact, or rouge for tasks whose answers are longer than five words",
    )
    trunk_cache: Literal["auto", "off", "float32", "float16"] = Field(
        "auto", description="store the states that enter the first adapted block, in this precision; auto: float16"
    )
    warm: bool = Field(True, description="transfer: start a new block as a copy of the one that fits best, if any does")
    start_steps: int = Field(
        0,
        ge=0,
        description="transfer: steps for which a copied and a fresh start are both tried; 0: none, choose at once",
    )
    own_floor: float = Field(0.3, ge=0, lt=1, description="transfer: least weight of a task's own block")
    reflection: float = Field(0.5, ge=0, description="sapt: weight of the loss that keeps the attention of old tasks")
    pseudo: Literal["real", "generated"] = Field(
        "real", description="sapt: old inputs to reflect on: a few real ones, or samples of a generator that is trained"
    )
    pseudo_share: float = Field(
        0.02, gt=0, le=1, description="sapt, replay: share of a task's examples kept (3 at least)"
    )
    router_rate: float = Field(
        1.0,
        gt=0,
        description="sapt: factor on the learning rate of keys and queries; with few steps a task 1 (the "
        "paper's) leaves new blocks unused",
    )
    per_layer: bool = Field(False, description="sapt: a key for each task and layer, instead of one a task")
    prompt_length: int = Field(10, ge=1, description="methods with soft prompts: positions of a task's prompt")
    prompt_mlp: int = Field(
        0,
        ge=0,
        description="methods with soft prompts: train P + MLP(P) with so many hidden units, and keep the sum; "
        "0: P alone; 800 in SAPT's released code",
    )
    penalty: float | None = Field(None, ge=0, description="ewc, olora: weight of the penalty; default: the method's")
    penalty_norm: float = Field(
        0.0, ge=0, description="olora: weight of the norms of the new block's matrices; 0 to 0.3 in its released code"
    )
    single: bool = Field(
        False, description="also learn each task alone, for forward transfer against that: twice the time"
    )
    keep: Path | None = Field(
        None, description="folder of finished tasks, for a run that was stopped; default: the cache"
    )


@technique(
    "adaptation.continual",
    kind="change",
    family="continual tuning",
    source="Zhao et al. 2024, SAPT (DAPT in its first version), arXiv 2401.08295; default: closed-form routing and "
    "transfer rows of our own",
    extra="adapt",
    example={"stream": "tasks", "train_limit": 16, "epochs": 1.0},
    restore="intarsia.adaptation.continual.bundle:restore",
)
def continual(model: Model, config: ContinualConfig, *, stream: list[TaskPair], seed: int = 0) -> Model:
    """Teach a model task after task through small modules, without forgetting, and let it pick what it needs by itself.

    Every task gets a block of low-rank adapters beside the frozen network. Which blocks answer a prompt, and how much
    each, is decided by the prompt alone: a classifier in closed form over the frozen token embeddings says which tasks
    it may belong to, and each task's own row of weights, learned with it and then frozen, says which blocks it uses.
    The weights of the network stay as they are: the folder loads in transformers as the plain model, each block in
    PEFT, and all of it in Intarsia. A model that was made so can be given again with new tasks, and needs no old data;
    a run that was stopped goes on after its last whole task.

    - stream: examples with task, instruction, input and output: a folder with NAME.train.jsonl (and dev, test) for each
      task, or one file with a column `task`.

    Raises `BadInput`, before training, for an empty task, a name that stands twice, or examples of different form."""
    from intarsia.adaptation.continual.learning import learn

    return learn(model, config, stream, seed)
