"""PReps: rows written into matrices and read again, and the shapes that can have them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InputError
from models.prep import check_prep_shape, pack, prep_height, unpack

widths = st.integers(1, 40).map(lambda eighths: 8 * eighths)


@given(st.integers(1, 4), st.integers(1, 3000), widths, st.integers(0, 2))
def test_unpack_undoes_pack_and_padding_is_zero(m, num_parameters, width, spare):
    height = prep_height(num_parameters, width) + 4 * spare
    rows = torch.randn(m, num_parameters)
    preps = pack(rows, (height, width))
    assert preps.shape == (m, 1, height, width)
    assert torch.equal(unpack(preps, num_parameters), rows)
    assert preps.flatten(1)[:, num_parameters:].count_nonzero() == 0
    last = num_parameters - 1
    assert torch.equal(preps[:, 0, last // width, last % width], rows[:, last])


@given(st.integers(1, 100_000), widths)
def test_prep_height_is_the_smallest_multiple_of_4_that_is_enough(num_parameters, width):
    height = prep_height(num_parameters, width)
    assert height % 4 == 0
    assert height * width >= num_parameters > (height - 4) * width


def test_pack_without_padding_is_a_view():
    rows = torch.randn(2, 64)
    assert pack(rows, (4, 16)).data_ptr() == rows.data_ptr()


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [((8, 640), ("5,120", "5,121", "12")), ((6, 640), ("6x640",)), ((8, 644), ("8x644",)), ((0, 8), ("0x8",))],
)
def test_shapes_too_small_or_of_another_form_are_refused_with_the_numbers(shape, numbers):
    with pytest.raises(InputError) as refusal:
        check_prep_shape(shape, {"lenetlike": 540, "resnet8": 5121})
    assert all(number in str(refusal.value) for number in numbers)
    assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="5,121"):
        pack(torch.zeros(1, 5121), (8, 640))
