"""Search in a store: vectors, words, and both together, on questions whose answers' places are known.

    python -m bench.prompting.retrieval [--quick] [--json FILE] [--keep DIR] [--sets python boolq] [--sections N]

Recall@5: the share of questions whose section is among the first five chunks; MRR: the mean of 1 / the rank of its
first chunk, 0 beyond 20; 95 % intervals by the bootstrap over groups (modules, articles). How rankings are fused was
chosen on modules drawn apart (`DEVELOPMENT`) and on half of BoolQ's articles: figures are of other modules, and of the
other half. BoolQ comes from the data set `continual` (INTARSIA_DATA). --keep: the folder that stores are built in, and
found again. --sections: of Python's documentation, modules of so many sections, drawn by --seed (0: all others;
--quick: 500)."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import parser, show, start, write
from bench.prompting.questions import DEVELOPMENT, Question, boolq, drawn_modules, halves, python_docs
from intarsia.data import shared_data
from intarsia.measure.intervals import with_interval
from intarsia.prompting.data import SourceDocument, Store
from intarsia.prompting.data.store.searching import MODES

DEPTH, TOP = 20, 5
WAYS: dict[str, dict[str, Any]] = {
    "hybrid": {"mode": "hybrid"},
    "hybrid by scores": {"mode": "hybrid", "fusion": "scores"},
    "hybrid by ranks": {"mode": "hybrid", "fusion": "ranks"},
    "dense": {"mode": "dense"},
    "words": {"mode": "words"},
}
"""What is compared; `hybrid` is the default."""
ASKED, QUICK = 800, 500  # objects of Python's documentation; sections of it with --quick
Array = np.ndarray[Any, Any]


def ranks(store: Store, questions: Sequence[Question], way: str) -> Array:
    """The rank of each question's section, 0 where it is not among the first `DEPTH` chunks."""
    found = store.search_many([question.text for question in questions], DEPTH, **WAYS[way])
    out = []
    for question, one in zip(questions, found, strict=True):
        places = ((hit.source, hit.anchor) == (question.source, question.anchor) for hit in one)
        out.append(next((rank for rank, right in enumerate(places, 1) if right), 0))
    return np.array(out)


def values(found: Array) -> Array:
    """[question, 3]: whether it is among the first `TOP`, its reciprocal rank, 1."""
    hit = (found > 0) & (found <= TOP)
    return np.stack([hit, np.where(found > 0, 1 / np.maximum(found, 1), 0), np.ones(len(found))], 1).astype(float)


def evaluate(store: Store, questions: Sequence[Question], name: str) -> dict[str, float]:
    """Figures of all kinds of questions, each with its interval on the terminal."""
    figures: dict[str, float] = {}
    kinds = list(dict.fromkeys(question.kind for question in questions))
    rows = []
    for kind in kinds:
        some = [question for question in questions if question.kind == kind]
        groups = [question.group for question in some]
        scored = {way: values(ranks(store, some, way)) for way in WAYS}
        for way, value in scored.items():
            recall = with_interval(value, lambda sums: sums[:, 0] / sums[:, 2], groups)
            mrr = with_interval(value, lambda sums: sums[:, 1] / sums[:, 2], groups)
            key = f"{name}.{kind}.{way.replace(' ', '_')}"
            figures[f"{key}.recall5"], figures[f"{key}.mrr"] = recall[0], mrr[0]
            rows.append([f"{kind}, {way}", str(len(some)), _told(recall), _told(mrr)])
        best = max(("dense", "words"), key=lambda mode: scored[mode][:, 0].mean())
        both = np.stack([scored["hybrid"][:, 0] - scored[best][:, 0], np.ones(len(some))], 1)
        gain = with_interval(both, lambda sums: sums[:, 0] / sums[:, 1], groups)
        figures[f"{name}.{kind}.hybrid_minus_best_single_recall5"] = gain[0]
        rows.append([f"{kind}, hybrid - {best}", str(len(some)), _told(gain, sign=True), ""])
    show(f"{name}: questions that nothing was chosen by", ["", "questions", "recall@5", "MRR"], rows)
    return figures


def _told(interval: tuple[float, float, float], sign: bool = False) -> str:
    form = "{:+.3f} ({:+.3f} to {:+.3f})" if sign else "{:.3f} ({:.3f} to {:.3f})"
    return form.format(*interval)


def timed(store: Store, questions: Sequence[Question]) -> dict[str, float]:
    """Milliseconds of one question alone, its embedding included, by mode (median)."""
    out = {}
    for mode in MODES:
        seconds = []
        for question in questions[:40]:
            begun = time.perf_counter()
            store.search(question.text, TOP, mode=mode)
            seconds.append(time.perf_counter() - begun)
        out[mode] = 1e3 * float(np.median(seconds))
    return out


def build(place: Path, documents: Sequence[SourceDocument]) -> tuple[Store, float | None]:
    """(the store, the seconds that all of it took; None where it was there in part)."""
    store = Store.open(place)
    begun = time.perf_counter()
    added = store.add(documents)
    seconds = time.perf_counter() - begun
    print(f"{place.name}: {added}")
    wanted = {document.source for document in documents}
    if more := [row.source for row in store.documents() if row.source not in wanted]:  # of another run
        for source in more:
            store.remove(source)
        store.compact()
    return store, seconds if added.embedded and not (added.unchanged or added.changed or more) else None


def run(
    sets: Sequence[str], *, quick: bool = False, keep: Path | None = None, sections: int = 0, seed: int = 1
) -> dict[str, float]:  # fmt: skip
    """Build, search, print; the figures."""
    figures: dict[str, float] = {}
    gains: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in sets:
            if name == "python":
                many = sections or (QUICK if quick else 0)
                documents, test = python_docs(ASKED, many, seed, drawn_modules(*DEVELOPMENT))
            elif (folder := shared_data("continual")) is not None:
                documents, questions = boolq(folder)
                _, test = halves(questions)
            else:
                print("boolq: left out: no data set 'continual' (INTARSIA_DATA)")
                continue
            store, seconds = build((keep or Path(temporary)) / name, documents)
            with store:
                rows = store.documents()
                chunks, characters = sum(row.chunks for row in rows), sum(row.characters for row in rows)
                found = evaluate(store, test, name)
                gains += [v for k, v in found.items() if k.endswith("hybrid_minus_best_single_recall5")]
                figures |= found
                times = timed(store, test)
            size = store.bytes
            figures |= {f"{name}.{mode}.ms_per_query": ms for mode, ms in times.items()}
            figures |= {
                f"{name}.chunks": chunks,
                f"{name}.bytes": size,
                f"{name}.bytes_per_character": size / characters,
            }
            if seconds is not None:
                figures[f"{name}.index_seconds"] = seconds
            took = "" if seconds is None else f"index {seconds:.0f} s, "
            print(
                f"{name}: {chunks:,} chunks of {characters:,} characters; {took}{size / 2**20:.1f} MiB "
                f"({size / characters:.2f} bytes a character); a question alone: "
                + ", ".join(f"{mode} {ms:.1f} ms" for mode, ms in times.items())
            )
    figures["hybrid_minus_best_single_recall5"] = min(gains)
    return figures


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("--sets", nargs="+", choices=("python", "boolq"), default=("python", "boolq"))
    arguments.add_argument("--keep", type=Path, metavar="DIR", help="where stores are built, and found again")
    arguments.add_argument("--sections", type=int, default=0, help="sections of Python's documentation (0: all)")
    arguments.add_argument("--seed", type=int, default=1, help="that modules are drawn by")
    options = arguments.parse_args()
    start(options)
    given = {"quick": options.quick, "keep": options.keep, "sections": options.sections, "seed": options.seed}
    write(run(options.sets, **given), options.json)


if __name__ == "__main__":
    main()
