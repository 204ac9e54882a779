"""`python -m vreid_ext` runs the command `vreid`."""

from vreid_ext.cli import main

main()
