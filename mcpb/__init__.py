"""The bundle that MCP clients install with one click: its manifest, what it starts, and how it is packed."""
