"""The presets have the paper's numbers; a step at its CIFAR-10 sizes: 8 ResNet8, 128 images of 32x32, PRep 8x10,000."""

from dataclasses import replace

import pytest
import torch

import create_mlp_dataset
import create_nets_dataset_multi
import create_nets_dataset_single
import train_latspace_multi
import train_latspace_single
import train_mlps
import train_multi_arch
import train_single_arch
from data.folders import Folders
from models.prep_autoencoder import PrepAutoencoder, Sizes
from tests.test_images import write_cifar10

# Training images; of each class four fifths of CIFAR-10's 50,000, and of Tiny-ImageNet's 100,000.
TRAINING_IMAGES = {"cifar10": 40_000, "tiny-imagenet-200": 80_000}
DATASETS = (("cifar10", (8, 10_000)), ("tiny-imagenet-200", (16, 10_000)))


@pytest.mark.parametrize(("name", "prep_shape"), DATASETS)
def test_presets_of_one_architecture_have_the_papers_numbers(name, prep_shape):
    made, config = create_nets_dataset_single.PRESETS[name], train_single_arch.PRESETS[name]
    assert (made.num_train, made.num_val, made.num_test, made.image_batch) == (100, 16, 16, 128)
    assert made.learning_rate == 1e-4 and made.lengths_in == "epochs"
    assert len(made.lengths) == 186 and (made.lengths[0], made.lengths[-1]) == (1, 600)
    assert config.sizes == Sizes(prep_shape, 4096, 64, 2048, 128)
    assert (config.temperature, config.meta_batch, config.image_batch) == (4.0, 8, 128)
    assert config.optim.num_steps == 1000 * (TRAINING_IMAGES[name] // 128)
    assert (config.optim.learning_rate, config.optim.schedule, config.start.affine_start) == (1e-4, "constant", "paper")
    assert (config.start.encoder_start, config.views.prep_noise, config.views.reorder_channels) == ("paper", 0, False)
    assert train_latspace_single.PRESETS[name].search.learning_rate == 0.01


@pytest.mark.parametrize("name", TRAINING_IMAGES)
def test_presets_of_several_architectures_have_the_papers_numbers(name):
    made, config = create_nets_dataset_multi.PRESETS[name], train_multi_arch.PRESETS[name]
    assert (made.num_train, made.num_train_missing) == ((60, 50, 60, 100), (40, 80))
    assert (made.num_val, made.num_test) == (16, 16)
    drops = [round(fraction * made.num_epochs[0]) for fraction in made.lr_drops]
    assert (set(made.num_epochs), made.teacher_epochs, drops, made.learning_rate) == ({300}, 300, [150, 180, 210], 0.05)
    assert (round(made.validate_from * 300), made.validate_every) == (200, 10)
    assert (made.momentum, made.weight_decay, made.teacher) == (0.9, 5e-4, "resnet56")
    assert config.sizes == Sizes((88, 10_000), 4096, 64, 2048, 128)
    assert (config.alpha, config.temperature, config.meta_batch) == (0.9, 4.0, 2)
    assert config.optim.num_steps == 1000 * (TRAINING_IMAGES[name] // 128)
    assert (config.optim.learning_rate, config.optim.schedule, config.start.affine_start) == (1e-4, "constant", "paper")
    assert train_latspace_multi.PRESETS[name].search.learning_rate == 1e-4


def test_presets_of_shapes_have_the_papers_numbers():
    made, config = create_mlp_dataset.PRESETS["deepsdf"], train_mlps.PRESETS["deepsdf"]
    assert made.hidden == (256, 256)
    assert config.sizes == Sizes((8, 10_000), 4096, 64, 2048, 128)
    assert (config.meta_batch, config.num_points) == (4, 50_000) and config.optim.schedule == "constant"


@pytest.mark.slow
def test_the_scripts_run_at_the_papers_sizes(tmp_path):
    """One step, on as many images as that takes; everything else is the preset's."""
    folders = Folders(tmp_path / "data", tmp_path / "lists", tmp_path / "runs")
    folders.data_dir.mkdir()
    write_cifar10(folders.data_dir, train=200)  # 160 of them train
    made = replace(create_nets_dataset_single.PRESETS["cifar10"], lengths=(1,), num_train=8, num_val=1, num_test=1)
    create_nets_dataset_single.main(replace(made, folders=folders))
    config = train_single_arch.PRESETS["cifar10"]
    config = replace(config, optim=replace(config.optim, num_steps=1), folders=folders)
    train_single_arch.main(config)

    saved = torch.load(tmp_path / "runs/cifar10/single/last.pt", weights_only=True)
    assert (saved["step"], saved["sizes"]["prep_shape"]) == (1, (8, 10_000))
    torch.manual_seed(config.seed)
    fresh = PrepAutoencoder(config.sizes)
    for key, module in (("0", fresh.encoder), ("1", fresh.decoder)):
        for name, value in module.state_dict().items():
            change = (saved[key][name] - value).abs().max()
            assert 0 < change <= 1.01e-4, name  # Adam's first step moves by at most the learning rate
