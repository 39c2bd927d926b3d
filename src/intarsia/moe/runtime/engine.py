"""`Engine`: a model split over processes on this machine, used from here like one that is not.

The parent does not compute: a thread in it takes new requests, has the ranks run step after step, and hands out the
tokens. Requests join and leave between steps."""

from __future__ import annotations

import itertools
import queue
import tempfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from intarsia.errors import BadInput, IntarsiaError, Note, first_line
from intarsia.models import folders
from intarsia.moe.placement.placement import Placement, contiguous
from intarsia.moe.runtime import commands
from intarsia.moe.runtime.commands import Kept
from intarsia.moe.runtime.costmodel import Choice, Link, calibrate, choose
from intarsia.moe.runtime.processes import TIMEOUT, Ranks
from intarsia.moe.runtime.request import Request, Token
from intarsia.moe.runtime.running import Mode
from intarsia.moe.runtime.shard import shape_of

if TYPE_CHECKING:
    from intarsia.models import Model


@dataclass(frozen=True)
class Chunk:
    """A token as it was made: its id, the text that it adds ("" while a character is not whole), whether it is the
    last."""

    token: int
    text: str
    last: bool


@dataclass(frozen=True)
class Completion:
    """A request's new tokens, and their text (None without a tokenizer)."""

    tokens: tuple[int, ...]
    text: str | None


class Stream:
    """The tokens of one request, as they come: iterate over it, or wait for all with `result`."""

    def __init__(self, engine: Engine, request: Request):
        self.request, self._engine = request, engine
        self._queue: queue.SimpleQueue[Token | IntarsiaError] = queue.SimpleQueue()
        self._tokens: list[int] = []
        self._said = ""
        self._over = False

    def __iter__(self) -> Iterator[Chunk]:
        while not self._over:
            got = self._queue.get()
            if isinstance(got, IntarsiaError):
                self._over = True
                raise got
            self._tokens.append(got.token)
            self._over = got.last
            yield Chunk(got.token, self._text(got.last), got.last)

    def _text(self, last: bool) -> str:
        tokenizer = self._engine.tokenizer
        if tokenizer is None:
            return ""
        whole = tokenizer.decode(self._tokens, skip_special_tokens=True)
        if whole.endswith("\ufffd") and not last:
            return ""
        new, self._said = whole[len(self._said) :], whole
        return new

    def result(self) -> Completion:
        """All of it, once it is there."""
        for _ in self:
            pass
        tokenizer = self._engine.tokenizer
        text = None if tokenizer is None else tokenizer.decode(self._tokens, skip_special_tokens=True)
        return Completion(tuple(self._tokens), text)

    def cancel(self) -> None:
        """Make no more tokens."""
        self._engine._cancel(self.request.id)


class Engine:
    """Ranks with a model on them. Start one with `Engine.start`; stop it, or use it as a context manager.

    - placement, mode: as it runs; choice: why that mode, where it was `auto`.
    - tokenizer: the model's, or None."""

    def __init__(self, ranks: Ranks, placement: Placement, mode: Mode, tokenizer: Any, stop: tuple[int, ...]):
        self.placement, self.mode, self.tokenizer, self.stop_tokens = placement, mode, tokenizer, stop
        self.choice: Choice | None = None
        self.facts: dict[str, Any] = {}
        self._ranks = ranks
        self._numbers = itertools.count()
        self._streams: dict[int, Stream] = {}
        self._new: list[Request] = []
        self._gone: list[int] = []
        self._asked: list[tuple[Any, tuple, queue.SimpleQueue[Any]]] = []
        self._wake = threading.Condition()
        self._error: IntarsiaError | None = None
        self._ending = False
        self._thread = threading.Thread(target=self._drive, name="intarsia-moe", daemon=True)

    @classmethod
    def start(
        cls,
        model: str | Path | Model,
        placement: Placement | None = None,
        *,
        ranks: int | None = None,
        mode: Mode | Literal["auto"] = "auto",
        deterministic: bool = False,
        free_first_hop: bool = False,
        dtype: Any = None,
        device: str = "cpu",
        link: Link | None = None,
        delay: float = 0.0,
        batch: int = 16,
        routing: tuple[Any, Any] | None = None,
        seed: int = 0,
        record: bool = False,
        keep_logits: bool = False,
        threads: int = 1,
        timeout: float = TIMEOUT,
    ) -> Engine:
        """Start processes and load into each what it holds.

        - model: a folder with safetensors, or a `Model` in memory. placement: None: contiguous on `ranks` (2).
        - mode: `auto`: what the cost model picks for `batch` requests at a time, on `link` (None: measured here), with
          `routing` as for `choose` (None: at random).
        - link: also says up to what size counts and rows travel together.
        - delay: seconds to wait before each exchange, to play a slower link.
        - dtype: None: float32; "auto": as the weights are kept. The other settings are `Runtime`'s and `Ranks`'.

        Raises `BadInput` where model, placement and ranks do not go together."""
        with tempfile.TemporaryDirectory(prefix="intarsia-moe-") as scratch:
            if isinstance(model, (str, Path)):
                folder = Path(model).expanduser()
                tokenizer = folders.load_tokenizer(folder) if folder.is_dir() else None
            else:
                folder, tokenizer = Path(scratch), model.tokenizer
                model.network.save_pretrained(folder)
                dtype = "auto" if dtype is None else dtype
            layers, experts = shape_of(folder)
            if placement is None:
                count = ranks if ranks is not None else 2
                if count < 1:
                    raise BadInput(f"{count} ranks cannot run anything: give one at least")
                if count > experts:
                    raise BadInput(f"{count} ranks for layers of {experts} experts: some would hold none")
                placement = Placement(contiguous(layers, experts, count), count)
            elif ranks is not None and ranks != placement.devices:
                raise BadInput(f"the placement is on {placement.devices} devices, {ranks} ranks were asked for")
            started = Ranks(placement.devices, threads=threads, device=device, timeout=timeout)
            try:
                first: Mode = "vanilla" if mode == "auto" else mode
                settings = dict(
                    mode=first, deterministic=deterministic, free_first_hop=free_first_hop, seed=seed, record=record,
                    keep_logits=keep_logits,
                )  # fmt: skip
                wire = dict(delay=delay, **({"fuse_bytes": link.fuse_bytes} if link is not None else {}))
                facts = started.call(commands.start, str(folder), placement, dtype, settings, wire)[0]
                engine = cls(started, placement, first, tokenizer, _stops(folder))
                engine.facts = facts
                if placement.router_sha256 and placement.router_sha256 != facts["router_sha256"]:
                    warnings.warn(
                        Note("the placement was made for other router weights: it runs, and may fit badly"),
                        stacklevel=2,
                    )
                if mode == "auto" and placement.devices > 1:
                    found = link or calibrate(started)
                    engine.choice = choose(placement, facts["sizes"], found, k=facts["k"], batch=batch, routing=routing)
                    engine.mode = engine.choice.mode
                    started.call(commands.use, engine.mode, False, found.fuse_bytes)
            except BaseException:
                started.stop()
                raise
        engine._thread.start()
        return engine

    # ---- requests

    def submit(
        self,
        prompt: str | Sequence[int],
        max_new_tokens: int = 64,
        *,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        stop: Sequence[int] | None = None,
        home: int | None = None,
    ) -> Stream:
        """Queue a prompt, text or token ids; its tokens come through the stream. Any thread may call.

        - stop: token ids that end it; None: the model's own. The other settings are `Request`'s.

        Raises `BadInput` for a prompt that cannot be run, `IntarsiaError` when the ranks are gone."""
        ids = self.token_ids(prompt)
        ends = self.stop_tokens if stop is None else tuple(stop)
        with self._wake:
            self._alive()
            number = next(self._numbers)
            request = Request(number, ids, max_new_tokens, temperature, top_k, top_p, ends, home)
            request.check(self.facts["vocabulary"], self.facts["positions"], self._ranks.ranks)
            stream = self._streams[number] = Stream(self, request)
            self._new.append(request)
            self._wake.notify()
        return stream

    def generate(
        self, prompts: Sequence[str | Sequence[int]], max_new_tokens: int = 64, **settings: Any
    ) -> list[Completion]:
        """All prompts together; `settings` as for `submit`."""
        return [stream.result() for stream in self.submit_all(prompts, max_new_tokens, **settings)]

    def submit_all(
        self, prompts: Sequence[str | Sequence[int]], max_new_tokens: int = 64, **settings: Any
    ) -> list[Stream]:
        """Queue prompts that are to start in the same step; `settings` as for `submit`."""
        with self._wake:  # the driver waits until all are there
            return [self.submit(prompt, max_new_tokens, **settings) for prompt in prompts]

    def use(self, mode: Mode, free_first_hop: bool = False) -> None:
        """Go on in another mode, all counts begun anew. Raises `BadInput` while requests are running."""
        self._ask(commands.use, mode, free_first_hop)
        self.mode = mode

    def report(self) -> list[dict[str, Any]]:
        """By rank: memory of experts, of what is replicated, of the process and of contexts; traffic so far."""
        return self._ask(commands.report)

    def kept(self) -> list[Kept]:
        """What each rank kept since `use`."""
        return self._ask(commands.kept)

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._error is None and not self._ending

    def stop(self) -> None:
        """End the ranks. What is still running gets an error."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()
        self._ranks.stop()
        self._fail(IntarsiaError("the engine was stopped"))

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ---- the thread that drives the ranks

    def _drive(self) -> None:
        active = 0
        while True:
            with self._wake:
                while not (active or self._new or self._gone or self._asked or self._ending):
                    self._wake.wait()
                if self._ending:
                    return
                new, gone, asked = self._new, self._gone, self._asked
                self._new, self._gone, self._asked = [], [], []
            try:
                for function, args, answer in asked:
                    answer.put(self._answered(function, args))
                if gone:
                    active = self._ranks.call(commands.cancel, gone)[0]
                if new:
                    active = self._hand_out(self._ranks.call(commands.admit, new)[0])
                if active:
                    active = self._hand_out(self._ranks.call(commands.step)[0])
            except Exception as error:
                known = isinstance(error, IntarsiaError)
                failure = error if known else IntarsiaError(f"the engine failed: {first_line(error)}")
                self._fail(failure)  # type: ignore[arg-type]
                for _, _, answer in asked:
                    answer.put(failure)
                return

    def _answered(self, function: Any, args: tuple) -> Any:
        try:
            return self._ranks.call(function, *args)
        except BadInput as error:
            return error

    def _hand_out(self, made: tuple[list[Token], int]) -> int:
        tokens, active = made
        for token in tokens:
            with self._wake:
                stream = self._streams.pop(token.request, None) if token.last else self._streams.get(token.request)
            if stream is not None:
                stream._queue.put(token)
        return active

    def _fail(self, error: IntarsiaError) -> None:
        with self._wake:
            self._error = self._error or error
            streams, self._streams = list(self._streams.values()), {}
            asked, self._asked = self._asked, []
        for stream in streams:
            stream._queue.put(self._error)
        for _, _, answer in asked:
            answer.put(self._error)

    def _alive(self) -> None:
        if self._error is not None:
            raise IntarsiaError(str(self._error))
        if self._ending:
            raise IntarsiaError("the engine was stopped")

    def _ask(self, function: Any, *args: Any) -> Any:
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with self._wake:
            self._alive()
            self._asked.append((function, args, answer))
            self._wake.notify()
        got = answer.get()
        if isinstance(got, IntarsiaError):
            raise got
        return got

    def _cancel(self, request: int) -> None:
        with self._wake:
            stream = self._streams.pop(request, None)
            self._new = [one for one in self._new if one.id != request]
            self._gone.append(request)
            self._wake.notify()
        if stream is not None:
            stream._queue.put(IntarsiaError(f"request {request} was cancelled"))

    def token_ids(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """A prompt as token ids. Raises `BadInput` for text where there is no tokenizer."""
        if not isinstance(prompt, str):
            return tuple(int(token) for token in prompt)
        if self.tokenizer is None:
            raise BadInput("this model has no tokenizer: give prompts as token ids")
        return tuple(self.tokenizer(prompt)["input_ids"])


def _stops(folder: Path) -> tuple[int, ...]:
    """The token ids that end a text, by the folder's generation settings, else its config."""
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            import json

            stop = json.loads((folder / name).read_text("utf-8")).get("eos_token_id")
            if stop is not None:
                return (stop,) if isinstance(stop, int) else tuple(stop)
    return ()
