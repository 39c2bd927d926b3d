"""Perturbations of a text: gaps of two words in it, filled anew by an encoder-decoder that was trained to fill gaps.

Source: Mitchell et al. 2023, DetectGPT; gaps and the filler's answers as in the authors' code. What differs:
gaps are placed at what is left free and not by trial, tries with a filler that does not answer end, long texts are
filled in pieces, and an empty fill leaves no second space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from intarsia.detection.writing.seeds import mixed_seed
from intarsia.errors import BadInput

if TYPE_CHECKING:
    from intarsia.models import Model

SPAN = 2  # words of a gap
BUFFER = 1  # words between two gaps, at least
SHARE = 0.3  # of the words, those in gaps and their buffers
TRIES = 10  # with a filler whose answers do not match
PIECE = 300  # words filled at once: what T5 was trained to read, and less than its hundred gap tokens
ROWS = 32  # perturbations in one batch
TOP_K = 50  # what the authors' code drew from: the default of its library then


def place_gaps(
    words: int, rng: np.random.Generator, *, span: int = SPAN, buffer: int = BUFFER, share: float = SHARE
) -> list[int]:
    """Where gaps of `span` words begin in a text of so many words, in order: int(share * words / (span + 2 * buffer))
    of them, or as many as find room one after the other. Each is drawn evenly from the places that are left, no less
    than `buffer` words from the gaps before."""
    free = np.ones(max(0, words - span + 1), dtype=bool)
    starts: list[int] = []
    for _ in range(int(share * words / (span + buffer * 2))):
        places = np.flatnonzero(free)
        if not len(places):
            break
        start = int(rng.choice(places))
        starts.append(start)
        free[max(0, start - span - buffer + 1) : start + span + buffer] = False
    return sorted(starts)


def perturb(
    filler: Model, text: str, count: int, *, top_p: float = 1.0, seed: int = 0, span: int = SPAN, buffer: int = BUFFER,
    share: float = SHARE,
) -> list[str]:  # fmt: skip
    """Up to `count` perturbations of a text, each with gaps of its own.

    - top_p: fills are drawn from the fewest tokens that have this probability together (among the 50 most probable).
    - seed: of gaps and fills; what is drawn depends on it and on the text alone.

    Words are what stands between spaces. A perturbation whose fills do not match its gaps is drawn again, with other
    gaps; one without matching fills after ten tries is left out. None where the text is too short for a gap. Raises
    `BadInput` for a filler that is none."""
    check_filler(filler)
    words = text.split(" ")
    rng = np.random.default_rng(mixed_seed(seed, "perturb", text))
    pieces = [list(piece) for piece in np.array_split(np.array(words, dtype=object), -(-len(words) // PIECE))]
    if not any(place_gaps(len(piece), rng, span=span, buffer=buffer, share=share) for piece in pieces):
        return []
    rows: list[list[str]] = [[] for _ in range(count)]
    alive = list(range(count))
    for piece in pieces:

        def gaps(length: int = len(piece)) -> list[int]:
            return place_gaps(length, rng, span=span, buffer=buffer, share=share)

        filled = _fill_piece(filler, piece, len(alive), gaps, span, top_p, rng)
        for row, made in zip(alive, filled, strict=True):
            if made is not None:
                rows[row].append(made)
        alive = [row for row, made in zip(alive, filled, strict=True) if made is not None]
    return [" ".join(rows[row]) for row in alive]


def check_filler(filler: Model) -> None:
    """Raise `BadInput` unless a model fills gaps that `<extra_id_0>`, `<extra_id_1>` ... mark."""
    if not getattr(filler.config, "is_encoder_decoder", False) or filler.tokenizer is None:
        raise BadInput(f"{filler.identity.source} is no encoder-decoder with a tokenizer: fill gaps with t5-small, say")
    _marks(filler, 1)


def _marks(filler: Model, count: int) -> list[int]:
    """The ids of the tokens that mark gaps."""
    tokenizer = filler.tokenizer
    ids = tokenizer.convert_tokens_to_ids([_mark(n) for n in range(count)])  # type: ignore[union-attr]
    if missing := [n for n, token in enumerate(ids) if token is None or token == tokenizer.unk_token_id]:  # type: ignore[union-attr]
        raise BadInput(
            f"{filler.identity.source} has no token {_mark(missing[0])} to mark a gap: fill gaps with t5-small, say"
        )
    return ids


def _mark(number: int) -> str:
    return f"<extra_id_{number}>"


def _fill_piece(
    filler: Model, words: Sequence[str], count: int, gaps: Callable[[], list[int]], span: int, top_p: float,
    rng: np.random.Generator,
) -> list[str | None]:  # fmt: skip
    """`count` times the words with fills in gaps; None where the filler's answers never matched."""
    out: list[str | None] = [None] * count
    left = list(range(count))
    for _ in range(TRIES):
        placed = {row: gaps() for row in left}
        for row, starts in placed.items():
            if not starts:  # the last piece may be too short for a gap
                out[row] = " ".join(words)
        left = [row for row in left if placed[row]]
        for at in range(0, len(left), ROWS):
            some = left[at : at + ROWS]
            most = max(len(placed[row]) for row in some)
            answers = _answers(filler, [masked(words, placed[row], span) for row in some], most, top_p, rng)
            for row, answer in zip(some, answers, strict=True):
                fills = matching_fills(answer, _marks(filler, len(placed[row]) + 1), _decoder(filler))
                if fills is not None:
                    out[row] = filled(words, placed[row], fills, span)
        left = [row for row in left if out[row] is None]
        if not left:
            break
    return out


def _answers(filler: Model, texts: Sequence[str], most: int, top_p: float, rng: np.random.Generator) -> list[list[int]]:
    """Token ids that the filler writes for texts with gaps, of which none has more than `most`."""
    from intarsia.sites import generate

    ids = filler.tokenizer(list(texts), verbose=False)["input_ids"]  # type: ignore[misc]
    end = filler.network.generation_config.eos_token_id
    ends = [end] if isinstance(end, int) else list(end or [])
    made = generate(
        filler, ids, max_new_tokens=50 + 10 * most, seed=int(rng.integers(2**32)), do_sample=True, top_p=top_p,
        top_k=TOP_K, temperature=1.0, num_beams=1, eos_token_id=[*_marks(filler, most + 1)[-1:], *ends],
    )  # fmt: skip
    return made.ids.tolist()


def _decoder(filler: Model) -> Callable[[list[int]], str]:
    return lambda ids: filler.tokenizer.decode(ids, skip_special_tokens=True)  # type: ignore[union-attr,return-value]


def masked(words: Sequence[str], starts: Sequence[int], span: int = SPAN) -> str:
    """The words with a numbered mark in place of every gap."""
    return _replaced(words, starts, [_mark(n) for n in range(len(starts))], span)


def filled(words: Sequence[str], starts: Sequence[int], fills: Sequence[str], span: int = SPAN) -> str:
    """The words with a fill in place of every gap."""
    return _replaced(words, starts, fills, span)


def _replaced(words: Sequence[str], starts: Sequence[int], by: Sequence[str], span: int) -> str:
    out, at = [], 0
    for start, one in zip(starts, by, strict=True):
        out += [*words[at:start], *([one] if one else [])]
        at = start + span
    return " ".join([*out, *words[at:]])


def matching_fills(answer: Sequence[int], marks: Sequence[int], decode: Callable[[list[int]], str]) -> list[str] | None:
    """The fills in an answer, one for each mark but the last: what stands between a mark and the next one.

    - answer: token ids. marks: of the gaps, in order, and the one after the last gap, which ends an answer.

    None where a mark is missing, or out of order."""
    places, at = [], 0
    for mark in marks:
        try:
            at = answer.index(mark, at)
        except ValueError:
            return None
        places.append(at)
        at += 1
    return [decode(list(answer[a + 1 : b])).strip() for a, b in pairwise(places)]
