import pytest
import torch
from noisy_models import SIZES, tiny_model

from ablations.lm.layered import LayeredLM


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=sorted(SIZES))
def target(request) -> LayeredLM:
    return tiny_model(request.param)
