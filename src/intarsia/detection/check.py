"""`detection.check`: whose text is it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.detection.documents import Documents

if TYPE_CHECKING:
    from intarsia.detection.checking.verdicts import Verdicts


class CheckConfig(Config):
    """Settings of checking documents."""

    detector: str = Field("english", description="a folder that `detection train` made, or one that comes along")
    fpr: float = Field(
        0.01, gt=0, lt=1, description="budget: the share of people's texts that may be flagged as a machine's"
    )
    domain: str | None = Field(None, description="which of the detector's banks of people's texts to judge by")
    bank: str | None = Field(
        None, description="a file or folder of texts that people wrote, of the documents' own kind, to judge by"
    )
    references: str | None = Field(
        None, description="a file or folder of texts that machines wrote on the same topic; evidence, not a verdict"
    )
    language_model: bool = Field(True, description="ask the language model, too; without, words alone")
    triage: bool = Field(False, description="ask the language model only where words leave doubt")
    passages: int = Field(60, ge=0, description="passages of a document that are looked at, at most")
    embedder: str = Field("minilm", description="the model that compares a document with references")


@technique(
    "detection.check",
    kind="look",
    family="detection",
    source="own: stacked voices among a bank of people's texts; Dou et al. 2024, arXiv 2401.08046 (references); Vovk "
    "et al. 2005, §4.5 (conformal p-values by length)",
    needs="documents",
    extra="detect",
    example={"subject": "essay.txt", "fpr": 0.01},
)
def check(documents: Documents, config: CheckConfig, *, seed: int = 0) -> Verdicts:
    """Say whether documents read like a machine's text, how sure that is, and which passages it rests on.

    Two kinds of voices are heard: which words and runs of words a text has, and what a small language model makes of
    it. Each is compared with texts of the same length that people wrote, the bank, so that a document is flagged no
    more often than the budget says if it is of the bank's kind. Between people's texts and machines' there is no
    verdict. Fewer than 50 words, or a language without a bank, get none either.

    - DOCUMENTS: a text, Markdown, Word or PDF file, a folder of such, a table with a column `text`, or `-` (input).

    Raises `BadInput` for what cannot be read, an unknown detector or domain."""
    from intarsia.detection.checking.run import look

    return look(documents, config, seed)
