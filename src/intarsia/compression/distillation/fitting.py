"""Whether a student and a teacher fit together, and the sites at which they are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch

from intarsia.compression.distillation.states import uniform_map
from intarsia.compression.quantization.modules import has_codes
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.compression.distillation.technique import DistilConfig
    from intarsia.models import Model

Kind = Literal["causal", "encoder", "classifier"]
TAKEN = "distillation takes causal language models, encoders and classifiers of texts"


@dataclass(frozen=True)
class Places:
    """Sites of one model: the state after its last block, and, as far as they are wanted, hidden states, scores and
    queries, keys and values; the same number of each in both models."""

    final: str
    hidden: list[str] = field(default_factory=list)
    scores: list[str] = field(default_factory=list)
    relations: list[str] = field(default_factory=list)

    @property
    def states(self) -> list[str]:
        """All but `final`, each once."""
        return list(dict.fromkeys([*self.hidden, *self.scores, *self.relations]))


def kind_of(model: Model) -> Kind:
    """What kind of network it is. Raises `BadInput` for one that cannot be distilled here."""
    from transformers import GenerationMixin

    network: Any = model.network
    name = type(network).__name__
    if getattr(network.config, "is_encoder_decoder", False):
        raise BadInput(f"{name} is an encoder-decoder: {TAKEN}")
    if name.endswith("ForSequenceClassification"):
        return "classifier"
    if isinstance(network, GenerationMixin) and network.get_output_embeddings() is not None:
        return "causal"
    if "" not in model.sites.towers:
        raise BadInput(f"{name} has several towers: {TAKEN}")
    return "encoder"


def check(student: Model, teacher: Model, config: DistilConfig) -> Kind:
    """The kind of both networks. Raises `BadInput` for what cannot be trained or compared."""
    network: Any = student.network
    if getattr(network, "is_quantized", False) or has_codes(network):
        raise BadInput("the student is quantized, and rounded weights cannot be trained: distil first, quantize last")
    if any(p.dtype is torch.float16 for p in network.parameters()):
        raise BadInput("a student in float16 cannot be trained (its steps round to nothing): load it in float32")
    if student.tokenizer is None:
        raise BadInput("compression.distil needs text: the student has no tokenizer (wrap(network, tokenizer))")
    kind = kind_of(student)
    if (other := kind_of(teacher)) != kind:
        raise BadInput(f"the student is of another kind ({kind}) than its teacher ({other}): give two that do the same")
    _check_vocabulary(student, teacher)
    _check_losses(config, kind)
    if kind == "classifier":
        _check_labels(student, teacher)
    longest = config.prompt_tokens + config.new_tokens
    limit = min((n for m in (student, teacher) if (n := m.context_length)), default=longest)
    if config.on_policy and longest > limit:
        raise BadInput(
            f"on_policy: prompt_tokens {config.prompt_tokens} and new_tokens {config.new_tokens} are more than the "
            f"networks' context of {limit}: lower them"
        )
    return kind


def _check_losses(config: DistilConfig, kind: Kind) -> None:
    if config.loss == "none" and config.hidden == "none" and config.attention == "none":
        raise BadInput("there is nothing to learn by: give loss, hidden or attention")
    if kind == "encoder" and config.loss != "none":
        raise BadInput("an encoder predicts no next token: give loss: none, with hidden or attention (relations)")
    if config.on_policy and (kind != "causal" or config.loss == "none"):
        raise BadInput("on_policy wants a causal language model and a loss of its next-token distribution")
    if not config.keep_top:
        return
    if kind != "causal" or config.loss not in ("forward", "skew"):
        raise BadInput(
            f"keep_top serves the losses forward and skew of causal language models, not {config.loss} ({kind}): what "
            "lies outside the teacher's most probable tokens decides the others"
        )
    if config.on_policy:
        raise BadInput("keep_top: kept answers know nothing of what the student writes: leave out on_policy")
    if config.hidden != "none" or config.attention != "none":
        raise BadInput("keep_top keeps the teacher's distribution alone: leave it out, or hidden and attention")


def _check_vocabulary(student: Model, teacher: Model) -> None:
    sizes = [_choices(model) for model in (student, teacher)]
    if student.tokenizer is not None and teacher.tokenizer is not None:
        mine, other = student.tokenizer.get_vocab(), teacher.tokenizer.get_vocab()
        if mine == other and (not all(sizes) or min(s for s in sizes if s) > max(mine.values())):
            return
        differing = len(mine.items() ^ other.items())
        raise BadInput(
            f"student and teacher read text by other vocabularies ({len(mine)} and {len(other)} tokens, {differing} "
            "entries differ): give a teacher of the student's family"
        )
    if sizes[0] != sizes[1]:
        raise BadInput(f"the student has {sizes[0]} tokens and its teacher {sizes[1]}: both must share a vocabulary")


def _choices(model: Model) -> int | None:
    return getattr(model.config.get_text_config(), "vocab_size", None)


def choices_of(student: Model, teacher: Model) -> int:
    """Tokens that both can predict: tables are often longer than the vocabulary, by differing numbers."""
    return min(int(model.network.get_output_embeddings().weight.shape[0]) for model in (student, teacher))


def _check_labels(student: Model, teacher: Model) -> None:
    mine, other = ({int(i): str(name) for i, name in m.config.id2label.items()} for m in (student, teacher))
    if mine != other or len(mine) < 2:
        raise BadInput(
            f"student and teacher must know the same labels, two or more; they have {list(mine.values())[:6]} and "
            f"{list(other.values())[:6]}"
        )
    for model in (student, teacher):
        if (problem := getattr(model.config, "problem_type", None)) not in (None, "single_label_classification"):
            raise BadInput(f"distillation of classifiers wants one label a text; this network is for {problem}")


def places(student: Model, teacher: Model, config: DistilConfig) -> tuple[Places, Places]:
    """Where both are read. Raises `BadInput` for blocks that are not there and sites that a network does not have."""
    counts = [len(model.sites.blocks) for model in (student, teacher)]
    prefixes = [model.sites.main.prefix for model in (student, teacher)]
    wrong = [n for n in config.hidden_layers if not -counts[0] <= n < counts[0]]
    if wrong:
        raise BadInput(f"hidden_layers: the student has no block {wrong[0]} (0 to {counts[0] - 1})")
    mapped = list(enumerate(uniform_map(*counts)))
    chosen = {n % counts[0] for n in config.hidden_layers} or set(range(counts[0]))
    out = []
    for which, (model, prefix, count) in enumerate(zip((student, teacher), prefixes, counts, strict=True)):
        final = f"{prefix}layers.{count - 1}"
        hidden = [f"{prefix}layers.{pair[which]}.resid_post" for pair in mapped if pair[0] in chosen]
        scores = [f"{prefix}layers.{pair[which]}.scores" for pair in mapped]
        made = Places(
            f"{final}.resid_post",
            hidden if config.hidden != "none" else [],
            scores if config.attention == "scores" else [],
            [f"{final}.{name}" for name in "qkv"] if config.attention == "relations" else [],
        )
        for site in [made.final, *made.states]:
            model.sites.expand(site)
        out.append(made)
    return out[0], out[1]
