"""`intarsia serve` as a process of its own: a folder, its adapter, keys, log, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import openai
import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from intarsia.server.keys import Keys
from tests.server_help import until
from tests.tiny import tiny

ASK = [{"role": "user", "content": "Hello"}]


@contextmanager
def serving(*words: str, cache: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "INTARSIA_CACHE": str(cache), "INTARSIA_KEYS": str(cache / "none")}
    command = [sys.executable, "-m", "intarsia", "serve", *words, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        line = process.stdout.readline()
        assert "serving " in line, process.stderr.read()
        yield process, line.split("OpenAI's API: ")[1].split("/v1")[0]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, str, str]:
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def adapter(folder: Path) -> Path:
    peft = pytest.importorskip("peft", reason="the extra 'adapt' is not installed")
    import torch

    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    peft.get_peft_model(tiny("llama").network, config).save_pretrained(folder)
    return folder


def said(client: openai.OpenAI, models: Sequence[str]) -> list[list[float]]:
    """Log probabilities of each model's answer, to four places: layers are packed while the first answers are made."""
    answers = [
        client.chat.completions.create(model=m, messages=ASK, max_tokens=12, temperature=0, logprobs=True)
        for m in models
    ]
    return [[round(r.logprob, 4) for r in a.choices[0].logprobs.content] for a in answers]


def test_a_folder_with_an_adapter_keys_and_a_log(tmp_path):
    tiny("llama").save(tmp_path / "model")
    law = adapter(tmp_path / "law")
    key = Keys(tmp_path / "keys", make=True).add("ann")
    words = (
        str(tmp_path / "model"), "--name", "base", "--adapter", f"law={law}", "--keys", str(tmp_path / "keys"),
        "--log", str(tmp_path / "log"), "--threads", "1",
    )  # fmt: skip
    with serving(*words, cache=tmp_path) as (process, url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=5) as client:
            (first,) = said(client, ["base"])  # (waits for the model)
            base, tuned = said(client, ["base", "law"])
            assert first == pytest.approx(base, abs=1e-3) != tuned
            assert [m.id for m in client.models.list()] == ["base", "law"]
        assert httpx2.get(f"{url}/v1/models").status_code == 401
        assert httpx2.get(url, headers={"host": "evil.example"}).status_code == 403
        code, out, err = ended(process)
    assert code == 0 and "ready: base, law" in out and "Traceback" not in err
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row["model"] for row in rows[:3]] == ["base", "base", "law"] and rows[0]["key"] == "ann"
    assert Keys(tmp_path / "keys").used("ann", rows[0]["time"][:10]) > 3 * 12  # (written at the end)


def test_what_cannot_be_loaded_ends_the_server_with_one_line(tmp_path):
    with serving(str(tmp_path / "nothing"), cache=tmp_path) as (process, _):
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2 and "nothing" in err.splitlines()[-1] and "Traceback" not in err


def test_it_can_be_stopped_while_it_loads(tmp_path):
    tiny("llama").save(tmp_path / "model")
    with serving(str(tmp_path / "model"), cache=tmp_path) as (process, _):
        code, _, err = ended(process, signal.SIGINT)
    assert code == 0 and "terminate" not in err


@pytest.mark.slow
def test_a_link_is_followed_by_a_process(tmp_path):
    for name, seed in (("v1", 0), ("v2", 1)):
        tiny("llama", seed).save(tmp_path / "versions" / name)
    link = tmp_path / "versions" / "current"
    link.symlink_to("v1")
    with serving(str(tmp_path / "versions"), "--threads", "1", cache=tmp_path) as (process, url):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=5) as client:
            before = said(client, ["versions"])
            (tmp_path / "new").symlink_to("v2")
            (tmp_path / "new").rename(link)
            assert until(lambda: httpx2.get(f"{url}/v1/models/versions").json()["version"] == "v2", 60)
            assert said(client, ["versions"]) != before
        assert ended(process)[0] == 0
