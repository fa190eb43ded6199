import pytest
import torch
from hypothesis import settings

from models.instances import TargetNet
from models.target_nets import ARCHITECTURES
from tests.projects import _made, each_script, few_photos, own_project, project, project_folder  # noqa: F401 (fixtures)

# The architectures of the paper. Tests with a plain twin or an old output are of these; ARCHITECTURES may have more.
PAPER = ("lenetlike", "vanilla_cnn", "resnet8", "resnet32", "resnet56")

settings.register_profile("no deadline", deadline=None)  # how long an example takes says nothing about the property
settings.load_profile("no deadline")


def spread_out(state: dict[str, torch.Tensor], seed: int) -> dict[str, torch.Tensor]:
    """Return a state that differs from the initial one everywhere: batch norm's ones and zeros would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    spread = {}
    for name, value in state.items():
        if not value.is_floating_point():
            spread[name] = value
        elif name.endswith("running_var"):
            spread[name] = torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5
        else:
            spread[name] = value + 0.1 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return spread


def instances_in_float64(name: str, image_shape: tuple[int, int, int], num_classes: int, m: int):
    """Return an architecture whose nets are float64, and the state of m instances of it."""
    net = TargetNet(ARCHITECTURES[name], image_shape, num_classes)
    net.trained.double()
    net.fused.double()
    state = {key: value.double() if value.is_floating_point() else value for key, value in net.start(range(m)).items()}
    return net, spread_out(state, seed=m)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
