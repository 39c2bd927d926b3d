"""`evaluate`: a prompt and a model on a set, measured so that every number can be replayed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from intarsia.errors import BadInput, writing_to
from intarsia.prompting.base import Usage
from intarsia.prompting.execute.evaluating.answering import Answers, Given
from intarsia.prompting.execute.evaluating.cases import Case, cases_of, labels_of, read_set
from intarsia.prompting.execute.evaluating.figures import change, earlier, figure, paired
from intarsia.prompting.execute.evaluating.finding import EvalFinding, Row, cut
from intarsia.prompting.execute.evaluating.gates import Gate, gates_of, kept, results
from intarsia.prompting.execute.evaluating.judging import Judge
from intarsia.prompting.execute.evaluating.metrics import Metric, as_class, confusion, metric_of
from intarsia.prompting.tracing import hash_of, pack

if TYPE_CHECKING:
    from intarsia.prompting.base import Backend, Sampling
    from intarsia.prompting.execute.prompt import Prompt

MOST_CLASSES = 30  # that a drawing of who is taken for whom has
RESULTS, ROWS, PAGE = "results.json", "rows.jsonl", "report.html"


class Evaluation:
    """A set, a prompt and metrics, checked; nothing is asked before `run`.

    - metrics: see `metric_of`. gold: the column of the wanted answer. labels: what answers are scored among; None: the
      gold values, where they are few and the first metric is of classes; []: answers are written freely.
    - shape: the form of answers (`Shape.of`); default: the prompt's. sampling: default: the prompt's.
    - gates: texts like `wf1>=0.5`, also `change:wf1>=-0.01`; gate_on: `point`, or `lower`: the end of the interval that
      is against it. against: an earlier result. judge: the prompt of the `judge` metric.
    - limit, seed: so many records, drawn by the seed; it is also that of the intervals.

    Raises `BadInput` for anything that cannot work, in one line, before a model is loaded."""

    def __init__(
        self, set_: str | Path, prompt: Prompt, metrics: Sequence[str] = ("accuracy",), *, gold: str | None = None,
        labels: Sequence[str] | None = None, shape: Any = None, sampling: Sampling | None = None,
        gates: Sequence[str] = (), gate_on: Literal["point", "lower"] = "point", against: str | Path | None = None,
        judge: Prompt | None = None, limit: int | None = None, seed: int = 0,
    ):  # fmt: skip
        if not metrics or len(set(metrics)) < len(metrics):
            raise BadInput(f"metrics: {', '.join(metrics) or 'none'}: give one or more, each once")
        self.path, self.prompt, self.seed, self.sampling = Path(set_), prompt, seed, sampling
        self.metrics = [metric_of(name) for name in metrics]
        self.judge = self._judge(judge)
        if gate_on not in ("point", "lower"):
            raise BadInput(f"gate_on is '{gate_on}': give point or lower")
        self.gate_on = gate_on
        self.old = earlier(against) if against is not None else None
        self.against = str(against or "")
        names = [*metrics, *(f"change:{name}" for name in metrics if self.old is not None)]
        self.gates: list[Gate] = gates_of(gates, names)
        needed = any(metric.needs_gold for metric in self.metrics)
        self.cases = cases_of(prompt, read_set(set_, limit, seed), gold, needed=needed)
        self.labels, self.shape = self._form(labels, shape)
        if self.judge is not None:
            self.judge.check(self.cases)
        if self.old is not None and not {c.key for c in self.cases} & {r.record for r in self.old.rows}:
            raise BadInput(f"{against}: was measured on other records: none of this set is among them")

    def _judge(self, judge: Prompt | None) -> Judge | None:
        asked = any(metric.name == "judge" for metric in self.metrics)
        if asked and judge is None:
            raise BadInput("the metric judge needs its prompt: give --judge FILE.md.j2")
        if judge is not None and not asked:
            raise BadInput("a judge's prompt is given, and no metric asks for it: add --metric judge")
        return Judge(judge) if judge is not None else None

    def _form(self, labels: Sequence[str] | None, shape: Any) -> tuple[list[str], Any]:
        shape = shape if shape is not None else self.prompt.shape
        if labels is None and isinstance(shape, list):  # choices that the prompt's header names
            labels, shape = [str(one) for one in shape], None
        if labels is not None and len(labels) == 0:
            return [], shape
        if labels is not None:
            return labels_of(self.cases, labels), None
        if shape is not None:
            from intarsia.prompting.execute.shape import Shape

            Shape.of(shape)
            return [], shape
        return (labels_of(self.cases) if self.metrics[0].statistic else []), None

    async def run(
        self, backend: Backend, *, judge: Backend | None = None, out: str | Path | None = None, at_once: int = 8,
        together: int = 1, replay: bool = False, check: bool = False, force: bool = False,
    ) -> EvalFinding:  # fmt: skip
        """Ask, measure, compare, judge the gates.

        - judge: the model that judges; default: the one that is judged.
        - together: records in a request, at most: see `ask_many`, also for what it may cost. at_once: requests.
        - out: a folder: `rows.jsonl` (answers as they come: a run that was stopped goes on), `results.json`,
          `report.html`. replay: take the answers that a finished folder holds. check: ask them again, and say which are
          others now. force: begin anew.

        Raises `OutOfBudget` with the finding where a gate is missed; `SomeFailed` where records could not be asked."""
        folder = prepare(out, replay=replay or check, force=force)
        before = earlier(folder) if folder is not None and (folder / RESULTS).exists() else None
        answers = Answers(folder / ROWS if folder is not None else None, check)
        given = await answers.all(
            backend, self.prompt, self.cases, labels=self.labels, shape=self.shape, sampling=self.sampling,
            at_once=at_once, together=together,
        )  # fmt: skip
        rows = [self._row(case, one) for case, one in zip(self.cases, given, strict=True)]
        if self.judge is not None:
            others = self._others(rows) if self.judge.pairs else [None] * len(rows)
            values = await self.judge.values_of(judge or backend, answers, self.cases, given, others, at_once)
            for row, value in zip(rows, values, strict=True):
                row.values["judge"] = value
        finding = self._finding(backend, rows, given, answers)
        if together > 1:
            finding.notes.append(f"{together} records were asked together in a request, at most")
        if before is not None:
            finding.notes += _moved(before, finding)
        if folder is not None:
            write(finding, folder)
        return kept(finding)

    def _row(self, case: Case, given: Given) -> Row:
        gold = case.gold if case.gold is not None else ""
        values = {m.name: m.each(given.text, gold, case.row) for m in self.metrics if m.each is not None}
        if any(m.statistic for m in self.metrics):
            values["right"] = float(as_class(given.text, [gold]) == gold)
        return Row(
            where=case.where, record=case.key, prompt=given.prompt, key=given.key, group=case.group,
            given=cut(" | ".join(map(str, case.inputs.values()))), gold=case.gold, answer=given.text,
            probability=given.probabilities.get(given.text), error=given.error, values=values,
        )  # fmt: skip

    def _others(self, rows: Sequence[Row]) -> list[str | None]:
        """What a judge of pairs compares answers with: the earlier result's, else the wanted ones."""
        if self.old is None:
            return [row.gold for row in rows]
        new, old = paired(rows, self.old)
        found = {id(row): other.answer for row, other in zip(new, old, strict=True)}
        return [found.get(id(row)) for row in rows]

    def _finding(self, backend: Backend, rows: list[Row], given: Sequence[Given], answers: Answers) -> EvalFinding:
        from intarsia.measure.provenance import provenance

        metrics = {m.name: figure(m, rows, self.seed) for m in self.metrics}
        changes, common = self._changes(rows)
        gates = results(self.gates, metrics, changes, self.gate_on)
        classes, counts = self._confusion(rows)
        usage = sum((one.usage for one in given), Usage(calls=0))
        notes = [f"{answers.taken} answers were taken from the record"] if answers.taken else []
        if wrong := sum(bool(row.error) for row in rows):
            notes.append(f"{wrong} answers have not the wanted form")
        if answers.check:
            notes.append(f"{len(answers.differing)} of {answers.asked} answers differ from those kept")
        main = ", ".join(f"{name} {value[0]:.3f} ({value[1]:.3f}–{value[2]:.3f})" for name, value in metrics.items())
        return EvalFinding(
            title=f"{self.prompt.name} with {backend.name} on {self.path.name}", technique="eval",
            summary=f"{main} on {len(rows)} records"
            + (f"; gates {'passed' if all(g.passed for g in gates) else 'missed'}." if gates else "."),
            provenance=provenance(
                set=hash_of(pack([c.key for c in self.cases])), prompt=self.prompt.version, model=backend.fingerprint,
                seed=self.seed, metrics=[m.name for m in self.metrics], labels=self.labels,
                sampling=repr(self.sampling or self.prompt.sampling),
            ),
            metrics=metrics, changes=changes, common=common, against=self.against, gates=gates, gate_on=self.gate_on,
            rows=rows, labels=self.labels, classes=classes, confusion=counts,
            prompt=self.prompt.name, prompt_version=self.prompt.version,
            model=backend.name, model_fingerprint=backend.fingerprint, tokens=usage.prompt + usage.completion,
            cost=usage.cost, differing=answers.differing, notes=notes,
        )  # fmt: skip

    def _confusion(self, rows: Sequence[Row]) -> tuple[list[str], list[list[int]]]:
        if not any(metric.statistic for metric in self.metrics):
            return [], []
        parts, classes = confusion([row.gold or "" for row in rows], [row.answer for row in rows])
        return (classes, parts.sum(0).astype(int).tolist()) if len(classes) <= MOST_CLASSES else ([], [])

    def _changes(self, rows: Sequence[Row]) -> tuple[dict[str, Any], int]:
        if self.old is None:
            return {}, 0
        new, old = paired(rows, self.old)

        def held(metric: Metric) -> bool:
            return bool(metric.statistic) or all(metric.name in row.values for row in old)

        return {m.name: change(m, new, old, self.seed) for m in self.metrics if held(m)}, len(new)


def prepare(out: str | Path | None, *, replay: bool, force: bool) -> Path | None:
    """The folder of results, made. Raises as `look_at`."""
    folder = look_at(out, replay=replay, force=force)
    if folder is not None:
        with writing_to(folder):
            folder.mkdir(parents=True, exist_ok=True)
            for name in (RESULTS, ROWS, PAGE) if force else ():
                (folder / name).unlink(missing_ok=True)
    return folder


def look_at(out: str | Path | None, *, replay: bool, force: bool) -> Path | None:
    """The folder of results, nothing changed. Raises `BadInput` where a finished one would be lost, where it holds
    other things, and where there is none to replay."""
    if out is None:
        if replay:
            raise BadInput("replaying takes the answers of a folder: give --out")
        return None
    folder = Path(out).expanduser()
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file: give a folder for the results")
    if folder.is_dir() and any(folder.iterdir()) and not ((folder / ROWS).exists() or (folder / RESULTS).exists()):
        raise BadInput(f"{folder} holds other things: give a folder for the results")
    finished = (folder / RESULTS).exists()
    if replay and not (folder / ROWS).exists():
        raise BadInput(f"{folder}: holds no answers that could be replayed")
    if finished and not (replay or force):
        raise BadInput(f"{folder} holds results already: --replay takes their answers, --force begins anew")
    return folder


def write(finding: EvalFinding, folder: Path) -> None:
    """The result and its page, whole or not at all."""
    from intarsia.report import render_finding

    texts: dict[str, Callable[[], str]] = {PAGE: lambda: render_finding(finding), RESULTS: finding.to_json}
    with writing_to(folder):
        for name, text in texts.items():
            part = folder / f".{name}.part"
            part.write_text(text(), "utf-8")
            part.replace(folder / name)


def _moved(before: EvalFinding, now: EvalFinding) -> list[str]:
    """Figures that a replay does not give again."""
    out = []
    for name, value in now.metrics.items():
        was = before.metrics.get(name)
        if was is not None and tuple(was) != tuple(value):
            out.append(f"{name} was {was[0]:.4f} and is {value[0]:.4f} now")
    return out
