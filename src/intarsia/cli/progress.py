"""Progress on stderr: a live display on a terminal, a line every few seconds elsewhere, nothing when quiet."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from intarsia.cli.base import settings_of
from intarsia.progress import Event, Listener, listening

INTERVAL = 5.0


@contextmanager
def shown() -> Iterator[None]:
    """Show every progress event raised inside the block, as fits where stderr goes."""
    settings = settings_of()
    if settings.quiet or settings.json:
        with listening(None):
            yield
    elif sys.stderr.isatty():
        with _live() as listener, listening(listener):
            yield
    else:
        with listening(Lines()):
            yield


class Lines:
    """Plain lines: each task once it has gone on for a while, then every few seconds, and its end."""

    def __init__(self, interval: float = INTERVAL):
        self.interval = interval
        self.begun: dict[str, float] = {}
        self.said: dict[str, float] = {}
        self.count: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        now = time.monotonic()
        begun = self.begun.setdefault(event.task, now)
        step = event.facts.get("step")
        last = self.said.get(event.task, begun)
        if event.finished:
            del self.begun[event.task]
            if self.said.pop(event.task, None) is None or self.count.pop(event.task, None) == event.done:
                return
        elif not step and now - last < self.interval:
            return
        else:
            self.said[event.task], self.count[event.task] = now, event.done
        click.echo(line(event, now - begun), err=True)


def line(event: Event, seconds: float) -> str:
    """One event in one line: `training 40/200 (20%) 12 s, loss 1.31`."""
    count = f"{event.done}/{event.total} ({event.done / event.total:.0%})" if event.total else f"{event.done or ''}"
    facts = "".join(f", {key} {show(value)}" for key, value in event.facts.items())
    return f"{event.task} {count}".strip() + f" {seconds:.0f} s{facts}"


def show(value: float | str) -> str:
    """A live figure, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _live() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bars = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[facts]}", style="dim"),
        console=Console(stderr=True),
        transient=True,
    )
    known: dict[str, int] = {}

    def listener(event: Event) -> None:
        facts = "  ".join(show(v) if k == "step" else f"{k} {show(v)}" for k, v in event.facts.items())
        if event.task not in known:
            if event.finished:
                return
            known[event.task] = bars.add_task(event.task, total=event.total, facts=facts)
        bars.update(known[event.task], completed=event.done, total=event.total, facts=facts)
        if event.finished:
            bars.remove_task(known.pop(event.task))

    with bars:
        yield listener
