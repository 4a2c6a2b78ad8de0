"""What is formed of some rows of a batch, or of a weight, is what it would be among all of them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnn.ops import Window, functions
from tests.contracts import randn
from tests.ops.batch_norms import codes_of, product_dtypes, seeds, shapes, slope_lists
from tests.ops.comparison import examples, random_bits, random_integers

pytestmark = pytest.mark.usefixtures("isa")


@given(shape=shapes, dtype=product_dtypes, slopes=slope_lists, seed=seeds)
@examples
def test_sums_and_roundings_of_an_image_are_the_same_among_many_and_alone(shape, dtype, slopes, seed) -> None:
    y = randn(*shape, seed=seed).to(dtype).movedim(1, -1).contiguous().movedim(-1, 1)
    grad, codes = randn(*shape, seed=seed + 1), codes_of(shape, slopes, seed)
    mean, terms, bound = randn(shape[1], seed=seed), randn(3, shape[1], seed=seed), torch.tensor(9.0)
    moments = functions.row_moments(y)
    sums, sizes = functions.row_norm_gradients(grad, codes, list(slopes), y, mean)
    q, scale = functions.norm_gradient_integers(grad, codes, list(slopes), y, terms, bound, 127, seed)
    for i in range(len(y)):
        one = slice(i, i + 1)
        operands = (grad[one], codes[:, one], list(slopes), y[one])
        assert torch.equal(functions.row_moments(y[one]), moments[one])
        found = functions.row_norm_gradients(*operands, mean)
        assert all(torch.equal(a, b) for a, b in zip(found, (sums[one], sizes[one]), strict=True))
        found = functions.norm_gradient_integers(*operands, terms, bound, 127, seed, i)
        assert all(torch.equal(a, b) for a, b in zip(found, (q[one], scale), strict=True))


@given(rows=st.integers(1, 9), outputs=st.integers(2, 70), features=st.integers(1, 70), seed=seeds)
@examples
def test_signs_of_some_outputs_are_those_among_all(rows, outputs, features, seed) -> None:
    q, x, at = random_integers(rows, outputs, seed=seed, largest=1), random_bits(rows, features, seed), outputs // 2
    whole = functions.linear_backward_weight_sign(q, x, features, seed)
    for first, part in ((0, q[:, :at]), (at, q[:, at:])):
        found = functions.linear_backward_weight_sign(part, x, features, seed, first)
        assert torch.equal(found, whole[first : first + part.shape[1]])
    image, shapes_of = q[:, :, None, None], ((rows, features, 1, 1), (outputs - at, features, 1, 1))
    found = functions.conv2d_backward_weight_sign(image[:, at:], x, *shapes_of, Window.of(), seed, at)
    assert torch.equal(found, whole[at:])
