"""What happens to the model's choice when the tokens that an explanation ranks first are taken away, or alone are left.

Notation: f(x) is the probability of the explained choice, r_k the top k % of the tokens of an explanation, x \\ r_k the
text without them (what "without" means is `Explained.removal`). Scores are signed: the highest one supports the choice
most. Equal scores keep the order of the text. Nothing is run twice: `Explained` remembers every masked variant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.interpretation.explained import log_odds

if TYPE_CHECKING:
    from intarsia.interpretation.explained import Explained

FRACTIONS = (0.01, 0.05, 0.10, 0.20, 0.50)


def order(scores: Tensor) -> Tensor:
    """[feature]: indices of the features, the highest score first."""
    return scores.double().argsort(descending=True, stable=True)


def sizes(count: int, fractions: Sequence[float] = FRACTIONS) -> list[int]:
    """How many of `count` tokens each fraction is: rounded up, so that it is at least one."""
    # 0.1 * 30 is 3.0000000000000004.
    return [min(count, max(1, math.ceil(round(fraction * count, 9)))) for fraction in fractions]


def tops(ranking: Tensor, counts: Sequence[int]) -> Tensor:
    """[count, feature] bool: True for the first n features of a ranking, for each n of `counts`."""
    place = torch.empty_like(ranking)
    place[ranking] = torch.arange(len(ranking))
    return place[None] < torch.tensor(list(counts))[:, None]


def probability(explained: Explained, keep: Tensor | None = None) -> Tensor:
    """[n] float64: f of masked variants (`keep` [n, feature], True where a token stays)."""
    return explained.value(keep).exp()


def comprehensiveness(explained: Explained, ranking: Tensor, fractions: Sequence[float] = FRACTIONS) -> Tensor:
    """[fraction]: f(x) - f(x \\ r_k): what the top tokens were needed for; high is good.

    Source: DeYoung et al. 2020 (ERASER), section 4.2."""
    return probability(explained) - probability(explained, ~tops(ranking, sizes(len(ranking), fractions)))


def sufficiency(explained: Explained, ranking: Tensor, fractions: Sequence[float] = FRACTIONS) -> Tensor:
    """[fraction]: f(x) - f(r_k alone): what is lost when only the top tokens are read; low is good.

    Source: DeYoung et al. 2020 (ERASER), section 4.2."""
    return probability(explained) - probability(explained, tops(ranking, sizes(len(ranking), fractions)))


def aopc(values: Tensor) -> float:
    """The mean over the fractions: the area over the perturbation curve (Samek et al. 2017; DeYoung et al. 2020)."""
    return float(values.mean())


def log_odds_drop(explained: Explained, ranking: Tensor, fractions: Sequence[float] = FRACTIONS) -> float:
    """Mean over the fractions of logit f(x) - logit f(x \\ r_k), in nats: as comprehensiveness, but it does not
    saturate when f is near 0 or 1; high is good.

    Source: Shrikumar et al. 2017 (DeepLIFT), section 4.1."""
    removed = explained.value(~tops(ranking, sizes(len(ranking), fractions)))
    return float((log_odds(explained.value()) - log_odds(removed)).mean())


def deletion(explained: Explained, ranking: Tensor, points: int = 20) -> float:
    """Area under f as tokens are taken away, the highest score first, over the share of tokens taken; low is good.

    The curve has all steps, or `points` even ones when there are more.

    Source: Petsiuk et al. 2018 (RISE), section 3."""
    counts = _steps(len(ranking), points)
    return _area(probability(explained, ~tops(ranking, counts)), counts)


def insertion(explained: Explained, ranking: Tensor, points: int = 20) -> float:
    """Area under f as tokens are put into the empty text, the highest score first; high is good.

    Source: Petsiuk et al. 2018 (RISE), section 3.2."""
    counts = _steps(len(ranking), points)
    return _area(probability(explained, tops(ranking, counts)), counts)


def flip_fraction(explained: Explained, ranking: Tensor, points: int = 20) -> float | None:
    """DFFOT: the smallest share of top tokens whose removal changes the most probable choice; 1 when none does; low is
    good. None when there is only one choice.

    Source: Serrano & Smith 2019, section 4 (decision flip, fraction of tokens)."""
    if len(explained.choices) < 2:
        return None
    counts = _steps(len(ranking), points)[1:]
    first = explained.log_probs()[0].argmax()
    flips = explained.log_probs(~tops(ranking, counts)).argmax(1) != first
    return counts[int(flips.long().argmax())] / len(ranking) if flips.any() else 1.0


def flips_at_first(explained: Explained, ranking: Tensor) -> float | None:
    """DFMIT: 1 when removing the single top token changes the most probable choice, else 0 (a mean over texts is the
    share of texts); high is good. None when there is only one choice.

    Source: Chrysostomou & Aletras 2021, section 4.3 (decision flip, most informative token)."""
    if len(explained.choices) < 2:
        return None
    without = explained.log_probs(~tops(ranking, [1]))[0]
    return float(without.argmax() != explained.log_probs()[0].argmax())


def _steps(count: int, points: int) -> list[int]:
    return sorted({round(i * count / min(count, points)) for i in range(min(count, points) + 1)})


def _area(values: Tensor, counts: Sequence[int]) -> float:
    share = torch.tensor(counts, dtype=torch.float64) / counts[-1]
    return float(torch.trapezoid(values, share))
