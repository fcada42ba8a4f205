"""Backups as files that anyone can read with sha256sum, zstd and jq, and age where they are encrypted.

`docs/backup-format.md` is the format. What is in a backup, and what becomes of it, is the service's.
"""

from unified_memory.storage.backup.manifest import KINDS, Manifest, Part, is_id, new_id
from unified_memory.storage.backup.place import Place, Verified
from unified_memory.storage.backup.reading import Reading
from unified_memory.storage.backup.sealing import Key
from unified_memory.storage.backup.writing import Writing

__all__ = ["KINDS", "Key", "Manifest", "Part", "Place", "Reading", "Verified", "Writing", "is_id", "new_id"]
