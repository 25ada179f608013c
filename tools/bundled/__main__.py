"""`python -m tools.bundled`."""

from tools.bundled.build import main

main()
