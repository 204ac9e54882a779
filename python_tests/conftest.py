"""Processes that tests start import the installed package, not the source folder they are started in."""

import os

os.environ["PYTHONSAFEPATH"] = "1"
