"""`python -m miniplane` is the `miniplane` command."""

import sys

from miniplane.cli import main

if __name__ == "__main__":
    sys.exit(main())
