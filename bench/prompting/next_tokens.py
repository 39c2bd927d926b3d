"""Perplexity of Python's documentation with and without a memory of next tokens.

    python -m bench.prompting.next_tokens [--quick] [--json FILE] [--model smollm2-135m] [--tokens N]

The memory holds texts of modules drawn apart (`DEVELOPMENT`); share, temperature and neighbours are chosen on other
texts of those modules, and figures are of modules that are in neither, with 95 % intervals over modules."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

import numpy as np

import intarsia as ia
from bench.common import parser, show, start, write
from bench.prompting.questions import DEVELOPMENT, drawn_modules
from intarsia.measure.intervals import with_interval
from intarsia.prompting.data.next_tokens import Judged, NextTokens
from intarsia.prompting.data.python_manual import python_manual

TOKENS, QUICK = 20_000, 4_000
"""Of the memory; a fifth as many choose, and as many are judged."""
SHARES, TEMPERATURES, NEAREST = (0.05, 0.1, 0.2, 0.3, 0.4), (0.01, 0.02, 0.05, 0.1, 0.2), (8, 32, 128)
Text = tuple[str, str]


def texts() -> tuple[list[Text], list[Text]]:
    """(module, text) of sections, shuffled: of the modules for development, and of others."""
    chosen_by = drawn_modules(*DEVELOPMENT)
    rows: tuple[list[Text], list[Text]] = ([], [])
    for document in python_manual():
        if document.metadata["kind"] == "module":
            for section in document.sections:
                text = document.text[section.start : section.end].strip()
                rows[document.title not in chosen_by].append((document.title, text))
    for some in rows:
        random.Random(0).shuffle(some)
    return rows


def taken(rows: Iterable[Text], model: ia.Model, tokens: int) -> list[Text]:
    """The first rows until there are so many tokens."""
    out, total = [], 0
    for row in rows:
        if total >= tokens:
            break
        out.append(row)
        total += len(model.tokenizer(row[1])["input_ids"])
    return out


def best(judged: Judged) -> tuple[float, float, int]:
    """Share, temperature and neighbours with the least perplexity."""
    grid = itertools.product(SHARES, TEMPERATURES, NEAREST)
    return min(grid, key=lambda one: nearest(judged, one[2]).perplexity(one[0], one[1]))


def nearest(judged: Judged, count: int) -> Judged:
    """With fewer neighbours."""
    return Judged(judged.model, judged.distances[:, :count], judged.right[:, :count])


def run(name: str, tokens: int) -> dict[str, float]:
    """Remember, choose, judge, print; the figures."""
    model = ia.load(name)
    known, others = texts()
    kept = taken(known, model, tokens)
    chosen_on = taken(known[len(kept) :], model, tokens // 5)
    asked = taken(others, model, tokens // 5)
    memory = NextTokens(model, nearest=max(NEAREST))
    memory.add([text for _, text in kept])
    share, temperature, count = best(memory.judged([text for _, text in chosen_on]))
    judged = [(group, nearest(memory.judged([text]), count)) for group, text in asked if len(text.split()) > 1]
    rows, figures = [], {"entries": float(len(memory)), "share": share, "temperature": temperature, "nearest": count}
    groups = [group for group, _ in judged]
    for label, mix in (("model", 0.0), ("with_memory", share)):
        losses = [one.losses(mix, temperature) for _, one in judged]
        sums = np.array([[loss.sum(), len(loss)] for loss in losses])
        value = with_interval(sums, lambda total: np.exp(total[..., 0] / total[..., 1]), groups)
        figures[f"{label}.perplexity"] = value[0]
        rows.append([label.replace("_", " "), "{:.2f} ({:.2f} to {:.2f})".format(*value)])
    gain = np.array(
        [[one.losses(0, 1).sum() - one.losses(share, temperature).sum(), len(one.model)] for _, one in judged]
    )
    ratio = with_interval(gain, lambda total: np.exp(-total[..., 0] / total[..., 1]), groups)
    figures["perplexity_ratio"], figures["tokens"] = ratio[0], float(gain[:, 1].sum())
    rows.append(["ratio", "{:.3f} ({:.3f} to {:.3f})".format(*ratio)])
    show(f"{len(memory):,} entries; share {share}, temperature {temperature}, {count} neighbours; "
         f"{int(figures['tokens']):,} tokens judged", ["", "perplexity"], rows)  # fmt: skip
    return figures


def main(given: Sequence[str] | None = None) -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--model", default="smollm2-135m")
    arguments.add_argument("--tokens", type=int, default=0, help="entries of the memory")
    options = arguments.parse_args(given)
    start(options)
    write(run(options.model, options.tokens or (QUICK if options.quick else TOKENS)), options.json)


if __name__ == "__main__":
    main()
