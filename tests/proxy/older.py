"""An older server as a program: MCP over standard input and output. Contexts lie in one file of its directory, files in its
folder `bank`, as the npm server keeps them.

`python older.py DIRECTORY`. Files that a test puts there make it die: die-before-TOOL, die-after-TOOL (done, not answered); or
close its output and go on: mute-TOOL. What it does is written down in `log`, a line each, and its process id in `pid`.
"""

import fcntl
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

VERSION = "2024-11-05"


def main(directory: Path) -> None:
    greeted = False
    (directory / "pid").write_text(str(os.getpid()))
    for line in sys.stdin:
        request = json.loads(line)
        method, params = request.get("method"), request.get("params") or {}
        if method == "initialize" and (directory / "no-greeting").exists():
            answer(request, {"error": {"code": -32603, "message": "not now"}})
            continue
        if method == "initialize":
            greeted = True
            result: Any = {
                "protocolVersion": VERSION,
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "older", "version": "1"},
            }
        elif method == "tools/call" and greeted:
            result = called(directory, params["name"], params.get("arguments") or {})
        elif method == "tools/list":
            result = {"tools": []}
        elif "id" not in request:
            continue
        else:
            answer(request, {"error": {"code": -32603, "message": f"greeted: {greeted}, {method}"}})
            continue
        answer(request, {"result": result})


def answer(request: Any, told: Any) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", "id": request["id"], **told}) + "\n")
    sys.stdout.flush()


def called(directory: Path, tool: str, arguments: dict[str, Any]) -> Any:
    die(directory, f"die-before-{tool}")
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        file = directory / "kept.json"
        kept = json.loads(file.read_text()) if file.exists() else {"last": 0, "contexts": {}}
        with (directory / "log").open("a") as log:
            log.write(json.dumps([tool, arguments]) + "\n")
        text = done(directory / "bank", kept, tool, arguments)
        (directory / "kept.new").write_text(json.dumps(kept))
        (directory / "kept.new").rename(file)
    die(directory, f"die-after-{tool}")
    if (directory / f"mute-{tool}").exists():
        (directory / f"mute-{tool}").unlink()
        os.close(1)
        signal.pause()
    return {"content": [{"type": "text", "text": text}], "isError": False}


def done(bank: Path, kept: Any, tool: str, arguments: dict[str, Any]) -> str:
    contexts = kept["contexts"]
    file: Path = bank / arguments.get("projectName", ".") / arguments.get("fileName", ".")
    match tool:
        case "save_context":
            kept["last"] += 1
            contexts[str(kept["last"])] = arguments["content"]
            return (
                f"✅ Context saved successfully!\n\n📝 **Details:**\n- Context ID: {kept['last']}\n- Project: general"
            )
        case "forget_context":
            gone = contexts.pop(str(int(arguments["context_id"])), None)
            return ("❌ Context not found!" if gone is None else "✅ Context deleted successfully!") + "\n"
        case "memory_bank_write" | "memory_bank_update":
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(arguments["content"], "utf-8")
            return f"File {arguments['fileName']} written successfully to project {arguments['projectName']}"
        case "memory_bank_read":
            return file.read_text("utf-8")
    return json.dumps(sorted(contexts.values()))


def die(directory: Path, name: str) -> None:
    mark = directory / name
    if mark.exists():
        mark.unlink()
        os._exit(9)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
