"""`python -m incasem`, the same as the command `incasem`."""

import sys

from incasem.cli import main

if __name__ == "__main__":
    sys.exit(main())
