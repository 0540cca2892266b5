import pytest
import torch

from ablations.lm.layered import LayeredLM
from tests.dynatree.noisy_models import SIZES, tiny_model
from tests.torch_state import torch_as_before  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(params=sorted(SIZES))
def target(request) -> LayeredLM:
    return tiny_model(request.param)
