"""What holds for all tests."""

import os

# Networks here are tiny: threads would only wait for each other, here and in the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
