"""Servers on this machine: files over HTTP with ranges and planned faults, and S3 by moto."""

import contextlib
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import s3fs

from selfsup.data import remote_systems

KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "hidden-secret"}
HEADER = re.compile(r"bytes=(\d+)-(\d+)")


@dataclass
class Faults:
    """What a server does wrong; tests change it while it runs."""

    delay: float = 0.0
    """Seconds before each answer."""
    dropped: float = 0.0
    """Fraction of answers that break off halfway or never begin."""
    last: int | None = None
    """So many more GETs are answered, then none; None: all."""
    busy: int = 0
    """So many further requests are answered by 503."""
    ranges: bool = True
    """Whether it knows ranges."""
    status: dict[str, int] = field(default_factory=dict)
    """Status of some paths: 403, 404."""
    cut: dict[str, int] = field(default_factory=dict)
    """Length that some files have instead of their own."""
    password: str = ""
    """Value of the header Authorization without which nothing is served."""
    requests: list[str] = field(default_factory=list)
    """Path and range of all GETs so far."""


class FileServer(ThreadingHTTPServer):
    """Serve a folder at `url`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Files)
        self.folder = folder
        self.faults = Faults()
        self.draw = random.Random(0)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Clients that are killed are no news."""


class _Files(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FileServer

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.server.faults.requests.append(f"{self.path} {self.headers.get('Range', '')}")
        faults = self.server.faults
        if faults.last is not None:
            faults.last -= 1
            if faults.last < 0:
                self.close_connection = True
                return
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        faults, path = self.server.faults, self.path.partition("?")[0]
        time.sleep(faults.delay)
        if faults.password and self.headers.get("Authorization") != faults.password:
            return self._say(401)
        if path in faults.status:
            return self._say(faults.status[path])
        if faults.busy:
            faults.busy -= 1
            return self._say(503)
        file = self.server.folder / path.strip("/")
        if file.is_dir():
            return self._list(file)
        if not file.is_file():
            return self._say(404)
        size = faults.cut.get(path, file.stat().st_size)
        match = HEADER.fullmatch(self.headers.get("Range", "")) if faults.ranges else None
        start, end = (int(match[1]), int(match[2]) + 1) if match else (0, size)
        if match is not None and start >= size:
            return self._say(416)
        with file.open("rb") as opened:
            opened.seek(start)
            sent = opened.read(min(end, size) - start)
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(len(sent)))
        self.send_header("ETag", f'"{size}-{file.stat().st_mtime_ns}"')
        self.end_headers()
        if body and self.server.draw.random() < faults.dropped:
            self.wfile.write(sent[: len(sent) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(sent)

    def _list(self, folder: Path) -> None:
        links = "".join(f'<a href="{p.name}">{p.name}</a>\n' for p in folder.iterdir())
        elsewhere = ("http://elsewhere.invalid/x.tar", "/x.tar", "../x.tar")
        links += "".join(f'<a href="{link}">a shard of another folder</a>\n' for link in elsewhere)
        page = links.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _say(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[FileServer]:
    """Serve a folder over HTTP in the block."""
    with FileServer(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def forget_s3() -> None:
    """Let this process connect anew, by the environment of now."""
    for key in [key for key in remote_systems._opened if key[1].startswith("s3://")]:
        del remote_systems._opened[key]
    s3fs.S3FileSystem.clear_instance_cache()


@contextlib.contextmanager
def s3_serving() -> Iterator[str]:
    """Run moto's S3 server in a process of its own; yield its address."""
    forget_s3()
    script = "import sys; from moto.server import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", script, "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    assert process.stderr is not None
    try:
        lines = iter(process.stderr.readline, "")
        address = next(m[0] for m in (re.search(r"http://[\d.]+:\d+", x) for x in lines) if m)
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        drain.start()
        yield address
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
