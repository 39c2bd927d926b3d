"""Energy, estimated by codecarbon from processor load and rated power. Nothing is looked up, sent or written."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from intarsia.errors import IntarsiaError, MissingExtra


def check_energy() -> None:
    """Raise `MissingExtra` without codecarbon: to be told before any work."""
    if importlib.util.find_spec("codecarbon") is None:
        raise MissingExtra("the energy estimate", "energy")


def estimate_energy(work: Callable[[], int], seconds: float = 2.0) -> float:
    """Joules a token: `work` (which returns the tokens it handled) is repeated for at least `seconds`.

    An estimate: where the processor gives no reading, codecarbon takes this process's load times a rated power, and a
    rated power for the memory. Raises `MissingExtra` without codecarbon."""
    check_energy()
    log = logging.getLogger("codecarbon")
    logging_was, log.disabled = log.disabled, True
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            from codecarbon import OfflineEmissionsTracker

            tracker = OfflineEmissionsTracker(
                country_iso_code="FRA",  # of the energy itself nothing depends on the country
                save_to_file=False,
                save_to_api=False,
                log_level="critical",
                allow_multiple_runs=True,
                tracking_mode="process",
                measure_power_secs=3600,
            )
            log.disabled = True
            tracker.start()
            try:
                tokens, begin = 0, time.perf_counter()
                while time.perf_counter() - begin < seconds:
                    tokens += work()
            finally:
                tracker.stop()
            data = tracker.final_emissions_data
    finally:
        log.disabled = logging_was
    if not data or not data.energy_consumed or not tokens:
        raise IntarsiaError("codecarbon gave no energy reading")
    return data.energy_consumed * 3.6e6 / tokens


def energy_in_turns(
    laps: Mapping[str, Callable[[], Any]], tokens: int, rounds: int = 3, seconds: float = 1.0
) -> dict[str, list[float]]:
    """Joules a token of what handles so many tokens each time, round by round, every other one in reverse order: what
    disturbs the machine for a while hits all alike. Ratios are to be taken within a round."""

    def work(lap: Callable[[], Any]) -> Callable[[], int]:
        def run() -> int:
            lap()
            return tokens

        return run

    joules: dict[str, list[float]] = {name: [] for name in laps}
    for number in range(rounds):
        for name in list(laps) if number % 2 == 0 else list(reversed(laps)):
            joules[name].append(estimate_energy(work(laps[name]), seconds))
    return joules
