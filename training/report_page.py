"""The page report.html: a run that needs nothing else, neither a network nor the files beside it."""

from __future__ import annotations

import base64
import io
import logging
import math
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template

import numpy as np
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import config as configuration
from config import Config
from training.state import DENSITY
from utils.curves import Curve, svg
from utils.event_log import scalars_in
from utils.files import digest_of_file, write_text
from utils.media import count_frames, read_image, read_video, to_uint8, write_video
from utils.run_cost import RunCost
from utils.run_folder import RunFolder

TEMPLATE = Path(__file__).with_name("report_page.html")
STRIP = 8
"""Pictures in the strip of the asset as it formed."""
LARGEST_PICTURE, LARGEST_SHEET = 256, 1400
"""Pixels of the longer side: of one view, and of a sheet of many."""
LARGEST_VIDEO = 700_000
"""Bytes: a larger one is made smaller."""
MOST_POINTS = 400
"""Points of a curve at most."""
MAIN_CURVES = {
    "loss/guidance": "guidance loss",
    "guidance/grad_norm": "gradient in the latents, norm",
    "guidance/t": "timestep t",
    "guidance/unet_evals_per_view": "U-Net evaluations per view",
    "grad_norm/xyz": "gradient of the positions, norm",
    "grad_norm/f_dc": "gradient of the colours, norm",
    "run/gaussians": "Gaussians",
    "run/iterations_per_second": "iterations per second so far",
    "run/memory_GB": "peak memory, GB",
}
"""Titles of the curves that come first, by the scalar's name; what never changes is left to the others."""

FATES = {
    "visible": "drawn in a view",
    "nonfinite": "not finite",
    "behind": "behind the camera",
    "degenerate": "without an extent",
    "faint": "fainter than 1/255",
    "outside": "outside of the image",
}
"""Fates of Gaussians in a view, by the rasterizer's names: drawn, or left out for this reason."""
Scalars = Mapping[str, Mapping[int, float]]
"""Logged values by name and iteration."""

logger = logging.getLogger(__name__)


def try_report_page(run: RunFolder, cost: RunCost, metrics: Mapping[str, str] | None = None) -> None:
    """Do what `write_report_page` does; whatever is in its way is one warning and harms nobody."""
    try:
        write_report_page(run, cost, metrics)
    # What a run of hours has made does not depend on its page.
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else None
        logger.warning("%s cannot be written (%s).", run.page, reason or f"{type(error).__name__}: {error}")


def write_report_page(run: RunFolder, cost: RunCost, metrics: Mapping[str, str] | None = None) -> None:
    """Write `run.page` from the other files of a run that has ended; those that are not there are left out.

    cost: what the run took; metrics: what scorers say, by heading. Raises OSError, and ConfigError if config.yaml is
    no configuration.
    """
    config = configuration.of_file(run.config)
    logged, asset = scalars_in(run.root), run.asset.stat()
    ended = datetime.fromtimestamp(asset.st_mtime).strftime("%d %B %Y, %H:%M")
    sections = [
        _turntable(run, config),
        _formation(run, config),
        _metrics(metrics or {}),
        _density(logged),
        _curves(logged),
        _settings(config),
        _reproduction(run, cost),
    ]
    subtitle = (
        f"{config.guidance_type.upper()} · prior {config.guidance.model_key} · seed {config.seed} · {ended}"
    )
    template = TEMPLATE.read_text(encoding="utf-8")
    page = Template(template).substitute(
        script_hash=_script_hash(template),
        title=escape(config.guidance.text),
        subtitle=escape(subtitle),
        figures=_figures(config, cost, asset.st_size),
        sections="\n".join(filter(None, sections)),
    )
    write_text(run.page, page)


def _script_hash(page: str) -> str:
    """Hash of the page's script, by which its policy lets that one run and no other."""
    script = page.partition("<script>")[2].partition("</script>")[0]
    return f"sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}"


def _figures(config: Config, cost: RunCost, asset_bytes: int) -> str:
    """Figures of what the run took, in large digits."""
    iterations = config.optimization.iterations
    shown = {
        "time of the loop": _duration(cost.seconds),
        "iterations": f"{iterations:,}",
        "iterations per second": f"{iterations / cost.seconds:.3g}" if cost.seconds else "–",
        "views per iteration": f"{config.guidance.C_batch_size}",
        "U-Net evaluations per view": f"{cost.evaluations:.3g}",
        "peak memory": f"{cost.peak_memory:.2f} GB",
        "Gaussians": f"{cost.gaussians:,}",
        "asset": f"{asset_bytes / 1e6:.2f} MB",
    }
    return _definitions(shown)


def _definitions(shown: Mapping[str, str]) -> str:
    items = (f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in shown.items())
    return f'<dl class="figures">{"".join(items)}</dl>'


def _duration(seconds: float) -> str:
    """A duration such as 95 s, 12 min 5 s or 3 h 20 min."""
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _section(title: str, *parts: str) -> str:
    """A section of the parts that are there; '' without any."""
    body = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def _turntable(run: RunFolder, config: Config) -> str:
    """The turntables as films, and the six views, which can be printed."""
    last = config.optimization.iterations
    names = {"rgb": "Once around", "depth": "Depth: near is bright"}
    films = [_film(run.video(last, kind), caption) for kind, caption in names.items()]
    views = {
        f"{azimuth}°": read_image(path)
        for azimuth in range(0, 360, 60)
        if (path := run.test_view(last, azimuth)).exists()
    }
    return _section("The asset", _row("films", films), _strip(views))


def _formation(run: RunFolder, config: Config) -> str:
    """Section on the start, how the asset formed, and what the method made of its last picture."""
    iterations = config.optimization.iterations
    strip = _formation_strip(
        run.process_video, min(config.optimization.pro_frames_num, iterations), iterations
    )
    film = _row("films", [_film(run.process_video, "As it formed, turning once")])
    sheets = [
        _sheet(run.start, "What it started from"),
        _sheet(run.train_picture(_last_picture(config)), "The last training picture: what was rendered, what the prior predicts, where the gradient acts"),
    ]  # fmt: skip
    folds = map(_fold, [*sheets, film], ("The start", "Inside the method", "As a film"))
    return _section("How it formed", _strip(strip), *folds)


def _formation_strip(video: Path, planned: int, iterations: int) -> dict[str, Tensor]:
    """STRIP frames of the process video, by caption; `planned`: how many it has if none is missing."""
    count = count_frames(video) if video.exists() else 0
    chosen = {round((count - 1) * k / (STRIP - 1)) for k in range(STRIP)} if count else set()
    found = {}
    for index, frame in enumerate(read_video(video) if chosen else ()):
        if index in chosen:
            # Which iteration a frame is of is known as long as none is missing.
            step = max(1, round(iterations * (index + 1) / planned))
            found[f"iteration {step}" if count == planned else f"frame {index + 1}"] = frame
    return found


def _last_picture(config: Config) -> int:
    """The iteration of the last training picture."""
    every = config.guidance.vis_interval
    return max(1, config.optimization.iterations // every * every)


def _metrics(metrics: Mapping[str, str]) -> str:
    return _section("Evaluation", _definitions(metrics) if metrics else "")


def _density(logged: Scalars) -> str:
    """Section on what density control did in all, and what was drawn of the last logged iteration's views."""
    last = {name: points[max(points)] for name, points in logged.items()}
    done = {
        name.replace("_", " "): last[f"density/{name}"] for name in DENSITY if last.get(f"density/{name}")
    }
    seen = {reason: last.get(f"rasterizer/{name}", 0.0) for name, reason in FATES.items()}
    drawn = {
        name: f"{count:,.0f}" if count >= 10 else f"{count:.2g}"
        for name, count in {**done, **seen}.items()
        if count
    }
    return _section("Density control and views", _definitions(drawn) if drawn else "")


def _curves(scalars: Scalars) -> str:
    """The scalars over the iterations: the telling ones, and the others behind a fold."""
    logged = {name: points for name, points in scalars.items() if len(points) > 1}
    varying = {name for name, points in logged.items() if _varies(list(points.values()))}
    main = [name for name in MAIN_CURVES if name in varying]
    others = sorted(set(logged) - set(main))
    count = f"{len(others)} more, unsmoothed values in the TensorBoard log" if others else ""
    return _section(
        "Curves",
        _row("curves", [_curve(MAIN_CURVES[name], logged[name]) for name in main]),
        _fold(_row("curves", [_curve(name, logged[name]) for name in others]), count),
    )


def _varies(values: Sequence[float]) -> bool:
    """Return whether there is more to see than rounding."""
    return max(values) - min(values) > 1e-3 * max(map(abs, values))


def _curve(title: str, points: Mapping[int, float]) -> str:
    stride = math.ceil(len(points) / MOST_POINTS)
    # Iterations count from 1, the picture's steps from 0.
    steps = np.array(sorted(points), dtype=float)[::-stride][::-1] - 1
    values = np.array([points[int(step) + 1] for step in steps])
    finite = np.isfinite(values)
    if finite.sum() < 2:
        return ""
    steps, values = steps[finite], values[finite]
    # A curve over orders of magnitude is a flat line but for its peaks.
    logarithmic = bool(values.min() > 0 and values.max() > 50 * values.min())
    return svg([Curve(title, steps, values, logarithmic)])


def _settings(config: Config) -> str:
    """Section on what the user has set, and behind a fold what the preset sets."""
    preset = configuration.preset_of(config)
    everything = configuration.changed(Config(), config)
    if preset is None:
        return _section("Settings that differ from the defaults", _tables(everything))
    name, values = preset
    own = configuration.changed(values, config)
    labels = {label for label, _, _ in own}
    others = [setting for setting in everything if setting[0] not in labels]
    rows = [(label.rpartition(".")[2], old, new) for label, old, new in own]
    return _section(
        "Settings",
        _table("set for this run", "in the preset", rows)
        if rows
        else f'<p class="quiet">All are as in {escape(name)}.</p>',
        _fold(_tables(others), f"{len(others)} more, from {name}"),
    )


def _tables(settings: Sequence[tuple[str, str, str]]) -> str:
    """A table for each section of the YAML file, of what `changed` finds against the defaults."""
    rows: dict[str, list[tuple[str, str, str]]] = {}
    for label, old, new in settings:
        section, _, key = label.rpartition(".")
        rows.setdefault(section or "Run", []).append((key, old, new))
    return _row("tables", [_table(section, "default", lines) for section, lines in rows.items()])


def _table(title: str, other: str, rows: Sequence[tuple[str, str, str]]) -> str:
    """A table of keys; rows: the key, its value in what the heading `other` names, and its value here."""
    lines = "".join(
        f"<tr><td>{escape(key)}</td><td><code>{escape(new)}</code></td><td><code>{escape(old)}</code></td></tr>"
        for key, old, new in rows
    )
    return f"<table><tr><th>{escape(title)}</th><th>value</th><th>{escape(other)}</th></tr>{lines}</table>"


def _reproduction(run: RunFolder, cost: RunCost) -> str:
    text = run.config.read_text(encoding="utf-8")
    link = f"data:text/yaml;base64,{base64.b64encode(text.encode()).decode()}"
    command = f"python train.py --opt {shlex.quote((run.root / run.config.name).as_posix())}"
    return _section(
        "Reproduce",
        f'<div class="command"><pre id="command">{escape(command)}</pre>'
        '<button id="copy" type="button" aria-live="polite" hidden>Copy</button></div>',
        f'<p class="quiet">Made on {escape(cost.machine)}. The asset, {escape(run.asset.name)}, has the SHA-256 '
        f"<code>{digest_of_file(run.asset)}</code>: on the CPU, one seed and one version of the code give the same "
        "bytes on the same machine.</p>",
        _fold(
            f'<p><a href="{link}" download="{escape(run.config.name)}">Save {escape(run.config.name)}</a></p>'
            f"<pre>{escape(text)}</pre>",
            "Every setting",
        ),
    )


def _row(kind: str, items: Sequence[str]) -> str:
    """Items side by side, in the layout that the style sheet calls `kind`; '' without any."""
    body = "\n".join(filter(None, items))
    return f'<div class="{kind}">\n{body}\n</div>' if body else ""


def _fold(body: str, title: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{body}\n</details>" if body else ""


def _strip(pictures: Mapping[str, Tensor]) -> str:
    """Small pictures [3, H, W] in a row, by caption."""
    if not pictures:
        return ""
    figures = (_figure(picture, caption, LARGEST_PICTURE) for caption, picture in pictures.items())
    return f'<div class="strip" style="--count:{len(pictures)}">{"".join(figures)}</div>'


def _sheet(path: Path, caption: str) -> str:
    return _figure(read_image(path), caption, LARGEST_SHEET) if path.exists() else ""


def _figure(picture: Tensor, caption: str, largest: int) -> str:
    """Figure of a picture [3, H, W] in [0, 1], scaled down to `largest` pixels."""
    buffer = io.BytesIO()
    Image.fromarray(to_uint8(_shrunk(picture, largest))).save(buffer, format="JPEG", quality=87)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(caption)
    return f'<figure><img alt="{text}" src="data:image/jpeg;base64,{data}"><figcaption>{text}</figcaption></figure>'


def _film(path: Path, caption: str) -> str:
    if not path.exists():
        return ""
    data = base64.b64encode(_small_video(path)).decode()
    return (
        f'<figure><video src="data:video/mp4;base64,{data}" autoplay loop muted playsinline controls></video>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _small_video(path: Path) -> bytes:
    """An MP4 file, at the size of a view if it is larger than LARGEST_VIDEO."""
    if path.stat().st_size <= LARGEST_VIDEO:
        return path.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / path.name
        write_video(small, (_shrunk(frame, LARGEST_PICTURE) for frame in read_video(path)))
        return small.read_bytes()


def _shrunk(picture: Tensor, largest: int) -> Tensor:
    """A picture [3, H, W], no side longer than `largest` pixels."""
    scale = largest / max(picture.shape[-2:])
    if scale >= 1:
        return picture
    size = [max(1, round(side * scale)) for side in picture.shape[-2:]]
    return F.interpolate(picture[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)
