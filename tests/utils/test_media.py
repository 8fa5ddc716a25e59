from __future__ import annotations

import math
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from utils.media import (
    LABEL_HEIGHT,
    Pixels,
    Row,
    colorize,
    contact_sheet,
    count_frames,
    depth_image,
    depth_span,
    read_video,
    rows_sheet,
    to_pixels,
    to_uint8,
    write_jpeg,
    write_png,
    write_video,
)


def test_png_keeps_every_level(tmp_path: Path) -> None:
    image = torch.arange(256).float().div(255).reshape(1, 16, 16).expand(3, -1, -1)
    write_png(tmp_path / "a" / "x.png", image)
    pixels = np.asarray(Image.open(tmp_path / "a" / "x.png"))
    assert np.array_equal(pixels[..., 1], np.arange(256).reshape(16, 16))
    assert [entry.name for entry in (tmp_path / "a").iterdir()] == ["x.png"]


def test_png_clamps_and_refuses_nan(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", torch.tensor([[[-1.0, 2.0]]]))
    assert np.asarray(Image.open(tmp_path / "x.png"))[0, :, 0].tolist() == [0, 255]
    with pytest.raises(ValueError, match="not finite"):
        write_png(tmp_path / "y.png", torch.full((3, 2, 2), float("nan")))
    assert not (tmp_path / "y.png").exists()


def test_jpeg_keeps_smooth_pictures_and_is_smaller(tmp_path: Path) -> None:
    ramp = torch.linspace(0, 1, 64)
    image = torch.stack([ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.full((64, 64), 0.5)])
    image = (image + 0.02 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    write_png(tmp_path / "a" / "x.png", image)
    write_jpeg(tmp_path / "a" / "x.jpg", image)
    with Image.open(tmp_path / "a" / "x.jpg") as picture:
        assert picture.format == "JPEG"
        kept = torch.from_numpy(np.array(picture)).permute(2, 0, 1) / 255
    assert float((kept - image).abs().mean()) < 0.02
    sizes = [(tmp_path / "a" / name).stat().st_size for name in ("x.jpg", "x.png")]
    assert sizes[0] < sizes[1] / 4


def test_contact_sheet_places_the_images_in_reading_order() -> None:
    images = torch.stack([torch.full((3, 8, 30), level / 5) for level in range(5)])
    sheet = contact_sheet(images, columns=3, gap=2)
    assert sheet.shape == (3, 8 * 2 + 2, 30 * 3 + 4)
    for index in range(5):
        top, left = (index // 3) * 10, (index % 3) * 32
        torch.testing.assert_close(
            sheet[:, top : top + 8, left : left + 30], images[index], atol=2e-3, rtol=0
        )
    assert bool((sheet[:, 10:, 64:] == 1).all())


def test_labels_stay_above_their_image() -> None:
    images = [torch.zeros(3, 10, 40)] * 2
    sheet = contact_sheet(images, columns=2, labels=["a cat", "a label far too long for its image"])
    assert sheet.shape == (3, 10 + LABEL_HEIGHT, 84)
    assert bool((sheet[:, LABEL_HEIGHT:, :40] == 0).all())
    assert bool((sheet[:, :LABEL_HEIGHT] < 0.5).any())
    assert bool((sheet[:, :, 40:44] == 1).all())
    with pytest.raises(ValueError, match="labels has 1"):
        contact_sheet(images, columns=2, labels=["one"])


@pytest.mark.parametrize(("height", "width"), [(32, 48), (33, 47)])
def test_video_has_all_frames_at_an_even_size(tmp_path: Path, height: int, width: int) -> None:
    path = tmp_path / "v" / "turn.mp4"
    levels = [0.1, 0.5, 0.9]
    write_video(path, (torch.full((3, height, width), level) for level in levels), fps=10)
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    assert meta["size"] == (width + width % 2, height + height % 2)
    assert meta["pix_fmt"].startswith("yuv420p")
    decoded = [np.frombuffer(frame, np.uint8).mean() / 255 for frame in frames]
    assert decoded == pytest.approx(levels, abs=0.02)
    assert list(path.parent.iterdir()) == [path]


def test_video_errors_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frames"):
        write_video(tmp_path / "v.mp4", [])
    with pytest.raises(ValueError, match="first one"):
        write_video(tmp_path / "v.mp4", [torch.zeros(3, 16, 16), torch.zeros(3, 16, 18)])
    assert list(tmp_path.iterdir()) == []


def test_the_colour_map_is_monotone_in_luminance() -> None:
    colors = colorize(torch.linspace(0, 1, 101).reshape(1, 1, 101))
    luminance = (colors[:, 0] * torch.tensor([0.30, 0.59, 0.11])[:, None]).sum(dim=0)
    assert bool((luminance.diff() > 0).all())
    assert colors[:, 0, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-6)
    assert colors[:, 0, -1].tolist() == pytest.approx([1, 1, 1], abs=1e-6)


def test_depth_pictures_show_the_near_bright_and_nothing_black() -> None:
    depth = torch.tensor([[[[1.0, 2.0, 0.0]]]])
    alpha = torch.tensor([[[[1.0, 1.0, 0.0]]]])
    near, far, empty = depth_image(depth, alpha)[0, :, 0].mean(dim=0).tolist()
    assert near > far > empty == 0.0
    assert depth_image(torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 4, 4)).shape == (2, 3, 4, 4)


def looked_at(depth: Tensor, alpha: Tensor) -> Tensor:
    """Make the picture of `depth_image`, choosing its covered pixels one by one."""
    covered = alpha > 0.5
    if not bool(covered.any()):
        return torch.zeros_like(depth).expand(-1, 3, -1, -1)
    mean_depth = depth / alpha.clamp_min(1e-6)
    near, far = mean_depth[covered].aminmax()
    nearness = (far - mean_depth) / (far - near).clamp_min(1e-6)
    return colorize(0.2 + 0.8 * nearness.clamp(0, 1)) * alpha


@pytest.mark.parametrize("most", [1.0, 0.501, 0.5, 0.0], ids=["solid", "hardly", "faint", "empty"])
def test_depth_pictures_need_no_look_at_what_is_covered(most: float) -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = (2 * torch.rand(5, 1, 16, 16, generator=generator)).clamp_max(1) * most
    depth = alpha * (3 + torch.rand(5, 1, 16, 16, generator=generator))
    expected = looked_at(depth, alpha)
    assert torch.equal(depth_image(depth, alpha), expected)
    assert bool(expected.any()) == (most > 0.5)
    # A part of the views on the scale of all.
    span = depth_span(depth, alpha)
    assert torch.equal(depth_image(depth[1:3], alpha[1:3], span), expected[1:3])
    one = alpha.argmax() == torch.arange(alpha.numel()).reshape(alpha.shape)
    assert torch.equal(depth_image(depth, alpha * one), looked_at(depth, alpha * one))


def test_pixels_are_made_without_a_look_at_the_device() -> None:
    images = torch.empty(2, 1, 8, 8, device="meta")
    pixels = to_pixels(depth_image(images, images))
    assert (pixels.levels.shape, pixels.levels.dtype) == ((2, 8, 8, 3), torch.uint8)
    assert pixels.nbytes == 2 * 8 * 8 * 3
    with pytest.raises(ValueError, match=r"\[2, 8, 8\]"):
        to_pixels(images[:, 0])


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_pictures_of_their_images(tmp_path: Path, channels: int) -> None:
    images = 1.2 * torch.rand(4, channels, 6, 7, generator=torch.Generator().manual_seed(0)) - 0.1
    pixels = to_pixels(images).on_host()
    for image, level in zip(images, pixels):
        expected = (image.expand(3, -1, -1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(to_uint8(image), expected)
        assert np.array_equal(to_uint8(level), expected)
    assert torch.equal(contact_sheet(pixels, 2), contact_sheet(images, 2))
    assert torch.equal(rows_sheet([Row("a", pixels)]), rows_sheet([Row("a", images)]))
    for name, given in (("x", images), ("y", pixels)):
        write_png(tmp_path / f"{name}.png", given[0])
        write_video(tmp_path / f"{name}.mp4", given)
    assert (tmp_path / "x.png").read_bytes() == (tmp_path / "y.png").read_bytes()
    assert (tmp_path / "x.mp4").read_bytes() == (tmp_path / "y.mp4").read_bytes()
    with pytest.raises(ValueError, match="uint8"):
        write_png(tmp_path / "z.png", pixels)


def test_pixels_of_what_is_not_finite_are_refused_on_the_host() -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 0, 0, 0] = math.inf
    with pytest.raises(ValueError, match="not finite"):
        to_pixels(images).on_host()
    sound, broken = to_pixels(images[:1]), to_pixels(images)
    assert len(Pixels.join([sound, sound]).on_host()) == 2
    with pytest.raises(ValueError, match="not finite"):
        Pixels.join([sound, broken]).on_host()


def test_rows_lie_below_each_other_under_their_titles() -> None:
    black, grey = torch.zeros(2, 3, 10, 20), torch.full((3, 1, 6, 8), 0.5)
    sheet = rows_sheet([Row("a", black), Row("b", grey, ["x", "y", "z"])], gap=2)
    head = LABEL_HEIGHT + 2
    assert sheet.shape == (3, head + 10 + 2 + head + LABEL_HEIGHT + 6 + 2, 42)
    assert bool((sheet[:, head : head + 10, :20] == 0).all())
    assert bool((sheet[:, head : head + 10, 20:22] == 1).all())
    assert bool((sheet[:, -8:-2, 10:18] - 0.5).abs().max() < 0.01)
    assert bool((sheet[:, :head] < 1).any()), "the title is missing"


def test_titles_are_not_cut() -> None:
    tile = torch.zeros(1, 3, 8, 8)
    narrow, wide = (rows_sheet([Row(title, tile)]).shape[2] for title in ("a", "a much longer title"))
    assert narrow < 20 < wide
    with pytest.raises(ValueError, match="0 rows"):
        rows_sheet([])


def test_a_video_is_read_as_it_was_written(tmp_path: Path) -> None:
    levels = torch.linspace(0, 1, 5)
    frames = levels[:, None, None, None].expand(-1, 3, 16, 24)
    write_video(tmp_path / "x.mp4", frames)
    assert count_frames(tmp_path / "x.mp4") == 5
    read = torch.stack(list(read_video(tmp_path / "x.mp4")))
    assert read.shape == frames.shape
    # The codec keeps brightness to a few of 255 levels.
    torch.testing.assert_close(read, frames, atol=0.02, rtol=0)


def test_what_is_no_video_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    assert count_frames(tmp_path / "x.mp4") == 0
    with pytest.raises(OSError, match="cannot be read as a video"):
        list(read_video(tmp_path / "x.mp4"))
