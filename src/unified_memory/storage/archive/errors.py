"""What can go wrong with the files of the cold tier, beside the storage errors of `model.errors`."""

from unified_memory.model.errors import StorageError


class ArchiveExtraMissingError(StorageError):
    """The package that speaks S3, of the extra `s3`, is not installed."""

    code = "archive_extra_missing"

    def __init__(self) -> None:
        super().__init__("Not installed: obstore", hint="pip install 'mcp-unified-memory[s3]'", packages=["obstore"])
