"""Rules of the house that a machine can check."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "intarsia"
FORBIDDEN = re.compile(
    r"register_(full_)?(forward|backward)_(pre_)?hook|\.forward\s*=[^=]|AttentionInterface|\[.forward.\]\s*="
)


def test_only_the_engine_touches_hooks_and_forwards():
    found = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if "sites" not in path.parts
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if FORBIDDEN.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("module", ["intarsia", "intarsia.cli", "intarsia.catalog", "intarsia.report"])
def test_imports_leave_the_heavy_libraries_alone(module):
    code = f"import sys, {module}; print([m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_loading_the_catalog_leaves_the_heavy_libraries_alone():
    code = "import sys; from intarsia.catalog import load; load(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_exist():
    import intarsia

    for name in intarsia.__all__:
        assert getattr(intarsia, name) is not None
    with pytest.raises(AttributeError):
        _ = intarsia.nonsense


def test_no_file_of_the_library_is_larger_than_a_person_holds_in_mind():
    large = {p.name: n for p in SOURCE.rglob("*.py") if (n := len(p.read_text(encoding="utf-8").splitlines())) > 420}
    assert large == {}
