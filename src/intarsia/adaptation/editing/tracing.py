"""Which layer recalls what is known of a subject: causal tracing of the MLPs at its last token (ROME, section 2).

Noise on the subject's embeddings takes the model's own answer away; restoring what the MLPs of a few neighbouring
layers add at the subject's last token brings some of it back. The layer in whose window the mean of that over prompts,
the average indirect effect, is largest is the one to edit. Hase et al. 2023 (arXiv 2301.04213) found that edits may do
as well elsewhere: it is a choice that can be made, not a proof."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from intarsia.adaptation.editing.keeping import keep, kept, mark
from intarsia.adaptation.editing.wording import Row
from intarsia.errors import Note
from intarsia.models.saved import Saved
from intarsia.models.weights import weights_key
from intarsia.progress import track
from intarsia.sites import Add, Apply, Edit, read, run

if TYPE_CHECKING:
    from intarsia.data import FactEdit
    from intarsia.models import Model

WINDOW = 10 / 48  # the paper restores 10 of GPT-2 XL's 48 layers
NOISE = 3.0  # in standard deviations of what enters the first block
SAMPLES = 3  # of noise for each prompt
LEAST = 0.01  # of probability that noise must take for the effects to mean anything
ROWS = 64  # in one forward
# What most models know: the effects of one or two prompts say little, and where subjects are recalled is a property of
# the network, not of an edit.
COMMON = (
    ("The Eiffel Tower is in the city of", "Eiffel Tower"),
    ("The capital city of Japan is", "Japan"),
    ("The official language of Brazil is", "Brazil"),
    ("The physicist Albert Einstein was born in", "Albert Einstein"),
    ("The novel War and Peace was written by Leo", "War and Peace"),
    ("The currency of the United Kingdom is the", "United Kingdom"),
    ("The company Microsoft was founded by Bill", "Microsoft"),
    ("The Great Wall is in the country of", "Great Wall"),
)


def prompts(edits: Sequence[FactEdit], most: int) -> list[tuple[str, str]]:
    """Prompts and their subjects: the edits', filled up with common facts where they are few."""
    own = [(edit.prompt, edit.subject) for edit in edits]
    return [*own, *(pair for pair in COMMON if pair[1] not in {subject for _, subject in own})][:most]


def effects(model: Model, rows: Sequence[Row], layers: Sequence[int], seed: int) -> dict[int, float] | None:
    """The average indirect effect of each layer: how much of the probability of the model's own next token comes back.

    - rows: prompts without targets. layers: those that may be edited.

    None where noise on the subject hardly changes the answers: then nothing can be said. It is kept in the cache."""
    name = f"{weights_key(model)}-traced-{mark(seed, list(layers), list(rows))}"
    if (saved := kept(name)) is None:
        saved = Saved({}, _traced(model, rows, layers, seed))
        keep(name, saved)
    if saved.note["lost"] < LEAST:
        told = (
            f"noise on the subjects lowers the answers' probability by {saved.note['lost']:.1%} only: it tells no layer"
        )
        warnings.warn(Note(told), stacklevel=2)
        return None
    return {int(layer): effect for layer, effect in saved.note["effects"].items()}


@torch.no_grad()
def _traced(model: Model, rows: Sequence[Row], layers: Sequence[int], seed: int) -> dict:
    sites = model.sites
    embed, prefix = f"{sites.main.prefix}embed", sites.main.prefix
    there = [i for i in range(len(sites.blocks)) if f"{prefix}layers.{i}.mlp_out" in sites]
    width = max(1, round(WINDOW * len(sites.blocks)))
    names = {i: f"{prefix}layers.{i}.mlp_out" for i in there}
    generator = torch.Generator().manual_seed(seed)
    total, lost = torch.zeros(len(layers), dtype=torch.float64), 0.0
    for row in track(rows, "tracing where subjects are recalled"):
        ids = torch.tensor([row.ids], device=model.device)
        clean = read(model, ids, [embed, *names.values(), "logits"])
        answer = clean["logits"][0, -1].float().softmax(-1)
        token = int(answer.argmax())
        # The noise is the same for every layer, so that layers are compared on the same damage.
        first = row.first
        noise = torch.zeros(SAMPLES, *clean[embed].shape[1:])
        noise[:, first : row.subject + 1] = torch.randn(
            SAMPLES, row.subject + 1 - first, noise.shape[-1], generator=generator
        )
        noise *= NOISE * float(clean[embed].float().std())
        # Cells: one without restoring, and one a layer; each with every sample of noise.
        # The first block's MLP reads the noised embedding and little else: restoring it undoes the noise.
        windows = [range(0), *(range(max(1, i - width // 2), i - width // 2 + width) for i in layers)]
        cells = [(window, sample) for window in windows for sample in range(SAMPLES)]
        values = torch.cat(
            [
                _probability(model, ids, embed, noise, cells[start : start + ROWS], names, clean, row.subject, token)
                for start in range(0, len(cells), ROWS)
            ]
        ).reshape(len(windows), SAMPLES)
        lost += float(answer[token]) - float(values[0].mean())
        total += (values[1:] - values[0]).mean(1)
    found = (total / len(rows)).tolist()
    return {"lost": lost / len(rows), "effects": dict(zip(map(str, layers), found, strict=True))}


def _probability(
    model: Model, ids: Tensor, embed: str, noise: Tensor, cells: Sequence[tuple[range, int]], names: dict[int, str],
    clean: Mapping[str, Tensor], at: int, token: int,
) -> Tensor:  # fmt: skip
    """[cell] float64: of the answer, with noise, and with clean MLPs at `at` in each cell's window."""
    edits: list[Edit] = [Add(embed, value=noise[[sample for _, sample in cells]])]
    for layer, name in names.items():
        numbers = [i for i, (window, _) in enumerate(cells) if layer in window]
        if numbers:
            edits.append(Apply(name, function=_put(numbers, at, clean[name][0, at])))
    logits = run(model, ids.expand(len(cells), -1), edits).logits[:, -1]
    return logits.cpu().double().softmax(-1)[:, token]


def _put(rows: list[int], at: int, value: Tensor) -> Callable[[Tensor], Tensor]:
    def put(tensor: Tensor) -> Tensor:
        written = tensor.clone()
        written[rows, at] = value
        return written

    return put
