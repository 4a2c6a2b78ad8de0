"""Networks in a file give the same outputs when they come back, whatever their stores, and no other network's."""

import copy
import importlib
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import bnn
from bnn.bits import BitTensor
from bnn.codec import FrozenStore, load_into, load_tensors, save
from bnn.codec.container import read, write
from bnn.codec.errors import CodecError, FormatError, MemoryLimitError, MismatchError
from bnn.errors import NonFiniteError
from bnn.layers import BinaryConv2d, BinaryLinear, BinaryNorm, L1BatchNorm, MaxPool2d, RPReLU
from bnn.models import initialize, mlp
from bnn.quantizers import ReCU, ScaledSign, Sign, Ternary
from bnn.weights import AccumulatorStore, LatentStore, WeightStore
from tests.contracts import walk

STORES = {
    "sign": LatentStore,
    "float16": partial(LatentStore, dtype=torch.float16),
    "accumulator": AccumulatorStore,
    "scaled": partial(LatentStore, quantizer=ScaledSign()),
    "recu": partial(LatentStore, quantizer=ReCU()),
    "recu scaled": partial(LatentStore, quantizer=ReCU(scale="mean", tau=0.9, scope="filter")),
    "ternary": partial(LatentStore, quantizer=Ternary()),
    "wide ternary": partial(LatentStore, quantizer=Ternary(threshold=0.15)),
}


def network(store=LatentStore, *, seed: int = 0, channels: int = 8, norm=nn.BatchNorm2d) -> nn.Sequential:
    """A bit of everything, with values of its own in every tensor."""
    model = nn.Sequential(
        nn.Conv2d(3, channels, 3, bias=False),
        norm(channels),
        BinaryConv2d(channels, 6, 3, padding=1, store=store, learned_scale=True, bias=True),
        MaxPool2d(2),
        L1BatchNorm(6),
        RPReLU(6),
        nn.Flatten(),
        BinaryLinear(54, 5, store=store),
        nn.BatchNorm1d(5),
    )
    generator = torch.Generator().manual_seed(seed)
    initialize(model, generator=generator)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if "store" not in name and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return model.eval()


def logits(model: nn.Module, *shape: int) -> torch.Tensor:
    x = torch.randn(shape or (4, 3, 8, 8), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        return model.eval()(x)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.bnnz"


@pytest.mark.parametrize("store", STORES.values(), ids=STORES)
def test_logits_are_identical(store, path):
    one, other = network(store), network(store, seed=1)
    assert not torch.equal(logits(one), logits(other))
    assert save(one, path) == path.stat().st_size
    load_into(other, path)
    assert torch.equal(logits(one), logits(other))
    for layer, loaded in ((one[2], other[2]), (one[7], other[7])):
        assert torch.equal(layer.store.read(), loaded.store.read())
        assert isinstance(layer.store.read(), BitTensor) == isinstance(loaded.store.read(), BitTensor)
        assert loaded.store.read().dtype == torch.float32
        assert loaded.store.read().stride() == layer.store.read().stride()
        assert (loaded.store.shape, loaded.store.storage_bits) == (layer.store.shape, layer.store.storage_bits)


def stores_of_the_package() -> list[type[WeightStore]]:
    for module in walk(bnn):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = [], [WeightStore]
    while left:
        found += [cls for cls in left if not cls.__subclasses__()]
        left = [subclass for cls in left for subclass in cls.__subclasses__()]
    return [cls for cls in found if cls.__module__.startswith("bnn.") and cls is not FrozenStore]


@pytest.mark.parametrize("cls", stores_of_the_package(), ids=lambda cls: cls.__name__)
def test_every_store_of_the_package_can_be_kept(cls, path):
    one, other = network(cls), network(cls, seed=1)
    save(one, path)
    load_into(other, path)
    assert torch.equal(logits(one), logits(other))


def test_binary_norms_and_the_bits_between_layers(path):
    def model(seed):
        model = mlp(input_shape=(1, 8, 8), classes=4, hidden=(32, 32), store=AccumulatorStore, norm=BinaryNorm)
        initialize(model, generator=torch.Generator().manual_seed(seed))
        model.train()
        model(torch.randn((50, 1, 8, 8), generator=torch.Generator().manual_seed(seed)))  # moves the statistics
        return model

    one, other = model(0), model(1)
    save(one, path)
    load_into(other, path)
    assert torch.equal(logits(one, 20, 1, 8, 8), logits(other, 20, 1, 8, 8))


def test_the_gradient_of_an_input_passes_a_loaded_network(path):
    one, other = network(), network(seed=1)
    save(one, path)
    load_into(other, path)
    inputs = [torch.randn((4, 3, 8, 8), generator=torch.Generator().manual_seed(2)).requires_grad_() for _ in "12"]
    for model, x in zip((one, other), inputs, strict=True):
        model(x).square().sum().backward()
    assert inputs[0].grad.any()
    assert torch.equal(inputs[0].grad, inputs[1].grad)


def test_a_loaded_network_can_be_copied_moved_kept_and_loaded_again(path, tmp_path):
    one, other = network(STORES["recu scaled"]), network(STORES["recu scaled"], seed=1)
    save(one, path)
    load_into(other, path)
    again = tmp_path / "again.bnnz"
    save(other, again)
    assert read(again) == read(path)
    load_into(other, again)
    copied = copy.deepcopy(other)
    assert torch.equal(logits(copied), logits(one))
    assert torch.equal(logits(copied.double().float()), logits(one))
    restored = network(STORES["recu scaled"], seed=2)
    load_into(restored, path)
    restored.load_state_dict(other.state_dict())
    assert torch.equal(logits(restored), logits(one))
    with pytest.raises(TypeError, match="cannot be drawn anew"):
        initialize(other, generator=torch.Generator())


def test_names_are_those_of_the_state_and_latents_are_left_out(path):
    model = network(STORES["scaled"])
    save(model, path)
    tensors = load_tensors(path)
    names = {f"{layer}.store.{part}" for layer in (2, 7) for part in ("weight", "scale")}
    names |= {name for name in model.state_dict() if "store" not in name}
    assert tensors.keys() == names
    assert tensors["2.store.weight"].unique().tolist() == [-1, 1]
    assert torch.equal(tensors["2.store.scale"], model[2].store.weight.abs().flatten(1).mean(1))
    assert torch.equal(tensors["4.running_deviation"], model[4].running_deviation)
    assert tensors["1.num_batches_tracked"].dtype == torch.int64


def test_tensors_of_a_plain_sign_network_are_a_state_dict(path):
    one, other = network(), network(seed=1)
    save(one, path)
    other.load_state_dict(load_tensors(path))
    assert torch.equal(logits(one), logits(other))


def test_saving_and_a_refused_file_change_nothing(path):
    model = network(STORES["recu scaled"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save(model, path)
    other_path = path.with_name("other.bnnz")
    save(network(STORES["recu scaled"], channels=9), other_path)
    with pytest.raises(MismatchError):
        load_into(model, other_path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    other_path.write_bytes(content)
    with pytest.raises(CodecError):
        load_into(model, other_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert isinstance(model[2].store, LatentStore)


def test_a_store_that_two_layers_share_is_kept_under_both_names(path):
    def model(seed):
        layers = nn.Sequential(BinaryLinear(6, 6), BinaryLinear(6, 6))
        layers[1].store = layers[0].store
        initialize(layers, generator=torch.Generator().manual_seed(seed))
        return layers

    one, other = model(0), model(1)
    save(one, path)
    assert all(entry.levels == (-1, 1) for entry in read(path))
    load_into(other, path)
    assert all(isinstance(layer.store, FrozenStore) for layer in other)
    assert torch.equal(logits(one, 3, 6), logits(other, 3, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_floats_in_16_bits(dtype, path):
    one, other = network(), network(seed=1)
    full = save(one, path)
    assert save(one, path, float_dtype=dtype) < 0.75 * full
    load_into(other, path)
    for name, tensor in one.state_dict().items():
        if "store" in name:
            continue
        rounded = tensor.to(dtype).to(tensor.dtype) if tensor.is_floating_point() else tensor
        assert torch.equal(other.state_dict()[name], rounded)
        assert other.state_dict()[name].dtype == tensor.dtype


def test_floats_too_large_for_16_bits_are_refused(path):
    model = network()
    model[1].running_var[3] = 1e6
    with pytest.raises(CodecError, match=r"a value of 1\.running_var is too large for torch\.float16"):
        save(model, path, float_dtype=torch.float16)
    assert not path.exists()
    save(model, path, float_dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (network(channels=9), r"its '0\.weight' is torch\.float32 \[8, 3, 3, 3\], this model's is .*\[9, 3, 3, 3\]"),
        (network(STORES["scaled"]), r"it has no '2\.store\.scale'"),
        (network(norm=lambda n: nn.BatchNorm2d(n, affine=False)), r"it has '1\.weight', which this one has not"),
        (nn.Sequential(BinaryLinear(3, 3)), r"it has no '0\.store\.weight'"),
    ],
)
def test_a_file_of_another_model_is_refused(other, message, path):
    save(network(), path)
    with pytest.raises(MismatchError, match=rf"model\.bnnz is of another model: {message}"):
        load_into(other, path)


class OfVersion1(nn.Module):
    """What tests/codec/version-1.hex is of, or the same with another name of a layer."""

    def __init__(self, second: str = "2"):
        super().__init__()
        self.add_module("1", BinaryLinear(3, 2, bias=True))
        self.add_module(second, nn.ModuleDict({"store": LatentStore((4000,), quantizer=Ternary())}))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("nothing", torch.zeros(0, 3, dtype=torch.bool))


def write_version_1(path):
    path.write_bytes(bytes.fromhex(Path(__file__).with_name("version-1.hex").read_text()))


def test_a_file_of_version_1_is_loaded_where_its_names_are_those_of_the_network(path):
    write_version_1(path)
    model = OfVersion1()
    load_into(model, path)
    assert model.steps == 7
    assert model.get_submodule("1").bias.tolist() == [0.5, -2]
    assert model.get_submodule("1").store.read().dense().tolist() == [[1, -1, 1], [-1, -1, 1]]
    assert load_tensors(path)["steps"] == 7


def test_a_file_of_version_1_with_other_names_is_refused_by_its_version(path):
    write_version_1(path)
    refused = (
        r"model\.bnnz is of version 1, whose networks had other names of their layers: decompress it, or load it with"
        " release 0.1$"
    )
    with pytest.raises(MismatchError, match=refused):
        load_into(OfVersion1(second="block"), path)


def test_integers_do_not_pass_for_floats_nor_for_other_integers(path):
    class Counted(nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.register_buffer("count", torch.ones(2, dtype=dtype))

    save(Counted(torch.int64), path)
    load_into(Counted(torch.int64), path)
    for dtype in (torch.float32, torch.uint8, torch.bool):
        with pytest.raises(MismatchError, match=r"'count' is torch\.int64"):
            load_into(Counted(dtype), path)


def test_what_cannot_be_kept_is_refused(path):
    class Extra(nn.Module):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            raise AssertionError

    with pytest.raises(CodecError, match="_extra_state cannot be stored: it is no tensor but of type dict"):
        save(Extra(), path)
    with pytest.raises(CodecError, match="a store alone is no network"):
        save(LatentStore((2, 2)), path)
    model = network()
    with torch.no_grad():
        model[2].store.weight[0, 0, 0, 0] = math.nan
    with pytest.raises(NonFiniteError):
        save(model, path)
    assert not path.exists()


def test_memory_is_asked_for_before_it_is_taken(path):
    model = nn.Sequential(BinaryLinear(512, 512, store=partial(LatentStore, quantizer=Sign())))
    with torch.no_grad():
        model[0].store.weight.fill_(1.0)
    assert save(model, path) < 600
    with pytest.raises(MemoryLimitError, match="the tensors take 1048576 bytes, above the limit of 1000000"):
        load_tensors(path, memory_limit_bytes=1_000_000)
    assert load_tensors(path)["0.store.weight"].sum() == 512 * 512
    # A module has its memory already.
    load_into(model, path)


def test_damage_within_a_tensor_names_it(path):
    model = nn.Sequential(BinaryLinear(64, 64))
    save(model, path)
    (entry,) = read(path)
    write(path, [replace(entry, payload=entry.payload[:-1])])
    with pytest.raises(FormatError, match=r"0\.store\.weight: a tensor of \[64, 64\] takes 512 bytes, not 511"):
        load_into(model, path)
