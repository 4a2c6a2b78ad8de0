"""Imports parts of torchvision, which only those who need it pay for (`datasets` takes about 80 MB of memory)."""

import importlib
import warnings
from types import ModuleType

import torch

from bnn.errors import DataError

_INSTALL = 'pip install "bnn-edge[data]"'


def import_torchvision_datasets() -> ModuleType:
    """As `import_torchvision`, of `torchvision.datasets`."""
    return import_torchvision("datasets", needed_by="this data set")


def import_torchvision(part: str, *, needed_by: str) -> ModuleType:
    """Imports a part of torchvision, also where torchvision and torch were built for different devices.

    Args:
        part: such as `datasets` or `models`.
        needed_by: for the error.

    Raises:
        DataError: torchvision is missing or does not work.
    """
    try:
        return _import(part)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise DataError(f"{needed_by} needs {package}, which is not installed: {_INSTALL}") from error
    except (ImportError, RuntimeError) as error:
        if "torchvision::nms" not in str(error):
            raise _broken(error) from error
    # torchvision's wheel on the package index is built for CUDA. Beside a CPU-only torch its compiled operators do
    # not load, and its import fails when it adds shape rules to the two of them that it takes for granted. Neither is
    # used by a data set or a classifier, so their bare schemas (those of torchvision/csrc/ops/nms.cpp) are enough.
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        return _import(part)
    except (ImportError, RuntimeError) as error:
        raise _broken(error) from error


def _import(part: str) -> ModuleType:
    with warnings.catch_warnings():
        # About image codecs that torchvision could not load; the sets here do not use them.
        warnings.simplefilter("ignore")
        return importlib.import_module(f"torchvision.{part}")


def _broken(error: Exception) -> DataError:
    return DataError(f"torchvision does not work beside torch {torch.__version__} ({error}): {_INSTALL}")
