"""`python -m coopt.cli`, where the command `coopt` is not on the path."""

from coopt.cli import main

main(prog_name="coopt")
