"""A process takes the GPU it is given."""

import pytest
import torch

from impala_mp.algorithms import cuda


@pytest.mark.parametrize(
    ("device", "expected"), [("cpu", []), ("cpu:0", []), ("cuda", []), ("cuda:1", [1])]
)
def test_a_process_takes_the_gpu_it_is_given(monkeypatch, device, expected):
    taken = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    cuda.take_device(device)
    assert taken == expected
