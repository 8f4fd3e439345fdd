"""``python -m metarl``, and so ``torchrun -m metarl``: the command line."""

import sys

from metarl.experiments.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
