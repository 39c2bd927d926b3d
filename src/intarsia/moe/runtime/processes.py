"""`Ranks`: some processes on this machine that run the same functions, and notice when one of them is gone.

They talk over torch.distributed (gloo on CPUs, NCCL on GPUs). A rank that dies closes its connections, so the others'
exchange fails at once; the parent sees it die, says so to the others, and stops those that do not come back. A rank
that hangs is noticed by the time limit of the exchange."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, IntarsiaError, first_line

GRACE = 3.0
"""Seconds that ranks have to come back after another one has failed."""
TIMEOUT = 60.0
"""Seconds an exchange waits for a rank that does not come."""


class RankFailure(IntarsiaError):
    """A rank died or failed. `others`: what the ranks that were left said, by number."""

    def __init__(self, message: str, others: dict[int, str]):
        super().__init__(message)
        self.others = others


class Place:
    """What a function that runs on a rank is given first.

    - rank, ranks: who this is, of how many; device: where its tensors belong.
    - state: kept between calls."""

    def __init__(self, rank: int, ranks: int, device: str):
        self.rank, self.ranks, self.device = rank, ranks, device
        self.state: dict[str, Any] = {}


class Ranks:
    """Processes that are started once and called many times; stop them with `stop`, or use it as a context manager.

    - threads: of torch in each. device: `cpu`, or `cuda` (rank r has GPU r).
    - timeout: seconds an exchange waits for a rank."""

    def __init__(self, ranks: int, *, threads: int = 1, device: str = "cpu", timeout: float = TIMEOUT):
        if ranks < 1:
            raise BadInput(f"{ranks} ranks cannot run anything: give one at least")
        if device not in ("cpu", "cuda"):
            raise BadInput(f"no device '{device}' for ranks: give cpu or cuda")
        self.ranks, self._folder = ranks, tempfile.TemporaryDirectory(prefix="intarsia-ranks-")
        context = _context()
        store = str(Path(self._folder.name) / "store")
        self._pipes: list[Connection] = []
        self._alarms: list[Connection] = []
        self._processes: list[Any] = []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            listening, alarm = context.Pipe(duplex=False)
            process = context.Process(
                target=_live, args=(rank, ranks, store, device, threads, timeout, theirs, listening), daemon=True
            )
            process.start()
            theirs.close()
            listening.close()
            self._pipes.append(ours)
            self._alarms.append(alarm)
            self._processes.append(process)
        try:
            self._collect("starting")
        except BaseException:
            self.stop()
            raise

    @property
    def pids(self) -> list[int]:
        """Process ids by rank."""
        return [process.pid for process in self._processes]

    def call(self, function: Callable[..., Any], *args: Any, each: Sequence[tuple] | None = None) -> list[Any]:
        """`function(place, *args)` on every rank at once; what each returns. `each`: further arguments by rank.

        Raises `BadInput` when that is what all ranks raise (they can be called again), else `RankFailure`: all ranks
        are stopped then."""
        if not self._processes:
            raise IntarsiaError("these ranks have been stopped: start new ones")
        for rank, pipe in enumerate(self._pipes):
            with contextlib.suppress(OSError):  # it died: _collect says so
                pipe.send((function, (*args, *(each[rank] if each is not None else ()))))
        return self._collect(f"running {getattr(function, '__name__', 'a call')}")

    def _collect(self, doing: str) -> list[Any]:
        answers: dict[int, tuple[str, Any]] = {}
        failed: tuple[int, str] | None = None
        until: float | None = None
        while len(answers) < self.ranks and (until is None or time.monotonic() < until):
            open_pipes = {self._pipes[r]: r for r in range(self.ranks) if r not in answers}
            for pipe in wait(list(open_pipes), timeout=0.2):
                rank = open_pipes[pipe]  # type: ignore[index]
                try:
                    answers[rank] = pipe.recv()  # type: ignore[union-attr]
                except (EOFError, OSError):
                    answers[rank] = ("died", self._end_of(rank))
                kind, said = answers[rank]
                # A connection that broke is a sequel; who died is the cause, whatever comes in first.
                if kind != "done" and (failed is None or (kind == "died" and answers[failed[0]][0] != "died")):
                    failed = (rank, said if kind == "died" else said[1])
                    until = until or time.monotonic() + GRACE
        kinds = {kind for kind, _ in answers.values()}
        if failed is None:
            return [answers[rank][1] for rank in range(self.ranks)]
        if kinds == {"error"} and len(answers) == self.ranks and all(said[0] for _, said in answers.values()):
            raise BadInput(failed[1])
        line = f"rank {failed[0]} of {self.ranks} {failed[1]}" if answers[failed[0]][0] == "died" else failed[1]
        if doing == "starting" and answers[failed[0]][0] == "died":
            line += "; a script that starts ranks does so under `if __name__ == '__main__':`"
        self._alarm(line)
        others = {r: said[1] for r, (kind, said) in answers.items() if kind == "error" and r != failed[0]}
        others |= {r: "was stopped: it did not come back" for r in range(self.ranks) if r not in answers}
        self.stop()
        raise RankFailure(f"{line} (while {doing}); all ranks were stopped", others)

    def _end_of(self, rank: int) -> str:
        process = self._processes[rank]
        process.join(GRACE)
        code = process.exitcode
        if code is not None and code < 0:
            return f"was killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"

    def _alarm(self, line: str) -> None:
        for alarm in self._alarms:
            with contextlib.suppress(OSError):
                alarm.send(line)

    def stop(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(GRACE)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in (*self._pipes, *self._alarms):
            pipe.close()
        self._pipes, self._alarms, self._processes = [], [], []
        self._folder.cleanup()

    def __enter__(self) -> Ranks:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def launch(function: Callable[..., Any], ranks: int, *args: Any, **settings: Any) -> list[Any]:
    """Start ranks, call `function(place, *args)` on all, stop them; what each returned. `settings` as for `Ranks`."""
    with Ranks(ranks, **settings) as running:
        return running.call(function, *args)


@contextlib.contextmanager
def joined(*, device: str = "cpu", threads: int = 1, timeout: float = TIMEOUT) -> Iterator[Place]:
    """Inside, this process is one of the ranks that `torchrun` started (RANK and WORLD_SIZE are in its environment).

    When another rank dies, an exchange raises `IntarsiaError`, at the latest after `timeout` seconds."""
    import torch
    import torch.distributed as dist

    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise BadInput("RANK and WORLD_SIZE are not set: start this with torchrun")
    torch.set_num_threads(threads)
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    where = _device(device, int(os.environ.get("LOCAL_RANK", rank)))
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(seconds=timeout))
    try:
        yield Place(rank, ranks, where)
    finally:
        dist.destroy_process_group()


def _context() -> Any:
    """Processes that come from a clean server with the libraries loaded; where there is none, from nothing."""
    if "forkserver" not in mp.get_all_start_methods():
        return mp.get_context("spawn")
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["torch.distributed", "transformers.modeling_utils", f"{__package__}.running"])
    return context


def _device(kind: str, rank: int) -> str:
    import torch

    if kind == "cpu":
        return "cpu"
    if not torch.cuda.is_available() or torch.cuda.device_count() <= rank:
        raise BadInput(f"rank {rank} wants a GPU of its own, there are {torch.cuda.device_count()}: use the cpu")
    torch.cuda.set_device(rank)
    return f"cuda:{rank}"


def _live(
    rank: int, ranks: int, store: str, device: str, threads: int, timeout: float, pipe: Connection, alarm: Connection
) -> None:
    """A rank's life: join the others, do what is called, until told to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    threading.Thread(target=_listen, args=(rank, alarm), daemon=True).start()
    try:
        place = _join(rank, ranks, store, device, threads, timeout)
    except Exception as error:
        pipe.send(("error", (isinstance(error, BadInput), f"rank {rank}: {first_line(error)}")))
        return
    pipe.send(("done", None))
    while True:
        try:
            told = pipe.recv()
        except (EOFError, OSError):
            os._exit(0)  # no parent, no work
        if told is None:
            os._exit(0)  # (without waiting for the others' connections)
        function, args = told
        try:
            pipe.send(("done", function(place, *args)))
        except BadInput as error:
            pipe.send(("error", (True, first_line(error, 600))))
        except Exception as error:
            line = first_line(error, 600)
            known = isinstance(error, IntarsiaError)
            line = line if known else f"rank {rank} failed: {type(error).__name__}: {line}"
            if os.environ.get("INTARSIA_DEBUG"):
                import traceback

                traceback.print_exc()
            pipe.send(("error", (False, line)))
            os._exit(1)  # the others must not wait for it


def _join(rank: int, ranks: int, store: str, device: str, threads: int, timeout: float) -> Place:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(threads)
    where = _device(device, rank)
    if ranks > 1:
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo", store=dist.FileStore(store, ranks), rank=rank, world_size=ranks,
            timeout=timedelta(seconds=timeout),
        )  # fmt: skip
        dist.barrier()  # all connections are there before the first exchange
    return Place(rank, ranks, where)


def _listen(rank: int, alarm: Connection) -> None:
    """Wait for the news that another rank is gone; end this process if it does not come back by itself."""
    try:
        line = alarm.recv()
    except (EOFError, OSError):
        os._exit(0)  # the parent is gone
    time.sleep(GRACE)
    print(f"rank {rank}: {line}", file=sys.stderr, flush=True)
    os._exit(1)
