"""`adaptation.plan`: which way to specialise a model, measured on the model and the data at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from intarsia.adaptation.routes.finding import RouteFinding
from intarsia.catalog import Config, technique
from intarsia.data import LabelledText

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model

NAME = "adaptation.plan"
RungName = Literal[
    "zero-shot", "calibrated", "neighbours", "linear", "few-shot", "soft-prompt", "instance-prompt", "ia3", "norms",
    "top-blocks", "adapter", "lora", "rslora", "dora", "pissa", "pretrain", "distil",
]  # fmt: skip
USUAL: tuple[RungName, ...] = (
    "zero-shot", "calibrated", "neighbours", "linear", "few-shot", "soft-prompt", "instance-prompt", "ia3", "norms",
    "top-blocks", "adapter", "lora", "pretrain", "distil",
)  # fmt: skip


class PlanConfig(Config):
    """Settings of the ladder: how high to climb, how long on each rung, and what the rungs are made of."""

    target: float | None = Field(None, ge=0, le=1, description="figure on dev that is enough (0.6); default: none")
    metric: Literal["weighted_f1", "macro_f1", "accuracy"] = Field("weighted_f1", description="the figure that counts")
    stop: bool = Field(True, description="climb no further once a rung reaches the target")
    rungs: tuple[RungName, ...] = Field(
        USUAL, description="rungs to try, in order of cost whatever order they are named in; also rslora, dora, pissa"
    )
    minutes: float = Field(10.0, gt=0, description="longest time to learn on a rung; judging it comes on top")
    train_limit: int | None = Field(2000, ge=2, description="learn from so many records, drawn by the seed")
    dev_limit: int | None = Field(300, ge=2, description="choose and judge by so many records, drawn by the seed")
    test_limit: int | None = Field(None, ge=2, description="test the chosen rung on so many records")
    label: str | None = Field(None, description="turns: the column that holds the label; default: the usual one")
    past: int = Field(2, ge=0, description="turns: earlier turns that stand in the prompt")
    template: str | None = Field(
        None, description="prompt with {text} (and {context}), ending where the label begins; default: the data's own"
    )
    verbalisers: dict[str, str] | None = Field(None, description="label -> the words the model writes for it")
    max_tokens: int | None = Field(None, ge=8, description="longest prompt; longer texts are cut")
    embedder: str = Field(
        "minilm", description="model of sentence embeddings, as for --model; self: the model's own states"
    )
    shots: tuple[int, ...] = Field((1, 5, 10), description="few-shot: numbers of demonstrations to choose among")
    relevance: float = Field(
        0.7, gt=0, le=1, description="few-shot: likeness to the text, against unlikeness among each other (1: alone)"
    )
    prompt_length: int = Field(16, ge=1, description="soft prompts: positions")
    rank: int = Field(16, ge=1, description="lora and its variants: rank of each update")
    bottleneck: int = Field(32, ge=1, description="adapter: units of each bottleneck")
    layers_from: float = Field(
        0.5, ge=0, description="train only in blocks from this one up; below 1: a share of the depth"
    )
    learning_rate: float = Field(1e-3, gt=0, description="of lora; the other rungs' rates are multiples of it")
    epochs: float = Field(3, gt=0, description="times through the training records, if the minutes allow")
    batch_size: int = Field(8, ge=1, description="records in a step")
    replay: float = Field(0.2, ge=0, lt=1, description="pretrain: share of general text among what is learned")
    general_tokens: int = Field(4000, ge=64, description="tokens of general text that forgetting is measured on")
    latency_records: int = Field(8, ge=1, description="dev records labelled one by one, to time it")
    keep: Path | None = Field(
        None, description="folder of finished rungs, for a run that was stopped and for adaptation.take; default: cache"
    )


_EXAMPLE = [
    LabelledText("the crew was kind and quick", "good"), LabelledText("a dull and slow flight", "bad"),
    LabelledText("kind people, good food", "good"), LabelledText("lost bags, and nobody cared", "bad"),
]  # fmt: skip


@technique(
    NAME,
    kind="look",
    family="routes",
    source="Ling et al. 2025, Domain Specialization as the Key to Make LLMs Disruptive, ACM Computing Surveys 58(3) "
    "(its routes, ordered by cost); choice without a target: one-standard-error rule, Breiman et al. 1984, §3.4.3",
    extra="adapt",
    example={"train": _EXAMPLE, "dev": _EXAMPLE[:2], "rungs": ("zero-shot", "calibrated"), "target": 0.9},
)
def plan(
    model: Model,
    config: PlanConfig,
    *,
    train: list[LabelledText],
    dev: list[LabelledText],
    test: list[LabelledText] | None = None,
    general: list[Text] | None = None,
    label_task: dict[str, Any] | None = None,
    seed: int = 0,
) -> RouteFinding:
    """Try the ways to specialise a model to a labelling task, from the cheapest up, until one is good enough.

    Each rung of the ladder is really learned and judged on your data: prompts without and with calibration, the
    nearest labelled texts, demonstrations, soft prompts, adapters, continued pre-training, and a small student of the
    best of them. The table says what access to the model a rung needs, how good it is on dev, what it does to general
    text (perplexity before and after), milliseconds a record, bytes to keep and minutes spent; and which rung to take.
    With a target that is the cheapest one that reaches it; without, the cheapest within one standard error of the best.
    Only that one is judged on test, once. A finished rung is kept: a run that was stopped goes on after it. Take the
    rung with `adaptation.take`.

    - train, dev, test: labelled texts, or turns of dialogues (unlabelled ones are context). dev is what rungs are
      chosen by, inside (a prior, a number of demonstrations) and among each other.
    - general: texts that the model must stay good at; one half is measured on, the other replayed. Default: the Python
      language reference, which is technical English: give your own where that is not what matters to you.

    Raises `BadInput`, before anything is learned, for data without labels, labels in dev or test that train lacks, or
    rungs that cannot be."""
    from intarsia.adaptation.routes.ladder import climb

    return climb(model, config, train, dev, test, general, label_task, seed)
