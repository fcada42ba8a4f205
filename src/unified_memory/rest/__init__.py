"""REST: bytes to a typed request, one service call, bytes."""

from unified_memory.rest.application import RestApplication

__all__ = ["RestApplication"]
