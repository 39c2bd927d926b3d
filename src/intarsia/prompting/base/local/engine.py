"""The engine: one thread that works on many answers and scores at once. They join and leave between two forwards.

Source: Yu et al. 2022, "Orca", §3 (iteration-level scheduling); Agrawal et al. 2024, "Sarathi-Serve", §4 (prompts in
chunks, so that answers under way go on)."""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future
from typing import Any

from intarsia.errors import IntarsiaError, first_line
from intarsia.prompting.base.errors import BackendError
from intarsia.prompting.base.local.answer import Answer, common
from intarsia.prompting.base.local.grouping import grouped
from intarsia.prompting.base.local.runner import Runner, Work
from intarsia.prompting.base.local.scoring import Scoring

ALONE, BESIDE = 512, 128  # tokens of prompts in a forward: with no answer waiting for its next token, and with some
FORWARD = 16  # tokens that take about as long as a forward does anyway (reading the weights)
WAITING = 64  # tokens of a beginning that are worth waiting for, where another request computes them already

COUNTS = (
    "requests", "failed", "cancelled", "prompt_tokens", "cached_tokens", "prefilled_tokens", "decoded_tokens",
    "forced_tokens", "forwards",
)  # fmt: skip

Job = Callable[[Any], Generator[None, None, Any]]
_AT_WORK: weakref.WeakSet[Engine] = weakref.WeakSet()


@atexit.register
def _halt_all() -> None:
    # A thread that is inside torch while the interpreter ends aborts the process.
    for engine in list(_AT_WORK):
        engine.halt(10)


Request = Answer | Scoring


class Engine:
    """Answers and scores under way over one runner (None: jobs alone).

    - name: of the model, for errors. threads: CPU threads; None: torch's own choice.
    - waiting: requests that may wait for a place; more are refused.
    - lock: held during every forward; who takes it may use the network meanwhile."""

    def __init__(self, runner: Runner | None, name: str, *, threads: int | None = None, waiting: int = 256):
        self.runner, self.name, self.threads, self.limit = runner, name, threads, waiting
        self.lock = threading.Lock()
        self._arrived = threading.Condition()
        self._waiting: deque[Request] = deque()
        self._jobs: deque[tuple[Job, Future[Any]]] = deque()
        self._job: tuple[Generator[None, None, Any], Future[Any]] | None = None
        self._active: list[Request] = []
        self._posts: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Any], Any]]] = {}
        self._thread: threading.Thread | None = None
        self._closing = self._halted = False
        self._counts = dict.fromkeys(COUNTS, 0)

    def submit(self, answer: Request) -> None:
        """Work on an answer, or on scores. Raises `BackendError` where too many wait, or the engine was closed."""
        with self._arrived:
            self._check_open()
            if len(self._waiting) >= self.limit:
                raise BackendError(
                    f"{self.name}: {len(self._waiting)} requests wait already; try again in a moment",
                    retryable=True, after=1.0, status=503,
                )  # fmt: skip
            self._waiting.append(answer)
            self._wake()

    def do(self, job: Job, *, now: bool = True) -> Future[Any]:
        """Run a job between forwards. It is given the runner; each `yield` lets answers go on; what it returns is the
        future's result. now: else it is begun after the first forward of the next request."""
        future: Future[Any] = Future()
        with self._arrived:
            self._check_open()
            self._jobs.append((job, future))
            if now:
                self._wake()
        return future

    def poster(self, loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[Any]) -> Callable[[Any], None]:
        """Something that puts what it is given into a queue of a loop, once the step is over: all of it at once."""

        def post(item: Any) -> None:
            self._posts.setdefault(loop, []).append((queue, item))

        return post

    def statistics(self) -> dict[str, float]:
        """running, waiting: requests now. kv_bytes: keys and values now. The others are sums since the start."""
        kept = self.runner.bytes if self.runner is not None else 0
        return {"running": len(self._active), "waiting": len(self._waiting), "kv_bytes": kept, **self._counts}

    def close(self) -> None:
        """Take no more requests, and wait until those that are here have ended."""
        with self._arrived:
            self._closing = True
            self._arrived.notify()
        if self._thread is not None:
            self._thread.join()

    def halt(self, seconds: float) -> None:
        """End after the step that is under way, whoever waits, and wait so long for that."""
        with self._arrived:
            self._closing = self._halted = True
            self._arrived.notify()
        if self._thread is not None:
            self._thread.join(seconds)

    def _check_open(self) -> None:
        if self._closing:
            raise BackendError(f"{self.name} was closed", retryable=False, status=503)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"intarsia {self.name}", daemon=True)
            self._thread.start()
            _AT_WORK.add(self)
        self._arrived.notify()

    def _work(self) -> None:
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            while True:
                with self._arrived:
                    while not (busy := self._waiting or self._active or self._jobs or self._job) and not self._closing:
                        self._arrived.wait()
                    if self._halted or not busy:
                        return
                with self.lock:
                    try:
                        self._step()
                    except Exception as error:
                        self._collapse(error)
                self._send()

    def _collapse(self, error: Exception) -> None:
        """Something went wrong outside a forward: nobody who is here is left waiting, and all is begun afresh."""
        answers, self._active = self._active, []
        for answer in answers:
            self._fail(answer, error)
        job, self._job = self._job, None
        if job is not None:
            job[1].set_exception(self._told(error))
        if self.runner is not None:
            self.runner.reset()

    def _told(self, error: Exception) -> IntarsiaError:
        if isinstance(error, IntarsiaError):
            return error
        return BackendError(f"{self.name} failed at this request: {first_line(error)}")

    def _step(self) -> None:
        self._leave()
        self._admit()
        if self._active:
            self._advance()
        self._work_on_job()

    def _leave(self) -> None:
        for answer in [a for a in self._active if a.cancelled]:
            self._counts["cancelled"] += 1
            self._remove(answer)

    def _remove(self, answer: Request, keep: bool = True) -> None:
        self._active.remove(answer)
        if keep:
            self.runner.keep(answer.row, answer.ids[: answer.known])
        self.runner.close(answer.row)

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self.runner.rows:
            answer = self._waiting[0]
            if answer.cancelled:
                self._waiting.popleft()
                self._counts["cancelled"] += 1
                continue
            if self._active and not (self._fits(answer) and self._worth_beginning(answer)):
                return
            self._waiting.popleft()
            self._begin(answer)

    def _begin(self, answer: Request) -> None:
        self._counts["requests"] += 1
        try:
            answer.begin()
            if answer.finish is None:
                answer.row, answer.known = self.runner.open(answer.ids, answer.room, answer.adapter)
                answer.cached = min(answer.known, answer.prompt)
        except Exception as error:
            self._fail(answer, error)
            return
        self._counts["prompt_tokens"] += answer.prompt
        self._counts["cached_tokens"] += answer.cached
        if answer.finish is None:
            self._active.append(answer)

    def _fits(self, answer: Request) -> bool:
        """Whether memory is there for one more: all slots are as long as the longest."""
        if self.runner.most is None:
            return True
        longest = max(len(a.ids) + a.room for a in (*self._active, answer))
        return (len(self._active) + 1) * longest <= self.runner.most

    def _worth_beginning(self, answer: Request) -> bool:
        """Whether no other answer is about to compute a beginning that both have."""
        for other in self._active:
            if other.known < other.prompt - 1 and other.adapter == answer.adapter:
                shared = common(answer.ids, other.ids[: other.prompt - 1])
                if shared >= WAITING and shared > other.known:
                    return False
        return True

    def _advance(self) -> None:
        answers = [a for a in self._active if isinstance(a, Answer)]
        scorings = [a for a in self._active if isinstance(a, Scoring)]
        if answers:
            self._go_on(answers)
        if scorings:
            self._score(scorings, busy=bool(answers))

    def _go_on(self, answers: Sequence[Answer]) -> None:
        """Read some of the prompts, and choose a token of each answer whose prompt is read."""
        ready = [a for a in answers if a.pending == 1]
        unread = [a for a in answers if a.pending > 1]
        group, width = grouped(unread, BESIDE if ready else ALONE, lambda a: a.pending)
        if group:
            whole = all(a.pending <= width for a in group)
            both = len(ready) + len(group)
            if whole and both * width <= len(group) * (width - 1) + both + FORWARD:
                self._choose(ready + group)
                return
            self._read(group, width)
            ready += [a for a in group if a.finish is None and a.pending == 1]
        if ready:
            self._choose(ready)

    def _score(self, scorings: Sequence[Scoring], busy: bool) -> None:
        """Read some of the prompts, each with the texts behind it where all that is left of it fits."""
        group, width = grouped(scorings, BESIDE if busy else ALONE, lambda s: s.pending + len(s.tree))
        if group[0].pending > width:  # one that is longer than a forward is alone
            self._read(group, width)
            return
        trees = [scoring.tree for scoring in group]
        work = [Work(s.row, s.ids[s.known :], s.known) for s in group]
        found = self._run(group, lambda: self.runner.branch(work, trees))
        if found is None:
            return
        for scoring, tree, logits in zip(group, trees, found, strict=True):
            self._counts["prefilled_tokens"] += scoring.pending + len(tree)
            self.runner.keep(scoring.row, scoring.ids)
            try:
                scoring.take(logits)
            except Exception as error:
                self._fail(scoring, error)
            if scoring.finish is not None and scoring in self._active:
                self._remove(scoring)

    def _read(self, group: Sequence[Request], width: int) -> None:
        """Compute prompts, their last tokens left out: those are run where the next is chosen."""
        counts = [min(a.pending - 1, width) for a in group]
        work = [Work(a.row, a.ids[a.known : a.known + n], a.known) for a, n in zip(group, counts, strict=True)]
        if self._run(group, lambda: self.runner.run(work)) is None:
            return
        for answer, count in zip(group, counts, strict=True):
            answer.known += count
            self._counts["prefilled_tokens"] += count
            self.runner.keep(answer.row, answer.ids[: answer.known])

    def _choose(self, answers: Sequence[Answer]) -> None:
        """Compute what is left of some answers, and choose the next token of each."""
        from intarsia.prompting.base.local.choosing import choose

        work = [Work(a.row, a.ids[a.known :], a.known) for a in answers]
        logits = self._run(answers, lambda: self.runner.run(work))
        if logits is None:
            return
        for answer in answers:
            self._counts["prefilled_tokens"] += answer.pending - 1
            self._counts["decoded_tokens"] += 1
            read, answer.known = answer.known, len(answer.ids)
            if read < answer.prompt - 1:  # another prompt may begin alike, and come before this answer ends
                self.runner.keep(answer.row, answer.ids[: answer.known])
        likelihoods, draws = [], []
        for answer, row in zip(answers, logits, strict=True):
            likelihoods.append(answer.likelihood(row))
            draws.append(answer.draw())
            try:
                answer.shape(row)
            except Exception as error:
                self._fail(answer, error)
        for answer, token, likelihood in zip(answers, choose(logits, draws), likelihoods, strict=True):
            if answer.finish is None:
                try:
                    answer.take(token, likelihood)
                except Exception as error:
                    self._fail(answer, error)
            if answer.finish is not None and answer in self._active:
                self._counts["forced_tokens"] += answer.forced
                self._remove(answer)

    def _run(self, answers: Sequence[Request], forward: Callable[[], Any]) -> Any:
        """What a forward gives; None where it failed, and so did they."""
        self._counts["forwards"] += 1
        try:
            return forward()
        except Exception as error:
            for answer in answers:
                self._fail(answer, error)
            return None

    def _fail(self, answer: Request, error: Exception) -> None:
        self._counts["failed"] += 1
        answer.fail(self._told(error))
        if answer in self._active:
            self._remove(answer, keep=False)

    def _work_on_job(self) -> None:
        if self._job is None:
            with self._arrived:
                if not self._jobs:
                    return
                make, future = self._jobs.popleft()
            if not future.set_running_or_notify_cancel():
                return
            self._job = make(self.runner), future
        job, future = self._job
        try:
            next(job)
        except StopIteration as end:
            self._job = None
            future.set_result(end.value)
        except Exception as error:
            self._job = None
            future.set_exception(self._told(error))

    def _send(self) -> None:
        posts, self._posts = self._posts, {}
        for loop, items in posts.items():
            try:
                loop.call_soon_threadsafe(_hand_on, items)
            except RuntimeError:  # that loop has ended: nobody waits there
                continue


def _hand_on(items: Sequence[tuple[asyncio.Queue[Any], Any]]) -> None:
    for queue, item in items:
        queue.put_nowait(item)
