"""Advice: sizes by arithmetic are those of the files, traps are told where they hold, and nothing is changed."""

import re

import pytest
import torch
import transformers as tf

from intarsia import compression
from intarsia.catalog import find
from intarsia.cli import app
from intarsia.compression import advise
from intarsia.compression.advising.guidance import FAMILIES
from intarsia.compression.advising.machine import abilities, commonest, timed
from intarsia.compression.linears import linears
from intarsia.models import wrap
from tests.failing import fails
from tests.tiny import tiny


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.fixture(scope="module")
def filters():
    config = tf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=3, num_channels=3
    )
    return wrap(tf.ResNetForImageClassification(config).eval(), name="small-resnet")


def test_sizes_are_those_of_the_files(llama, tmp_path):
    found = advise(llama, measure=False)
    by = {(s.engine, s.what): s for s in found.sizes}
    for bits in (8, 4, 3):
        saved = compression.quantize(llama, bits=bits, group_size=None if bits == 8 else 32)
        folder = saved.save(tmp_path / str(bits))
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        # A tensor's line in the header is estimated: in so small a file that shows.
        assert by["torch", f"{bits} bits"].bytes == pytest.approx(size, rel=0.2)
    assert found.bytes_now == sum(p.numel() * p.element_size() for p in llama.network.parameters())
    assert sum(found.parameters.values()) == sum(p.numel() for p in llama.network.parameters())


def test_nothing_is_changed_and_everything_is_said(llama):
    before = {name: value.clone() for name, value in llama.network.state_dict().items()}
    found = advise(llama, budget="bytes<0.5x", texts=True)
    assert all(torch.equal(value, before[name]) for name, value in llama.network.state_dict().items())
    assert [f.family for f in found.families] == [f.name for f in FAMILIES]
    ranks = [f.rank for f in found.families if f.rank is not None]
    assert ranks == list(range(1, len(ranks) + 1)) and found.families[0].rank == 1
    assert not next(f for f in found.families if f.family == "compact filters").commands
    assert {t.format for t in found.timed} >= {"float32", "bfloat16", "8 bits", "4 bits"}
    assert all(t.one > 0 and t.many > 0 for t in found.timed)
    assert any(line.startswith("budget") for line in found.warnings) and any("bfloat16" in w for w in found.warnings)
    titles = {table.title for table in found.tables()}
    assert titles >= {"Families, and what they come to here", "What it could weigh", "Formats on this machine", "Traps"}
    assert not any(line.startswith("a budget") for line in found.missing)


def test_a_budget_out_of_reach_is_told_with_what_would_make_it(llama):
    found = advise(llama, budget="bytes<1kB", measure=False)
    assert any("out of reach" in line for line in found.warnings)
    assert not found.timed
    fails(lambda: advise(llama, budget="bites<1kB", measure=False), "bites")


def test_what_is_quantized_gets_no_more_of_it(llama):
    found = advise(compression.quantize(llama, bits=8), measure=False)
    assert not found.sizes and all(f.rank is None for f in found.families)
    assert "quantized already" in found.families[0].here


def test_filters_have_advice_of_their_own(filters):
    found = advise(filters, measure=False)
    compact = next(f for f in found.families if f.family == "compact filters")
    assert compact.rank is not None and any("factorize-filters" in c for c in compact.commands)
    assert any("renormalize" in line for line in found.warnings)
    assert {s.what for s in found.sizes} >= {"filters in int8", "filters in binary"}


def test_encoders_and_their_traps():
    found = advise(tiny("bert-encoder"), measure=False)
    assert any("scale a row" in line for line in found.warnings)


def test_every_command_exists():
    """What is advised can be typed: the command is there, and so are its options."""
    for family in FAMILIES:
        for command in (*family.commands, *family.filters):
            name, *rest = re.sub(r"'[^']*'", "X", command).split()
            technique = find(f"compression.{name.replace('-', '_')}")
            options = {part.removeprefix("--") for part in rest if part.startswith("--")}
            assert options - {"teacher", "train"} <= {f.replace("_", "-") for f in technique.config.model_fields}


def test_formats_are_timed_at_the_commonest_shape(llama):
    out, width = commonest(linears(llama))
    held = {}
    for module in llama.network.modules():
        if type(module) is torch.nn.Linear and module is not llama.network.get_output_embeddings():
            held[tuple(module.weight.shape)] = held.get(tuple(module.weight.shape), 0) + module.weight.numel()
    assert held[out, width] == max(held.values())
    found = timed((32, 64), repeats=1, tokens=(1, 4))
    assert all(len(seconds) == 2 for seconds in found.values()) and "4 bits" in found
    assert isinstance(abilities(), list)


def test_the_command(tmp_path, llama, capsys):
    llama.save(tmp_path / "m")
    assert app.run(["compression", "advise", "--model", str(tmp_path / "m"), "--no-measure"]) == 0
    assert "Traps" in capsys.readouterr().out
