"""`python -m hajax` is the `hajax` command."""

import sys

from hajax.cli import main

if __name__ == "__main__":
    sys.exit(main())
