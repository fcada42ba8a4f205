"""`python -m unified_memory` is the command `unified-memory`."""

from unified_memory.cli import main

if __name__ == "__main__":
    main()
