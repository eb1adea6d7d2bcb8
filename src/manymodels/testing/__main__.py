"""The process of a `Lab`."""

import sys

from .lab import main

main(sys.argv[1:])
