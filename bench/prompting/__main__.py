"""The prompting framework: answers that have the wanted form, search, requests beside LangChain's, and what holds.

    python -m bench.prompting [--quick] [--json FILE] [--parts shapes retrieval langchain support] [--keep DIR]
                              [--peer langchain=DIR]

- shapes: answers held to random JSON schemas, and what it costs a token, beside xgrammar and outlines
  (`bench.prompting.shapes`).
- retrieval: vectors, words and both on questions with known answers (`bench.prompting.retrieval`); --keep: where its
  stores are built, and found again.
- langchain: requests and tokens of three tasks, beside LangChain (`bench.prompting.langchain`).
- support: statements that a passage holds, and that it does not, told apart (`bench.prompting.support`)."""

from __future__ import annotations

from pathlib import Path

from bench.common import parser, start, write
from bench.prompting import langchain, retrieval, shapes, support

PARTS = ("shapes", "retrieval", "langchain", "support")
HEADLINES = (
    "valid_schema_share", "hybrid_minus_best_single_recall5", "calls_ratio_langchain", "tokens_ratio_langchain"
)  # fmt: skip
"""Figures without their part's name before them."""


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="where stores are built, and found again")
    options = arguments.parse_args()
    start(options)
    figures: dict[str, float] = {}
    if "shapes" in options.parts:
        figures |= named("shapes", shapes.run(quick=options.quick))
    if "retrieval" in options.parts:
        figures |= named("retrieval", retrieval.run(("python", "boolq"), quick=options.quick, keep=options.keep))
    if "langchain" in options.parts:
        figures |= named("langchain", langchain.run(options))
    if "support" in options.parts:
        figures |= named("support", support.run(support.QUICK if options.quick else support.MOST))
    write(figures, options.json)


def named(part: str, figures: dict[str, float]) -> dict[str, float]:
    """A part's figures under its name, but for headlines."""
    return {name if name in HEADLINES else f"{part}.{name}": value for name, value in figures.items()}


if __name__ == "__main__":
    main()
