"""Published checkpoints on this disk: found where people keep them, or downloaded, whole and checked."""

from __future__ import annotations

import base64
import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from point_e.checkpoint import read_tensors
from point_e.errors import PointEError, reason_of
from point_e.models import Published

logger = logging.getLogger(__name__)

BASE_URL = "https://openaipublic.azureedge.net/main/point-e/"
RETRY_AFTER = (1.0, 2.0, 4.0)
"""Seconds to wait after each of the failures in a row in which nothing new arrived."""
TIMEOUT = (10.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes."""
CHUNK = 1 << 16
"""Bytes at a time; what has arrived of one that is cut off is lost."""


@dataclass(frozen=True)
class Surroundings:
    """Places where checkpoints are looked for and downloaded to, and whether that is allowed."""

    folders: tuple[Path, ...]
    cache: Path
    offline: bool


def surroundings() -> Surroundings:
    """The places from the environment, which is read only here: POINT_E_CACHE, XDG_CACHE_HOME and
    HF_HUB_OFFLINE.

    `point_e_model_cache` in the working directory is where OpenAI's code puts its downloads.
    """
    env = os.environ
    home = Path(env.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "point_e"
    own = [Path(env["POINT_E_CACHE"]).expanduser()] if env.get("POINT_E_CACHE") else []
    offline = env.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    folders = (*own, Path("point_e_model_cache").absolute(), home)
    return Surroundings(folders, folders[0] if own else home, offline)


def fetch(published: Published, *, offline: bool, progress: bool = True) -> Path:
    """The published checkpoint's file, found in one of the cache folders or downloaded, unless `offline`.

    Raises PointEError if it is to be had nowhere, or damaged.
    """
    around = surroundings()
    for folder in around.folders:
        if (path := find_in(folder, published)) is not None:
            verify(path, published)
            return path
    looked = ", ".join(str(folder) for folder in around.folders)
    ways_out = (
        f"give the path of the file or of its folder as the model, put the file into {around.cache}, "
        f"or allow the download of {_url(published)}"
    )
    if offline:
        raise PointEError(f"{published.file} is not in {looked}, and this is offline; {ways_out}.")
    try:
        return download(published, around.cache / published.file, progress=progress)
    except PointEError as error:
        raise PointEError(f"{published.file} cannot be downloaded: {error}; {ways_out}.") from error


def find_in(folder: Path, published: Published) -> Path | None:
    """The published checkpoint's file in `folder`, as it was published or as safetensors."""
    path = folder / published.file
    return next((p for p in (path, path.with_suffix(".safetensors")) if p.is_file()), None)


def verify(path: Path, published: Published | None = None) -> None:
    """Check that `path` is what was published, and what its `.sha256` file holds, else PointEError.

    The file of that kind beside it is what `sha256sum` writes; neither is needed.
    """
    try:
        problem = _difference(path, published)
    except OSError as error:
        raise PointEError(f"{str(path)!r} cannot be read: {reason_of(error)}.") from error
    if problem:
        raise PointEError(f"{str(path)!r} is damaged or another file: {problem}.")


def _difference(path: Path, published: Published | None) -> str | None:
    """Difference of a file from the one that it must be, and what to do."""
    noted = _note_of(path)
    if published is not None and path.name == published.file and published.sha256 is not None:
        way_out = "remove it to have it downloaded, or give its path if it is meant to be another"
        if (size := path.stat().st_size) != published.size:
            return f"it has {size} bytes instead of {published.size}; {way_out}"
        if _digest(path, "sha256").hex() != published.sha256:
            return f"its SHA-256 is not the published one; {way_out}"
    elif noted.is_file() and _digest(path, "sha256").hex() != noted.read_text(errors="replace")[:64].lower():
        return f"its SHA-256 is not the one in {noted.name}; remove both and get it again"
    return None


def download(published: Published, target: Path, *, progress: bool = True) -> Path:
    """Bring a checkpoint to `target`, which is there at the end only if it is whole.

    What was received is kept in `<target>.part` and continued next time. One process downloads while others
    wait. Checked are the size, and the SHA-256 if it is known, else what the server reports of the file and
    that it holds tensors; then the SHA-256 is written beside it. Raises PointEError, whose message is a
    clause with the reason.
    """
    part = _beside(target, ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _lock(target):
            if target.is_file():  # another process was faster
                return target
            size, md5 = _receive(_url(published), part, published.size, progress)
            sha256 = _check(part, published, size, md5)
            if published.sha256 is None:
                _note_of(target).write_text(f"{sha256}  {target.name}\n")
            os.replace(part, target)
            _beside(part, ".etag").unlink(missing_ok=True)
    except OSError as error:
        where = f"{str(target.parent)!r} cannot be written to ({reason_of(error)})"
        if error.errno == errno.ENOSPC:
            where = f"the disk of {str(target.parent)!r} is full, what has arrived is kept"
        raise PointEError(f"{where}, and POINT_E_CACHE may name another folder") from error
    return target


class _Broken(Exception):
    """Failure that may not come back the next time."""


def _receive(url: str, part: Path, size: int | None, progress: bool) -> tuple[int, bytes | None]:
    """Fill `part`, over as many connections as it takes. Returns the size and the MD5 that the server claims."""
    reached, failures = 0, 0
    while True:
        try:
            return _attempt(url, part, size, progress)
        except (_Broken, requests.RequestException) as error:
            arrived = part.stat().st_size if part.exists() else 0
            if arrived > reached:
                reached, failures = arrived, 0
            if failures == len(RETRY_AFTER):
                kept = f", after {arrived / 1e6:.1f} MB, which are kept" if arrived else ""
                raise PointEError(f"{_reason(error, url)}{kept}") from error
            time.sleep(RETRY_AFTER[failures])
            failures += 1


def _reason(error: Exception, url: str) -> str:
    """Reason of a failure, from the innermost of requests' nested errors."""
    if isinstance(error, _Broken):
        return str(error)
    inner: BaseException = error
    while (next_inner := inner.__cause__ or inner.__context__) is not None:
        inner = next_inner
    return f"the connection to {urlsplit(url).hostname} failed ({reason_of(inner)})"


def _attempt(url: str, part: Path, size: int | None, progress: bool) -> tuple[int, bytes | None]:
    """Continue `part` over one connection, or begin it if it has no ETag or the file at the server has changed."""
    etag = _beside(part, ".etag")
    have = part.stat().st_size if part.exists() and etag.exists() else 0
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": etag.read_text()}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        told, resumed = response.headers, response.status_code == 206
        _check_answer(response, part, have)
        if not resumed:
            have = 0
            etag.unlink(missing_ok=True)
        total = _total_size(told.get("Content-Length", ""), have, size)
        _check_space(part.parent, total - have)
        with part.open("ab" if resumed else "wb") as file:
            if not resumed and "ETag" in told:
                etag.write_text(told["ETag"])
            with tqdm(
                desc=part.stem, total=total, initial=have, unit="B", unit_scale=True, disable=not progress
            ) as bar:
                for chunk in response.iter_content(CHUNK):
                    have += len(chunk)
                    if have > total:
                        raise PointEError(f"the server sends more than {total} bytes")
                    file.write(chunk)
                    bar.update(len(chunk))
        if have < total:
            raise _Broken(f"the server stops after {have} of {total} bytes")
        # Azure's storage calls the MD5 of the whole file so, if only a part of it is sent.
        md5 = told.get("x-ms-blob-content-md5" if resumed else "Content-MD5")
        return total, base64.b64decode(md5) if md5 else None


def _check_answer(response: requests.Response, part: Path, have: int) -> None:
    """Check that the server sends the file, or what it has after `have` bytes; raises _Broken if it may do so
    later.
    """
    status = response.status_code
    resumed = status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
    if status == 200 or resumed:
        return
    if status in (206, 416):
        part.unlink(missing_ok=True)
        raise _Broken(f"the server does not continue the file (HTTP {status})")
    problem = f"the server answers HTTP {status} ({response.reason})"
    raise _Broken(problem) if status == 429 or status >= 500 else PointEError(problem)


def _total_size(content_length: str, have: int, size: int | None) -> int:
    """Bytes of the whole file: what is known of it, or what the server reports. Raises PointEError if these
    differ.
    """
    if not content_length.isdecimal():
        if size is None:
            raise PointEError("the server does not say how large the file is")
        return size
    total = have + int(content_length)
    if size is not None and total != size:
        raise PointEError(f"the server offers {total} bytes instead of {size}")
    return total


def _check(part: Path, published: Published, size: int, md5: bytes | None) -> str:
    """The SHA-256 of what was received. Raises PointEError, and removes the file, if it is not what it must be."""
    sha256 = _digest(part, "sha256").hex()
    try:
        if part.stat().st_size != size:
            raise PointEError(f"what arrived has {part.stat().st_size} bytes instead of {size}")
        if published.sha256 is None:
            _check_unknown(part, md5)
        elif sha256 != published.sha256:
            raise PointEError("what arrived is not the published file, for its SHA-256 is another")
    except PointEError:
        part.unlink()
        _beside(part, ".etag").unlink(missing_ok=True)
        raise
    return sha256


def _check_unknown(part: Path, md5: bytes | None) -> None:
    """Check a file without known SHA-256: PointEError if it differs from the server's or holds no tensors."""
    if md5 is not None and _digest(part, "md5") != md5:
        raise PointEError("what arrived is not what the server has, for its MD5 is another")
    try:
        read_tensors(part)
    except PointEError as error:
        raise PointEError("what arrived is not a checkpoint") from error


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise PointEError(f"{needed / 1e6:.0f} MB are needed, but {free / 1e6:.0f} MB are free in {folder}")


def _digest(path: Path, algorithm: str) -> bytes:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


@contextmanager
def _lock(target: Path) -> Iterator[None]:
    """Keep other processes from downloading the same file."""
    lock = FileLock(_beside(target, ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("waiting for another process that downloads %s", target.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _note_of(path: Path) -> Path:
    return _beside(path, ".sha256")


def _url(published: Published) -> str:
    return BASE_URL + published.file
