"""What is lost when a server is told to end under load, and what it keeps of requests that are over."""

from __future__ import annotations

import signal
import threading
import time

import httpx2
import numpy as np

from bench.server.processes import Running


def lost(server: Running, clients: int, seconds: float, tokens: int) -> dict[str, int]:
    """Requests of clients that ask again and again while the server is told to end (it is over then): served; told to
    come again (503); refused before they were taken; lost: taken, and neither."""
    counts = {"served": 0, "told": 0, "refused": 0, "lost": 0}
    lock = threading.Lock()
    body = {"model": server.model, "messages": [{"role": "user", "content": "Tell me more."}], "max_tokens": tokens,
            "temperature": 0}  # fmt: skip

    def count(what: str) -> None:
        with lock:
            counts[what] += 1

    def ask(stream: bool) -> None:
        with httpx2.Client(timeout=600, trust_env=False) as client:
            while True:
                try:
                    answer = client.post(f"{server.url}/v1/chat/completions", json={**body, "stream": stream})
                except httpx2.ConnectError:
                    count("refused")
                    return
                except httpx2.TransportError:
                    count("lost")
                    return
                if answer.status_code == 503:
                    count("told")
                    return
                whole = answer.status_code == 200 and (not stream or answer.text.rstrip().endswith("[DONE]"))
                count("served" if whole else "lost")

    threads = [threading.Thread(target=ask, args=(i % 2 == 0,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    return counts


def growth(server: Running, requests: int, tokens: int = 1) -> tuple[float, float]:
    """Bytes of memory that a request leaves behind (the slope of a line through the second half of them), and all that
    was gained from the first to the last in MB."""
    sizes, at = [], []
    with httpx2.Client(timeout=600, trust_env=False) as client:
        for number in range(requests):
            body = {"model": server.model, "messages": [{"role": "user", "content": f"Hello {number}"}],
                    "max_tokens": tokens, "temperature": 0, "stream": number % 2 == 0}  # fmt: skip
            client.post(f"{server.url}/v1/chat/completions", json=body).raise_for_status()
            if number % max(1, requests // 40) == 0:
                sizes.append(server.memory)
                at.append(number)
    half = len(sizes) // 2
    slope = float(np.polyfit(at[half:], sizes[half:], 1)[0])
    return slope, (sizes[-1] - sizes[0]) / 1e6
