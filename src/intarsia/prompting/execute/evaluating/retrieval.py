"""Retrieval sets: questions with the sources that answer them, asked of anything that can `search`.

Recall@k: the share of a question's sources among the first k different ones found. MRR@k: 1 / the place of the first
right one, 0 where there is none (Manning et al. 2008, ch. 8)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from intarsia.data.columns import find
from intarsia.errors import BadInput, did_you_mean
from intarsia.progress import track
from intarsia.prompting.execute.evaluating.cases import Case, key_of, read_set
from intarsia.prompting.execute.evaluating.evaluate import prepare, write
from intarsia.prompting.execute.evaluating.figures import change, earlier, figure, paired
from intarsia.prompting.execute.evaluating.finding import EvalFinding, Row, cut
from intarsia.prompting.execute.evaluating.gates import gates_of, kept, results
from intarsia.prompting.execute.evaluating.metrics import Metric

QUESTIONS = ("question", "query", "text")
SOURCES = ("sources", "source", "gold", "documents", "document")
_FORM = re.compile(r"(recall|mrr)(?:@(\d+))?")
DEFAULT_K = 10


def retrieval_metric(name: str) -> tuple[str, int] | None:
    """`recall@5` or `mrr` as (kind, k); None for another metric's name."""
    found = _FORM.fullmatch(name)
    if found is None:
        return None
    k = int(found[2] or DEFAULT_K)
    if k < 1:
        raise BadInput(f"{name}: k must be at least 1")
    return found[1], k


def places_of(gold: Sequence[str], found: Sequence[Any]) -> list[int]:
    """The place, from 1, of each gold source among the different sources found; 0 where it is not."""
    seen: list[str] = []
    places = dict.fromkeys(gold, 0)
    for hit in found:
        source = str(getattr(hit, "source", hit))
        names = {source, str(getattr(hit, "citation", source))}
        if source not in seen:
            seen.append(source)
        for name in names & set(gold):
            places[name] = places[name] or seen.index(source) + 1
    return [places[name] for name in gold]


def _value(kind: str, k: int, places: Sequence[int]) -> float:
    within = [place for place in places if 0 < place <= k]
    if kind == "recall":
        return len(within) / len(places)
    return 1 / min(within) if within else 0.0


def retrieval_cases(
    set_: str | Path, gold: str | None, question: str | None, limit: int | None, seed: int
) -> list[Case]:
    """Cases whose gold is the list of sources, a line each. Raises `BadInput` with the place."""
    out = []
    for where, row in read_set(set_, limit, seed):
        asked = _column(where, row, question, QUESTIONS, "--question")
        wanted = _column(where, row, gold, SOURCES, "--gold")
        sources = row[wanted] if isinstance(row[wanted], list) else [row[wanted]]
        sources = list(dict.fromkeys(str(one) for one in sources if one not in (None, "")))
        if not sources:
            raise BadInput(f"{where}: its '{wanted}' is empty; every question needs a source that answers it")
        out.append(Case(where, key_of(row), row, {"question": str(row[asked])}, "\n".join(sources)))
    return out


def _column(where: str, row: Mapping[str, Any], given: str | None, names: tuple[str, ...], option: str) -> str:
    column = given if given is not None else find(row, names)
    if column is None or column not in row:
        wanted = given or names[0]
        raise BadInput(
            f"{where}: no column '{wanted}' ({option}){did_you_mean(wanted, row)}; present: {', '.join(row)}"
        )
    return column


class RetrievalEvaluation:
    """A set of questions and metrics (`recall@k`, `mrr@k`), checked. Raises `BadInput` as `Evaluation`."""

    def __init__(
        self, set_: str | Path, metrics: Sequence[str] = ("recall@5", "mrr"), *, gold: str | None = None,
        question: str | None = None, gates: Sequence[str] = (), gate_on: Literal["point", "lower"] = "point",
        against: str | Path | None = None, limit: int | None = None, seed: int = 0,
    ):  # fmt: skip
        self.metrics: dict[str, tuple[str, int]] = {}
        for name in metrics:
            parsed = retrieval_metric(name)
            if parsed is None:
                raise BadInput(f"'{name}' is no metric of a search: give recall@5, mrr or mrr@10")
            self.metrics[name] = parsed
        self.old = earlier(against) if against is not None else None
        self.against, self.gate_on, self.seed, self.path = str(against or ""), gate_on, seed, Path(set_)
        self.gates = gates_of(gates, [*metrics, *(f"change:{n}" for n in metrics if self.old is not None)])
        self.cases = retrieval_cases(set_, gold, question, limit, seed)
        if self.old is not None and not {c.key for c in self.cases} & {r.record for r in self.old.rows}:
            raise BadInput(f"{against}: was measured on other records: none of this set is among them")

    def run(self, store: Any, *, name: str = "", out: str | Path | None = None, force: bool = False) -> EvalFinding:
        """Search for each question and measure. store: anything with `search(question, k)`.

        Raises `OutOfBudget` with the finding where a gate is missed."""
        folder = prepare(out, replay=False, force=force)
        most = max(k for _, k in self.metrics.values())
        rows = []
        for case in track(self.cases, "searching"):
            hits = store.search(case.inputs["question"], k=3 * most)  # several chunks of one source count once
            found = list(getattr(hits, "hits", hits))
            places = places_of((case.gold or "").split("\n"), found)
            sources = list(dict.fromkeys(str(getattr(hit, "source", hit)) for hit in found))[:most]
            values = {metric: _value(kind, k, places) for metric, (kind, k) in self.metrics.items()}
            rows.append(Row(where=case.where, record=case.key, given=cut(case.inputs["question"]), gold=case.gold,
                            answer="\n".join(sources), values=values))  # fmt: skip
        finding = self._finding(rows, name)
        if folder is not None:
            write(finding, folder)
        return kept(finding)

    def _finding(self, rows: list[Row], name: str) -> EvalFinding:
        from intarsia.measure.provenance import provenance

        metrics = {n: figure(Metric(n), rows, self.seed) for n in self.metrics}
        changes, common = {}, 0
        if self.old is not None:
            new, old = paired(rows, self.old)
            common = len(new)
            changes = {
                n: change(Metric(n), new, old, self.seed) for n in self.metrics if all(n in r.values for r in old)
            }
        gates = results(self.gates, metrics, changes, self.gate_on)
        main = ", ".join(f"{n} {v[0]:.3f} ({v[1]:.3f}–{v[2]:.3f})" for n, v in metrics.items())
        return EvalFinding(
            title=f"{name or 'search'} on {self.path.name}", technique="eval", metrics=metrics, changes=changes,
            summary=f"{main} on {len(rows)} questions.", common=common, against=self.against, gates=gates,
            gate_on=self.gate_on, rows=rows, model=name,
            provenance=provenance(seed=self.seed, metrics=list(self.metrics)),
        )  # fmt: skip
