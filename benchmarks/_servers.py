"""The servers that are measured, each in a process of its own: the real service and the bare application."""

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from benchmarks._machine import ROOT
from benchmarks._rest import RequestFailedError, Rest

HOST = "127.0.0.1"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.002


class Server(Struct, frozen=True):
    """A running server. `start_seconds`: from the start of its process to the first answer."""

    port: int
    pid: int
    start_seconds: float

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}"

    def resident_bytes(self) -> int:
        """Its resident memory (VmRSS); 0 where the kernel does not tell."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return 0
        found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return int(found[1]) * 1024 if found else 0


@contextmanager
def service(data_dir: Path, *, semantic: bool = False) -> Iterator[Server]:
    """`unified-memory serve` on a free port, over a data directory. Raises RuntimeError where it does not start or stop.

    By default without search by meaning, as it is where its extra is not installed.
    """
    port = free_port()
    command = ["-m", "unified_memory", "serve", "--host", HOST, "--port", str(port), "--data-dir", str(data_dir)]
    command += ["--semantic", "on" if semantic else "off"]
    with running(command, port, "/health") as server:
        yield server


@contextmanager
def bare() -> Iterator[Server]:
    """The bare application on a free port. Raises as `service`."""
    port = free_port()
    with running(["-m", "benchmarks._bare", str(port)], port, "/") as server:
        yield server


def disk_bytes(directory: Path) -> int:
    """The size of all files in a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


@contextmanager
def running(command: Sequence[str], port: int, path: str) -> Iterator[Server]:
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        # An empty environment: SQLITE_PATH and its like would lead the service to somebody's real data.
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            _wait(process, port, path, start + _START_SECONDS, log)
            yield Server(port, process.pid, time.perf_counter() - start)
        finally:
            _stop(process)


def _wait(process: subprocess.Popen[bytes], port: int, path: str, deadline: float, log: Any) -> None:
    reason = "nothing listens"
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            log.seek(0)
            raise RuntimeError(f"The server ended with status {process.returncode}:\n{log.read().decode()[-4000:]}")
        try:
            with Rest(f"http://{HOST}:{port}") as rest:
                rest.send("GET", path)
        except (OSError, RequestFailedError) as error:
            reason = str(error)
            time.sleep(_POLL_SECONDS)
        else:
            return
    raise RuntimeError(f"The server did not answer within {_START_SECONDS:g} s: {reason}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise RuntimeError(f"The server did not stop within {_STOP_SECONDS:g} s and was killed") from None


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port
