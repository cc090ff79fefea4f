"""`python -m trtd` is the `trtd` command, also where the scripts of an installation are not on the path."""

from __future__ import annotations

import sys

from trtd.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
