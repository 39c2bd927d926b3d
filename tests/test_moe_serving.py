"""`moe.run`, the completions API over anything that makes tokens, and ranks behind it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from intarsia.errors import BadInput
from intarsia.moe import Checkpoint, Placement, contiguous, run
from intarsia.server.pieces import PiecesBackend
from intarsia.server.service import Serving, service
from tests.server_help import running
from tests.tiny import tiny

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    model = tiny("olmoe")
    model.network.generation_config.eos_token_id = model.network.config.eos_token_id = None
    return model.save(tmp_path_factory.mktemp("moe") / "tiny-olmoe")


def test_a_run_says_what_was_made_moved_and_held(folder, tmp_path):
    Placement(contiguous(4, 8, 2), 2).save(tmp_path / "p.json")
    found = run(
        Checkpoint.open(folder), text=["one two", "three"], placement=tmp_path / "p.json", mode="coherent",
        max_new_tokens=6, check=True, torch_type="float64",
    )  # fmt: skip
    assert found.ranks == 2 and found.mode == "coherent" and len(found.made) == 2
    assert all(len(r.tokens) <= 6 for r in found.made) and found.checked[0].passed
    assert found.checked[0].other_tokens == found.checked[0].other_experts == 0
    assert found.moved.contexts > 0 and found.moved.rows > 0 and len(found.held) == 2
    whole = sum(p.numel() for n, p in tiny("olmoe").network.named_parameters() if ".experts." in n) * 8
    assert sum(h.experts for h in found.held) == whole and found.held[0].experts == whole / 2


def test_what_cannot_be_run_is_refused(folder, tmp_path):
    with pytest.raises(BadInput):
        Checkpoint.open(tmp_path / "nothing")
    with pytest.raises(BadInput, match="no prompt"):
        run(Checkpoint.open(folder), text=[])
    Placement(contiguous(4, 6, 2), 2).save(tmp_path / "p.json")
    with pytest.raises(BadInput, match="6 experts"):
        run(Checkpoint.open(folder), text=["a"], placement=tmp_path / "p.json")


@dataclass
class Chunk:
    token: int
    text: str
    last: bool


@dataclass
class Letters:
    """Makes the letters after the prompt's last one, so that answers are known."""

    cancelled: list[str] = field(default_factory=list)

    def token_ids(self, prompt: Any) -> list[int]:
        return [ord(c) for c in prompt] if isinstance(prompt, str) else list(prompt)

    def submit(self, prompt: Any, most: int, *, temperature: float, top_p: float, top_k: int) -> Any:
        if prompt == "bad":
            raise BadInput("a bad prompt")
        start, outer = self.token_ids(prompt)[-1], self

        class Made:
            def __iter__(self) -> Iterator[Chunk]:
                for i in range(most):
                    yield Chunk(start + i + 1, chr(start + i + 1), i == most - 1)

            def cancel(self) -> None:
                outer.cancelled.append(str(prompt))

        return Made()


@pytest.fixture
def served() -> Iterator[tuple[str, Letters]]:
    letters, serving = Letters(), Serving()
    serving.registry.add("letters", PiecesBackend(letters, "letters"))
    with running(service(serving)) as url:
        yield url, letters


def ask(url: str, **body: Any) -> tuple[int, str]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_completions_are_those_of_the_source(served):
    url, letters = served
    status, said = ask(f"{url}/v1/completions", model="letters", prompt=["a", [ord("m")]], max_tokens=3)
    told = json.loads(said)
    assert status == 200 and [c["text"] for c in told["choices"]] == ["bcd", "nop"]
    assert [c["finish_reason"] for c in told["choices"]] == ["length", "length"]
    assert told["usage"].items() >= {"prompt_tokens": 2, "completion_tokens": 6, "total_tokens": 8}.items()
    _, said = ask(f"{url}/v1/completions", model="letters", prompt="a", max_tokens=20, stop=["fg", "zz"])
    (choice,) = json.loads(said)["choices"]
    assert choice["text"] == "bcde" and choice["finish_reason"] == "stop" and letters.cancelled == ["a"]
    with urllib.request.urlopen(f"{url}/v1/models") as answer:
        assert json.load(answer)["data"][0]["id"] == "letters"
    with urllib.request.urlopen(f"{url}/health") as answer:
        assert json.load(answer) == {"status": "ok"}


@pytest.mark.parametrize("stop", [None, ["gh"], "eX"])
def test_a_stream_says_the_same_bit_by_bit(served, stop):
    url, _ = served
    _, said = ask(f"{url}/v1/completions", model="letters", prompt="a", max_tokens=9, stream=True, stop=stop)
    lines = [line.removeprefix("data: ") for line in said.splitlines() if line]
    assert lines[-1] == "[DONE]"
    rows = [json.loads(line)["choices"][0] for line in lines[:-1]]
    assert "".join(r["text"] for r in rows) == ("bcdef" if stop == ["gh"] else "bcdefghij")
    assert rows[-1]["finish_reason"] == ("stop" if stop == ["gh"] else "length") and len(rows) > 4


def test_what_the_api_cannot_do_is_refused_in_its_own_form(served):
    url, _ = served
    for body, status, word in [
        (dict(model="letters", prompt="bad"), 400, "a bad prompt"),
        (dict(model="other", prompt="a"), 404, "letters"),
        (dict(model="letters", prompt="a", seed=2), 400, "no seed"),
        (dict(model="letters", prompt="a", logprobs=3), 400, "logprobs"),
        (dict(model="letters", prompt=[]), 400, "empty"),
        (dict(model="letters", prompt=[True]), 400, "prompt"),
        (dict(model="letters", prompt=["a", "bad"]), 400, "a bad prompt"),
    ]:
        got, said = ask(f"{url}/v1/completions", **body)
        assert got == status and word in json.loads(said)["error"]["message"]
    neutral = dict(echo=False, logprobs=None, best_of=1, presence_penalty=0, n=1, user="me")
    assert ask(f"{url}/v1/completions", model="letters", prompt="a", **neutral)[0] == 200


def test_ranks_answer_over_http_and_end_with_the_server(folder):
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "intarsia", "moe", "serve", str(folder), "--ranks", "2", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
    try:
        line = server.stdout.readline()
        assert "serving tiny-olmoe on 2 ranks" in line, server.stderr.read()
        url = line.rpartition(" ")[2].strip()
        _, said = ask(url, model="tiny-olmoe", prompt="one two", max_tokens=5, temperature=0)
        assert json.loads(said)["usage"]["completion_tokens"] == 5
        status, said = ask(url, model="tiny-olmoe", prompt="one two", max_tokens=5000)
        assert status == 400 and "positions" in said
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(30) in (0, 130)


@pytest.mark.slow
def test_torchrun_runs_prompts(folder, tmp_path):
    (tmp_path / "prompts.txt").write_text("one two\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m",
               "intarsia.moe.runtime", str(folder), "--text", str(tmp_path / "prompts.txt"), "--max-new-tokens", "4",
               "--mode", "coherent"]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    first, last = map(json.loads, done.stdout.splitlines()[-2:])
    assert len(first["tokens"]) == 4 and last["ranks"] == 2 and last["for each token"]["rows"] > 0
