"""Entering the service in the settings of an MCP client: `clients` which file and what, `edit` where, `file` writing it."""
