"""SIRENs: the paper's form, many at once against one by one in float64, their symmetries, their points."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from data.draws import balanced_places, instance_keys, random_places
from data.folders import Folders
from data.instance_files import save_instance
from data.mlps import Entry, SdfNetsDataset, load_mlps, read_entry
from evaluation.closeness import closeness
from models.errors import InputError
from models.siren import Siren, SirenNets
from models.symmetries import reordering
from training.ensembles import SirenEnsemble
from training.losses import sdf_loss

WIDTHS = (3, 7, 5, 1)
CPU = torch.device("cpu")


def siren_by_hand(state, points):
    """sin(30 (W x + b)) after every layer but the last, one instance, from its state dict."""
    x = points
    for i, name in enumerate(sorted({key.rpartition(".")[0] for key in state})):
        x = x @ state[f"{name}.weight"].T + state[f"{name}.bias"]
        if i < 2:
            x = torch.sin(30 * x)
    return x[:, 0]


def sirens_in_float64(m):
    nets = SirenNets(WIDTHS)
    nets.net.double()
    return nets, {name: value.double() for name, value in nets.start(list(range(m))).items()}


def test_the_papers_siren():
    nets = SirenNets()
    assert nets.num_parameters == 67_073
    assert nets.layout.names == tuple(f"mlp.{i}.{what}" for i in (0, 2, 4) for what in ("weight", "bias"))
    first, second, last = (Siren().mlp[i].weight.detach() for i in (0, 2, 4))
    bound = math.sqrt(6 / 256) / 30
    for weight, limit in ((first, 1 / 3), (second, bound), (last, bound)):
        assert 0.95 * limit < weight.abs().max() <= limit
        # uniform: the standard deviation is limit/sqrt(3)
        assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize("shared", [True, False])
def test_many_at_once_equal_one_by_one(shared):
    nets, state = sirens_in_float64(4)
    points = torch.rand(*(() if shared else (4,)), 11, 3, dtype=torch.float64) * 2 - 1
    rows = nets.layout.flatten(state).requires_grad_()
    distances = nets.run(rows, points)
    distances.square().sum().backward()
    gradients = nets.layout.unflatten(rows.grad)
    for i in range(4):
        own = {name: value[i].clone().requires_grad_() for name, value in state.items()}
        alone = siren_by_hand(own, points if shared else points[i])
        alone.square().sum().backward()
        torch.testing.assert_close(distances[i], alone)
        for name, value in own.items():
            torch.testing.assert_close(gradients[name][i], value.grad)


def test_fitting_side_by_side_equals_fitting_alone():
    nets, state = sirens_in_float64(3)
    rates = [1e-2, 5e-3, 1e-3]
    points, wanted = torch.rand(3, 3, 20, 3).double(), torch.rand(3, 3, 20).double()  # (step, M, B)
    ensemble = SirenEnsemble(nets, state, lambda rows: torch.optim.Adam(rows, rates[0]))
    for step, rate in enumerate(rates):
        ensemble.set_learning_rate(rate)
        ensemble.step(points[step], wanted[step])
    for i in range(3):
        own = {name: value[i].clone().requires_grad_() for name, value in state.items()}
        optimizer = torch.optim.Adam(own.values(), rates[0])
        for step, rate in enumerate(rates):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            (siren_by_hand(own, points[step, i]) - wanted[step, i]).square().mean().backward()
            optimizer.step()
        for name, value in ensemble.state().items():
            torch.testing.assert_close(value[i], own[name].detach())


def test_hidden_units_in_another_order_keep_the_function():
    nets, state = sirens_in_float64(2)
    rows, points = nets.layout.flatten(state), torch.rand(9, 3).double()
    other = rows[:, reordering(nets.layout, nets.net.hidden_channels(), (3,))]
    torch.testing.assert_close(nets.run(other, points), nets.run(rows, points))
    assert (other != rows).float().mean() > 0.5


@pytest.mark.parametrize("widths", [(3, 1), (2, 8, 1), (3, 8, 2), (3, 0, 1)])
def test_widths_that_are_no_siren(widths):
    with pytest.raises(InputError, match="widths"):
        SirenNets(widths)


def test_losses_against_their_equations():
    predicted, target = torch.randn(3, 8).double(), torch.randn(3, 8).double()
    by_hand = sum((p - t) ** 2 for p, t in zip(predicted.flatten().tolist(), target.flatten().tolist())) / 24
    assert sdf_loss(predicted, target).item() == pytest.approx(by_hand)
    assert closeness(torch.tensor([[0.0, 0.009, -0.011, 0.5]]), torch.zeros(1, 4)).tolist() == [0.5]


# Points


def test_draws_depend_on_key_and_step_alone():
    keys = instance_keys([(0, 3, i) for i in range(5)], CPU)
    together = random_places(keys, 7, 100, 1000)
    assert torch.equal(together[[1, 4]], random_places(keys[[1, 4]], 7, 100, 1000))
    assert torch.equal(together[:, :30], random_places(keys, 7, 30, 1000))
    assert len({tuple(row) for row in together.tolist()}) == 5
    assert not torch.equal(together, random_places(keys, 8, 100, 1000))


def test_draws_are_uniform_and_uncorrelated():
    places = random_places(instance_keys([(1,), (2,)], CPU), 0, 200_000, 50)
    counts = torch.stack([torch.bincount(row, minlength=50) for row in places]).double()
    chi_squared = ((counts - 4000) ** 2 / 4000).sum(1)  # 49 degrees of freedom
    assert (chi_squared < 95).all() and (chi_squared > 20).all()
    x = places.double().numpy()
    assert abs(np.corrcoef(x[0], x[1])[0, 1]) < 0.01 and abs(np.corrcoef(x[0, 1:], x[0, :-1])[0, 1]) < 0.01


@given(num=st.integers(1, 50), num_samples=st.integers(2, 60), step=st.integers(0, 10**6))
def test_as_many_of_one_half_as_of_the_other(num, num_samples, step):
    places = balanced_places(instance_keys([(0,), (1,)], CPU), step, num, num_samples)
    positives = num_samples - num_samples // 2
    assert places.shape == (2, num) and places.min() >= 0 and places.max() < num_samples
    assert ((places < positives).sum(1) == num - num // 2).all()


# Instances and lists


def write_siren(path, widths=WIDTHS, samples=10, **changes):
    state = {name: value[0] for name, value in SirenNets(widths).start([0]).items()}
    save_instance(path, {**state, "sdf": torch.randn(samples, 4), **changes}, {})


def listed(root, *paths, widths=WIDTHS):
    folders = Folders(root / "data", root / "lists", root / "runs")
    path = folders.input_list("chairs", "mlps", "train")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(Entry(widths, "chairs", each).line() + "\n" for each in paths))
    return folders


@given(st.lists(st.integers(1, 999), min_size=1, max_size=4), st.sampled_from(["chairs", "deepsdf"]))
def test_a_line_is_read_as_it_was_written(hidden, dataset):
    entry = Entry((3, *hidden, 1), dataset, Path("runs/x/a b.safetensors"))
    assert read_entry(entry.line(), "list, line 1") == entry


def test_instances_of_the_original_release(tmp_path):
    nets, state = SirenNets(WIDTHS), {name: value[0] for name, value in SirenNets(WIDTHS).start([4]).items()}
    sdf = torch.randn(6, 4)
    torch.save({"mlp": state, "sdf": sdf}, tmp_path / "a.pt")
    found = load_mlps(listed(tmp_path, tmp_path / "a.pt"), "chairs", "train", CPU)
    assert torch.equal(found.rows[0], nets.layout.flatten({k: v[None] for k, v in state.items()})[0])
    assert torch.equal(found.samples[0], sdf)


@given(size=st.integers(2, 40), data=st.data())
def test_samples_are_split_half_by_half(size, data):
    num = data.draw(st.integers(1, size - 1))
    nets = SirenNets(WIDTHS)
    samples = torch.arange(size).float()[None, :, None].expand(2, -1, 4)
    rest, measured = SdfNetsDataset(nets, torch.zeros(2, nets.num_parameters), samples, ()).split_samples(num)
    assert measured.samples.shape == (2, num, 4) and rest.samples.shape == (2, size - num, 4)
    assert sorted(rest.samples[0, :, 0].tolist() + measured.samples[0, :, 0].tolist()) == list(range(size))
    positives = (rest.samples[0, :, 0] < size - size // 2).sum().item()
    assert positives == (size - num) - (size - num) // 2 and rest.samples[0, :, 0].diff().gt(0).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sdf": torch.randn(5, 3)}, "no samples 'sdf'"),
        ({"sdf": torch.full((5, 4), float("nan"))}, "'sdf' holds NaN"),
        ({"mlp.2.bias": torch.full((5,), float("inf"))}, "'mlp.2.bias' holds NaN or infinity"),
        ({"mlp.2.bias": torch.zeros(4)}, r"mlp.2.bias is \(4,\), expected \(5,\)"),
        ({"mlp.6.bias": torch.zeros(4)}, "mlp.6.bias is"),
    ],
)
def test_foreign_instances(tmp_path, changes, match):
    write_siren(tmp_path / "a.safetensors", **changes)
    with pytest.raises(InputError, match=match) as error:
        load_mlps(listed(tmp_path, tmp_path / "a.safetensors"), "chairs", "train", CPU)
    assert "a.safetensors" in str(error.value)


def test_lists_of_unlike_instances(tmp_path):
    write_siren(tmp_path / "a.safetensors")
    write_siren(tmp_path / "b.safetensors", samples=12)
    with pytest.raises(InputError, match="holds 12 samples, others 10"):
        load_mlps(listed(tmp_path, tmp_path / "a.safetensors", tmp_path / "b.safetensors"), "chairs", "train", CPU)
    with pytest.raises(InputError, match="names no SIREN"):
        read_entry("lenetlike;d0;schairs;a.pt", "list, line 3")
