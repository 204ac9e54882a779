"""`python -m vreid_ext` is the command `vreid`."""

from vreid_ext.cli import main

main()
