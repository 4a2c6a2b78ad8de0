"""Imports `torchvision.datasets`, which only the sets that need it pay for (it takes about 80 MB of memory)."""

import importlib
import warnings
from types import ModuleType

import torch

from bnn.errors import DataError

_INSTALL = 'pip install "bnn-edge[data]"'


def import_torchvision_datasets() -> ModuleType:
    """Imports `torchvision.datasets`, also where torchvision and torch were built for different devices.

    Raises:
        DataError: torchvision is missing or does not work.
    """
    try:
        return _import()
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise DataError(f"this data set needs {package}, which is not installed: {_INSTALL}") from error
    except (ImportError, RuntimeError) as error:
        if "torchvision::nms" not in str(error):
            raise _broken(error) from error
    # torchvision's wheel on the package index is built for CUDA. Beside a CPU-only torch its compiled operators do
    # not load, and its import fails when it adds shape rules to the two of them that it takes for granted. Neither
    # is used by a data set, so their bare schemas (those of torchvision/csrc/ops/nms.cpp) are enough.
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        return _import()
    except (ImportError, RuntimeError) as error:
        raise _broken(error) from error


def _import() -> ModuleType:
    with warnings.catch_warnings():
        # About image codecs that torchvision could not load; the sets here do not use them.
        warnings.simplefilter("ignore")
        return importlib.import_module("torchvision.datasets")


def _broken(error: Exception) -> DataError:
    return DataError(f"torchvision does not work beside torch {torch.__version__} ({error}): {_INSTALL}")
