"""The files of the cold tier: values in compressed, checked archives, in a directory or in an S3-compatible store."""

from unified_memory.storage.archive.archive import Archive, Written, new_name
from unified_memory.storage.archive.bucket import Bucket
from unified_memory.storage.archive.directory import Directory
from unified_memory.storage.archive.errors import ArchiveExtraMissingError
from unified_memory.storage.archive.files import Files
from unified_memory.storage.archive.reading import Block, Damage
from unified_memory.storage.archive.writing import Record

__all__ = [
    "Archive",
    "ArchiveExtraMissingError",
    "Block",
    "Bucket",
    "Damage",
    "Directory",
    "Files",
    "Record",
    "Written",
    "new_name",
]
