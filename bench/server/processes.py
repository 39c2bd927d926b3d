"""Servers as processes of their own: ours, and the peer in both of its forms."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx2
import psutil

PATIENCE = 600.0  # seconds to come up, on a busy machine


@dataclass
class Running:
    """A server that answers. model: what to ask for; started: seconds from the command to the first answer."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    model: str
    started: float

    @property
    def memory(self) -> int:
        """Resident bytes, of the process and its children."""
        family = psutil.Process(self.process.pid)
        return sum(one.memory_info().rss for one in (family, *family.children(recursive=True)))

    def stop(self) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def commands(folder: Path, threads: int, batch: int, memory: int = 2048) -> dict[str, tuple[list[str], str]]:
    """The command line of each server, without its port, and the name of its model. memory: MB of keys and values."""
    tool = str(Path(sys.executable).parent / "transformers")
    ours = [sys.executable, "-m", "intarsia", "serve", str(folder), "--name", "m", "--threads", str(threads),
            "--max-batch", str(batch), "--memory", str(memory), "--no-mcp", "--no-keys"]  # fmt: skip
    peer = [tool, "serve", str(folder), "--device", "cpu", "--host", "127.0.0.1"]
    batching = [*peer, "--continuous-batching", "--attn-implementation", "sdpa"]
    return {
        "intarsia": (ours, "m"),
        "transformers": (peer, str(folder)),
        "transformers-batching": (batching, str(folder)),
    }


@contextlib.contextmanager
def running(name: str, command: Sequence[str], model: str, threads: int, log: Path) -> Iterator[Running]:
    """Start a server, and wait for its first answer. Raises `RuntimeError` with the end of what it said if it ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    url, begun = f"http://127.0.0.1:{port}", time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=out, stderr=out, env=env)
        try:
            _await(process, url, model, log, begun)
            yield Running(name, process, url, model, time.perf_counter() - begun)
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
            if process.poll() is None:
                process.kill()
                process.wait()


def _await(process: subprocess.Popen[bytes], url: str, model: str, log: Path, begun: float) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0}
    with httpx2.Client(timeout=PATIENCE, trust_env=False) as client:
        while time.perf_counter() - begun < PATIENCE:
            if process.poll() is not None:
                break
            try:
                answer = client.post(f"{url}/v1/chat/completions", json=body)
            except httpx2.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                return
            break
    raise RuntimeError(f"{url} did not come up:\n{log.read_text(errors='replace')[-2000:]}")
