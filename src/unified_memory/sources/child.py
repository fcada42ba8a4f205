"""A program that speaks MCP over its standard input and output, a JSON object a line, started without a shell."""

import contextlib
import json
import os
import queue
import select
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.sources.base import Options

_PROTOCOL = "2024-11-05"
_STOP_SECONDS = 5.0
_LINGER_SECONDS = 0.5
_WORDS = 300
# Programs are looked for where the operating system has them, and beside the one that is started: npx starts node.
_PATH = "/usr/local/bin:/usr/bin:/bin"


class Child:
    """A program that speaks MCP over its standard input and output. Requests are sent one at a time."""

    def __init__(self, kind: str, location: str, options: Options) -> None:
        self._kind = kind
        self._location = location
        self._timeout = options.timeout
        self._number = 0
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        command = _words(location)
        program = shutil.which(command[0], path=options.environment.get("PATH"))
        if program is None:
            raise SourceError(kind, location, f"There is no program {command[0]!r}", hint="Give its whole path")
        path = f"{Path(program).absolute().parent}:{_PATH}"
        # What it says beside its answers: the end of it explains why it gave none.
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the operator's command, and no shell reads it
                [program, *command[1:]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8", **options.environment},
                # An interrupt from the keyboard is ours alone.
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            self._log.close()
            raise SourceError(kind, location, f"The command cannot be started: {error}") from error
        os.set_blocking(self._input.fileno(), False)
        self._reader = threading.Thread(target=self._listen, name=f"{kind}-answers", daemon=True)
        self._reader.start()

    def open(self) -> list[dict[str, Any]]:
        """The handshake; the tools that it has. Raises SourceError, and closes the child then."""
        try:
            about = {"name": "unified-memory", "version": "1"}
            self.request("initialize", {"protocolVersion": _PROTOCOL, "capabilities": {}, "clientInfo": about})
            self._send({"method": "notifications/initialized"})
            tools = self.request("tools/list", {}).get("tools")
        except BaseException:
            self.close()
            raise
        return [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result. Raises SourceError where it answers with an error, SourceUnavailableError where with nothing."""
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        until = time.monotonic() + self._timeout
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                detail = f"It did not answer {method} within {self._timeout:g} s"
                raise SourceUnavailableError(self._kind, self._location, detail) from None
            if answer is None:
                raise self._ended()
            # What comes late, after a time-out, and what answers a notification has another id.
            if answer.get("id") != self._number or "method" in answer:
                continue
            if isinstance(result := answer.get("result"), dict):
                return result
            error = answer.get("error")
            told = error.get("data") or error.get("message") if isinstance(error, dict) else error
            raise SourceError(self._kind, self._location, f"It answers {method} with an error: {short(told)}")

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """What a tool answers. Raises as `request`."""
        return self.request("tools/call", {"name": tool, "arguments": arguments})

    def close(self) -> None:
        """Ends it as a client does: nothing more to say; then by force."""
        if self._log.closed:
            return
        with contextlib.suppress(OSError):
            self._input.close()
        for how in (None, signal.SIGTERM, signal.SIGKILL):
            if how is not None:
                self._stop(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_SECONDS)
                break
        # What it started itself may still have its output open: only then its group is sure to exist.
        self._reader.join(_LINGER_SECONDS)
        if self._reader.is_alive():
            self._stop(signal.SIGKILL)
            self._reader.join(_STOP_SECONDS)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        self._log.close()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    @property
    def _input(self) -> IO[bytes]:
        if self._process.stdin is None:  # it was asked for
            raise TypeError
        return self._process.stdin

    def _stop(self, how: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, how)

    def _send(self, message: dict[str, Any]) -> None:
        rest = memoryview(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        until = time.monotonic() + self._timeout
        try:
            ready = select.poll()
            ready.register(self._input, select.POLLOUT)
            while rest:
                # One that reads nothing must not hold us for ever.
                if not ready.poll(max(0.0, until - time.monotonic()) * 1000):
                    detail = f"It read no request within {self._timeout:g} s"
                    raise SourceUnavailableError(self._kind, self._location, detail)
                rest = rest[os.write(self._input.fileno(), rest) :]
        except (OSError, ValueError) as error:
            raise self._ended() from error

    def _listen(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                # Some print a greeting, or their log, on the same way.
                with contextlib.suppress(ValueError, RecursionError):
                    answer = json.loads(line)
                    if isinstance(answer, dict):
                        self._answers.put(answer)
        self._answers.put(None)

    def _ended(self) -> SourceError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        said = ""
        if not self._log.closed:
            size = os.fstat(self._log.fileno()).st_size
            said = os.pread(self._log.fileno(), _WORDS, max(0, size - _WORDS)).decode(errors="replace").strip()
        return SourceError(
            self._kind, self._location, f"It ended with status {self._process.poll()}: {said}", hint="Try the command"
        )


def _words(location: str) -> list[str]:
    try:
        words = shlex.split(location)
    except ValueError as error:
        raise InvalidInputError("source", f"The command line cannot be read: {error}") from error
    if not words or "\0" in location:
        raise InvalidInputError("source", "A command line is needed")
    return words


def text_of(result: dict[str, Any]) -> str:
    """The text blocks of a result."""
    blocks = result.get("content")
    if not isinstance(blocks, list):
        return ""
    return "".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))


def short(told: Any) -> str:
    """The beginning of what was told, for an error: 300 characters."""
    return str(told)[:_WORDS]
