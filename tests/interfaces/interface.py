"""An interface, as a scenario sees it."""

from typing import Any, Protocol

from tests.interfaces.scenarios import Arguments


class Interface(Protocol):
    """Carries out an operation: gives what REST would, as parsed JSON, or raises the error of the model."""

    async def do(self, operation: str, arguments: Arguments) -> Any:
        """The operation's answer."""
        ...
