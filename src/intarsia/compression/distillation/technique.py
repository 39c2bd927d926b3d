"""`compression.distil`: a small model learns from a large one; what a cut cost is won back."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.report import Cell, Column, Figure, Finding, Series
from intarsia.training.lora import LoraConfig

if TYPE_CHECKING:
    from intarsia.data import LabelledText, Text
    from intarsia.models import Model

RATES = {"all": 1e-4, "lora": 1e-3}


class DistilConfig(LoraConfig):
    """Settings of `compression.distil`. The adapter's settings (rank, alpha, targets, ...) count with `tune: lora`."""

    tune: Literal["lora", "all"] = Field(
        "lora",
        description="what learns: low-rank adapters on the linear layers and the gains of the norms, merged at the "
        "end; or all weights",
    )
    learning_rate: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="AdamW's peak learning rate; default: 1e-3 for lora, 1e-4 for all"
    )
    loss: Literal["skew", "forward", "reverse", "jsd", "none"] = Field(
        "skew",
        description="divergence of the student's next-token (or label) distribution from the teacher's: skew "
        "KL(T || s T + (1-s) S), forward KL(T || S), reverse KL(S || T), jsd (GKD); none: hidden states or attention "
        "alone",
    )
    skew: float = Field(0.1, ge=0, lt=1, description="skew: the teacher's share s of the mixture")
    beta: float = Field(0.5, ge=0, le=1, description="jsd: 0 is forward KL, 1 is reverse KL")
    temperature: float = Field(
        1.0, gt=0, description="softens both distributions; the divergence is multiplied by its square"
    )
    soft: float = Field(
        1.0,
        gt=0,
        le=1,
        description="the teacher's share of the loss; the rest is cross entropy of the text's own tokens",
    )
    hidden: Literal["none", "mse", "cosine"] = Field(
        "none", description="hidden states after mapped blocks: mean squared error, or 1 - cosine"
    )
    hidden_weight: float = Field(1.0, gt=0, description="weight of the loss of hidden states")
    hidden_layers: tuple[int, ...] = Field(
        (), description="the student's blocks that take hints, like 5 or -1; default: every block"
    )
    attention: Literal["none", "scores", "relations"] = Field(
        "none",
        description="scores: squared error of attention scores on mapped blocks (TinyBERT; as many heads as the "
        "teacher); relations: KL of the relations of queries, keys and values in the last block (MiniLM)",
    )
    attention_weight: float = Field(1.0, gt=0, description="weight of the loss of attention")
    relation_heads: int | None = Field(
        None, ge=1, description="relations: heads that both models' widths are cut into; default: the most that fit"
    )
    on_policy: float = Field(
        0.0,
        ge=0,
        le=1,
        description="probability that a step is on what the student itself writes after the beginnings of the texts "
        "(GKD's lambda)",
    )
    prompt_tokens: int = Field(32, ge=1, description="on_policy: tokens of a window that the student goes on from")
    new_tokens: int = Field(64, ge=1, description="on_policy: tokens that the student writes")
    keep_top: int = Field(
        0,
        ge=0,
        description="ask the teacher once and keep so many of its most probable tokens on disk (64: 400 to 520 bytes a "
        "token), the others as one; 0: ask it at every step",
    )
    window: int = Field(512, ge=2, description="tokens of a row")
    tokens: int | None = Field(None, ge=2, description="most tokens of training text; default: all")
    dev_tokens: int = Field(4096, ge=2, description="tokens of dev that are looked at")
    check_every: int = Field(50, ge=1, description="steps between two looks at dev")
    patience: int = Field(3, ge=1, description="stop after so many looks at dev without a better one; the best is kept")


class Distilled(Finding):
    """How near the student came to its teacher.

    - measure: what `before`, `after` and `checks` hold: `KL`, the mean per-token KL(teacher || student) in nats on dev;
      or `loss` (encoders), the training loss on dev. None without dev. checks: (steps, value) in order; `best` is the
      step whose weights were kept.
    - losses: of every step. tokens: places learned from. own: steps on the student's own text. minutes: of CPU."""

    volatile: ClassVar[frozenset[str]] = frozenset({"minutes"})

    measure: str = "KL"
    before: float | None = None
    after: float | None = None
    best: int = 0
    checks: list[tuple[int, float]] = Field(default_factory=list)
    losses: list[float] = Field(default_factory=list)
    tokens: int = 0
    own: int = 0
    minutes: float = 0.0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        if self.after is None:
            return {}
        return {"distance": (self.after, Column(name=f"{self.measure} to teacher", format=".4f", better="lower"))}

    def figures(self) -> list[Figure]:
        made = []
        for title, unit, points in (
            (f"{self.measure} to the teacher on dev", "nats" if self.measure == "KL" else "loss", self.checks),
            ("Loss while training", "loss", [(i + 1, loss) for i, loss in enumerate(self.losses)]),
        ):
            if points:
                line = Series(name="student", x=[float(step) for step, _ in points], y=[value for _, value in points])
                made.append(Figure(title=title, kind="line", x="step", y=unit, series=[line], format=".4f"))
        return made


@technique(
    "compression.distil",
    kind="change",
    family="distillation",
    source="Hinton et al. 2015, arXiv 1503.02531, §2; Agarwal et al. 2024 (GKD), arXiv 2306.13649, §3; Ko et al. 2024 "
    "(skew KL), arXiv 2402.03898, §3.1; TinyBERT, arXiv 1909.10351, §3; MiniLMv2, arXiv 2012.15828, §3",
    needs="weights",
    extra="adapt",
)
def distil(
    model: Model,
    config: DistilConfig,
    *,
    teacher: Model,
    train: list[Text | LabelledText],
    dev: list[Text] | None = None,
    seed: int = 0,
) -> Model:
    """Teach a student (the model given) to do as its teacher does, on texts; what pruning cost is won back.

    The step after every cut (blocks, neurons, rank) and before quantization; or a small model of its own that learns
    from a large one. Both must share a vocabulary; depth, widths and heads may differ. The result is a plain network of
    the student's form; facts travel as `extras["compression.distil"]`, and `finding` says how near it came.

    - teacher: the model before it was cut, or a larger one; it may be quantized.
    - train: texts. Causal language models read them as one stream in windows; encoders (`loss: none`, with `hidden` or
      `attention`) and classifiers (ForSequenceClassification, the same labels; `LabelledText` where `soft` is below 1)
      one by one, cut at `window` tokens.
    - dev: texts on which the distance is measured every `check_every` steps; the best weights are kept, and training
      stops when they no longer get better.

    The same seed and threads give the same weights. Raises `BadInput` for a quantized or float16 student, another
    vocabulary or kind of network, losses that do not fit the networks, and texts without tokens."""
    from intarsia.compression.distillation.training import distil as run

    return run(model, config, teacher, train, dev, seed)
