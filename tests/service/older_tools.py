"""An older service's tools over standard input and output: `python older_tools.py TOOL…` answers each call by its arguments.

With `--pypi` before them they are spelled as PyPI's memory bank spells them.
"""

import json
import sys
from typing import Any


def main() -> None:
    spelled: dict[str, Any] = {"project_name" if "--pypi" in sys.argv else "projectName": {}}
    names = [name for name in sys.argv[1:] if name != "--pypi"]
    for line in sys.stdin:
        request = json.loads(line)
        if "id" not in request:
            continue
        result: dict[str, Any]
        if request["method"] == "tools/list":
            result = {"tools": [{"name": name, "inputSchema": spelled} for name in names]}
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
