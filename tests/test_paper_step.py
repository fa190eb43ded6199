"""The paper's CIFAR-10 sizes: 8 ResNet8, 128 images of 32x32, PRep 8x10,000, embedding of 4,096 numbers."""

from dataclasses import replace

import torch

import create_nets_dataset_multi
import create_nets_dataset_single
import train_latspace_multi
import train_latspace_single
import train_multi_arch
import train_single_arch
from models.prep_autoencoder import PrepAutoencoder, Sizes
from tests.miniature import folders
from tests.test_images import write_cifar10


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


def test_presets_of_several_architectures_hold_the_papers_numbers():
    for name in ("cifar10", "tiny-imagenet-200"):
        made, config = create_nets_dataset_multi.PRESETS[name], train_multi_arch.PRESETS[name]
        assert (made.num_train, made.num_train_missing) == ((60, 50, 60, 100), (40, 80))
        assert (made.num_val, made.num_test) == (16, 16)
        drops = [round(share * made.num_epochs[0]) for share in made.lr_drops]
        assert (set(made.num_epochs), made.teacher_epochs, drops, made.learning_rate) == (
            {300},
            300,
            [150, 180, 210],
            0.05,
        )
        assert (round(made.look_from * 300), made.look_every) == (200, 10)
        assert (made.momentum, made.weight_decay) == (0.9, 5e-4)
        assert made.teacher == "resnet56"
        assert config.sizes == Sizes((88, 10_000), 4096, 64, 2048, 128)
        assert (config.alpha, config.temperature, config.meta_batch, config.num_epochs) == (0.9, 4.0, 2, 1000)
        assert (config.learning_rate, config.schedule, config.affine_start) == (1e-4, "constant", "paper")
        assert train_latspace_single.PRESETS[name].learning_rate == 0.01
        assert train_latspace_multi.PRESETS[name].learning_rate == 1e-4


def test_the_scripts_run_at_the_papers_sizes(tmp_path):
    """One epoch of one step, on as many images as that takes; everything else is the preset's."""
    places = folders(tmp_path)
    places.data_dir.mkdir()
    write_cifar10(places.data_dir, train=200)  # 160 of them train
    made = replace(create_nets_dataset_single.PRESETS["cifar10"], lengths=(1,), num_train=8, num_val=1, num_test=1)
    create_nets_dataset_single.main(replace(made, folders=places))
    config = replace(train_single_arch.PRESETS["cifar10"], num_epochs=1, folders=places)
    train_single_arch.main(config)

    saved = torch.load(tmp_path / "runs/cifar10/single/last.pt", weights_only=True)
    assert (saved["epoch"], saved["step"], saved["sizes"]["prep_shape"]) == (1, 1, (8, 10_000))
    torch.manual_seed(config.seed)
    fresh = PrepAutoencoder(config.sizes)
    for key, module in (("0", fresh.encoder), ("1", fresh.decoder)):
        for name, value in module.state_dict().items():
            change = (saved[key][name] - value).abs().max()
            assert 0 < change <= 1.01e-4, name  # Adam's first step moves by at most the learning rate
