"""SIRENs from one initialization: what is planned, where they start, what is refused."""

import pytest
import torch

import create_mlp_dataset
from data.instance_files import read_instance
from data.shapes import fit_samples, make_shapes, split_shapes
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import siren
from tests import miniature
from training.fits import fit_to_all, plan_fits, start_of
from training.zoo import Zoo

CPU = torch.device("cpu")
NET = TargetNet(siren((3, 16, 16, 1)))


def config_in(root, **changes):
    return miniature.create_mlp_config(root, **changes)


def shapes_in(config):
    folder = config.folders.run(config.dataset, "shapes")
    return make_shapes(config.source, config.dataset, folder, config.num_shapes, config.num_samples, config.seed)


def test_splits_are_disjoint_and_the_test_split_does_not_depend_on_the_others(tmp_path):
    shapes = [tmp_path / f"{i}.npz" for i in range(10)]
    two, three = split_shapes(shapes, 3, 0), split_shapes(shapes, 3, 0, num_val=2)
    assert list(two) == ["train", "test"] and list(three) == ["train", "val", "test"]
    assert two["test"] == three["test"] and sorted(sum(three.values(), [])) == sorted(shapes)
    assert [len(each) for each in three.values()] == [5, 2, 3]
    with pytest.raises(InputError, match="--num-test 3 and --num-val 7"):
        split_shapes(shapes, 3, 0, num_val=7)


def test_facts_of_instances_from_random_starts_are_those_of_older_versions(tmp_path):
    config = config_in(tmp_path)
    plans, _, _ = plan_fits(config, NET, shapes_in(config))
    protocol = {"num_steps", "num_points", "learning_rate", "lr_decay", "lr_every", "num_stored", "seed"}
    assert all(set(plan.facts) == protocol | {"dataset", "hidden", "shape", "samples"} for plan in plans)
    assert {plan.path.parent.name for plan in plans} == {"siren-adam"}


def test_shared_starts(tmp_path):
    config = config_in(tmp_path, init="shared")
    shapes = shapes_in(config)
    plans, _, train = plan_fits(config, NET, shapes)
    starts = [
        start_of(each, NET, Zoo(each), plans, train, CPU)
        for each in (config, config, config_in(tmp_path, init="shared", seed=1))
    ]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert not all(torch.equal(starts[0][name], starts[2][name]) for name in starts[0])
    assert start_of(config_in(tmp_path), NET, Zoo(config), plans, train, CPU) is None


def test_a_start_at_the_mean_is_fitted_to_training_shapes_once(tmp_path):
    config = config_in(tmp_path, init="mean", init_steps=300)
    shapes = shapes_in(config)
    plans, _, train = plan_fits(config, NET, shapes)
    assert len(train) == 4
    found = start_of(config, NET, Zoo(config), plans, train, CPU)
    path = plans[0].path.parent / "init0.safetensors"
    saved, expected = read_instance(path)[0], fit_to_all(NET, train, 300, 0, CPU)
    assert all(torch.equal(found[name][0], saved[name]) for name in found)
    assert all(torch.equal(expected[name], found[name]) for name in found)
    samples = torch.cat([fit_samples(shape, 200, 2, (0, i))[0] for i, shape in enumerate(train)])

    def error(state):
        return (NET.run(NET.layout.flatten(state), samples[:, :3])[0] - samples[:, 3]).square().mean()

    assert error(found) < 0.5 * error(NET.start([0]))
    time = path.stat().st_mtime_ns
    start_of(config, NET, Zoo(config), plans, train, CPU)
    assert path.stat().st_mtime_ns == time
    other = config_in(tmp_path, init="mean", init_steps=300, num_test=1)  # of other training shapes
    plans, _, train = plan_fits(other, NET, shapes)
    with pytest.raises(InputError, match="init0.safetensors.*init_shapes"):
        start_of(other, NET, Zoo(other), plans, train, CPU)


def test_fits_by_sgd_are_in_a_folder_of_their_own_and_stay_near_their_start(tmp_path):
    small = dict(init="mean", init_steps=200, optimizer="sgd", learning_rate=1e-2, num_steps=40, num_val=1)
    config = config_in(tmp_path, **small)
    create_mlp_dataset.main(config)
    folder = config.folders.nets("chairs", "siren-sgd")
    start = read_instance(folder / "init0.safetensors")[0]
    rows = [
        NET.layout.flatten({name: value[None] for name, value in each.items()})
        for each in [start]
        + [
            {name: value for name, value in read_instance(path)[0].items() if name != "sdf"}
            for path in sorted(folder.glob("seed*"))
        ]
    ]
    far = torch.cat([(each - rows[0]).norm(dim=1) for each in rows[1:]])
    assert len(far) == 6 and (far > 0).all() and (far < 0.2 * rows[0].norm()).all()
    facts = [read_instance(path)[1] for path in folder.glob("seed*")]
    assert {(each["init"], each["optimizer"], each["init_steps"]) for each in facts} == {("mean", "sgd", 200)}
    sizes = {
        split: len(config.folders.input_list("chairs", "mlps", split).read_text().splitlines())
        for split in ("train", "val", "test")
    }
    assert sizes == {"train": 3, "val": 1, "test": 2}
