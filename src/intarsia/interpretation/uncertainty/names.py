"""The signals of being unsure by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signal:
    """How a signal reads: its name for a person, and whether a high value means unsure (+1) or sure (-1).

    probability: the value is meant as the probability that the answer is right."""

    title: str
    unsure: int
    unit: str = "nats"
    format: str = ".2f"
    probability: bool = False


SIGNALS: dict[str, Signal] = {
    "entropy": Signal("token entropy", 1),
    "max_entropy": Signal("highest token entropy", 1),
    "log_prob": Signal("log probability", -1),
    "mean_prob": Signal("probability a token", -1, "", ".2f", True),
    "token_sar": Signal("token SAR", 1),
    "p_true": Signal("P(True)", -1, "", ".2f", True),
    "consistency": Signal("self-consistency", -1, "", ".0%", True),
    "predictive_entropy": Signal("predictive entropy", 1),
    "semantic_entropy": Signal("semantic entropy", 1),
    "cluster_entropy": Signal("semantic entropy, by counts", 1),
    "sar": Signal("SAR", 1, ""),
    "contrast": Signal("layer contrast", -1),
    "probe": Signal("truth probe", -1, "", ".2f", True),
}
"""Every signal by the name it has in findings."""
