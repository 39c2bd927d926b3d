"""Patchscopes and lenses measured on SmolLM2-135M.

    python -m bench.patchscopes [--quick] [--json FILE] [--only PARTS]

The parts are `speed` (speed.py), `lenses` (lenses.py), `contamination`, `attributes` and `multihop` (tasks.py). Each
part is one function:

    def run_PART(options: argparse.Namespace) -> tuple[Figures, list[Table]]

- in speed.py and lenses.py, which hold one part each, it is `run_speed` and `run_lenses`; tasks.py has
  `run_contamination`, `run_attributes` and `run_multihop`.
- options: of `bench.common.parser`: `options.quick` (one part under five minutes on two cores), `options.threads`
  (already set), `options.json`.
- Figures: `dict[str, float]`: finite numbers under the names that go into the flat JSON object; a name belongs to one
  part.
- Table: `(title, columns, rows)`, all text, as `bench.common.show` takes them: the first column is words, the others
  are figures. A part that took a sample says so in the title.

A part prints nothing but its progress; `__main__` prints the tables of a part as soon as it is done, goes on with the
next, and writes all figures at the end. Checks that results are the same or right raise `AssertionError`. Parts load
`intarsia.load("smollm2-135m")` themselves; modules import nothing heavy before `run_PART` is called."""

from __future__ import annotations

Figures = dict[str, float]
Table = tuple[str, tuple[str, ...], list[list[str]]]
