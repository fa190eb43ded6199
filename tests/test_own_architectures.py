"""An architecture of one's own, registered in models/target_nets, goes through the scripts like the others."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import create_nets_dataset_single
import eval_single
import train_single_arch
from data.instance_files import read_instance
from models.errors import InputError
from models.instances import TargetNet
from models.layers import Conv2d, Linear
from models.target_nets import ARCHITECTURES, Architecture
from netspace import NetSpace
from tests import miniature


class Normalized(nn.Module):
    """Has a layer that models/layers.py does not know: GroupNorm."""

    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 4, 3, 2, 1)
        self.norm = nn.GroupNorm(2, 4)
        self.fc = nn.Linear(4 * (input_shape[1] // 2) ** 2, num_outputs)

    def forward(self, x):
        return self.fc(torch.relu(self.norm(self.conv(x))).flatten(1))


class Dense(nn.Module):
    """Has a forward that concatenates channels, which would mix folded instances, and layers that can be folded."""

    def __init__(self, input_shape, num_outputs):
        super().__init__()
        self.conv1 = Conv2d(input_shape[0], 3, 3, 2, 1)
        self.conv2 = Conv2d(3, 3, 3, 1, 1)
        self.fc = Linear(6 * (input_shape[1] // 2) ** 2, num_outputs)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        return self.fc(torch.cat([x, torch.relu(self.conv2(x))], dim=1).flatten(1))


@pytest.mark.parametrize("net", [Normalized, Dense])
def test_an_own_architecture_goes_through_the_scripts(net, few_photos, monkeypatch, tmp_path):
    monkeypatch.setitem(ARCHITECTURES, "own", Architecture("own", None, "own;d7", net))
    monkeypatch.chdir(tmp_path)
    small = dict(architecture="own", num_train=3, num_val=1, num_test=2, lengths=(2, 40))
    create_nets_dataset_single.main(miniature.create_config(miniature.HERE, **small))
    train = miniature.train_config(miniature.HERE, architecture="own", num_steps=4, validate_every=2)
    with pytest.raises(InputError, match="--no-reorder-channels"):
        train_single_arch.main(train)
    train_single_arch.main(miniature.changed(train, reorder_channels=False))
    results = eval_single.main(miniature.config_of(eval_single, miniature.HERE, architecture="own"))
    assert results["target_accuracy"][-1] > 20  # chance is 10

    images, own = miniature.few_photos(), net((1, 8, 8), 10)
    found = json.loads(Path("runs/photos/single/eval_single.json").read_text())
    own.load_state_dict(read_instance(Path(found["instances"][0]))[0])
    right = own(images.test.plain(0, 200)).argmax(1) == images.test.labels
    assert found["target_accuracy"][0] == pytest.approx(100 * right.double().mean().item(), abs=0.6)
    space = NetSpace.load("runs/photos/single")
    decoded = space.decode(space.encode(own))
    assert isinstance(decoded, net) and decoded(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("net", [Normalized, Dense])
def test_instances_side_by_side_are_those_alone_on_images_in_channels_last_memory(net, channels):
    shape = (channels, 8, 8)
    many = TargetNet(Architecture("own", None, "own;d7", net), shape, 10)
    rows = many.fuse(many.start([1, 2, 3]))
    x = torch.randn(5, 8, 8, channels).movedim(-1, -3)
    with torch.no_grad():
        expected = torch.stack([many.module(row)(x) for row in rows])
        torch.testing.assert_close(many.run(rows, x), expected)
        torch.testing.assert_close(many.run(rows, x.expand(3, *x.shape)), expected)
