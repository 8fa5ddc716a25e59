"""FID's Inception: the quirks of TensorFlow's graph, each against loops, and the file's names and sizes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from evaluation.inception import BlockE, Inception, average, load_inception, resize


@pytest.mark.parametrize(("height", "width", "size"), [(5, 7, 4), (4, 3, 9), (6, 6, 6)])
def test_images_are_resized_as_tensorflow_1_does(height: int, width: int, size: int) -> None:
    image = torch.rand(1, 1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def at(y: float, x: float) -> float:
        top, left = math.floor(y), math.floor(x)
        below, right = min(top + 1, height - 1), min(left + 1, width - 1)
        upper = image[0, 0, top, left] * (1 - (x - left)) + image[0, 0, top, right] * (x - left)
        lower = image[0, 0, below, left] * (1 - (x - left)) + image[0, 0, below, right] * (x - left)
        return float(upper * (1 - (y - top)) + lower * (y - top))

    expected = [[at(i * height / size, j * width / size) for j in range(size)] for i in range(size)]
    torch.testing.assert_close(resize(image, size)[0, 0], torch.tensor(expected, dtype=torch.float64))


def test_padding_does_not_count_in_the_average() -> None:
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    found = average(image)[0, 0]
    for i in range(4):
        for j in range(4):
            around = image[0, 0, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            assert float(found[i, j]) == pytest.approx(float(around.mean()))


def test_only_the_last_block_pools_by_maximum() -> None:
    """A single bright pixel reaches nine: in full by the maximum, a part of it by the mean."""
    spot = torch.zeros(1, 4, 5, 5)
    spot[..., 2, 2] = 9
    for by_maximum, seen in ((True, 9.0), (False, 1.0)):
        block = BlockE(4, by_maximum=by_maximum).eval()
        with torch.no_grad():
            for parameter in block.branch_pool.parameters():
                parameter.fill_(1.0)
            block.branch_pool.bn.bias.zero_()
            pooled = block(spot)[0, -1]
        expected = torch.zeros(5, 5)
        expected[1:4, 1:4] = 4 * seen / math.sqrt(1.001)
        torch.testing.assert_close(pooled, expected)
    with torch.device("meta"):
        network = Inception()
    assert [network.Mixed_7b.by_maximum, network.Mixed_7c.by_maximum] == [False, True]


def test_it_has_the_published_size_and_names() -> None:
    with torch.device("meta"):
        network = Inception()
    # torchvision's Inception v3 has 27,161,264 parameters: 3,326,696 of the auxiliary classifier, 2,049,000 of the last.
    assert sum(parameter.numel() for parameter in network.parameters()) == 27_161_264 - 3_326_696 - 2_049_000
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_6c.branch7x7dbl_4.conv.weight"] == (160, 160, 7, 1)
    assert shapes["Mixed_7a.branch7x7x3_4.bn.running_var"] == (192,)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)


def test_the_published_file_is_read(tmp_path: Path) -> None:
    """The file is in torch's older format, with the classifier and without counters of batches."""
    written = {name: value for name, value in Inception().state_dict().items() if "num_batches" not in name}
    more = {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}
    torch.save(written | more, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    read = load_inception(tmp_path / "a.pth").state_dict()
    for name, value in written.items():
        assert torch.equal(value, read[name]), name


def test_images_of_any_size_become_features() -> None:
    network = Inception().eval()
    with torch.no_grad():
        images = torch.rand(1, 3, 20, 30, generator=torch.Generator().manual_seed(0))
        features = network(images)
        assert features.shape == (1, 2048)
        # What rounding to 8 bits takes away is not seen.
        assert torch.equal(network((images * 255).round() / 255), features)


def test_a_file_with_other_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not hold the weights of FID's Inception v3 \(.*\)\.$"):
        load_inception(tmp_path / "other.pth")
