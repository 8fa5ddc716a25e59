"""The Inception v3 that the Fréchet inception distance is defined by, without its classifier.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), as in TensorFlow's graph of December
2015, whose features differ from torchvision's: average pooling leaves the padding out of its count, the last block
pools by maximum, and images are resized and scaled as TensorFlow 1 does. Parameters have the names of the published
file pt_inception-2015-12-05-6726825d.pth, which are torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from evaluation.checkpoint import with_weights

FEATURES = 2048
INPUT_SIZE = 299
Size = int | tuple[int, int]


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU. Without stride the image keeps its size, unless `valid`."""

    def __init__(
        self, inputs: int, outputs: int, kernel: Size = 1, stride: int = 1, *, valid: bool = False
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid or stride > 1 else (height // 2, width // 2)
        self.conv = nn.Conv2d(inputs, outputs, (height, width), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def average(x: Tensor) -> Tensor:
    """Mean over the 3 × 3 pixels around each, those of them that there are."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def shrink(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class BlockA(nn.Module):
    """Block at 35 × 35 pixels."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64)
        self.branch5x5_1 = Convolution(inputs, 48)
        self.branch5x5_2 = Convolution(48, 64, 5)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3)
        self.branch_pool = Convolution(inputs, pooled)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average(x))], dim=1)


class BlockB(nn.Module):
    """Block from 35 × 35 pixels to 17 × 17."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64)
        self.branch3x3dbl_2 = Convolution(64, 96, 3)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, shrink(x)], dim=1)


class BlockC(nn.Module):
    """Block at 17 × 17 pixels; 7 × 7 kernels as a row and a column."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = Convolution(inputs, 192)
        self.branch7x7_1 = Convolution(inputs, width)
        self.branch7x7_2 = Convolution(width, width, row)
        self.branch7x7_3 = Convolution(width, 192, column)
        self.branch7x7dbl_1 = Convolution(inputs, width)
        self.branch7x7dbl_2 = Convolution(width, width, column)
        self.branch7x7dbl_3 = Convolution(width, width, row)
        self.branch7x7dbl_4 = Convolution(width, width, column)
        self.branch7x7dbl_5 = Convolution(width, 192, row)
        self.branch_pool = Convolution(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(average(x))], dim=1)


class BlockD(nn.Module):
    """Block from 17 × 17 pixels to 8 × 8."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(inputs, 192)
        self.branch7x7x3_2 = Convolution(192, 192, (1, 7))
        self.branch7x7x3_3 = Convolution(192, 192, (7, 1))
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), self.branch7x7x3_4(seven), shrink(x)], dim=1)


class BlockE(nn.Module):
    """Block at 8 × 8 pixels.

    by_maximum: how TensorFlow's graph pools in its last block, where the paper has an average.
    """

    def __init__(self, inputs: int, *, by_maximum: bool) -> None:
        super().__init__()
        row, column = (1, 3), (3, 1)
        self.by_maximum = by_maximum
        self.branch1x1 = Convolution(inputs, 320)
        self.branch3x3_1 = Convolution(inputs, 384)
        self.branch3x3_2a = Convolution(384, 384, row)
        self.branch3x3_2b = Convolution(384, 384, column)
        self.branch3x3dbl_1 = Convolution(inputs, 448)
        self.branch3x3dbl_2 = Convolution(448, 384, 3)
        self.branch3x3dbl_3a = Convolution(384, 384, row)
        self.branch3x3dbl_3b = Convolution(384, 384, column)
        self.branch_pool = Convolution(inputs, 192)

    def forward(self, x: Tensor) -> Tensor:
        single = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = F.max_pool2d(x, 3, stride=1, padding=1) if self.by_maximum else average(x)
        parts = (
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        )
        return torch.cat(parts, dim=1)


class Inception(nn.Module):
    """Network from images [B, 3, H, W] in [0, 1] to features [B, 2048].

    The images are rounded to 8 bits, as the files that are compared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, valid=True)
        self.Mixed_5b = BlockA(192, 32)
        self.Mixed_5c = BlockA(256, 64)
        self.Mixed_5d = BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b = BlockC(768, 128)
        self.Mixed_6c = BlockC(768, 160)
        self.Mixed_6d = BlockC(768, 160)
        self.Mixed_6e = BlockC(768, 192)
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b = BlockE(1280, by_maximum=False)
        self.Mixed_7c = BlockE(2048, by_maximum=True)

    def forward(self, images: Tensor) -> Tensor:
        levels = (images.clamp(0, 1) * 255).round()
        x = (resize(levels, INPUT_SIZE) - 128) / 128
        x = shrink(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = shrink(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        for block in (
            self.Mixed_5b, self.Mixed_5c, self.Mixed_5d,
            self.Mixed_6a, self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e,
            self.Mixed_7a, self.Mixed_7b, self.Mixed_7c,
        ):  # fmt: skip
            x = block(x)
        return x.mean(dim=(2, 3))


def resize(images: Tensor, size: int) -> Tensor:
    """Resize images bilinearly as TensorFlow 1 did: [B, 3, H, W] → [B, 3, size, size].

    Pixel i of `size` is at i H / size (or W), whatever the shrinkage, corner on corner at the upper left
    alone.
    """
    for dim in (2, 3):
        count = images.shape[dim]
        position = torch.arange(size, device=images.device, dtype=torch.float64) * count / size
        before = position.long()
        share = (position - before).to(images.dtype).view(-1, *[1] * (3 - dim))
        after = (before + 1).clamp_max(count - 1)
        first, second = images.index_select(dim, before), images.index_select(dim, after)
        images = first + share * (second - first)
    return images


def load_inception(path: Path) -> Inception:
    """The network with the weights of a file in pytorch-fid's or torch-fidelity's names.

    Raises ValueError, one sentence, if it has others.
    """
    return with_weights(Inception(), path, _without_classifier, "FID's Inception v3")


def _without_classifier(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}
