"""Packs the bundle: a zip file, byte for byte the same from the same sources."""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MANIFEST = ROOT / "mcpb/manifest.json"
PACKAGE = ROOT / "src/unified_memory"
# What of pyproject.toml builds and installs; the rest is for development.
KEPT_TABLES = ("[build-system]", "[project]", "[project.", "[tool.hatch.")
# The earliest that a zip file can tell.
EPOCH = (1980, 1, 1, 0, 0, 0)
READABLE = 0o100644 << 16
UNIX = 3


def default_target() -> Path:
    """Where it goes unless told otherwise."""
    manifest = json.loads(MANIFEST.read_bytes())
    return ROOT / "dist" / f"{manifest['name']}-{manifest['version']}.mcpb"


def pack(target: Path) -> None:
    """Writes the bundle to that path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as bundle:
        for name, content in sorted(_contents()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = READABLE
            entry.create_system = UNIX
            bundle.writestr(entry, content)


def _contents() -> Iterator[tuple[str, bytes]]:
    yield "manifest.json", MANIFEST.read_bytes()
    yield "pyproject.toml", _project()
    yield "src/server.py", (ROOT / "mcpb/server.py").read_bytes()
    for name in ("README.md", "LICENSE"):
        yield name, (ROOT / name).read_bytes()
    for file in PACKAGE.rglob("*"):
        place = file.relative_to(PACKAGE.parent)
        if file.is_file() and not any(part.startswith(".") or part == "__pycache__" for part in place.parts):
            yield f"src/{place.as_posix()}", file.read_bytes()


def _project() -> bytes:
    tables = re.split(r"^(?=\[)", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return "".join(table for table in tables if table.startswith(KEPT_TABLES)).encode()


if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if sys.argv[1:] else default_target()
    pack(chosen)
    sys.stdout.write(f"{chosen}\n")
