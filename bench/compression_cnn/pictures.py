"""The pictures: scikit-learn's digits with noise, and the photographs of the CIFAR-10 subset; and the networks."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from intarsia.compression.convolution import Lesson
from intarsia.data import open_picture, shared_data

NOISE = 0.25


@dataclass(frozen=True)
class Pictures:
    """pixels [picture, channel, height, width], labels [picture]; lesson: how a network learns them at first, and
    `again`: how one learns back what a change cost."""

    name: str
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    lesson: Lesson
    again: Lesson

    def network(self, seed: int, width: int = 32) -> nn.Module:
        """A residual network as it is built, not trained. width: of its first stage, before halving for photographs."""
        torch.manual_seed(seed)
        channels = self.train[0].shape[1]
        if self.name == "digits":
            return Residual(channels, [width, width, 2 * width, 2 * width], [1, 2, 1])
        return Residual(channels, [width // 2, width // 2, width, 2 * width, 2 * width], [1, 2, 2, 1])


class Block(nn.Module):
    """Two layers of 3x3 filters and a way past them."""

    def __init__(self, inner: int, out: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inner, out, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        same = stride == 1 and inner == out
        self.past: nn.Module = nn.Identity() if same else nn.Conv2d(inner, out, 1, stride, bias=False)
        self.past_norm: nn.Module = nn.Identity() if same else nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
        return (y + self.past_norm(self.past(x))).relu()


class Residual(nn.Module):
    """A first layer, blocks, and a linear head on the means."""

    def __init__(self, channels: int, widths: list[int], strides: list[int]):
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(widths[0])
        pairs = zip(widths, widths[1:], strides, strict=False)
        self.blocks = nn.Sequential(*(Block(inner, out, stride) for inner, out, stride in pairs))
        self.head = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem_norm(self.stem(x)).relu()).mean((2, 3)))


def digits(quick: bool) -> Pictures:
    """1,797 digits of 8x8, noise N(0, .25) on values of 0 to 1: 1,078 to learn from, 719 to test on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.from_numpy(data.images).float()[:, None] / 16
    pixels = pixels + NOISE * torch.randn(pixels.shape, generator=generator)
    order = torch.randperm(len(pixels), generator=generator)
    pixels, labels = pixels[order], torch.from_numpy(data.target)[order].long()
    epochs = 5 if quick else 15
    return Pictures(
        "digits", (pixels[:1078], labels[:1078]), (pixels[1078:], labels[1078:]),
        Lesson(epochs=epochs, learning_rate=4e-3, weight_decay=0.02),
        Lesson(epochs=3 if quick else 12, learning_rate=2e-3, weight_decay=0.02),
    )  # fmt: skip


def photographs(quick: bool) -> Pictures:
    """The CIFAR-10 subset: 8,000 photographs of 32x32 to learn from, 2,000 to test on (quick: a quarter of the
    first)."""
    folder = shared_data("vision_language/cifar10_subset")
    if folder is None:
        raise SystemExit("the data set vision_language/cifar10_subset is not there (INTARSIA_DATA)")
    found: dict[str, tuple[list[Tensor], list[int]]] = {"train": ([], []), "test": ([], [])}
    with zipfile.ZipFile(folder / "images.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.count("/") == 2 and not name.endswith("/"))
        classes = sorted({name.split("/")[1] for name in names})
        for name in names:
            split, kind, _ = name.split("/")
            picture = open_picture(io.BytesIO(archive.read(name)).getvalue())
            values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            pixels = values.view(picture.height, picture.width, 3).permute(2, 0, 1).float()
            found[split][0].append((pixels / 255 - 0.5) / 0.25)
            found[split][1].append(classes.index(kind))
    train, test = (
        (torch.stack(pixels), torch.tensor(labels)) for pixels, labels in (found["train"], found["test"])
    )  # fmt: skip
    order = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(0))
    order = order[:2000] if quick else order
    return Pictures(
        "photographs", (train[0][order], train[1][order]), test,
        Lesson(epochs=2 if quick else 14, learning_rate=6e-3, weight_decay=0.02, shift=3, flip=True),
        Lesson(epochs=0.5 if quick else 4, learning_rate=3e-3, weight_decay=0.02, shift=3, flip=True, temperature=2.0),
    )  # fmt: skip
