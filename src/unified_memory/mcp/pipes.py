"""Standard input and output as lines, each on a thread of its own: a pipe that is not emptied holds up nothing else."""

import asyncio
import contextlib
import os
import queue
import threading

from unified_memory.mcp.greeting import MAX_LINE

READ_BYTES = 1 << 20


def read_lines(lines: "asyncio.Queue[bytes | None]") -> None:
    """Begins to put the lines of standard input, a pipe, a terminal or a file, into the queue, each with its end; None when that
    has ended.
    """
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read, args=(loop, lines), daemon=True).start()


def _read(loop: asyncio.AbstractEventLoop, lines: "asyncio.Queue[bytes | None]") -> None:
    begun = bytearray()
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for more
        while part := _part():
            first, *others = part.split(b"\n")
            if len(begun) <= MAX_LINE:
                # What is longer than a line may be is told by its length alone.
                begun += first
            for other in others:
                loop.call_soon_threadsafe(lines.put_nowait, bytes(begun) + b"\n")
                begun = bytearray(other)
        if begun:
            loop.call_soon_threadsafe(lines.put_nowait, bytes(begun) + b"\n")
        loop.call_soon_threadsafe(lines.put_nowait, None)


def _part() -> bytes:
    """What comes next; nothing where the end is reached, or a terminal is gone."""
    try:
        return os.read(0, READ_BYTES)
    except OSError:
        return b""


class Out:
    """Standard output, for messages alone: whatever else this process and its children write there lands on standard error."""

    def __init__(self) -> None:
        # Everything is written, or cannot be: the client has closed its end.
        self.ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wire = os.dup(1)
        os.dup2(2, 1)
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def write(self, line: bytes) -> None:
        """Writes the line, which has its end, after all before it."""
        self._queue.put(line)

    def finish(self) -> None:
        """There is no more to write."""
        self._queue.put(None)

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while (line := self._queue.get()) is not None:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._wire, left) :]
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(self.ended.set)
