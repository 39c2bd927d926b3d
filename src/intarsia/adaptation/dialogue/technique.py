"""`adaptation.dialogue`: labels for the turns of a domain's dialogues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import technique
from intarsia.data import Turn
from intarsia.training.lora import LoraConfig

if TYPE_CHECKING:
    from intarsia.models import Model

NAME = "adaptation.dialogue"
Labeller = Literal["network", "states", "linear", "neighbours"]


_EXAMPLE = [
    Turn(text, "", f"call {i // 4}", speaker="AB"[i % 2], number=i, fields=(("mood", mood),))
    for i, (text, mood) in enumerate([
        ("Where is my parcel?", "worried"), ("It arrives today.", "calm"), ("Oh, wonderful!", "glad"), ("Bye.", "calm"),
        ("You lost it again?", "worried"), ("I am sorry.", "calm"), ("Fine, thanks a lot!", "glad"), ("Bye.", "calm"),
    ])
]  # fmt: skip


class DialogueConfig(LoraConfig):
    """Settings of label tuning on dialogues: LoRA's, how dialogues are read, and who labels."""

    recipe: Literal["states", "dialoguellm"] = Field(
        "states",
        description="states: labels read from the states behind the turns of a dialogue that is run once, beside a "
        "linear model and the nearest turns; dialoguellm: the paper's instructions, with the label written out",
    )
    label: str | None = Field(None, description="column that holds the label (emotion, intent); default: the usual one")
    verbalisers: dict[str, str] | None = Field(None, description="label -> the words the model would write for it")
    labellers: tuple[Labeller, ...] = Field(
        ("network", "states", "linear", "neighbours"),
        description="states: who labels together: the tuned network; linear models of the frozen part's states; a "
        "linear model of sentence embeddings; the nearest training turns",
    )
    embedder: str = Field("minilm", description="states: the model of sentence embeddings, as for --model")
    past: int | None = Field(None, ge=0, description="earlier turns that are seen; default: all (dialoguellm: 1)")
    future: int = Field(0, ge=0, description="later turns that are seen: 0 is online, as in a live conversation")
    speakers: Literal["name", "local", "none"] = Field(
        "name", description="name: as in the data; local: Speaker_1, Speaker_2 in each dialogue; none"
    )
    speaker_last: bool = Field(False, description="states: `text - Speaker` in place of `Speaker: text`")
    cue: str = Field(" (feels", description="states: behind a turn, where its label is read")
    gap: str = Field("...", description="a line where turns are missing")
    max_tokens: int = Field(
        512, ge=16, description="longest row; longer dialogues are divided (dialoguellm: 256, as the paper)"
    )
    rank: int = Field(16, ge=1, description="rank of the update of each matrix")
    layers_from: float = Field(
        0.667, ge=0, description="adapt only blocks from this one up; below 1: a share of the depth (0.5: upper half)"
    )
    trunk_cache: Literal["off", "float32", "float16"] = Field(
        "float16", description="with layers_from: store the states that enter the first adapted block"
    )
    batch_size: int = Field(8, ge=1, description="rows in a step: dialogues (or turns, where each is a row)")
    epochs: float = Field(3, gt=0, description="times through the training rows")
    class_weight: float = Field(
        0.0, ge=0, le=1, description="weight turns by label frequency to minus this power (0: none, 1: inverse)"
    )
    logit_adjustment: float = Field(0.0, ge=0, description="tau: tau * log prior is added in the loss (for macro F1)")
    next_weight: float = Field(
        0.1, ge=0, description="states: weight of the task to expect a turn's label before it is heard"
    )
    speaker_weight: float = Field(
        0.1, ge=0, description="states: weight of the task to name a turn's speaker (with speaker_last)"
    )
    curriculum: bool = Field(False, description="states: begin with the half of the dialogues whose labels shift least")
    window: int = Field(5, ge=0, description="linear: earlier turns whose embeddings are added up")
    decay: float = Field(0.6, gt=0, le=1, description="linear: factor on their weight for each turn further back")
    main_speakers: int = Field(8, ge=0, description="linear: so many of the most frequent speakers are features")
    nearest: int = Field(20, ge=1, description="neighbours: how many training turns are asked")
    loss_on: Literal["sequence", "answer"] = Field(
        "sequence", description="dialoguellm: tokens that bear the loss; sequence: prompt included, as released"
    )
    micro_batch: int = Field(8, ge=1, description="dialoguellm: rows of a step that are run at once")
    beams: int = Field(1, ge=1, description="dialoguellm: width of the beam search for the label (4: as released)")
    shots: int = Field(0, ge=0, description="dialoguellm: labelled examples of each label before a question")
    others: tuple[str, ...] = Field((), description="further data sets whose train turns are learned from, too")
    label_map: str | dict[str, str] | None = Field(
        None, description="label of the others -> label here, or a built-in map (emorynlp-to-meld); the rest is context"
    )
    choose_for: Literal["weighted_f1", "macro_f1", "accuracy"] = Field(
        "weighted_f1", description="figure that is chosen by on dev"
    )
    dev_share: float = Field(0.1, gt=0, lt=1, description="share of train held back as dev, where no dev is given")


@technique(
    NAME,
    kind="change",
    family="low-rank adaptation",
    source="Zhang et al. 2025, DialogueLLM, arXiv 2310.11374; speaker and next-label tasks: Lei et al. 2023, "
    "InstructERC, arXiv 2309.11911; states: own",
    extra="adapt",
    example={"train": _EXAMPLE, "dev": _EXAMPLE[:4], "label": "mood", "labellers": ("network",), "epochs": 1.0},
    labels="intarsia.adaptation.dialogue.reading:label",
    model="smollm2-135m",
)
def dialogue(
    model: Model, config: DialogueConfig, *, train: list[Turn], dev: list[Turn] | None = None,
    test: list[Turn] | None = None, seed: int = 0,
) -> Model:  # fmt: skip
    """Teach a causal language model to label the turns of dialogues: emotions, intents, or whatever your file holds.

    A dialogue is read once, and the label of every turn is read from the state behind it, so that a row of tokens
    serves as many examples as the dialogue has turns. Adapters and a row of weights for each label are trained on the
    label alone; the frozen lower half of the network runs once. A linear model of sentence embeddings and the nearest
    training turns label beside it; what each counts for is chosen on dev. The network keeps its form and loads in
    transformers; the rest travels in the folder, but for the model of sentence embeddings, which is found by its name.

    - train, dev: turns (dialogue, turn, speaker, text, label), unlabelled ones are context. Without dev, dialogues of
      train are held back for it.
    - test: turns that are to judge. They are not learned from: with `others`, what these share with them is left out.

    Raises `BadInput`, before training, for data without dialogues, a single label, a column that is not there, or a
    label in dev that train lacks."""
    from intarsia.adaptation.dialogue.learning import learn

    return learn(model, config, train, dev, test, seed)
