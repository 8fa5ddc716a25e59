"""Look at an asset in the browser: python view.py RUN_OR_FILE

RUN_OR_FILE is a run's folder, such as outputs/quickstart/a-yellow-car-sctd-20261121-120000, or a file of Gaussians:
.ply, .compressed.ply, .splat, .spz, .sog, .splat.glb or .splat.usdz.
The page is served to this machine only. Its pictures are made here, by the rasterizer that training uses, so colours,
depth and alpha are those that training sees; Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

from config import ConfigError
from utils.axes import attached
from utils.numbers import whole_number

PORT = 8080


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python view.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path", metavar="RUN_OR_FILE", type=Path, help="a run's folder, or a file of Gaussians"
    )
    parser.add_argument(
        "--input_axes",
        metavar="UP,FRONT",
        help="directions in a file, such as -y,-z (default: its note, or what is usual in its format)",
    )
    parser.add_argument(
        "--port", type=whole_number(1024, 65535), default=PORT, help=f"or the next free one (default: {PORT})"
    )
    parser.add_argument(
        "--device", default="auto", help="where to render; auto takes the best there is (default)"
    )
    return parser.parse_args(attached(sys.argv[1:] if argv is None else argv))


def main(argv: list[str] | None = None) -> int:
    given = arguments(argv)
    # Only now, for torch takes its time.
    from scene.axes import parse_axes
    from utils.device import resolve_device
    from viewer.page import showing
    from viewer.subject import open_subject

    try:
        axes = None if given.input_axes is None else parse_axes(given.input_axes, "input_axes")
        subject = open_subject(given.path, resolve_device(given.device), axes)
        with showing(subject, given.port) as address:
            print(f"{subject.title}: {address} (Ctrl-C ends it)", flush=True)
            threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    except (ConfigError, ValueError, OSError) as error:
        print(f"view.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
