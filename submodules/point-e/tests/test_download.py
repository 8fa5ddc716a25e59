"""Checkpoints found on this disk or downloaded from a server with every fault that servers have."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from faulty_server import Reply, Server, md5_of, serve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from point_e import PointEError, download
from point_e.models import BASE_MODELS, Published


def checkpoint_bytes() -> bytes:
    """A file of torch.save, long enough to break off in several places."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.randn(70_000, generator=torch.Generator().manual_seed(0))}, buffer)
    return buffer.getvalue()


CONTENT = checkpoint_bytes()
CUT = 2 * download.CHUNK + 100
KEPT = 2 * download.CHUNK
STAGE = BASE_MODELS["base40M"].stage
UNKNOWN = Published(STAGE, "base_40m.pt")
KNOWN = Published(STAGE, "base_40m.pt", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
NEVER = 4 * len(download.RETRY_AFTER)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serve(CONTENT) as it:
        monkeypatch.setattr(download, "BASE_URL", it.url)
        monkeypatch.setattr(download, "RETRY_AFTER", (0.0,) * len(download.RETRY_AFTER))
        monkeypatch.setenv("NO_PROXY", "*")
        yield it


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "base_40m.pt"


def names_beside(target: Path) -> set[str]:
    """Names in the target's folder, without the lock's, which means nothing."""
    return {path.name for path in target.parent.iterdir() if path.suffix != ".lock"}


def get(published: Published, target: Path) -> Path:
    return download.download(published, target, progress=False)


def test_a_known_file_arrives_alone(server: Server, target: Path) -> None:
    assert get(KNOWN, target) == target
    assert target.read_bytes() == CONTENT
    assert names_beside(target) == {target.name}
    assert "Range" not in server.requests[0]


def test_an_unknown_file_gets_its_sha256_beside_it(server: Server, target: Path) -> None:
    server.md5 = md5_of(CONTENT)
    get(UNKNOWN, target)
    note = target.with_name("base_40m.pt.sha256")
    assert note.read_text() == f"{KNOWN.sha256}  base_40m.pt\n"
    assert names_beside(target) == {target.name, note.name}


@pytest.mark.parametrize("published", [KNOWN, UNKNOWN])
def test_a_broken_connection_is_continued_where_it_broke(
    server: Server, target: Path, published: Published
) -> None:
    server.md5 = md5_of(CONTENT)
    server.replies = [Reply(cut=CUT), Reply(status=503), Reply(cut=10)]
    get(published, target)
    assert target.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [None, *[f"bytes={KEPT}-"] * 3]
    assert server.requests[1]["If-Range"] == '"first"'


def test_what_arrived_is_continued_by_the_next_run(server: Server, target: Path) -> None:
    server.replies = [Reply(cut=CUT), *[Reply(status=500)] * NEVER]
    with pytest.raises(PointEError, match=r"HTTP 500 .* after 0\.1 MB, which are kept$"):
        get(KNOWN, target)
    assert names_beside(target) == {"base_40m.pt.part", "base_40m.pt.part.etag"}
    server.replies, server.requests = [], []
    get(KNOWN, target)
    assert target.read_bytes() == CONTENT
    assert [request["Range"] for request in server.requests] == [f"bytes={KEPT}-"]
    assert names_beside(target) == {target.name}


@pytest.mark.parametrize(
    "later",
    [
        Reply(etag='"second"'),
        Reply(ranges=False),
        Reply(wrong_range=True),
        Reply(status=416),
        Reply(etag=None),
    ],
    ids=["changed file", "no ranges", "another range", "416", "no ETag"],
)
def test_what_cannot_be_continued_starts_again(server: Server, target: Path, later: Reply) -> None:
    server.replies = [Reply(cut=CUT, content=bytes(len(CONTENT))), later]
    server.usual = replace(later, status=None, wrong_range=False)
    get(KNOWN, target)
    assert target.read_bytes() == CONTENT
    assert server.requests[1]["Range"] == f"bytes={KEPT}-"


def test_a_part_without_etag_is_not_trusted(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("base_40m.pt.part").write_bytes(b"of unknown origin")
    get(KNOWN, target)
    assert "Range" not in server.requests[0]
    assert target.read_bytes() == CONTENT


def test_a_server_that_drops_every_connection_is_continued_as_long_as_something_arrives(
    server: Server, target: Path
) -> None:
    server.usual = Reply(cut=download.CHUNK + 1)
    get(KNOWN, target)
    assert len(server.requests) == -(-len(CONTENT) // download.CHUNK)


@pytest.mark.parametrize(
    ("published", "reply", "sentence"),
    [
        (KNOWN, Reply(status=404), r"HTTP 404 \(Not Found\)$"),
        (KNOWN, Reply(status=403), r"HTTP 403 \(Forbidden\)$"),
        (KNOWN, Reply(content=CONTENT[:-1]), rf"offers {len(CONTENT) - 1} bytes instead of {len(CONTENT)}$"),
        (
            KNOWN,
            Reply(content=CONTENT + b"!"),
            rf"offers {len(CONTENT) + 1} bytes instead of {len(CONTENT)}$",
        ),
        (KNOWN, Reply(content=CONTENT + b"!", claim=-1), rf"sends more than {len(CONTENT)} bytes$"),
        (KNOWN, Reply(content=bytes(len(CONTENT))), r"its SHA-256 is another$"),
        (UNKNOWN, Reply(claim=-1), r"does not say how large"),
        (UNKNOWN, Reply(content=b"<html>Please log in</html>"), r"is not a checkpoint$"),
        (UNKNOWN, Reply(content=b""), r"is not a checkpoint$"),
        (UNKNOWN, Reply(content=CONTENT[:-500]), r"is not a checkpoint$"),
    ],
)
def test_an_answer_that_will_not_change_is_final(
    server: Server, target: Path, published: Published, reply: Reply, sentence: str
) -> None:
    server.usual = reply
    with pytest.raises(PointEError, match=sentence):
        get(published, target)
    assert len(server.requests) == 1
    assert not target.exists()
    # Nothing is left that could be taken for good next time.
    server.usual = Reply()
    get(KNOWN, target)
    assert target.read_bytes() == CONTENT


def test_wrong_bytes_are_removed(server: Server, target: Path) -> None:
    server.usual = Reply(content=bytes(len(CONTENT)))
    with pytest.raises(PointEError, match="SHA-256"):
        get(KNOWN, target)
    assert names_beside(target) == set()


def test_the_servers_md5_counts_where_no_sha256_is_known(server: Server, target: Path) -> None:
    server.md5 = md5_of(b"another file")
    with pytest.raises(PointEError, match=r"its MD5 is another$"):
        get(UNKNOWN, target)
    assert names_beside(target) == set()
    get(KNOWN, target)


def test_it_is_tried_a_few_times_more_and_no_longer(server: Server, target: Path) -> None:
    server.usual = Reply(status=502)
    with pytest.raises(PointEError, match="HTTP 502"):
        get(KNOWN, target)
    assert len(server.requests) == 1 + len(download.RETRY_AFTER)


def test_no_server_at_all(target: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(b"") as gone:
        monkeypatch.setattr(download, "BASE_URL", gone.url)
    with pytest.raises(PointEError, match=r"^the connection to 127\.0\.0\.1 failed \(Connection refused\)$"):
        get(KNOWN, target)
    assert names_beside(target) == set()


def test_a_connection_that_keeps_breaking(server: Server, target: Path) -> None:
    server.usual = Reply(cut=0)
    with pytest.raises(PointEError, match=r"^the connection to 127\.0\.0\.1 failed \(.+\)$"):
        get(KNOWN, target)


def test_a_full_disk_seen_beforehand(server: Server, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(PointEError, match=r"^0 MB are needed, but 0 MB are free"):
        get(KNOWN, target)
    assert names_beside(target) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_disk_that_fills_up(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.with_name("base_40m.pt.part").symlink_to("/dev/full")
    with pytest.raises(PointEError, match=r"disk of .* is full"):
        get(KNOWN, target)
    assert not target.exists()


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PointEError, match=r"cannot be written to .* POINT_E_CACHE"):
        get(KNOWN, tmp_path / "file" / "base_40m.pt")
    assert server.requests == []


def test_two_at_once_download_it_once(server: Server, target: Path) -> None:
    ready = threading.Barrier(2)

    def run() -> None:
        ready.wait()
        get(KNOWN, target)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1


FAULTS = {
    **{f"cut at {cut}": Reply(cut=cut) for cut in (0, 1, CUT, len(CONTENT) - 1)},
    **{f"HTTP {status}": Reply(status=status) for status in (404, 416, 429, 500)},
    "no ranges": Reply(ranges=False),
    "no ranges, cut": Reply(ranges=False, cut=CUT),
    "changed, cut": Reply(etag='"second"', cut=CUT),
    "no ETag, cut": Reply(etag=None, cut=CUT),
    "another range": Reply(wrong_range=True),
    "no length": Reply(claim=-1),
    "no length, cut": Reply(claim=-1, cut=CUT),
    "too short a length": Reply(claim=CUT),
    "a web page": Reply(content=b"<html></html>"),
    "wrong bytes, cut": Reply(content=bytes(len(CONTENT)), cut=CUT),
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(st.sampled_from(sorted(FAULTS)), max_size=8), known=st.booleans())
def test_whatever_happens_the_file_is_right_or_not_there(
    server: Server, target: Path, faults: list[str], known: bool
) -> None:
    if target.parent.exists():
        shutil.rmtree(target.parent)
    server.replies = [FAULTS[name] for name in faults]
    server.md5 = md5_of(CONTENT)
    for _ in range(1 + len(faults)):
        try:
            get(KNOWN if known else UNKNOWN, target)
        except PointEError:
            assert not target.exists()
            continue
        assert target.read_bytes() == CONTENT
        break
    else:
        raise AssertionError("a good server at last must end it")


# Finding.


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three places where checkpoints are looked for."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("POINT_E_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return {
        "own": tmp_path / "own",
        "openai": work / "point_e_model_cache",
        "xdg": tmp_path / "xdg" / "point_e",
    }


def put(folder: Path, content: bytes = CONTENT, name: str = "base_40m.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_the_folders_in_their_order(folders: dict[str, Path]) -> None:
    for folder in reversed(folders.values()):
        path = put(folder)
        assert download.fetch(KNOWN, offline=True) == path


def test_safetensors_of_the_same_name_serve_too(folders: dict[str, Path]) -> None:
    path = put(folders["xdg"], b"not read here", "base_40m.safetensors")
    assert download.fetch(KNOWN, offline=True) == path


@pytest.mark.parametrize("offline", ["1", "true", "ON"])
def test_the_environment_is_read(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    around = download.surroundings()
    assert around.folders == tuple(folders.values())
    assert around.cache == folders["own"]
    assert around.offline
    for name in ("POINT_E_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
    assert download.surroundings().cache == folders["xdg"]
    assert not download.surroundings().offline


def test_offline_names_the_three_ways_out(folders: dict[str, Path], server: Server) -> None:
    with pytest.raises(PointEError) as raised:
        download.fetch(KNOWN, offline=True)
    sentence = str(raised.value)
    assert "path" in sentence
    assert f"put the file into {folders['own']}" in sentence
    assert f"the download of {server.url}base_40m.pt" in sentence
    assert server.requests == []
    assert not any(folder.exists() for folder in folders.values())


def test_it_is_downloaded_once_and_then_found(folders: dict[str, Path], server: Server) -> None:
    paths = [download.fetch(UNKNOWN, offline=False, progress=False) for _ in range(2)]
    assert paths == [folders["own"] / "base_40m.pt"] * 2
    assert len(server.requests) == 1


def test_a_failed_download_names_the_ways_out_too(folders: dict[str, Path], server: Server) -> None:
    server.usual = Reply(status=404)
    with pytest.raises(
        PointEError, match=rf"HTTP 404 .*; give the path .* put the file into {folders['own']}"
    ):
        download.fetch(KNOWN, offline=False, progress=False)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (CONTENT[:-1], f"it has {len(CONTENT) - 1} bytes instead of {len(CONTENT)}"),
        (CONTENT[:-1] + b"!", "its SHA-256 is not the published one"),
    ],
)
def test_a_damaged_file_in_a_cache_is_refused(
    folders: dict[str, Path], server: Server, content: bytes, problem: str
) -> None:
    path = put(folders["openai"], content)
    with pytest.raises(PointEError, match=problem):
        download.fetch(KNOWN, offline=False)
    assert path.read_bytes() == content, "a user's file is his"
    assert server.requests == []


def test_later_damage_is_seen_by_the_sha256_beside_the_file(folders: dict[str, Path], server: Server) -> None:
    path = download.fetch(UNKNOWN, offline=False, progress=False)
    assert os.path.getsize(path) == len(CONTENT)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(PointEError, match=r"not the one in base_40m\.pt\.sha256"):
        download.fetch(UNKNOWN, offline=False)


def test_a_file_that_cannot_be_read(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    put(folders["xdg"])
    monkeypatch.setattr(Path, "open", refuse)  # for root may read everything
    with pytest.raises(PointEError, match=r"base_40m\.pt' cannot be read: Permission denied\.$"):
        download.fetch(KNOWN, offline=True)


def test_the_bar_counts_bytes_from_where_it_goes_on(
    server: Server, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = [Reply(cut=CUT)]
    download.download(KNOWN, target)
    shown = capsys.readouterr().err
    assert "base_40m.pt" in shown
    assert f"{KEPT / 1000:.0f}k/{len(CONTENT) / 1000:.0f}k" in shown
    assert "100%" in shown
