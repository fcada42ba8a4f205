"""The proxy over standard input and output, in the place of an older command."""

import asyncio
import signal

from unified_memory.mcp.greeting import MAX_LINE
from unified_memory.mcp.pipes import Out, read_lines
from unified_memory.model.errors import TooLargeError
from unified_memory.proxy.calls import Head, as_line, refusal
from unified_memory.proxy.talk import Desk, Talk

# How long the answers still under way are waited for when the client has said all, and the client to read them.
LAST_ANSWERS_SECONDS = 30.0
LAST_WORDS_SECONDS = 1.0


async def serve(desk: Desk) -> None:
    """Serves until standard input ends, or a signal comes. Raises StorageError and below where it cannot begin."""
    out, stopped = Out(), asyncio.Event()
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    await desk.open()
    try:
        talk = desk.talk(lambda message: out.write(as_line(message) + b"\n"))
        read_lines(lines)
        serving = asyncio.create_task(_serve(talk, lines, out), name="proxy stdio")
        gone = asyncio.create_task(out.ended.wait())
        stopping = asyncio.create_task(stopped.wait())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        await asyncio.wait({serving, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        await asyncio.wait({serving})
        await talk.close()
        out.finish()
        await asyncio.wait({gone}, timeout=LAST_WORDS_SECONDS)
        for task in (gone, stopping):
            task.cancel()
        if not serving.cancelled():
            serving.result()
    finally:
        await desk.close()


async def _serve(talk: Talk, lines: "asyncio.Queue[bytes | None]", out: Out) -> None:
    def write(task: "asyncio.Task[bytes | None]") -> None:
        if not task.cancelled() and (answer := task.result()) is not None:
            out.write(as_line(answer) + b"\n")

    while (line := await lines.get()) is not None:
        if len(line) > MAX_LINE:
            out.write(refusal(Head(None, None, {}), TooLargeError("line", MAX_LINE, len(line))) + b"\n")
        elif line.strip():
            (await talk.begin(line.removesuffix(b"\n"))).add_done_callback(write)
    await talk.finish(LAST_ANSWERS_SECONDS)
