"""Work that takes longer than a client waits: begun with 202, looked at under `/v1/jobs/{id}`, cancelled by DELETE.

One job at a time: each uses all cores."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from intarsia.progress import Event, listening
from intarsia.server.errors import ApiError, Stopping, as_api_error, body_of
from intarsia.server.openai.answers import ERRORS
from intarsia.server.serving import CALLER, Serving

KEPT = 200  # jobs that are over; of more, the oldest are forgotten
BEAT = 10.0  # seconds that a server which ends waits for a job's next beat
WAITING = 32  # jobs that have not begun
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Cancelled(BaseException):
    """Raised inside a job at its next beat of progress once it was cancelled; nothing in between may take it for an
    error of its own."""


@dataclass
class Job:
    """kind: what it does; owner: the key that began it. done, total, task: its progress, as `intarsia.progress` tells.
    after: called once it is over, however it ended."""

    kind: str
    work: Callable[[], Any]
    owner: str = ""
    id: str = field(default_factory=lambda: f"job_{secrets.token_urlsafe(12)}")
    state: State = "queued"
    made: float = field(default_factory=time.time)
    seconds: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    result: Any = None
    error: dict[str, Any] | None = None
    cancel: threading.Event = field(default_factory=threading.Event)
    after: Callable[[], None] = lambda: None

    def row(self) -> dict[str, Any]:
        """What is told of it."""
        out = {"id": self.id, "object": "job", "kind": self.kind, "status": self.state, "created": int(self.made)}
        more = {"progress": self.progress, "seconds": self.seconds, "result": self.result, "error": self.error}
        return {**out, **{name: value for name, value in more.items() if value not in (None, {})}}

    def hear(self, event: Event) -> None:
        """A beat of progress, from the job's thread."""
        if self.cancel.is_set():
            raise Cancelled
        self.progress = {"task": event.task, "done": event.done, "total": event.total, **event.facts}


class Jobs:
    """Jobs of a server, one after the other in a thread."""

    def __init__(self) -> None:
        self.all: OrderedDict[str, Job] = OrderedDict()
        self._queue: asyncio.Queue[Job] = asyncio.Queue()
        self._ending = False
        self._now: Job | None = None

    def begin(
        self, kind: str, work: Callable[[], Any], owner: str = "", after: Callable[[], None] = lambda: None
    ) -> Job:
        """Queue work. Raises `ApiError` (503) where too much waits already."""
        if self._ending:
            raise Stopping
        if self._queue.qsize() >= WAITING:
            raise ApiError(503, f"{WAITING} jobs wait already: try again later", headers={"retry-after": "10"})
        job = Job(kind, work, owner, after=after)
        self.all[job.id] = job
        over = [one for one in self.all.values() if one.state not in ("queued", "running")]
        for old in over[: max(0, len(over) - KEPT)]:
            del self.all[old.id]
        self._queue.put_nowait(job)
        return job

    def find(self, id: str, owner: str) -> Job:
        """A job of one's own. Raises `ApiError` (404)."""
        job = self.all.get(id)
        if job is None or job.owner != owner:
            raise ApiError(404, "no such job: it was never begun, is another's, or is long over")
        return job

    async def _run(self, job: Job) -> None:
        try:
            if job.cancel.is_set():
                job.state = "cancelled"
            else:
                await self._work(job)
        finally:
            job.after()

    async def _work(self, job: Job) -> None:
        job.state, begun = "running", time.perf_counter()

        def worked() -> Any:
            with listening(job.hear):
                return job.work()

        try:
            job.result = await asyncio.to_thread(worked)
            job.state = "succeeded"
        except Cancelled:
            job.state = "cancelled"
        except Exception as error:
            job.state, job.error = "failed", body_of(as_api_error(error))["error"]
        job.seconds = round(time.perf_counter() - begun, 3)

    @contextlib.asynccontextmanager
    async def part(self) -> AsyncIterator[None]:
        """Work off what is queued while the server runs; at its end, what runs is cancelled at its next beat."""

        async def often() -> None:
            while True:
                self._now = await self._queue.get()
                await self._run(self._now)
                self._now = None

        task = asyncio.ensure_future(often())
        try:
            yield
        finally:
            self._ending = True
            for job in self.all.values():
                job.cancel.set()
            until = time.monotonic() + BEAT
            while self._now is not None and time.monotonic() < until:
                await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            while not self._queue.empty():
                self._queue.get_nowait().after()


def owner_of(request: Request) -> str:
    """The key's name; "" where there are no keys."""
    caller = request.scope.get(CALLER)
    return caller.name if caller is not None else ""


def begun(
    jobs: Jobs, request: Request, kind: str, work: Callable[[], Any], after: Callable[[], None] = lambda: None
) -> JSONResponse:
    """Begin a job, and tell where it can be looked at. after: called once it is over."""
    job = jobs.begin(kind, work, owner_of(request), after)
    return JSONResponse(job.row(), 202, headers={"location": f"/v1/jobs/{job.id}"})


def add(api: FastAPI, serving: Serving) -> Jobs:
    """Add the routes; the jobs are given."""
    jobs = Jobs()
    serving.parts.append(jobs.part)

    @api.get("/v1/jobs", responses=ERRORS, tags=["jobs"])
    async def listed(request: Request) -> dict[str, Any]:
        """Jobs that this key has begun, without their results."""
        own = [job for job in jobs.all.values() if job.owner == owner_of(request)]
        return {"object": "list", "data": [{k: v for k, v in job.row().items() if k != "result"} for job in own]}

    @api.get("/v1/jobs/{id}", responses=ERRORS, tags=["jobs"])
    async def job(id: str, request: Request) -> dict[str, Any]:
        """How far a job is; when it is over, what it gave."""
        return jobs.find(id, owner_of(request)).row()

    @api.delete("/v1/jobs/{id}", responses=ERRORS, tags=["jobs"])
    async def cancel(id: str, request: Request) -> dict[str, Any]:
        """Cancel a job; one that runs ends at its next beat of progress."""
        found = jobs.find(id, owner_of(request))
        found.cancel.set()
        if found.state == "queued":
            found.state = "cancelled"
        return found.row()

    return jobs
