"""Fixtures: chance that can be repeated, small disks, and processes that are gone when the test is."""

import random
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import absent
from tests.faults.processes import Runner
from tests.faults.runner import Orders

# The seed that a failed test has told, to repeat its choices; None draws a new one for each test.
SEED: int | None = None

MIB = 2**20
Start = Callable[..., Awaitable[Runner]]


class SmallDisk:
    """A tmpfs that can grow."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def mount(self, size: int) -> None:
        """Raises CalledProcessError where one may not."""
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(self.path)]
        subprocess.run(command, check=True, capture_output=True)

    def resize(self, size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(self.path)], check=True, capture_output=True)

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(self.path)], check=True, capture_output=True)

    def unmount(self) -> None:
        subprocess.run(["umount", "--lazy", str(self.path)], check=True, capture_output=True)


@pytest.fixture
def rng(record_property: Callable[[str, object], None]) -> random.Random:
    seed = random.SystemRandom().getrandbits(32) if SEED is None else SEED
    record_property("seed", seed)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[Runner] = []

    async def start(work: str, data_dir: Path, **orders: Any) -> Runner:
        runner = await Runner.start(Orders(work, str(data_dir), **orders))
        running.append(runner)
        return runner

    yield start
    for runner in running:
        runner.kill()
    for runner in running:
        await runner.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    small = SmallDisk(tmp_path / "small")
    try:
        small.mount(6 * MIB)
    except (OSError, subprocess.CalledProcessError):
        absent("A tmpfs of a few MiB cannot be mounted here; it needs root and CAP_SYS_ADMIN")
    yield small
    small.unmount()
