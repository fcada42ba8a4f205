"""Who calls."""

from msgspec import Struct

from unified_memory.model.namespace import contains


class Principal(Struct, frozen=True):
    """A caller and the namespace subtrees that it may see; the subtree `""` is everything."""

    name: str
    scopes: tuple[str, ...] = ("",)

    def sees(self, namespace: str) -> bool:
        """Whether the namespace lies in one of the caller's subtrees."""
        return any(contains(scope, namespace) for scope in self.scopes)

    def narrowed(self, namespace: str | None) -> tuple[str, ...]:
        """The subtrees that are both the caller's and below `namespace` (None: all of the caller's)."""
        if namespace is None:
            return self.scopes
        if self.sees(namespace):
            return (namespace,)
        return tuple(scope for scope in self.scopes if contains(namespace, scope))

    def reach(self, namespace: str | None, *, recursive: bool) -> tuple[tuple[str, ...], bool]:
        """The subtrees to look into, and whether to look below their roots, for a listing that names a namespace.

        A namespace alone (not `recursive`) is that one or nothing; without a namespace it is all of the caller's.
        """
        if namespace is None:
            return self.scopes, True
        if recursive:
            return self.narrowed(namespace), True
        return ((namespace,) if self.sees(namespace) else ()), False


ANONYMOUS = Principal("anonymous")
