"""One training step at the paper's CIFAR-10 sizes: 8 ResNet8, 128 images of 32x32, PRep 8x10,000, embedding 4,096."""

import numpy as np
import torch

import create_nets_dataset_single
import train_single_arch
from data.images import Epoch, make_images
from models.instances import ArchitectureOnImages
from models.netspace import NetSpace, Sizes
from models.prep import pack, unpack
from models.registry import ARCHITECTURES
from training.losses import distillation_loss


def test_presets_hold_the_papers_numbers():
    create, train = create_nets_dataset_single.PRESETS, train_single_arch.PRESETS
    for name, prep_shape in (("cifar10", (8, 10_000)), ("tiny-imagenet-200", (16, 10_000))):
        made, config = create[name], train[name]
        assert (made.num_train, made.num_val, made.num_test, made.image_batch, made.learning_rate) == (
            100,
            16,
            16,
            128,
            1e-4,
        )
        assert (
            len(made.lengths) == 186 and (made.lengths[0], made.lengths[-1]) == (1, 600) and made.lengths_in == "epochs"
        )
        assert config.sizes == Sizes(prep_shape, 4096, 64, 2048, 128)
        assert (config.temperature, config.meta_batch, config.image_batch, config.num_epochs) == (4.0, 8, 128, 1000)
        assert (config.learning_rate, config.schedule, config.affine_start) == (1e-4, "constant", "paper")


def test_one_step_at_the_papers_sizes_lowers_the_loss_on_its_batch():
    config = train_single_arch.PRESETS["cifar10"]
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    images = make_images(pixels, rng.integers(0, 10, 256), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 4)
    nets = ArchitectureOnImages(ARCHITECTURES["resnet8"], (3, 32, 32), 10)
    rows = nets.fuse(nets.start(list(range(config.meta_batch))))
    preps = pack(rows, config.sizes.prep_shape)
    assert preps.shape == (8, 1, 8, 10_000)
    net_space = NetSpace(config.sizes)
    optimizer = torch.optim.Adam(net_space.parameters(), config.learning_rate)
    x = Epoch(images, [(0,)], config.image_batch).batch(0)[0][0]
    with torch.no_grad():
        target = nets.run(rows, x)
    assert target.shape == (8, 128, 10)
    losses = []
    for _ in range(2):
        loss = distillation_loss(nets.run(unpack(net_space(preps), nets.num_parameters), x), target, config.temperature)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for name, parameter in net_space.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.count_nonzero() > 0, name
    assert losses[1] < losses[0]
