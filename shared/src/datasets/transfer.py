"""One file from one mirror on the web, whatever stands between: proxies, portals, servers that unpack on the way."""

import contextlib
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from ddpm_shared.datasets.verified import BadFileError, DataFile, Verified

TIMEOUT = (10, 30)  # seconds to connect, seconds of silence
CHUNK = 2**16
LONG = 120  # letters of a library's message; a longer one is of machines and addresses in memory
GZIP_OR_ZLIB = 47  # for zlib


class MirrorError(Exception):
    """Why a mirror gave no file.

    Args:
        reason: for the user.
        began: the mirror had begun to send, so another attempt may succeed.
    """

    def __init__(self, reason: str, began: bool) -> None:
        super().__init__(reason)
        self.began = began


def receive(address: str, file: DataFile, folder: Path, cache: Path) -> Verified:
    """Download a file, verify it, and move it to the cache.

    Many servers unpack a .gz on the way, or pack it once more. The hash of its content decides, so whatever passes the
    check is cached as it came, under the name that says how it is packed.

    Args:
        address: where it is.
        file: what it must hold.
        folder: for what is not verified yet.
        cache: the folder that it is moved to.

    Raises:
        MirrorError: what goes wrong at the mirror or on the way from it.
        OSError: what goes wrong on this machine's disk.
    """
    most = 2 * file.num_bytes + 2**20
    sent, unpacked = folder / "sent", folder / "unpacked"
    with sent.open("wb") as stream:
        for chunk in _chunks(address, most):
            stream.write(chunk)
    wrong = None
    for data in (sent, unpacked):
        if data is unpacked and not _unpack(sent, unpacked, most):
            continue
        for name in file.file_names:
            part = folder / name
            os.replace(data, part)
            try:
                array = file.read(part)
            except BadFileError as bad:
                wrong = wrong or bad  # the first, which is of the bytes and the name as the mirror has them
                os.replace(part, data)
            else:
                os.replace(part, cache / name)
                return Verified(cache / name, file, array)
    raise MirrorError(f"the file {wrong}", began=True)


def _unpack(sent: Path, unpacked: Path, most: int) -> bool:
    """Unpack a file that the server may have packed once more; whether there was anything to unpack."""
    unpacking = zlib.decompressobj(GZIP_OR_ZLIB)
    with contextlib.suppress(zlib.error), sent.open("rb") as source, unpacked.open("wb") as target:
        while not unpacking.eof and target.tell() < most and (data := source.read(CHUNK)):
            target.write(unpacking.decompress(data, most))
        return unpacking.eof
    return False


def _chunks(address: str, most: int) -> Iterator[bytes]:
    """What a mirror sends, as it is sent and not unpacked, under a progress bar."""
    import requests  # here, with what it imports: a fifth of a second that `--help` need not take

    began = False
    try:
        session = requests.Session()
        # The data are public: the user's netrc, which may be damaged, is not read, at redirections neither.
        session.auth = lambda request: request
        session.rebuild_auth = lambda prepared, response: None  # type: ignore[method-assign]
        plain = {"Accept-Encoding": "identity"}
        with session, session.get(address, stream=True, timeout=TIMEOUT, headers=plain) as response:
            response.raise_for_status()
            began, received = True, 0
            length = response.headers.get("Content-Length", "")
            with tqdm(total=int(length) if length.isdigit() else None, unit="B", unit_scale=True, leave=False) as bar:
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    received += len(chunk)
                    if received > most:
                        raise MirrorError(f"sends more than {most:,} bytes", began=False)
                    bar.update(len(chunk))
                    yield chunk
    except MirrorError:
        raise
    except Exception as error:  # of requests, urllib3, ssl, the proxies' and certificates' settings: all that there is
        reason = _reason(error)
        raise MirrorError(f"the transfer breaks off ({reason})" if began else reason, began) from None


def _reason(error: Exception) -> str:
    """An error of the network in a few words."""
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return str(error.response.status_code)
    message = " ".join(str(error).split())
    return type(error).__name__ + (f", {message}" if 0 < len(message) <= LONG else "")


def settings() -> str:
    """The variables that decide how a mirror is reached, for a message, e.g. "; settings in use: HTTPS_PROXY"."""
    ends = ("_proxy", "_ca_bundle", "sslkeylogfile")
    names = sorted(name for name in os.environ if name.lower().endswith(ends) and name.lower() != "no_proxy")
    return f"; settings in use: {', '.join(names)}" if names else ""
