"""`compression.trim_vocabulary`: keep the tokens that a domain's texts use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique

if TYPE_CHECKING:
    from intarsia.data import Text
    from intarsia.models import Model

NAME = "compression.trim_vocabulary"


class TrimVocabularyConfig(Config):
    """Settings of `compression.trim_vocabulary`. With neither: every token that the texts use is kept."""

    size: int | None = Field(
        None, ge=1, description="most tokens to keep; places left over go to the vocabulary's earliest other tokens"
    )
    coverage: float | None = Field(
        None, gt=0, le=1, description="keep the commonest tokens until they make up this share of the texts"
    )


@technique(
    NAME,
    kind="change",
    family="vocabulary",
    source="Abdaoui et al. 2020 (Load What You Need), arXiv 2010.05609, §3; BPE: Sennrich et al. 2016, "
    "arXiv 1508.07909, §3.2",
    needs="weights",
)
def trim_vocabulary(
    model: Model, config: TrimVocabularyConfig, *, train: list[Text], test: list[Text] | None = None
) -> Model:
    """Drop the tokens that a domain does not use: from the tokenizer, the input embedding and the output head.

    Always kept: the single bytes, the added and special tokens, and what the chat template writes; so any text can
    still be written, with more tokens where its own are gone. Then tokens by their count in `train`, each with the
    tokens its merges go through: a text whose tokens are all kept is cut exactly as before, and its logits of the kept
    tokens are the original's (measured each time; the rest of a trimmed vocabulary gets no probability any more). Ids
    are renumbered in their old order, also in the network's and the generation's settings. The result is a plain
    network and a plain tokenizer.

    - test: texts held out. On them (else on `train`) is measured how many more tokens a text takes, with a warning
      above 2 %, and that decoding gives back what it gave before. It all travels as
      `extras["compression.trim_vocabulary"]`.

    First of all steps of a compression: before pruning, tuning and quantization. Only byte-level BPE (GPT-2, Llama 3,
    Qwen, SmolLM). Raises `BadInput` for other tokenizers, quantized networks, networks with adapters or pictures or
    further tables with a row a token, and for a size that is below what is always kept or not below what there is."""
    from intarsia.compression.vocabulary.trimming import trim

    return trim(model, config, train, test)
