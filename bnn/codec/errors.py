"""Errors of model files. Each message is one line: what is wrong, and how to go on."""

from bnn.errors import BnnError


class CodecError(BnnError):
    """A model file cannot be written or read."""


class MagicError(CodecError):
    """The file is not a model file at all."""


class VersionError(CodecError):
    """The file is of a version of the format that this release does not know."""


class LengthError(CodecError):
    """The file is shorter or longer than it says: it was cut off, or something was added."""


class ChecksumError(CodecError):
    """The file's bytes are not those that were written."""


class FormatError(CodecError):
    """A field of the file, or of a tensor in it, has a value that the format forbids."""


class MemoryLimitError(CodecError):
    """The tensors would take more memory than the caller allows."""


class MismatchError(CodecError):
    """The file is of another model than the one that it is to be loaded into."""
