"""Token merging against ToMe's and CrossGET's rules: pairs, speed, closeness and accuracy at equal counted work.

    python -m bench.tokens [--quick] [--json FILE] [--parts matching speed given fidelity seeds] [--kinds dual blip]

- matching: how much of the way from ToMe's pairs to greedy ones is closed, and what matching takes of a ViT-B block.
- speed: throughput of a ViT-B-size tower against dense.
- given: the given CLIP on flat drawings, at published schedules.
- fidelity: without training, on the test bed (bench/tokens/bed: scenes of small drawings over photographs).
- seeds: with training, every method and a dense control alike; accuracy over seeds.

The bed's models are trained at the first run (a quarter to half an hour each on one core) and kept, as is every run of
`seeds`. --quick: matching, speed and given only, in short form: a minute or two."""

from __future__ import annotations

from bench.common import parser, show, start, write

PARTS = ("matching", "speed", "given", "fidelity", "seeds")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--parts", nargs="+", choices=PARTS, help="only these (default: all; quick: the first three)"
    )
    arguments.add_argument("--kinds", nargs="+", default=["dual", "blip"], choices=("dual", "blip", "llava"))
    arguments.add_argument("--seeds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=100, help="of training, for every contender")
    arguments.add_argument("--keep", type=float, default=0.5)
    arguments.add_argument("--no-ablation", action="store_true", help="only the default, ToMe and the control")
    options = arguments.parse_args()
    start(options)
    parts = options.parts or (PARTS[:3] if options.quick else PARTS)
    figures: dict[str, float] = {}
    if "matching" in parts:
        from bench.tokens import matching

        figures |= matching.run(options.quick)
    if "speed" in parts:
        from bench.tokens import speed

        found, rows = speed.run(options.quick)
        show("Throughput of a vision tower", speed.COLUMNS, rows)
        figures |= found
    if "given" in parts:
        from bench.tokens import given

        found, rows = given.run()
        show("Mean cosine to the dense embeddings, 256 drawings, no training", given.COLUMNS, rows)
        figures |= found
    if "fidelity" in parts:
        from bench.tokens import fidelity
        from bench.tokens.bed import load

        for kind in options.kinds:
            rows = [fidelity.shown(row) for row in fidelity.measured(load(kind), (0.75, 0.5, 0.34))]
            show(f"Without training, {kind}", fidelity.COLUMNS, rows)
    if "seeds" in parts:
        from bench.tokens import seeds

        for kind in options.kinds:
            found, rows = seeds.table(kind, options.seeds, options.steps, options.keep, not options.no_ablation)
            show(f"With {options.steps} steps of training, keep {options.keep:g}, {kind}", seeds.COLUMNS, rows)
            figures |= found
        # The claim is about both kinds: the worse of them is reported.
        figures["accuracy_loss_half_flops"] = max(figures[f"accuracy_loss_half_flops_{k}"] for k in options.kinds)
        figures["beats_tome_seeds"] = min(figures[f"beats_tome_seeds_{k}"] for k in options.kinds)
    write(figures, options.json)


if __name__ == "__main__":
    main()
