"""What AI agents must remember between conversations, kept and served by one service."""

__version__ = "0.1.0"
