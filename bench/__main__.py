"""python -m bench [part]: speed, ours beside others."""

import sys

from bench.speed import run

if __name__ == "__main__":
    try:
        sys.exit(run(sys.argv[1] if len(sys.argv) > 1 else "all"))
    except ValueError as problem:
        sys.exit(f"bench: {problem}")
