"""On the small real model: the numbers that arithmetic names, and the file that it foretells."""

from __future__ import annotations

import pytest

import intarsia as ia
from intarsia import compression
from intarsia.compression.exporting.gguf import export_gguf
from intarsia.compression.quantization.grids import Grid
from intarsia.compression.searching.anatomy import anatomy
from intarsia.compression.searching.stores import STORES
from intarsia.data import Text
from tests.failing import fails

pytestmark = pytest.mark.real
TEXTS = [Text(f"Chandler: That is number {i}, {'so ' * (i % 5)}it is. Joey: Is it?") for i in range(40)]


@pytest.fixture(scope="module")
def model():
    return ia.load("smollm2-135m")


def test_sixty_megabytes_are_refused_with_the_vocabulary_and_the_bits(model, tmp_path):
    message = fails(
        lambda: compression.fit(
            model, budget="size<60MB", calibration=TEXTS, families=("recovery",), keep=tmp_path / "kept"
        ),
        "size<60MB: bits alone reach 76", "106.2 M weights of the body", "28.3 M of the vocabulary",
        "a vocabulary of 16,384 tokens and 3.8 bits a weight at most (torch)", "blocks fewer",
    )  # fmt: skip
    assert not list((tmp_path / "kept").iterdir()), message  # nothing was computed


def test_the_file_is_as_large_as_arithmetic_says(model, tmp_path):
    pytest.importorskip("gguf")
    made = compression.quantize(model, bits=4, scheme="symmetric", group_size=32, kernel="reference")
    facts = export_gguf(made, tmp_path / "m.gguf", check_again=False)
    shape = anatomy(model)
    told = STORES["gguf"].bytes(shape, {m.name: Grid(4, 32, True) for m in shape.matrices})
    assert told == pytest.approx(facts["bytes"], rel=0.003)
    assert set(facts["types"]) == {"Q4_0", "Q8_0", "F32"}
