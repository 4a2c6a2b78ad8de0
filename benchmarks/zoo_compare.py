"""Imports the files that `benchmarks.zoo_oracle` wrote, and compares all logits with larq-zoo's.

    .venv/bin/python -m benchmarks.zoo_compare DIR

Prints the largest difference of a logit, beside the largest logit, and fails where it is above 1e-4.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from bnn.models.zoo import RELEASED
from bnn.models.zoo.checking import TOLERANCE, logits
from bnn.models.zoo.keras_file import read_weights


def main() -> int:
    """Compares every network that DIR has a file of; gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    failed = False
    for name in RELEASED:
        path = directory / f"{name}.h5"
        if not path.exists():
            continue
        model, _ = read_weights(path, name)
        of_larq = torch.from_numpy(np.load(directory / f"{name}-1000.npy", allow_pickle=False))
        difference = (logits(model.eval(), name, 224) - of_larq).abs().max().item()
        failed |= not difference <= TOLERANCE
        print(f"{name:26} {difference:.1e} of {of_larq.abs().max().item():.4g}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
