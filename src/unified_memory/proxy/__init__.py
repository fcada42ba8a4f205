"""The proxy in the older services' place: whoever speaks to them goes on doing so while their memories move here.

`gate` lets requests through by the phase of the migration, `stand` holds what every kind of proxy needs, `shim` answers as the
service on port 3009 did, `talk` carries a conversation of MCP from one server to the other.
"""
