"""What the bundle starts: MCP over standard input and output."""

import sys

from unified_memory.stdio import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
