"""ONNX models give what the network gives, and their binary weights take one bit each."""

import numpy as np
import pytest
import torch

from bnn.export import program_of
from bnn.export.commands import binary_weights
from bnn.models import binarynet, cnv, mlp, resnet8, resnet20
from bnn.models.zoo import quicknet_small
from tests.export.networks import examples, narrow_quicknet, network, of_parts, plain

onnx = pytest.importorskip("onnx", reason="pip install 'bnn-edge[export]'")
runtime = pytest.importorskip("onnxruntime", reason="pip install 'bnn-edge[export]'")

from bnn.export.onnx_model import OPSET, onnx_model  # noqa: E402

SHAPE = (3, 16, 16)


def narrow_resnet8():
    return resnet8(input_shape=SHAPE, classes=5, width=6)


def run(model: "onnx.ModelProto", given: torch.Tensor) -> torch.Tensor:
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"image": given.numpy()})[0])


def bits_a_weight(model: "onnx.ModelProto", program) -> float:
    """Bits of the arrays of bytes, of which there is one of weights, for each binary weight."""
    packed = max((array for array in model.graph.initializer if array.data_type == onnx.TensorProto.UINT8), key=size)
    return 8 * size(packed) / binary_weights(program)


def size(array: "onnx.TensorProto") -> int:
    return int(np.prod(array.dims))


@pytest.mark.parametrize("build", [plain, narrow_resnet8, of_parts], ids=lambda build: build.__name__)
@pytest.mark.parametrize("preset", ["standard", "edge-min"])
def test_logits_are_those_of_the_network(build, preset):
    model = network(build, SHAPE, preset="standard" if build is of_parts else preset, pixels=preset == "standard")
    given, logits = examples(model, SHAPE, 20)
    exported = onnx_model(program_of(model, SHAPE))
    torch.testing.assert_close(run(exported, given), logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("preset", ["standard", "edge-min"])
def test_a_network_of_the_zoo(preset):
    model = network(narrow_quicknet, (3, 32, 32), preset=preset)
    given, logits = examples(model, (3, 32, 32), 20)
    torch.testing.assert_close(run(onnx_model(program_of(model)), given), logits, rtol=0, atol=1e-5)


def test_only_standard_operators_of_the_opset_are_used():
    model = onnx_model(program_of(network(plain, SHAPE, preset="edge-min")))
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions


def test_a_row_of_features_is_an_input_too():
    def build():
        return mlp(input_shape=(20,), hidden=(16,), classes=3)

    model = network(build, (20,), preset="standard", pixels=False)
    given, logits = examples(model, (20,), 10)
    exported = onnx_model(program_of(model, (20,)))
    torch.testing.assert_close(run(exported, given), logits, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["standard", "edge", "edge-min"])
@pytest.mark.parametrize(
    ("build", "shape", "whole_file"),
    [
        (mlp, (1, 28, 28), 1.1),
        (cnv, (3, 32, 32), 1.1),
        (binarynet, (3, 32, 32), 1.1),
        # What is real in them, such as 0.66 million weights of the last, takes 32 bits each.
        (resnet20, (3, 32, 32), 1.7),
        (quicknet_small, (3, 224, 224), 2.9),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_networks_of_the_package(build, shape, whole_file, preset):
    model = network(build, shape, preset=preset)
    program = program_of(model)
    exported = onnx_model(program)
    given, logits = examples(model, shape, 20)
    # Without AVX-512 torch sums some shapes of real convolutions in another order.
    is_torchs = build is quicknet_small and torch.backends.cpu.get_cpu_capability() != "AVX512"
    torch.testing.assert_close(run(exported, given), logits, rtol=0, atol=1e-4 if is_torchs else 1e-5)
    assert bits_a_weight(exported, program) < 1.001
    assert 8 * len(exported.SerializeToString()) / binary_weights(program) < whole_file
