"""The Model Context Protocol: tools, resources and prompts over the service.

What a tool takes, does and says is here without the SDK (`tool`, `schema`, `profiles` and the modules of the tools); only
`server` and what uses it load the SDK, which takes the better part of a second.
"""
