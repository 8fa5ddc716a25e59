"""Pictures and videos: PNG files, labelled contact sheets, MP4 files and a colour map for depth.

A picture is an image [3 or 1, H, W] in [0, 1], or pixels: uint8 [H, W, 3].
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from utils.device import HOST
from utils.files import atomic_path
from utils.finite import NotFiniteError

LABEL_HEIGHT = 18
"""Height in pixels of the line of text above each picture of a contact sheet."""


@dataclass(frozen=True)
class Pixels:
    """V pictures on their device, which may be at work on them still.

    Attributes:
        levels: uint8 [V, H, W, 3].
        finite: bool [], true if all images that they were made of are finite.
    """

    levels: Tensor
    finite: Tensor

    @property
    def nbytes(self) -> int:
        return self.levels.nbytes

    def on_host(self) -> Tensor:
        """Fetch the levels to the host. Waits for the device; raises NotFiniteError for values that were not."""
        if not bool(self.finite):
            raise NotFiniteError(
                "image has values that are not finite, but a picture needs numbers in [0, 1]."
            )
        return self.levels.to(HOST)

    @staticmethod
    def join(parts: Sequence[Pixels]) -> Pixels:
        """Join pictures of one size, one after the other."""
        levels = torch.cat([part.levels for part in parts])
        return Pixels(levels, torch.stack([part.finite for part in parts]).all())


def to_pixels(images: Tensor) -> Pixels:
    """Convert images [V, 3 or 1, H, W] in [0, 1] to 8-bit RGB; values outside are clamped. Does not wait for
    their device.

    Raises ValueError for another shape.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images have shape {list(images.shape)}, but it must be [V, 3, H, W] or [V, 1, H, W]."
        )
    levels = (images.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return Pixels(levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous(), torch.isfinite(images).all())


def to_uint8(image: Tensor) -> np.ndarray:
    """Convert a picture to uint8 [H, W, 3]; values outside of [0, 1] are clamped.

    Raises ValueError for another shape and for values that are not finite.
    """
    if image.dtype == torch.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image.numpy(force=True)
    if image.dtype == torch.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(
            f"image is {image.dtype} {list(image.shape)}, but it must be [3, H, W] or [1, H, W] in [0, 1], or uint8 [H, W, 3]."
        )
    return to_pixels(image[None]).on_host()[0].numpy()


def to_float(pixels: np.ndarray) -> Tensor:
    """Return a picture uint8 [H, W, 3] as float32 [3, H, W] in [0, 1]: the inverse of `to_uint8`."""
    return torch.tensor(pixels).permute(2, 0, 1).float() / 255


def write_png(path: str | os.PathLike[str], image: Tensor) -> None:
    """Write a picture as an 8-bit RGB PNG file, atomically."""
    pixels = to_uint8(image)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG")


def read_image(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture file as float32 [3, H, W] in [0, 1]."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    return to_float(pixels)


def write_jpeg(path: str | os.PathLike[str], image: Tensor, quality: int = 85) -> None:
    """Write a picture as a JPEG file, atomically: for sheets whose PNG would be large."""
    pixels = to_uint8(image)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="JPEG", quality=quality)


def contact_sheet(
    images: Sequence[Tensor] | Tensor, columns: int, labels: Sequence[str] | None = None, gap: int = 4
) -> Tensor:
    """Lay pictures out in rows of `columns`, on white: float32 [3, height, width] in [0, 1].

    `labels` puts a line of text above each image. Raises ValueError without images or for too few or many
    labels.
    """
    return to_float(np.array(_grid(images, columns, labels, gap)))


def _grid(
    images: Sequence[Tensor] | Tensor, columns: int, labels: Sequence[str] | None, gap: int
) -> Image.Image:
    """Draw the sheet of `contact_sheet`."""
    if len(images) == 0 or columns < 1:
        raise ValueError(
            f"A contact sheet of {len(images)} images in {columns} columns needs at least 1 of each."
        )
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"labels has {len(labels)} entries, but there are {len(images)} images.")
    tiles = [to_uint8(image) for image in images]
    height, width = tiles[0].shape[:2]
    head = LABEL_HEIGHT if labels is not None else 0
    columns = min(columns, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    size = (columns * (width + gap) - gap, rows * (height + head + gap) - gap)
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=LABEL_HEIGHT - 6)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        left, top = column * (width + gap), row * (height + head + gap)
        if labels is not None:
            draw.text((left + 2, top + 1), _fit(labels[index], width - 4, font), fill="black", font=font)
        sheet.paste(Image.fromarray(tile), (left, top + head))
    return sheet


class Row(NamedTuple):
    """Pictures side by side under a title, each with a label of its own where there are labels."""

    title: str
    images: Tensor
    labels: Sequence[str] | None = None


def rows_sheet(rows: Sequence[Row], gap: int = 4) -> Tensor:
    """Lay out rows of pictures below each other, each under its title, on white: float32 [3, height, width] in [0, 1].

    The sheet is as wide as the widest row or title. Raises ValueError without rows, and as contact_sheet does.
    """
    if not rows:
        raise ValueError("A sheet of 0 rows needs at least 1.")
    font = ImageFont.load_default(size=LABEL_HEIGHT - 5)
    strips = [_grid(row.images, len(row.images), row.labels, gap) for row in rows]
    width = max([strip.width for strip in strips] + [math.ceil(font.getlength(row.title)) for row in rows])
    head = LABEL_HEIGHT + gap
    sheet = Image.new("RGB", (width, sum(strip.height + head + gap for strip in strips)), "white")
    draw = ImageDraw.Draw(sheet)
    top = 0
    for row, strip in zip(rows, strips):
        draw.text((0, top + gap), row.title, fill="#333333", font=font)
        sheet.paste(strip, (0, top + head))
        top += head + strip.height + gap
    return to_float(np.array(sheet))


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Shorten `text` to at most `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def write_video(path: str | os.PathLike[str], frames: Iterable[Tensor], fps: int = 30) -> None:
    """Write pictures as the frames of an MP4 file (H.264, 4:2:0), atomically.

    Odd sizes get one more row or column, a copy of the last, since 4:2:0 needs even ones. Raises ValueError if
    there is no frame or one has another size than the first, and OSError if the encoder cannot write.
    """
    pictures, count = map(to_uint8, frames), 0
    first = next(pictures, None)
    if first is None:
        raise ValueError(f"The video {os.fspath(path)!r} has no frames, but it needs at least 1.")
    height, width = first.shape[:2]
    with atomic_path(path) as temporary:
        encoder = ffmpeg().write_frames(
            str(temporary),
            (width + width % 2, height + height % 2),
            fps=fps,
            codec="libx264",
            pix_fmt_out="yuv420p",
            quality=None,
            macro_block_size=1,
            output_params=["-crf", "18", "-movflags", "+faststart"],
        )
        encoder.send(None)
        try:
            for picture in chain([first], pictures):
                if picture.shape != first.shape:
                    raise ValueError(
                        f"A frame is {picture.shape[:2]} pixels, but the first one is {first.shape[:2]}."
                    )
                even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
                encoder.send(np.ascontiguousarray(even))
                count += 1
        except OSError:
            # Its message is the encoder's whole log.
            raise OSError("the encoder stopped, perhaps because the disk is full") from None
        finally:
            encoder.close()
        # The encoder does not report whether the last frames, too, found room.
        if count_frames(temporary) != count:
            raise OSError("the encoder did not write all frames, perhaps because the disk is full")


def read_video(path: str | os.PathLike[str]) -> Iterator[Tensor]:
    """Yield the frames of a video file, one after the other, as float32 [3, H, W] in [0, 1].

    Raises OSError if it cannot be read.
    """
    frames = ffmpeg().read_frames(os.fspath(path))
    try:
        width, height = next(frames)["size"]
        for frame in frames:
            pixels = np.frombuffer(frame, dtype=np.uint8).reshape(height, width, 3)
            yield to_float(pixels)
    except (OSError, RuntimeError, StopIteration):
        # Its message is the decoder's whole log.
        raise OSError(f"{os.fspath(path)!r} cannot be read as a video") from None
    finally:
        frames.close()


def ffmpeg() -> Any:
    """Import the package with the encoder, which only videos need. Raises OSError, in one sentence, without it."""
    try:
        import imageio_ffmpeg
    except ImportError:
        raise OSError(
            "videos need the package imageio-ffmpeg, or --save_video false --save_process false"
        ) from None
    return imageio_ffmpeg


def count_frames(video: str | os.PathLike[str]) -> int:
    """Count the frames of a video file; 0 if it is none."""
    try:
        return ffmpeg().count_frames_and_secs(os.fspath(video))[0]
    except (OSError, RuntimeError):
        return 0


def colorize(values: Tensor) -> Tensor:
    """Map values [..., 1, H, W] in [0, 1] to colours [..., 3, H, W], from black over blue-green and orange to white.

    Green's "cubehelix" (2011), start 0.5, -1.5 rotations, hue 1: its luminance rises linearly with the value,
    so the picture reads the same in grey.
    """
    x = values.clamp(0, 1)
    angle = 2 * math.pi * (0.5 / 3 + 1 - 1.5 * x)
    amplitude = x * (1 - x) / 2
    cos, sin = torch.cos(angle), torch.sin(angle)
    red = x + amplitude * (-0.14861 * cos + 1.78277 * sin)
    green = x + amplitude * (-0.29227 * cos - 0.90649 * sin)
    blue = x + amplitude * (1.97294 * cos)
    return torch.cat([red, green, blue], dim=-3).clamp(0, 1)


def depth_span(depth: Tensor, alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest and farthest covered depth, [] each, of depth Σ T α z and alpha, shaped alike.

    They are inf and -inf where nothing is covered.
    """
    covered, mean_depth = alpha > 0.5, depth / alpha.clamp_min(1e-6)
    # Not mean_depth[covered]: how many these are would have to be waited for.
    return mean_depth.where(covered, math.inf).amin(), mean_depth.where(covered, -math.inf).amax()


def depth_image(depth: Tensor, alpha: Tensor, span: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """Draw depth [V, 1, H, W] = Σ T α z as pictures [V, 3, H, W]: near is bright, empty is black.

    Scaled by `span`, or by the nearest and the farthest covered depth of all V views together, so that a video
    does not flicker. Does not wait for the device.
    """
    near, far = depth_span(depth, alpha) if span is None else span
    nearness = (far - depth / alpha.clamp_min(1e-6)) / (far - near).clamp_min(1e-6)
    # The lowest fifth of the map stays for the empty background.
    return colorize(0.2 + 0.8 * nearness.clamp(0, 1)) * (alpha * (near <= far))
