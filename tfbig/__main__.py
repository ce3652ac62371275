"""`python -m tfbig` is the command `tfbig`."""

import sys

from tfbig.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
