"""From values of records to figures with intervals, and to paired changes against an earlier result.

Source: Efron & Tibshirani 1993, ch. 13 and 16."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from intarsia.errors import BadInput
from intarsia.measure.quality_parts import Interval
from intarsia.prompting.execute.evaluating.finding import EvalFinding, Row
from intarsia.prompting.execute.evaluating.metrics import Metric, confusion, parts_of, statistic_of
from intarsia.report import Finding


def figure(metric: Metric, rows: Sequence[Row], seed: int) -> Interval:
    """A metric over rows, with its 95 % interval over groups."""
    from intarsia.measure.intervals import with_interval

    parts = parts_of(metric, *_columns(metric, rows))
    return with_interval(parts, statistic_of(metric), [row.group for row in rows], seed=seed)


def change(metric: Metric, new: Sequence[Row], old: Sequence[Row], seed: int) -> Interval:
    """How much better `new` is than `old` on the same records: difference and interval, each draw judged for both."""
    import numpy as np

    from intarsia.measure.intervals import with_interval

    if metric.statistic:
        golds = [row.gold or "" for row in new]
        # One confusion matrix for both, so that their classes have the same numbers.
        parts, _ = confusion(golds * 2, [row.answer for row in (*new, *old)])
        both = np.stack([parts[: len(new)], parts[len(new) :]], axis=1)
    else:
        both = np.stack([parts_of(metric, *_columns(metric, rows)) for rows in (new, old)], axis=1)
    statistic = statistic_of(metric)
    after, before = (slice(None), 0), (slice(None), 1)
    return with_interval(
        both, lambda sums: statistic(sums[after]) - statistic(sums[before]), [row.group for row in new], seed=seed
    )


def _columns(metric: Metric, rows: Sequence[Row]) -> tuple[list[str], list[str], list[float]]:
    return (
        [row.gold or "" for row in rows],
        [row.answer for row in rows],
        [row.values.get(metric.name, 0.0) for row in rows],
    )


def earlier(path: str | Path) -> EvalFinding:
    """An earlier result: its file, or the folder it stands in. Raises `BadInput`."""
    path = Path(path).expanduser()
    file = path / "results.json" if path.is_dir() else path
    try:
        found = Finding.from_json(file.read_text("utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: no earlier result there ({error.strerror})") from None
    except ValueError:
        raise BadInput(f"{file}: no result of `intarsia eval`") from None
    if not isinstance(found, EvalFinding):
        raise BadInput(f"{file}: no result of `intarsia eval`, but of {found.technique or type(found).__name__}")
    return found


def paired(new: Sequence[Row], old: EvalFinding) -> tuple[list[Row], list[Row]]:
    """Rows of both, record by record, in the order of the new ones; a record that stands several times is matched as
    often as both have it."""
    waiting: dict[str, list[Row]] = {}
    for row in old.rows:
        waiting.setdefault(row.record, []).append(row)
    pairs = [(row, waiting[row.record].pop(0)) for row in new if waiting.get(row.record)]
    return [a for a, _ in pairs], [b for _, b in pairs]
