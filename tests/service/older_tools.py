"""An older service's tools over standard input and output: `python older_tools.py TOOL…` answers each call by its arguments."""

import json
import sys
from typing import Any


def main() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result: dict[str, Any]
        if request["method"] == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": {"projectName": {}}} for name in sys.argv[1:]]}
        elif request["method"] == "tools/call":
            params = request["params"]
            text = json.dumps([params["name"], params["arguments"]])
            result = {"content": [{"type": "text", "text": text}]}
        else:
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "serverInfo": {"name": "older", "version": "1"},
            }
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
