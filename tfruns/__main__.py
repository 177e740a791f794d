"""`python -m tfruns` is the program `tfruns`."""

import sys

from tfruns.cli import main

sys.exit(main())
