"""What a change cost won back: the changed network learns from the one it was, and its batch norms' statistics are
taken again at the end.

Loss: (1 - soft) CE + soft tau^2 KL(T || S), softened by tau (Hinton et al. 2015, arXiv 1503.02531, section 2), and the
mean squared error of feature maps at hinted modules (Romero et al. 2015, FitNets, arXiv 1412.6550, eq. 3, without a
regressor where the channels are as many)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from intarsia.compression.convolution.networks import all_answers, answers, check_pixels, convolutions, mode
from intarsia.compression.convolution.normalising import reestimate
from intarsia.compression.distillation.losses import LogitLoss, cross_entropy, forward_kl
from intarsia.errors import BadInput, IntarsiaError
from intarsia.progress import track
from intarsia.sites import watching
from intarsia.training.loop import seeded

WHO = "compression.distil_filters"


@dataclass(frozen=True)
class Lesson:
    """How a network learns.

    - epochs, batch (pictures), learning_rate (AdamW's peak, one cycle), weight_decay.
    - temperature, soft: of the teacher's answers; soft is their share of the loss, 1 where there are no labels.
    - hints: names of modules whose output is to be the teacher's; hint_weight: of their loss.
    - shift: pixels by which a picture is moved at random, flip: whether it is mirrored at random."""

    epochs: float = 4
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    temperature: float = 4.0
    soft: float = 0.7
    hints: tuple[str, ...] = ()
    hint_weight: float = 1.0
    shift: int = 0
    flip: bool = False


def recover(
    student: nn.Module,
    pixels: Tensor,
    labels: Tensor | None = None,
    teacher: nn.Module | None = None,
    lesson: Lesson | None = None,
    *,
    seed: int = 0,
    keep_zeros: bool = False,
    who: str = WHO,
) -> list[float]:
    """Train `student` in place; gives the loss of every step.

    - pixels [picture, channel, height, width], labels [picture]; without a teacher, labels are all there is.
    - keep_zeros: filters' weights that are zero stay zero.

    The same seed and threads give the same weights. Raises `BadInput` for a student without weights to train, hints
    that one of the networks lacks or that differ in shape, and for neither labels nor teacher."""
    lesson = lesson or Lesson()
    _check(student, pixels, labels, teacher, lesson, who)
    loss_of = LogitLoss(forward_kl, lesson.temperature, lesson.soft if labels is not None else 1.0)
    # Without random changes to the pictures the teacher is asked once.
    still = not (lesson.shift or lesson.flip or lesson.hints)
    told = all_answers(teacher, pixels) if teacher is not None and still else None
    zeros = {n: m.weight.detach() == 0 for n, m in convolutions(student).items()} if keep_zeros else {}
    parameters = [p for p in student.parameters() if p.requires_grad]
    count = len(pixels)
    each = -(-count // lesson.batch)
    steps = max(1, round(each * lesson.epochs))
    optimiser = torch.optim.AdamW(parameters, lr=lesson.learning_rate, weight_decay=lesson.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lesson.learning_rate, total_steps=steps + 1)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    facts: dict[str, float | str] = {}
    was = [(m, m.training) for m in student.modules()]
    student.train()
    order = torch.empty(0, dtype=torch.int64)
    with seeded(seed), nullcontext() if teacher is None else mode(teacher, training=False):
        for _ in track(range(steps), "learning", facts=facts):
            if not len(order):
                order = torch.randperm(count, generator=generator)
            rows, order = order[: lesson.batch], order[lesson.batch :]
            if len(rows) == 1 and count > 1:  # a batch norm wants two values at least
                rows = torch.cat((rows, torch.randint(count, (1,), generator=generator)))
            given = jittered(pixels[rows], lesson.shift, lesson.flip, generator)
            right = None if labels is None else labels[rows]
            loss = _loss(student, teacher, given, right, None if told is None else told[rows], loss_of, lesson)
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 5.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for name, zero in zeros.items():
                    student.get_submodule(name).weight.masked_fill_(zero, 0)  # type: ignore[union-attr, operator]
            losses.append(float(loss.detach()))
            if losses[-1] != losses[-1]:
                raise IntarsiaError(
                    f"{who}: the loss is no number after {len(losses)} steps; try a lower learning rate"
                )
            facts["loss"] = losses[-1]
    for module, training in was:
        module.training = training
    reestimate(student, pixels)
    return losses


def _check(
    student: nn.Module, pixels: Tensor, labels: Tensor | None, teacher: nn.Module | None, lesson: Lesson, who: str
) -> None:
    if labels is None and teacher is None:
        raise BadInput(f"{who}: give a teacher, or labels, or both")
    if not any(p.requires_grad for p in student.parameters()):
        raise BadInput(f"{who}: nothing of {type(student).__name__} can be trained")
    check_pixels(student, pixels, who, labels)
    if teacher is not None:
        check_pixels(teacher, pixels, who)
        one, other = (all_answers(n, pixels[:2]).shape[-1] for n in (student, teacher))
        if one != other:
            raise BadInput(f"{who}: the student tells {one} classes apart and the teacher {other}")
    if lesson.hints and teacher is None:
        raise BadInput(f"{who}: hints want a teacher")
    for network in (student, teacher):
        known = dict(network.named_modules()) if network is not None else {}
        if network is not None and (unknown := [h for h in lesson.hints if h not in known]):
            raise BadInput(f"{who}: {type(network).__name__} has no module '{unknown[0]}' for a hint")
    if lesson.hints and teacher is not None:
        with torch.no_grad(), mode(student, training=False), mode(teacher, training=False):
            ours, theirs = (outputs_of(n, lesson.hints, pixels[:2]) for n in (student, teacher))
        for name in lesson.hints:
            if ours[name].shape != theirs[name].shape:
                raise BadInput(
                    f"{who}: '{name}' gives {list(ours[name].shape[1:])} and the teacher's "
                    f"{list(theirs[name].shape[1:])}: a hint wants equal shapes"
                )


def outputs_of(
    network: nn.Module, names: Sequence[str], pixels: Tensor, logits: list[Tensor] | None = None
) -> dict[str, Tensor]:
    """What modules give on these pixels, by name; the network's answers are appended to `logits`."""
    found: dict[str, Tensor] = {}
    modules = {name: network.get_submodule(name) for name in names}
    with watching(network, modules, lambda name, given, gave: found.__setitem__(name, gave)):
        said = answers(network, pixels)
    if logits is not None:
        logits.append(said)
    return found


def _loss(
    student: nn.Module, teacher: nn.Module | None, pixels: Tensor, labels: Tensor | None, told: Tensor | None,
    loss_of: LogitLoss, lesson: Lesson,
) -> Tensor:  # fmt: skip
    said: list[Tensor] = []
    ours = outputs_of(student, lesson.hints, pixels, said) if lesson.hints else {}
    logits = said[0] if said else answers(student, pixels)
    if teacher is None:
        assert labels is not None
        return cross_entropy(logits, labels).mean()
    theirs: dict[str, Tensor] = {}
    if told is None:
        heard: list[Tensor] = []
        with torch.no_grad():
            theirs = outputs_of(teacher, lesson.hints, pixels, heard) if lesson.hints else {}
            told = heard[0] if heard else answers(teacher, pixels)
    loss = loss_of(told, logits, labels).mean()
    for name, wanted in theirs.items():
        loss = loss + lesson.hint_weight * F.mse_loss(ours[name], wanted) / wanted.square().mean().clamp(min=1e-6)
    return loss


def jittered(pixels: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Pictures moved by up to `shift` pixels (edges repeated) and mirrored by chance, each batch alike in the move."""
    if shift:
        high, wide = pixels.shape[-2:]
        padded = F.pad(pixels, (shift,) * 4, mode="replicate")
        parts = []
        tops = torch.randint(0, 2 * shift + 1, (len(pixels), 2), generator=generator).tolist()
        for picture, (top, left) in zip(padded, tops, strict=True):
            parts.append(picture[:, top : top + high, left : left + wide])
        pixels = torch.stack(parts)
    if flip:
        mirror = torch.rand(len(pixels), generator=generator) < 0.5
        pixels = torch.where(mirror[:, None, None, None].to(pixels.device), pixels.flip(-1), pixels)
    return pixels
