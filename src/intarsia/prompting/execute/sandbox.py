"""`run_code`: Python that a model wrote, in a process of its own that is kept from everything else."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from intarsia.errors import BadInput, IntarsiaError
from intarsia.prompting.execute.sandbox_child import REFUSED
from intarsia.prompting.execute.tools import Tool, tool

MEGABYTE = 2**20
_HOME = Path(__file__).parent
_KERNEL = _HOME / "sandbox_kernel.py"
_PART = 65_536
_CHANNEL_MOST = 4 * MEGABYTE


@dataclass(frozen=True)
class Isolation:
    """What kept the code, by name of what did it; empty: nothing did.

    - network: from other machines, and from sockets of this one. files: from reading and writing files outside its own
      folder, those of Python and of the system's libraries aside. processes: from beginning others, and from reaching
      those that run.

    What none of it keeps secret: the names of files outside, the machine's name and hardware, the time."""

    network: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    processes: tuple[str, ...] = ()

    @property
    def missing(self) -> str:
        """What was not kept from it, in words; empty where all was."""
        open_ = [name for name in ("network", "files", "processes") if not getattr(self, name)]
        return f"not isolated: {', '.join(open_)}" if open_ else ""


@dataclass(frozen=True)
class Ran:
    """What came of a piece of code.

    - stdout, stderr: what it wrote, each cut where it was longer than allowed. value: how Python shows its last
      expression; None where that is no expression or None. data: the same value where it is plain JSON.
    - files: those it made or changed, by path in its folder. left_out: those that are too large, or no plain files.
    - code: exit code; below 0: the signal that ended it. why: `ended`; `time`, `processor`, `disk`: it was stopped,
      since that was used up. seconds: of the clock."""

    stdout: str
    stderr: str
    value: str | None
    data: Any
    files: dict[str, bytes]
    left_out: tuple[str, ...]
    code: int
    why: Literal["ended", "time", "processor", "disk"]
    seconds: float
    isolation: Isolation

    def __str__(self) -> str:
        """For a model to read."""
        parts = [self.stdout.rstrip()] if self.stdout.strip() else []
        if self.value is not None:
            parts.append(f"value: {self.value}")
        if self.stderr.strip():
            parts.append(f"stderr:\n{self.stderr.rstrip()}")
        if self.why != "ended":
            limits = {"time": "its time was over", "processor": "it computed too long", "disk": "it wrote too much"}
            parts.append(f"stopped: {limits[self.why]}")
        elif self.code and not self.stderr.strip():
            parts.append(f"exit code {self.code}")
        if self.files:
            parts.append("files: " + ", ".join(f"{name} ({len(data)} bytes)" for name, data in self.files.items()))
        return "\n".join(parts) or "done, nothing to show"


@dataclass(frozen=True)
class Limits:
    """What code may use: seconds of the processor and of the clock; bytes of memory (address space), of one file, of
    all files together, and of each of its outputs; files open at a time."""

    processor: int = 5
    seconds: float = 10.0
    memory: int = 512 * MEGABYTE
    file: int = 8 * MEGABYTE
    disk: int = 32 * MEGABYTE
    output: int = 64_000
    open_files: int = 16


def run_code(
    code: str,
    *,
    files: Mapping[str, str | bytes] | None = None,
    limits: Limits = Limits(),
    packages: bool = False,
    unsafe: bool = False,
) -> Ran:
    """Run Python code: a process of its own, an empty environment, an empty folder, no network.

    - files: what lies in its folder at first, by relative path.
    - packages: whether it can import what is installed beside Python; they need more memory to load.
    - unsafe: run it also where nothing here keeps it from the network (then `Ran.isolation` says so).

    On Linux the network is kept away by bubblewrap where that is installed, else by a namespace and by seccomp, files
    by Landlock, other processes by seccomp; nothing of it needs rights. A kernel has holes, too: against an attacker
    with time, use a machine of its own.

    Nothing that it began is left, nor its folder. Raises `BadInput` where the network cannot be kept away and `unsafe`
    is not given, and for files that are not to lie in its folder."""
    if os.name != "posix":
        raise BadInput("code runs on Linux, and on other Unix systems with unsafe=True")
    with tempfile.TemporaryDirectory(prefix="intarsia-code-", ignore_cleanup_errors=True) as folder:
        place = Path(folder).resolve()
        try:
            before = _laid_out(place, files or {})
            return _run(code, place, before, limits, packages, unsafe)
        finally:
            _openable(place)


def code_tool(*, limits: Limits = Limits(), packages: bool = False, unsafe: bool = False, limit: int = 8000) -> Tool:
    """`run_code` as a tool that a model may call. What it gives back is untrusted."""

    def python(code: str) -> str:
        """Runs Python code in a fresh process without network, and gives what it prints and the value of its last line.

        - code: the whole program; nothing is kept from one call to the next
        """
        return str(run_code(code, limits=limits, packages=packages, unsafe=unsafe))

    return tool(timeout=limits.seconds + 10, limit=limit)(python)


def _run(
    code: str, folder: Path, before: dict[str, tuple[int, int]], limits: Limits, packages: bool, unsafe: bool
) -> Ran:
    readable = _readable(packages)
    source, sink = os.pipe()
    os.set_blocking(source, False)
    command = [sys.executable, "-I", "-B", *([] if packages else ["-S"]), str(_HOME / "sandbox_child.py")]
    wrapper = _bubblewrap()
    if wrapper:
        command = [*_wrapped(wrapper, folder, [*readable, str(_HOME)]), *command]
    settings = {
        "code": code, "folder": str(folder), "channel": sink, "kernel": str(_KERNEL), "readable": readable,
        "limits": [limits.processor, limits.memory, limits.open_files, limits.file], "unsafe": unsafe,
        "most": limits.output, "wrapped": bool(wrapper),
    }  # fmt: skip
    begun = time.monotonic()
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, env={},
            pass_fds=[sink], start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        os.close(source)
        raise IntarsiaError(f"Python cannot be started: {error.strerror}") from None
    finally:
        os.close(sink)
    try:
        with suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.write(json.dumps(settings).encode())
            process.stdin.close()
        out, err, told, why = _watched(process, source, folder, begun + limits.seconds, limits)
    finally:
        _ended(process)
        os.close(source)
    seconds = time.monotonic() - begun
    isolation, value, data = _said(told)
    code_ = process.returncode
    if wrapper and code_ - 128 in (signal.SIGXCPU, signal.SIGKILL):  # as bubblewrap tells of a signal
        code_ = 128 - code_
    if code_ == REFUSED and not isolation.network and not unsafe:
        raise BadInput(
            "nothing on this machine keeps code from the network (no bubblewrap, no user namespaces, no seccomp): "
            "install bubblewrap, or give unsafe=True if the code may reach it"
        )
    if why == "ended" and code_ in (-signal.SIGXCPU, -signal.SIGKILL):
        why = "processor"
    made, left_out = _made(folder, before, limits)
    return Ran(
        _cut(out, limits.output), _cut(err, limits.output), value, data, made, left_out, code_, why, seconds, isolation
    )


def _watched(
    process: subprocess.Popen[bytes], channel: int, folder: Path, until: float, limits: Limits
) -> tuple[bytes, bytes, bytes, Any]:
    """Read what it says until it ends or something is used up."""
    assert process.stdout is not None and process.stderr is not None
    most = {process.stdout.fileno(): limits.output, process.stderr.fileno(): limits.output, channel: _CHANNEL_MOST}
    heard = {at: bytearray() for at in most}
    with selectors.DefaultSelector() as selector:
        for at in most:
            selector.register(at, selectors.EVENT_READ)
        why, open_ = "ended", 2
        while open_ and why == "ended":
            if (left := until - time.monotonic()) <= 0:
                why = "time"
                break
            for key, _ in selector.select(min(left, 0.1)):
                part = os.read(key.fd, _PART)
                if not part:
                    selector.unregister(key.fd)
                    open_ -= key.fd != channel
                # One more than is kept, to know that it was cut; the rest is read and forgotten.
                room = most[key.fd] + 1 - len(heard[key.fd])
                heard[key.fd] += part[: max(0, room)]
            if _size(folder) > limits.disk:
                why = "disk"
        if why == "ended":
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                why = "time"
        _ended(process)
        with suppress(BlockingIOError):
            while channel in selector.get_map() and (part := os.read(channel, _PART)):
                heard[channel] += part[: max(0, _CHANNEL_MOST - len(heard[channel]))]
    out, err, told = (bytes(heard[at]) for at in most)
    return out, err, told, why


def _ended(process: subprocess.Popen[bytes]) -> None:
    """It, and whatever it began, is no more."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.poll() is None:
        process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()


def _said(told: bytes) -> tuple[Isolation, str | None, Any]:
    """What the process told of itself. The first line is from before the code ran; the rest may be anything."""
    isolation, value, data = Isolation(), None, None
    for number, line in enumerate(told.splitlines()[:3]):
        try:
            read = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if number == 0 and isinstance(read, dict) and isinstance(read.get("holds"), dict):
            isolation = Isolation(**{name: tuple(read["holds"].get(name, ())) for name in Isolation.__annotations__})
        elif isinstance(read, dict) and isinstance(read.get("value"), str):
            value = read["value"]
            data = read["data"][0] if isinstance(read.get("data"), list) and read["data"] else None
    return isolation, value, data


def _cut(data: bytes, most: int) -> str:
    text = data[:most].decode("utf-8", "replace")
    return text + (f"\n[cut after {most} bytes]" if len(data) > most else "")


@lru_cache(2)
def _readable(packages: bool) -> list[str]:
    """What Python needs to read: its own library, and the system's."""
    paths = sysconfig.get_paths()
    shared = sysconfig.get_config_var("LIBDIR") or ""
    mine = [paths["stdlib"], paths["platstdlib"], shared, sys.base_exec_prefix + "/lib"]
    if packages:
        mine += [paths["purelib"], paths["platlib"], sys.prefix + "/pyvenv.cfg"]
    system = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo"]
    devices = ["/dev/zero", "/dev/urandom", "/dev/random"]
    return [path for path in dict.fromkeys([*mine, *system, *devices]) if path and Path(path).exists()]


@lru_cache(1)
def _bubblewrap() -> str | None:
    """bubblewrap, where it is installed and the kernel lets it work."""
    found = shutil.which("bwrap")
    if found is None:
        return None
    try:
        tried = subprocess.run(
            [found, "--unshare-all", "--ro-bind", "/", "/", "true"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if tried.returncode == 0 else None


def _wrapped(bubblewrap: str, folder: Path, readable: list[str]) -> list[str]:
    """The command before the command: a file system with only what is to be seen, and nobody else on it."""
    python = {str(Path(sys.executable).parent), str(Path(sys.executable).resolve().parent)}
    seen = dict.fromkeys([*readable, *sorted(python)])
    binds = [part for path in seen if not path.startswith("/dev/") for part in ("--ro-bind", path, path)]
    alone = ["--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    own = ["--dev", "/dev", "--bind", str(folder), str(folder), "--chdir", str(folder)]
    return [bubblewrap, *alone, *binds, *own, "--"]


def _laid_out(folder: Path, files: Mapping[str, str | bytes]) -> dict[str, tuple[int, int]]:
    """Write the files that are to be there; gives their sizes and times."""
    for name, content in files.items():
        path = folder / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise BadInput(f"'{name}' is no path in the folder of the code: give a relative one, without ..")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return {name: (path.stat().st_size, path.stat().st_mtime_ns) for name in files if (path := folder / name)}


def _walk(folder: Path) -> list[tuple[str, os.stat_result]]:
    """What lies in a folder, without following links out of it."""
    found = []
    for at, _, names in os.walk(folder, followlinks=False):
        for name in names:
            path = Path(at) / name
            with suppress(OSError):
                found.append((str(path.relative_to(folder)), path.lstat()))
    return sorted(found)


def _size(folder: Path) -> int:
    return sum(facts.st_size for _, facts in _walk(folder))


def _made(folder: Path, before: dict[str, tuple[int, int]], limits: Limits) -> tuple[dict[str, bytes], tuple[str, ...]]:
    made, left_out, total = {}, [], 0
    _openable(folder)
    for name, facts in _walk(folder):
        if before.get(name) == (facts.st_size, facts.st_mtime_ns):
            continue
        # A link, a pipe, a file that has another name elsewhere: none of it is read.
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink != 1 or total + facts.st_size > limits.file:
            left_out.append(name)
            continue
        try:
            at = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(at, "rb") as file:
                made[name] = file.read(limits.file)
            total += facts.st_size
        except OSError:
            left_out.append(name)
    return made, tuple(left_out)


def _openable(folder: Path) -> None:
    """Give back the rights that the code took from its folders, so that they can be read and removed."""
    for at, names, _ in os.walk(folder, followlinks=False):
        for name in names:
            path = Path(at) / name
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)
