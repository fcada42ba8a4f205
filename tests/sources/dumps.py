"""The committed fixtures of other programs: databases are built from their dumps."""

from pathlib import Path

import apsw

FIXTURES = Path(__file__).parent / "fixtures"


def build(dump: str, path: Path, *more: str) -> Path:
    """An SQLite file of the dump `<kind>/<name>.sql`, changed by more SQL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = apsw.Connection(str(path))
    for sql in ((FIXTURES / dump).read_text(encoding="utf-8"), *more):
        connection.execute(sql)
    connection.close()
    return path
