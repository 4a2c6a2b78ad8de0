"""A network as a model file, and back."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bnn.bits import BitTensor
from bnn.codec.coding import Entry, decode, encode_discrete, encode_values
from bnn.codec.container import read, read_all, version_of, write
from bnn.codec.context import EFFORT_PER_BYTE
from bnn.codec.errors import CodecError, FormatError, MemoryLimitError, MismatchError
from bnn.codec.network import NotDescribableError, describe
from bnn.weights import FrozenStore, WeightStore

MEMORY_LIMIT_BYTES = 1 << 30
# Of a file, its table and description aside.
_AROUND_TENSORS_BYTES = 1 << 25
_LIMIT_BYTES_PER_EFFORT = 256
# Ends of the names of what a layer's store holds, which is never narrowed.
_STORED = ("store.weight", "store.scale")


def save(
    module: nn.Module,
    path: Path,
    *,
    float_dtype: torch.dtype | None = None,
    about: Mapping[str, Any] | None = None,
    quick: bool = False,
) -> int:
    """Writes what inference needs of a network.

    Of a store these are the levels that it reads, as `<store>.weight`, and its scale, if it has one, as
    `<store>.scale`; latent weights and accumulators are left out. Everything else in the state dict (norms with their
    statistics, learned scales, biases, real layers) is kept under its own name.

    Args:
        module: any module; it is not changed.
        path: of the file.
        float_dtype: of tensors outside of stores that are floating; by default as they are. float16 and bfloat16 halve
            them and lose precision.
        about: the description that the file is to have, see `bnn.codec.described`; by default that of the network.
        quick: whether to take the quickest coding in place of the shortest.

    Returns:
        Bytes of the file.

    Raises:
        CodecError: a value does not fit `float_dtype`, a part of the state is no tensor, or the file cannot be
            written.
        NonFiniteError: a latent weight is NaN.
    """
    entries = entries_of(module, float_dtype=float_dtype, quick=quick)
    return write(path, entries, network_values(module) if about is None else about)


def entries_of(
    module: nn.Module,
    *,
    float_dtype: torch.dtype | None = None,
    narrowed: Mapping[str, torch.dtype] | None = None,
    quick: bool = False,
) -> list[Entry]:
    """What `save` writes of a network; arguments and errors are those of `save`.

    Args:
        module: the network.
        float_dtype: see `save`.
        narrowed: the dtypes of some tensors outside of stores, by name, where they are to be others than `float_dtype`.
        quick: see `save`.
    """
    entries = []
    for name, store in _stores(module):
        with torch.no_grad():
            weight, scale = store.read(), store.scale()
        entries.append(encode_discrete(f"{name}.weight", weight, levels=store.levels, quick=quick))
        if scale is not None:
            entries.append(encode_values(f"{name}.scale", scale, quick=quick))
    for name, value in _other_state(module).items():
        dtype = (narrowed or {}).get(name, float_dtype)
        entries.append(encode_values(name, _converted(name, value, dtype), quick=quick))
    return entries


def network_values(module: nn.Module) -> dict[str, Any]:
    """The part of a file's description that is about the network, or why there is none."""
    try:
        return {"network": describe(module)}
    except NotDescribableError as reason:
        return {"obstacle": str(reason)}


def recode(
    source: Path,
    target: Path,
    *,
    float_dtype: torch.dtype | None = None,
    memory_limit_bytes: float = MEMORY_LIMIT_BYTES,
) -> int:
    """Writes a model file anew in its shortest codings, with the same description; as `save` otherwise.

    Args:
        source: the file; it is not trusted.
        target: where it goes.
        float_dtype: as of `save`.
        memory_limit_bytes: as of `load_tensors`.
    """
    entries, about = read_all_within(source, memory_limit_bytes)
    recoded = []
    for entry in entries:
        value = decode(entry)
        if entry.levels:
            recoded.append(encode_discrete(entry.name, value))
        else:
            narrowed = value if entry.name.endswith(_STORED) else _converted(entry.name, value, float_dtype)
            recoded.append(encode_values(entry.name, narrowed))
    return write(target, recoded, about)


def load_into(module: nn.Module, path: Path) -> None:
    """Reads a model file into a network of the same architecture, which then gives the same outputs.

    Every store is replaced by a `FrozenStore`: the network is one for inference. All is checked before anything in the
    module is changed, and names and shapes before anything is decoded.

    Args:
        module: its values do not matter. Floating tensors keep the module's dtype; all keep their device.
        path: a file that `save` wrote.

    Raises:
        MismatchError: the file is of another model, and the message names the first difference; or of version 1, whose
            networks had other names of their layers.
        CodecError: the file cannot be read or is damaged; see `bnn.codec.errors`.
    """
    fill(module, read(path), path)


def fill(module: nn.Module, found: Sequence[Entry], path: Path, *, scales_too: bool = False) -> None:
    """As `load_into`, with the entries that have been read.

    Args:
        module: its tensors may be on the meta device: they then come to the CPU.
        found: the entries.
        path: that they are from, for errors.
        scales_too: whether a store may have a scale where the module's has none.
    """
    entries = {entry.name: entry for entry in found}
    stores, others = dict(_stores(module)), _other_state(module)
    expected = _expected(stores, others)
    if scales_too:
        scaled = {f"{name}.scale": store.shape[:1] for name, store in stores.items() if f"{name}.scale" in entries}
        expected |= {name: torch.empty(shape, device="meta") for name, shape in scaled.items()}
    _check(entries, expected, path)
    values = {name: decode(entry) for name, entry in entries.items()}
    for name, store in stores.items():
        device = next((x.device for x in store.state_dict().values() if not x.is_meta), torch.device("cpu"))
        frozen = FrozenStore(
            _levels(values[f"{name}.weight"], entries[f"{name}.weight"]),
            levels=max(2, len(entries[f"{name}.weight"].levels)),
            scale=values.get(f"{name}.scale"),
        )
        parent, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(parent), attribute, frozen.to(device))
    with torch.no_grad():
        for name, tensor in others.items():
            if tensor.is_meta:
                _put(module, name, values[name].to(tensor.dtype))
            else:
                tensor.copy_(values[name])


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    """Gives a parameter or buffer that has no memory its value."""
    owner_name, _, attribute = name.rpartition(".")
    owner = module.get_submodule(owner_name)
    if attribute in owner._buffers:
        owner._buffers[attribute] = value
    else:
        owner._parameters[attribute] = nn.Parameter(value, requires_grad=value.is_floating_point())


def load_tensors(path: Path, *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> dict[str, Tensor]:
    """Decodes the tensors of a model file, which may be of any model, by name.

    Args:
        path: of the file.
        memory_limit_bytes: what the tensors may take together, once decoded.

    Raises:
        MemoryLimitError: they would take more; none has been decoded.
        CodecError: the file cannot be read or is damaged; see `bnn.codec.errors`.
    """
    return {entry.name: decode(entry) for entry in read_within(path, memory_limit_bytes)}


def read_within(path: Path, memory_limit_bytes: float) -> list[Entry]:
    """The entries of a model file whose tensors take `memory_limit_bytes` at most; raises as `load_tensors`."""
    return read_all_within(path, memory_limit_bytes)[0]


def read_all_within(path: Path, memory_limit_bytes: float) -> tuple[list[Entry], dict[str, Any]]:
    """The entries and the description of a model file; what decoding takes is bounded in memory and in time.

    The effort of decoding, see `Entry.effort`, may be 128 for each byte of the file, and 1 for each 256 bytes of the
    limit, which is 4 million, or some seconds, for 1 GiB.

    Raises:
        MemoryLimitError: it would take more.
        CodecError: as `read_all`.
    """
    advice = "if you trust the file, raise the limit"
    file_bytes = path.stat().st_size if path.exists() else 0
    if file_bytes > memory_limit_bytes + _AROUND_TENSORS_BYTES:
        raise MemoryLimitError(f"{path} has {file_bytes} bytes, above the limit of {memory_limit_bytes}: {advice}")
    entries, description = read_all(path)
    decoded_bytes = sum(entry.decoded_bytes for entry in entries)
    if decoded_bytes > memory_limit_bytes:
        raise MemoryLimitError(
            f"{path}: the tensors take {decoded_bytes} bytes, above the limit of {memory_limit_bytes}: {advice}"
        )
    try:
        effort = sum(entry.effort for entry in entries)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from None
    if effort > EFFORT_PER_BYTE * file_bytes + memory_limit_bytes / _LIMIT_BYTES_PER_EFFORT:
        raise MemoryLimitError(
            f"{path}: decoding takes {effort / 1e6:.0f} s or longer, too much for {file_bytes} bytes under the limit of"
            f" {memory_limit_bytes}: {advice}"
        )
    return entries, description


def _stores(module: nn.Module) -> Iterator[tuple[str, WeightStore]]:
    # A store that two layers share has two names.
    for name, part in module.named_modules(remove_duplicate=False):
        if isinstance(part, WeightStore):
            if not name:
                raise CodecError("a store alone is no network: give the module that it is a part of")
            yield name, part


def _other_state(module: nn.Module) -> dict[str, Tensor]:
    prefixes = tuple(f"{name}." for name, _ in _stores(module))
    state = {name: value for name, value in module.state_dict().items() if not name.startswith(prefixes)}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CodecError(f"{name} cannot be stored: it is no tensor but of type {type(value).__name__}")
    return state


def _converted(name: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not value.is_floating_point():
        return value
    converted = value.to(dtype)
    if not torch.equal(converted.isfinite(), value.isfinite()):
        raise CodecError(f"a value of {name} is too large for {dtype}: keep floats as they are, or in bfloat16")
    return converted


def _expected(stores: dict[str, WeightStore], others: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that a file of this model has, by name, on the meta device."""
    expected = {name: torch.empty_like(value, device="meta") for name, value in others.items()}
    for name, store in stores.items():
        expected[f"{name}.weight"] = torch.empty(store.shape, device="meta")
        scale = store.scale()
        if scale is not None:
            expected[f"{name}.scale"] = torch.empty(scale.shape, device="meta")
    return expected


def _check(entries: dict[str, Entry], expected: dict[str, Tensor], path: Path) -> None:
    if entries.keys() != expected.keys() and version_of(path) == 1:
        raise MismatchError(
            f"{path} is of version 1, whose networks had other names of their layers: decompress it, or load it with"
            " release 0.1"
        )
    for name in [*expected, *entries]:
        if name not in entries:
            raise MismatchError(f"{path} is of another model: it has no {name!r}")
        if name not in expected:
            raise MismatchError(f"{path} is of another model: it has {name!r}, which this one has not")
        entry, own = entries[name], expected[name]
        # Floating tensors may be stored in fewer bits than they have here.
        same_kind = entry.dtype == own.dtype or (entry.dtype.is_floating_point and own.is_floating_point())
        if entry.shape != own.shape or not same_kind:
            raise MismatchError(
                f"{path} is of another model: its {name!r} is {entry.dtype} {list(entry.shape)}, this model's is"
                f" {own.dtype} {list(own.shape)}"
            )


def _levels(values: Tensor, entry: Entry) -> Tensor:
    # The memory order of the other stores: sums are then formed in the same order.
    if values.dim() == 4:
        values = values.contiguous(memory_format=torch.channels_last)
    return BitTensor.from_dense(values) if entry.levels == (-1.0, 1.0) else values
