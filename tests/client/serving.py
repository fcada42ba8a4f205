"""A real service in a process of its own."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

URL = re.compile(r"serves (http://\S+)")
LAST_SECONDS = 30


@contextmanager
def serving(data_dir: Path) -> Iterator[str]:
    """The URL of a service that keeps its data there, on a port of its own, while the block lasts."""
    command = [sys.executable, "-m", "unified_memory", "serve", "--port", "0", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            for line in process.stderr:
                said += line
                if (match := URL.search(line)) is not None:
                    yield match[1]
                    break
            else:
                raise AssertionError(f"The service did not start:\n{said}")
        finally:
            process.terminate()
            process.communicate(timeout=LAST_SECONDS)
