"""A model asked for by name in llama.cpp: the GGUF file that it comes as, or one that is made once."""

from __future__ import annotations

import asyncio
import shutil

import pytest

from intarsia import compression
from intarsia.errors import BadInput, MissingExtra
from intarsia.models import cache, loading
from intarsia.models.gguf_header import tensor_types
from intarsia.models.runtime import open_runtime
from intarsia.prompting.base import Sampling
from intarsia.prompting.base.local import making, open_local
from intarsia.server.versions import open_version
from tests.test_compression_gguf import small

for package in ("gguf", "ik_llama_cpp"):
    pytest.importorskip(package, reason="the extras 'gguf' and 'llama' are not installed")

ASKED = list(range(20, 32))


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The unpacked wheel `tiny` 1.0 in a cache of its own, still empty."""
    monkeypatch.setenv("INTARSIA_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "wheels" / "tiny-1.0"
    folder.mkdir(parents=True)
    cache.write_facts(folder, source="wheel:tiny==1.0")
    return folder


def said(backend):
    async def work():
        reply = await backend.generate(ASKED, Sampling(max_tokens=5))
        await backend.close()
        return list(reply.tokens)

    return asyncio.run(work())


def test_the_file_that_a_model_comes_as(wheel):
    exported = compression.export(small(tied=True), engine="gguf")
    shutil.copy(exported.exports["gguf"] / "model.gguf", wheel / "tiny.gguf")
    backend = open_local("wheel:tiny", engine="gguf", threads=1)
    assert backend.runs_on == "gguf" and backend.tokenizer.chat_template
    assert said(backend) == [
        t for t in open_runtime(wheel / "tiny.gguf", 1).generate(ASKED, 5) if t not in backend.ends
    ]
    assert not any(entry.name.startswith("exports") for entry in cache.entries())  # nothing was made


def test_one_that_is_made_once_and_served(wheel, monkeypatch):
    model = small(tied=True)
    model.save(wheel / "model")
    version = open_version("wheel:tiny", "tiny", threads=1, engine="gguf")
    assert version.backend.runs_on == "gguf"
    (made,) = (entry for entry in cache.entries() if entry.name.startswith("exports/gguf-"))
    assert made.source == "wheel:tiny" and tensor_types(made.path / "model.gguf") == {0, 8}  # F32, Q8_0
    rounded = compression.quantize(model, bits=8, group_size=32, scheme="symmetric", kernel="reference")
    wanted = open_runtime(compression.export(rounded, engine="gguf").exports["gguf"], 1).generate(ASKED, 5)
    assert said(version.backend) == [token for token in wanted if token not in version.backend.ends]
    monkeypatch.setattr(loading, "load", None)  # the second time, nothing is loaded and nothing made
    assert making.gguf_of("wheel:tiny") == (made.path / "model.gguf", wheel / "model")


def test_what_has_no_file(wheel, tmp_path, monkeypatch):
    small().save(tmp_path / "mine")
    with pytest.raises(BadInput, match=r"has no export for gguf .* intarsia compression export"):
        open_local(tmp_path / "mine", engine="gguf")
    with pytest.raises(BadInput, match="no export 'gguf': there are none"):
        open_version(str(tmp_path / "mine"), "mine", engine="gguf")
    small().save(wheel / "model")
    monkeypatch.setattr(making.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"intarsia\[gguf\]"):
        open_local("wheel:tiny", engine="gguf")
    assert not any(entry.name.startswith("exports") for entry in cache.entries())
