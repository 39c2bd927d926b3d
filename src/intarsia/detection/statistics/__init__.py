"""Statistics of a text under a language model, and the scores that are made of them."""

from intarsia.detection.statistics.kept import Kept
from intarsia.detection.statistics.scores import SCORES, rank_shares
from intarsia.detection.statistics.tokens import TokenStatistics, states_width, token_statistics

__all__ = ["SCORES", "Kept", "TokenStatistics", "rank_shares", "states_width", "token_statistics"]
