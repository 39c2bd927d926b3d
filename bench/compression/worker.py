"""A process that runs one model in one engine and answers lines of JSON: `python -m bench.compression.worker ENGINE
FOLDER THREADS`. Alone in its process, an engine's processor time and memory are its own.

    {"steps": 64, "ids": [...]}     -> seconds of reading the prompt and of the steps, by the clock and of the processor
    {"to": "x.npy", "ids": [...]}   writes every position's logits"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]


class Worker:
    """Such a process, from outside. Raises `RuntimeError` where the engine does."""

    def __init__(self, engine: str, folder: Path, threads: int = 1):
        environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))}
        environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OPENVINO_TELEMETRY_OPT_OUT": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        command = [sys.executable, "-m", "bench.compression.worker", engine, str(folder), str(threads)]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.bytes: int = self._answer()["bytes"]

    def time(self, ids: Sequence[int], steps: int) -> dict[str, float]:
        """prefill, decode: seconds; prefill_cpu, decode_cpu: of the processor; peak: bytes of memory so far."""
        return self._ask({"ids": list(ids), "steps": steps})

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Of every position, [token, vocabulary]."""
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "logits.npy"
            self._ask({"ids": list(ids), "to": str(file)})
            return np.load(file)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(f"its process ended with {self._process.wait()}") from None
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"its process ended with {self._process.wait()}")
        found = json.loads(line)
        if "error" in found:
            raise RuntimeError(found["error"])
        return found


def timed(engine: Any, ids: Sequence[int], steps: int) -> dict[str, float]:
    """Seconds of the prompt, and of `steps` tokens after the first."""
    marks = [(time.perf_counter(), time.process_time())]
    for number, _ in enumerate(engine.tokens(ids, steps + 1)):
        if number in (0, steps):
            marks.append((time.perf_counter(), time.process_time()))
    (a, b, c) = marks
    return {"prefill": b[0] - a[0], "prefill_cpu": b[1] - a[1], "decode": c[0] - b[0], "decode_cpu": c[1] - b[1]}


def peak() -> int:
    """The most memory this process had, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Open, and answer until the input ends."""
    name, folder, threads = sys.argv[1:]
    # Engines print; the answers go where they cannot.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(what: dict[str, Any]) -> None:
        answers.write(json.dumps(what) + "\n")
        answers.flush()

    try:
        from bench.compression.engines import ENGINES

        engine = ENGINES[name](Path(folder), int(threads))
        say({"bytes": engine.bytes})
        for line in sys.stdin:
            asked = json.loads(line)
            if "to" in asked:
                np.save(asked["to"], engine.logits(asked["ids"]))
                say({})
            else:
                say({**timed(engine, asked["ids"], asked["steps"]), "peak": peak()})
    except Exception as error:
        words = [line.strip() for line in f"{error}".splitlines() if line.strip()]
        say({"error": f"{type(error).__name__}: {words[0] if words else ''}"})


if __name__ == "__main__":
    main()
