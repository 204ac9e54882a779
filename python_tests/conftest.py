"""What every test and every process it starts runs under."""

import os

# Import the installed package, not the source folder the process is started in.
os.environ["PYTHONSAFEPATH"] = "1"
# A machine that is shared, or has fewer cores than it shows, spends its time in threads that spin and wait.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
