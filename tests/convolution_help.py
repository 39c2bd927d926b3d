"""Small convolutional networks and pictures for the tests of `compression.convolution`."""

from __future__ import annotations

import functools

import torch
import transformers as tf
from torch import Tensor, nn

from intarsia.compression.convolution.recovering import Lesson, recover


class Block(nn.Module):
    def __init__(self, inner: int, out: int, stride: int = 1, kernel: int = 3):
        super().__init__()
        self.first = nn.Conv2d(inner, out, kernel, stride, kernel // 2, bias=False)
        self.first_norm = nn.BatchNorm2d(out)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(out)
        same = stride == 1 and inner == out
        self.short = nn.Identity() if same else nn.Conv2d(inner, out, 1, stride, bias=False)
        self.short_norm = nn.Identity() if same else nn.BatchNorm2d(out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second_norm(self.second(self.first_norm(self.first(x)).relu()))
        return (y + self.short_norm(self.short(x))).relu()


class Net(nn.Module):
    def __init__(self, width: int = 8, kernel: int = 3):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.stem_norm = nn.BatchNorm2d(width)
        self.one = Block(width, width, kernel=kernel)
        self.two = Block(width, 2 * width, 2)
        self.three = Block(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem_norm(self.stem(x)).relu()
        return self.head(self.three(self.two(self.one(x))).mean((2, 3)))


class Mixed(nn.Module):
    """A depthwise layer, a concatenation, a layer of three groups, a flattened head."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 8, 3, padding=1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.b = nn.Conv2d(8, 6, 3, padding=1)
        self.c = nn.Conv2d(14, 6, 1)
        self.grouped = nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.line = nn.Linear(6 * 16, 12)
        self.head = nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        a = self.deep(self.a(x).relu()).relu()
        x = torch.cat((a, self.b(a).relu()), 1)
        x = nn.functional.max_pool2d(self.grouped(self.c(x).relu()).relu(), 2)
        return self.head(self.line(x.flatten(1)).relu())


def lively(network: nn.Module, seed: int = 0) -> nn.Module:
    """With random batch norms, so that none of them is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 4)
    return network.eval()


def net(width: int = 8, seed: int = 0, **more: int) -> Net:
    torch.manual_seed(seed)
    return lively(Net(width, **more), seed)  # type: ignore[return-value]


def resnet(layer: str = "basic", seed: int = 0) -> tf.ResNetForImageClassification:
    config = tf.ResNetConfig(
        num_channels=1, embedding_size=8, hidden_sizes=[16, 32], depths=[2, 2], layer_type=layer, num_labels=10
    )
    torch.manual_seed(seed)
    return lively(tf.ResNetForImageClassification(config), seed)  # type: ignore[return-value]


def noise(count: int = 6, size: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, size, size, generator=torch.Generator().manual_seed(seed))


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """scikit-learn's digits with noise: pixels and labels of 1,078 to learn from and 719 to test on."""
    from sklearn.datasets import load_digits

    data = load_digits()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.from_numpy(data.images).float()[:, None] / 16
    pixels = pixels + 0.25 * torch.randn(pixels.shape, generator=generator)
    order = torch.randperm(len(pixels), generator=generator)
    pixels, labels = pixels[order], torch.from_numpy(data.target)[order].long()
    return pixels[:1078], labels[:1078], pixels[1078:], labels[1078:]


@functools.cache
def trained() -> Net:
    """A tiny network that has learnt digits; copy it before changing it."""
    torch.manual_seed(0)
    network = Net(8)
    pixels, labels, _, _ = digits()
    recover(network, pixels, labels, lesson=Lesson(epochs=6, learning_rate=5e-3))
    return network.eval()
