"""Settings of the whole test run."""

import torch

# One thread: tests are tiny, and threads of two workers would get in each other's way.
torch.set_num_threads(1)
