"""The errors that a user can cause and mend. Each message is one line: what is wrong, and how to go on."""


class BnnError(Exception):
    """Base of every error that the command line prints as one line instead of a traceback."""


class DataError(BnnError):
    """A data file or folder is missing, damaged or does not fit; the message names its path."""


class CheckpointError(BnnError):
    """A checkpoint is missing, damaged or belongs to another run."""


class RecipeError(BnnError):
    """A recipe file or its arguments cannot be used."""


class NonFiniteError(BnnError, ValueError):
    """A NaN reached a place where it would silently become an ordinary value, such as a sign bit."""


class TrainingStopped(BnnError):
    """Training ended early on its own account; the last good state has been kept."""
