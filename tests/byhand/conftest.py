from tests.torch_state import torch_as_before  # noqa: F401
