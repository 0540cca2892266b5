"""Tiny random causal LMs and a window of ids."""

import pytest
import torch

from ablations.lm.layered import LayeredLM
from tests.sdtp.random_models import CONFIGS, VOCABULARY, tiny_lm
from tests.sdtp.workspace import Workspace
from tests.torch_state import torch_as_before  # noqa: F401


@pytest.fixture(params=sorted(CONFIGS))
def lm(request: pytest.FixtureRequest) -> LayeredLM:
    return tiny_lm(request.param)


@pytest.fixture
def llama() -> LayeredLM:
    return tiny_lm("llama")


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(VOCABULARY, (60,), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace(tmp_path_factory.mktemp("sdtp"))
