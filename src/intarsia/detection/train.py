"""`detection.train`: a detector of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.detection.documents import Documents

if TYPE_CHECKING:
    from intarsia.data import Document
    from intarsia.detection.detector import Detector


class TrainConfig(Config):
    """Settings of training a detector."""

    scorer: str = Field("smollm2-135m", description="the language model that is asked, as for --model elsewhere")
    tokens: int = Field(128, ge=32, description="tokens of a text that it scores")
    read_most: int = Field(
        300, ge=20, description="texts of a domain, of each kind and part, that it reads; words are learned from all"
    )
    siamese: bool = Field(
        False, description="also train an encoder that compares a text with references of its topic (Synthetic-Siamese)"
    )
    encoder: str = Field("minilm", description="siamese: the encoder that is tuned")
    head: Literal["diff", "abs", "full"] = Field(
        "diff",
        description="siamese: what is compared: diff: u - v; abs: |u - v|, the paper's form; full: u, v, |u - v|",
    )
    bank_share: float = Field(0.5, gt=0, lt=1, description="share of topics whose people's texts become the bank")


@technique(
    "detection.train",
    kind="learn",
    family="detection",
    source="own: stacked voices; Wolpert 1992 and Breiman 1996 (stacking, non-negative weights); words in a linear "
    "model: Koike et al. 2024",
    needs="documents",
    gives="Detector",
    extra="detect",
    example={"subject": "corpus"},
)
def train(documents: Documents, config: TrainConfig, *, seed: int = 0) -> Detector:
    """Train a detector on a corpus of your own, with banks of its people's texts.

    Texts of several domains make a better one: what each voice counts for is fitted on domains that the voices were not
    trained on. In each domain a share of the topics is kept for the bank. About half a CPU-second a text that the
    language model reads; what it read once is kept. With `siamese` texts of machines on the same topic serve as
    references of one another, as in Synthetic-Siamese (Dou et al. 2024); a document that comes with references is then
    heard by that as well, where the bank's texts had some.

    - DOCUMENTS: a folder with `human`, `machine` (and `polished`) in it, at the top or in a folder for each domain; or
      a table (jsonl, csv) with the columns text, label, and where known domain, topic, split.

    Raises `BadInput` for texts of one kind alone, labels it does not know, too few topics to judge by, and `siamese`
    where no topics are named."""
    from intarsia.detection.learning import corpora, learn
    from intarsia.detection.statistics import Kept
    from intarsia.models import load

    found = corpora(documents.records, config.bank_share, seed)
    seen: list[Document] = []
    paired: list[Document] = []
    if config.siamese:
        from intarsia.detection.learning.pairing import learned_from, pair, seen_by

        seen = seen_by(documents.records)
        paired = learned_from(found, seen)
    kept = Kept(load(config.scorer))
    detector = learn(found, kept, tokens=config.tokens, read_most=config.read_most, seed=seed)
    detector.scorer = config.scorer
    detector.hold(kept)
    if config.siamese:
        from intarsia.detection.siamese import SiameseConfig

        settings = SiameseConfig(head=config.head)
        pair(detector, found, seen, paired, load(config.encoder), settings, seed)
    return detector
