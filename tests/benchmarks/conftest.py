import importlib.util

import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    """PyTorch's threads wait for each other, long on a busy machine."""
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
