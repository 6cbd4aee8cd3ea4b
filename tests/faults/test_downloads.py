"""Downloads: whatever a server, a proxy or a setting of the network does, the next mirror or one sentence."""

import functools
import gzip
import hashlib
import http.server
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import filelock
import pytest

from ddpm_shared import files
from ddpm_shared.datasets import download
from ddpm_shared.datasets.download import FileSet
from ddpm_shared.datasets.idx import IdxFile
from ddpm_shared.errors import UserError

CONTENT = b"\0\0\x08\1\0\0\0\3abc"
FILE = IdxFile("letters", (3,), "")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FileSet]]:
    """A function: a set of one file, at mirrors on this machine that behave as they are called."""
    file = FILE._replace(sha256=hashlib.sha256(CONTENT).hexdigest())
    packed = gzip.compress(CONTENT, mtime=0)
    answers = {
        "good": ({}, packed),
        "unpacked": ({}, CONTENT),
        "announced": ({"Content-Encoding": "gzip"}, packed),
        "x-gzip": ({"Content-Encoding": "x-gzip"}, packed),
        "br": ({"Content-Encoding": "br"}, packed),
        "nonsense": ({"Content-Encoding": "nonsense, gzip"}, packed),
        "twice": ({"Content-Encoding": "gzip"}, gzip.compress(packed)),
        "portal": ({"Content-Type": "text/html"}, b"<html>log in</html>"),
        "endless": ({}, bytes(2**22)),
        "nothing": ({}, b""),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind = self.path.split("/")[1]
            if kind in ("loop", "elsewhere"):
                self.send_response(302)
                self.send_header("Location", self.path if kind == "loop" else "ftp://[::nonsense/")
                self.end_headers()
                return
            if kind == "garbled":
                self.wfile.write(b"\0\1\2 no HTTP\r\n\r\n")
                return
            headers, body = answers[kind]
            self.send_response(200)
            for header, value in headers.items():
                self.send_header(header, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("DDPM_DUET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=functools.partial(server.serve_forever, 0.01))
    thread.start()

    def at(*kinds: str) -> FileSet:
        root = f"127.0.0.1:{server.server_port}"
        known = {
            "no such scheme": "nonsense://x/",
            "a long name": f"http://{'x' * 99}/",
        }
        known["https"] = f"https://{root}/good/"
        mirrors = tuple(known.get(kind, f"http://{root}/{kind}/") for kind in kinds)
        return FileSet("letters", "letters", "the file", ".gz", (file,), mirrors)

    yield at
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("kind", ["good", "unpacked", "announced", "x-gzip", "br", "nonsense", "twice"])
def test_the_hash_of_the_content_decides(world: Callable[..., FileSet], kind: str) -> None:
    """Otherwise a server that unpacks on the way, or says that it did, has only damaged files."""
    for _ in range(2):  # from the mirror, then from the cache
        [found] = download.fetch(world(kind), None)
        assert found.array.tobytes() == b"abc"
    assert found.path.parent == files.cache_dir("letters")


FAILING = ["portal", "endless", "nothing", "loop", "elsewhere", "garbled", "no such scheme", "a long name", "https"]


@pytest.mark.parametrize("kind", FAILING)
def test_a_mirror_that_fails_is_passed_over_with_its_reason(world: Callable[..., FileSet], kind: str) -> None:
    """Otherwise one bad mirror stops everybody, or nobody learns what is wrong with it."""
    with pytest.raises(UserError) as told:
        download.fetch(world(kind), None)
    assert "no download of letters.gz (" in str(told.value)
    assert "\n" not in str(told.value)
    [found] = download.fetch(world(kind, "good"), None)
    assert found.array.tobytes() == b"abc"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("REQUESTS_CA_BUNDLE", "/nonexistent"),
        ("CURL_CA_BUNDLE", "/nonexistent"),
        ("SSLKEYLOGFILE", "/nonexistent/keys"),
        ("HTTPS_PROXY", "http://127.0.0.1:1"),
        ("https_proxy", "http://[nonsense"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
    ],
)
def test_a_setting_of_the_network_that_makes_it_impossible_is_named(
    world: Callable[..., FileSet], monkeypatch: pytest.MonkeyPatch, setting: str, value: str
) -> None:
    """Otherwise a setting that an administrator left behind is a traceback, or taken for a full disk."""
    for name in list(os.environ):
        if name.lower().endswith(("_proxy", "_ca_bundle")):
            monkeypatch.delenv(name)
    monkeypatch.setenv(setting, value)
    with pytest.raises(UserError, match=rf"; settings in use: {setting}\): connect and run again"):
        download.fetch(world("https"), None)


def test_a_netrc_that_is_damaged_is_no_matter(
    world: Callable[..., FileSet], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Otherwise a file for another program decides whether there is any data."""
    (tmp_path / "netrc").write_bytes(b"machine 127.0.0.1 \xff\xfe nonsense")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert download.fetch(world("good"), None)


def test_the_second_of_two_that_download_waits_and_finds_the_file(
    world: Callable[..., FileSet], capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise both download, and one writes where the other reads."""
    wanted, cache = world(), files.cache_dir("letters")  # no mirror: it must come from the other one
    cache.mkdir(parents=True)
    found = []
    with filelock.FileLock(cache / ".lock"):
        thread = threading.Thread(target=lambda: found.extend(download.fetch(wanted, None)))
        thread.start()
        said = ""
        deadline = time.monotonic() + 30
        while "waiting for another process" not in said and time.monotonic() < deadline:
            said += capfd.readouterr().err
            time.sleep(0.01)
        (cache / "letters").write_bytes(CONTENT)
    thread.join(30)
    assert said.count("waiting for another process") == 1
    assert found[0].array.tobytes() == b"abc"


def test_what_a_killed_download_left_is_removed(world: Callable[..., FileSet]) -> None:
    """Otherwise each kill costs another 30 MB of the disk."""
    left = files.cache_dir("letters") / "download-abc"
    left.mkdir(parents=True)
    (left / "part").write_bytes(b"half")
    download.fetch(world("good"), None)
    assert [path.name for path in left.parent.iterdir() if path.name != ".lock"] == ["letters.gz"]
