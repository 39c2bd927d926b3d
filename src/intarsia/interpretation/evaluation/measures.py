"""The figures by which an explanation of one text is judged, each with its direction and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A figure of faithfulness. `better`: which direction is good."""

    name: str
    title: str
    better: Literal["higher", "lower"]
    help: str
    format: str = ".3f"


_ALL = (
    Measure("comprehensiveness", "comprehensiveness", "higher", "mean drop of f without the top 1 to 50 % of tokens"),
    Measure("sufficiency", "sufficiency", "lower", "mean drop of f with only the top 1 to 50 % of tokens"),
    Measure("comprehensiveness_normalised", "comp. normalised", "higher", "0: the worst order of tokens, 1: the best"),
    Measure("sufficiency_normalised", "suff. normalised", "lower", "0: the best order of tokens, 1: the worst"),
    Measure("normalised", "normalised", "higher", "mean of normalised comprehensiveness and 1 - sufficiency"),
    Measure("log_odds_drop", "log odds drop", "higher", "as comprehensiveness, in nats of log odds", ".2f"),
    Measure("deletion", "deletion AUC", "lower", "mean of f while tokens are taken away, the top ones first"),
    Measure("insertion", "insertion AUC", "higher", "mean of f while tokens are put in, the top ones first"),
    Measure("flip_fraction", "DFFOT", "lower", "share of top tokens whose removal changes the choice", ".1%"),
    Measure("flips_at_first", "DFMIT", "higher", "share of texts whose choice changes without the top token", ".1%"),
    Measure("tau_loo", "tau-LOO", "higher", "Kendall's tau of scores and leave-one-out effects", ".2f"),
    Measure("monotonicity", "monotonicity", "higher", "Spearman's rho of scores and leave-one-out effects", ".2f"),
    Measure("violation_rate", "violation rate", "lower", "share of tokens with another sign than their effect", ".1%"),
    Measure("sensitivity_n", "sensitivity-n", "higher", "correlation of scores and effects over sets of tokens", ".2f"),
    Measure("completeness_error", "completeness error", "lower", "share of the whole effect that scores miss", ".2f"),
    Measure("soft_comprehensiveness", "soft comp.", "higher", "comprehensiveness with thinned embeddings"),
    Measure("soft_sufficiency", "soft suff.", "lower", "sufficiency with thinned embeddings"),
)
MEASURES = {m.name: m for m in _ALL}
SHORT = ("comprehensiveness", "sufficiency", "comprehensiveness_normalised", "sufficiency_normalised", "normalised")
"""The figures that `compare` ranks by: the cheap ones."""
