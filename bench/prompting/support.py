"""Whether a passage holds a statement: by words, by words and what contradicts them, and by a model's own judgement.

    python -m bench.prompting.support [--quick] [--json FILE] [--model NAME] [--claims N] [--development]

Statements are made of Python's documentation (`bench.prompting.claims`), of modules that no rule was made by
(--development: of those that were). Refused: the share that is not held, at the assistant's own line (`support`). With
--model, the model is asked whether a statement follows, and `yes` and `no` are scored: AUROC, true statements against
each kind of false ones (.5 is chance)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from bench.common import parser, show, start, write
from bench.prompting.claims import FALSE, TRUE, Claim, claims
from bench.prompting.questions import DEVELOPMENT, drawn_modules
from intarsia.detection.evaluating.protocol import auroc
from intarsia.measure.intervals import with_interval
from intarsia.prompting.assistant.settings import Settings
from intarsia.prompting.assistant.supporting import support, words_held
from intarsia.prompting.data.python_manual import python_manual

LINE: float = Settings.model_fields["support"].default
MOST, QUICK = 300, 60
"""Statements of a kind."""
ASK = (
    "Passage: {passage}\n\nStatement: {text}\n\nDoes the statement follow from the passage? Answer yes or no.\nAnswer:"
)


def refused(found: Sequence[Claim], held: Callable[[str, Sequence[str]], float]) -> np.ndarray:
    """[claim]: whether it is not held."""
    return np.array([held(one.text, [one.passage]) < LINE for one in found])


async def judged(found: Sequence[Claim], model: str) -> np.ndarray:
    """[claim]: log odds of `yes` against `no`, by a model."""
    from intarsia.progress import track
    from intarsia.prompting.base import open_backend

    backend = open_backend(model, trace=False)
    out = []
    try:
        for one in track(found, "asking whether statements follow"):
            yes, no = await backend.score(ASK.format(passage=one.passage, text=one.text), [" yes", " no"])
            out.append(yes - no)
    finally:
        await backend.close()
    return np.array(out)


def run(most: int, *, development: bool = False, model: str | None = None, seed: int = 0) -> dict[str, float]:
    """Make statements, judge them, print; the figures."""
    chosen_by = drawn_modules(*DEVELOPMENT)
    documents = [document for document in python_manual() if (document.title in chosen_by) == development]
    found = claims(documents, most, seed)
    ways: dict[str, Callable[[str, Sequence[str]], float]] = {"words": words_held, "support": support}
    verdicts = {name: refused(found, held) for name, held in ways.items()}
    figures: dict[str, float] = {}
    rows = []
    for kind in (*TRUE, *FALSE):
        some = np.array([one.kind == kind for one in found])
        groups = [one.group for one in found if one.kind == kind]
        told = []
        for name in ways:
            share = with_interval(
                np.stack([verdicts[name][some], np.ones(some.sum())], 1).astype(float),
                lambda sums: sums[:, 0] / sums[:, 1], groups,
            )  # fmt: skip
            figures[f"{name}.{kind}.refused"] = share[0]
            told.append("{:.3f} ({:.3f} to {:.3f})".format(*share))
        rows.append([("true: " if kind in TRUE else "false: ") + kind, str(int(some.sum())), *told])
    show("refused", ["", "statements", *ways], rows)
    if model is not None:
        odds = asyncio.run(judged(found, model))
        kinds = np.array([one.kind for one in found])
        for kind in FALSE:
            figures[f"model.{kind}.auroc"] = _above(odds[np.isin(kinds, TRUE)], odds[kinds == kind])
        show(f"{model}: AUROC", ["false", "true above false"],
             [[kind, f"{figures[f'model.{kind}.auroc']:.3f}"] for kind in FALSE])  # fmt: skip
    return figures


def _above(true: np.ndarray, false: np.ndarray) -> float:
    return auroc(false, true, np.ones(len(false)), np.ones(len(true)))


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", help="also ask this model")
    arguments.add_argument("--claims", type=int, default=0, metavar="N", help="statements of a kind")
    arguments.add_argument("--development", action="store_true", help="of the modules that rules were made by")
    options = arguments.parse_args()
    start(options)
    most = options.claims or (QUICK if options.quick else MOST)
    write(run(most, development=options.development, model=options.model), options.json)


if __name__ == "__main__":
    main()
