"""Zoos of others, made here in miniature in their own layouts, by plain torch.nn: the nets compute what they did there."""

import gzip
import json
import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import import_instances
from data.folders import Folders
from data.foreign_zoos import ZooOptions
from data.zoos import load_zoo, split_zoo
from import_instances import Config
from models.errors import InputError
from models.target_nets import ARCHITECTURES, Architecture
from models.target_nets.resnet18 import ResNet18
from tests.conftest import spread_out

EPOCHS = (0, 1, 2)
ACTIVATIONS = {"tanh": nn.Tanh, "gelu": nn.GELU, "leakyrelu": nn.LeakyReLU}


def cnn_small(activation, channels=1, dropout=()):
    """CNN-s, as a plain Sequential under the zoo's names."""
    act = ACTIVATIONS[activation]
    first = [nn.Conv2d(channels, 8, 5), nn.MaxPool2d(2, 2), act(), *dropout]
    second = [nn.Conv2d(8, 6, 5), nn.MaxPool2d(2, 2), act(), *dropout]
    rest = [nn.Conv2d(6, 4, 2), act(), nn.Flatten(), nn.Linear(36, 20), act(), nn.Linear(20, 10)]
    net = nn.Module()
    net.module_list = nn.Sequential(*first, *second, *rest)
    return net


def cnn_large(activation):
    act, keep = ACTIVATIONS[activation], nn.Dropout(0.0)
    net = nn.Module()
    net.module_list = nn.Sequential(
        *(nn.Conv2d(3, 16, 3), nn.MaxPool2d(2, 2), act(), keep, nn.Conv2d(16, 32, 3), nn.MaxPool2d(2, 2), act(), keep),
        *(nn.Conv2d(32, 15, 3), nn.MaxPool2d(2, 2), act(), keep, nn.Flatten()),
        *(nn.Linear(60, 20), act(), keep, nn.Linear(20, 10)),
    )
    return net


def result_line(epoch):
    return {"training_iteration": epoch, "test_acc": 0.1 + 0.2 * epoch, "train_acc": 0.2 + 0.25 * epoch, "time": 1.5}


def trial(zoo, i, activation, net=None, epochs=EPOCHS, results=EPOCHS, name="checkpoint_{:06d}"):
    """Write one net's folder; return it and the state of each epoch."""
    folder = zoo / f"NN_tune_trainable_{i:05d}_{i}_seed={i}_2022-01-01"
    folder.mkdir(parents=True)
    params = {"model::type": "CNN", "model::nlin": activation, "optim::lr": 1e-3 * (i + 1), "optim::optimizer": "adam"}
    (folder / "params.json").write_text(json.dumps({**params, "seed": i, "cuda": {"a": 1}, "trainset": None}))
    (folder / "result.json").write_text("".join(json.dumps(result_line(epoch)) + "\n" for epoch in results))
    states = {}
    for epoch in epochs:
        states[epoch] = spread_out((net or cnn_small(activation)).state_dict(), seed=100 * i + epoch)
        path = folder / name.format(epoch) / "checkpoints"
        path.parent.mkdir()
        torch.save(states[epoch], path)
    return folder, states


def imported(tmp_path, source, dataset="mnist", **options):
    folders = Folders(lists_dir=tmp_path / "lists", runs_dir=tmp_path / "runs")
    config = Config(dataset, source=source, zoo=ZooOptions(**options), folders=folders)
    import_instances.main(config)
    return load_zoo(folders.nets(dataset, f"zoo-{source.name}"))


def index_of(zoo, net, step):
    (found,) = [
        i for i, facts in enumerate(zoo.nets.facts) if str(facts["net"]).endswith(net) and facts["step"] == step
    ]
    return found


def assert_same_function(zoo, index, plain, state, images):
    """Compare with the plain net in float64, where rounding is far below any mistake."""
    target = zoo.nets.nets[zoo.nets.class_ids[index]]
    target.fused.double()
    plain.load_state_dict(state)
    expected = plain.double().eval().module_list(images)
    row = zoo.nets.rows[index : index + 1].double()
    torch.testing.assert_close(target.run(row, images)[0], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["checkpoint_{:06d}", "checkpoint_{}"])
def test_nets_of_modelzoos_compute_what_they_did(tmp_path, name):
    source = tmp_path / "tune_zoo"
    made = [trial(source, i, activation, name=name) for i, activation in enumerate(["tanh", "gelu", "tanh"])]
    zoo = imported(tmp_path, source)
    assert len(zoo.nets) == 9 and sorted(zoo.nets.nets.names) == ["cnn_s-gelu", "cnn_s-tanh"]
    images = torch.randn(3, 1, 28, 28, dtype=torch.float64)
    for (folder, states), activation in zip(made, ["tanh", "gelu", "tanh"]):
        for epoch, state in states.items():
            index = index_of(zoo, folder.name, epoch)
            assert_same_function(zoo, index, cnn_small(activation), state, images)
            facts = zoo.nets.facts[index]
            assert facts["architecture"] == f"cnn_s-{activation}"
            assert facts["test_accuracy"] == pytest.approx(10 + 20 * epoch)
            assert facts["train_accuracy"] == pytest.approx(20 + 25 * epoch)
            assert facts["generalization_gap"] == pytest.approx(10 + 5 * epoch)
            i = int(folder.name[18:23])
            assert facts["optim::lr"] == pytest.approx(1e-3 * (i + 1)) and facts["optim::optimizer"] == "adam"
            assert facts["seed"] == i
    images_of = zoo.about["images"]
    assert images_of["dataset"] == "mnist" and images_of["image_shape"] == [1, 28, 28]
    assert images_of["class_names"] == [str(i) for i in range(10)]
    assert (images_of["mean"], images_of["std"]) == ([0.5], [0.5])
    parts = [set(part.column("net")) for part in split_zoo(zoo.nets).values()]
    assert sum(map(len, parts)) == 3


def test_dropout_shifts_the_names_of_layers_and_nothing_else(tmp_path):
    source = tmp_path / "zoo"
    net = cnn_small("tanh", dropout=[nn.Dropout(0.5)])
    folder, states = trial(source, 0, "tanh", net, epochs=(1,))
    zoo = imported(tmp_path, source)
    assert_same_function(zoo, 0, net, states[1], torch.randn(2, 1, 28, 28, dtype=torch.float64))


def test_the_large_cnn_is_known_by_its_shapes_and_means_are_for_each_channel(tmp_path):
    source = tmp_path / "zoo"
    net = cnn_large("leakyrelu")
    _, states = trial(source, 0, "leakyrelu", net, epochs=(2,))
    zoo = imported(tmp_path, source, "svhn", mean=(0.4, 0.5, 0.6), std=(0.2,))
    assert zoo.nets.nets.names == ["cnn_l-leakyrelu"] and zoo.nets.nets[0].num_parameters == 10_853
    assert zoo.about["images"]["mean"] == [0.4, 0.5, 0.6] and zoo.about["images"]["std"] == [0.2] * 3
    assert_same_function(zoo, 0, net, states[2], torch.randn(2, 3, 32, 32, dtype=torch.float64))


def test_without_an_activation_in_params_it_has_to_be_given(tmp_path):
    source = tmp_path / "zoo"
    folder, _ = trial(source, 0, "gelu", epochs=(1,))
    (folder / "params.json").write_text("{}")
    with pytest.raises(InputError, match="--architecture"):
        imported(tmp_path, source)
    assert not (tmp_path / "runs/mnist/nets/zoo-zoo").exists()
    zoo = imported(tmp_path, source, architecture="cnn_s-gelu")
    assert zoo.nets.nets.names == ["cnn_s-gelu"]


class Code:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_what_is_left_out_is_counted_and_named_and_the_others_come_in(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "zoo"
    folder, _ = trial(source, 0, "tanh", epochs=(1, 2, 3, 4, 5, 6, 7), results=(0, 1, 2, 3, 4, 5, 6, 9))

    def checkpoint(epoch):
        return folder / f"checkpoint_{epoch:06d}" / "checkpoints"

    state = torch.load(checkpoint(2), weights_only=True)
    torch.save({**state, "module_list.0.bias": torch.full((8,), float("nan"))}, checkpoint(2))
    torch.save({**state, "module_list.0.bias": torch.full((8,), -101.0)}, checkpoint(3))
    torch.save({"state": Code()}, checkpoint(4))
    checkpoint(5).write_bytes(checkpoint(5).read_bytes()[:100])
    checkpoint(6).unlink()
    with (folder / "result.json").open("a") as file:
        file.write('{"training_iteration": 1, "test_acc"\n[1, 2]\n')
    (source / "NN_tune_trainable_00001").mkdir()
    (source / "NN_tune_trainable_00001" / "params.json").write_text("{}")
    zoo = imported(tmp_path, source)
    assert zoo.nets.column("step") == [1] and not Path("ran").exists()
    left_out = zoo.about["left_out"]
    assert sum(left_out.values()) == 10  # 6 checkpoints, epoch 7 without a line, epoch 9 without a checkpoint, ...
    text = capsys.readouterr().out
    (line,) = [line for line in text.splitlines() if "left out" in line]
    for name in ("NaN", "100", "UnpicklingError", "result.json", "line 9", "NN_tune_trainable_00001", "epoch 9"):
        assert name in line, name
    assert "epoch 0" not in line


def test_accuracies_that_are_no_fractions_are_not_facts(tmp_path):
    source = tmp_path / "zoo"
    folder, _ = trial(source, 0, "tanh")
    lines = [{**result_line(0), "test_acc": 57.0}, {**result_line(1), "train_acc": "NaN"}, result_line(2)]
    (folder / "result.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    zoo = imported(tmp_path, source)
    assert zoo.nets.column("step") == [1, 2]
    assert zoo.nets.column("train_accuracy") == [None, 70.0]


def test_a_second_import_does_not_replace_the_first_and_a_failed_one_leaves_nothing(tmp_path):
    source = tmp_path / "zoo"
    trial(source, 0, "tanh")
    with pytest.raises(InputError, match="--mean"):
        imported(tmp_path, source, mean=(0.1, 0.2))
    nets = tmp_path / "runs/mnist/nets"
    assert not nets.exists() or not list(nets.iterdir())
    imported(tmp_path, source)
    with pytest.raises(InputError, match="zoo-zoo"):
        imported(tmp_path, source)
    assert [path.name for path in nets.iterdir()] == ["zoo-zoo"]


@pytest.mark.parametrize("counters", [True, False])
def test_a_resnet18_comes_in_with_its_batch_norm(tmp_path, monkeypatch, counters):
    narrow = Architecture("narrow", None, "narrow;d18", partial(ResNet18, width=4), True, sides=range(16, 65))
    monkeypatch.setitem(ARCHITECTURES, "narrow", narrow)
    source, net = tmp_path / "zoo", narrow.build((3, 16, 16), 10)
    folder, states = trial(source, 0, "relu", net, epochs=(1, 2))
    for path in folder.glob("*/checkpoints"):
        state = torch.load(path, weights_only=True)
        kept = {name: value for name, value in state.items() if counters or "num_batches" not in name}
        torch.save({f"module.{name}": value for name, value in kept.items()}, path)
    zoo = imported(tmp_path, source, "cifar10", image_side=16)
    assert zoo.nets.nets.names == ["narrow"] and zoo.about["images"]["image_shape"] == [3, 16, 16]
    images = torch.randn(2, 3, 16, 16)
    for epoch in (1, 2):
        index = index_of(zoo, folder.name, epoch)
        assert torch.equal(zoo.states["narrow"]["bn1.running_var"][index], states[epoch]["bn1.running_var"])
        net.load_state_dict(states[epoch])
        found = zoo.nets.nets[0].run(zoo.nets.rows[index : index + 1], images)[0]
        with torch.no_grad():
            torch.testing.assert_close(found, net.eval()(images), rtol=1e-3, atol=1e-4)


# Unterthiner


def unterthiner(source, nets, activations, compressed=True, steps=(0, 1, 86)):
    """Write a matrix of nets; return the parameters of each row in TensorFlow's layout."""
    source.mkdir(parents=True)
    shapes = {}
    for i, layer in enumerate(("conv2d", "conv2d_1", "conv2d_2", "dense")):
        kernel = (16, 10) if layer == "dense" else (3, 3, 1 if i == 0 else 16, 16)
        shapes |= {f"sequential/{layer}/bias:0": kernel[-1:], f"sequential/{layer}/kernel:0": kernel}
    rng, rows, lines, layout, start = np.random.default_rng(0), [], [], ["varname,start_idx,end_idx,shape"], 0
    for name, shape in shapes.items():
        layout.append(f'{name},{start},{start + np.prod(shape)},"{shape}"')
        start += int(np.prod(shape))
    columns = "config.activation,config.l2reg,modeldir,step,test_accuracy,test_loss,train_accuracy"
    for i in range(nets):
        for step in steps:
            rows.append({name: 0.3 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()})
            folder = f"/zoo/{i // 2}/{i}"
            lines.append(f"{activations[i]},0.001,{folder},{step},{0.1 + step / 100},2.0,{0.12 + step / 100}")
    matrix = np.stack([np.concatenate([value.ravel() for value in row.values()]) for row in rows])
    np.save(source / "weights.npy", matrix)
    (source / "layout.csv").write_text("\n".join(layout) + "\n")
    text = "\n".join([columns, *lines]) + "\n"
    if compressed:
        (source / "metrics.csv.gz").write_bytes(gzip.compress(text.encode()))
    else:
        (source / "metrics.csv").write_text(text)
    return rows


def as_tensorflow(row, images, activation):
    """Compute the net as sums over kernels (h, w, in, out), from images (B, H, W, in)."""
    values = [torch.from_numpy(value).double() for value in row.values()]
    x = images
    for bias, kernel in zip(values[0:6:2], values[1:6:2]):
        size = (x.shape[1] - 3) // 2 + 1
        out = bias.expand(len(x), size, size, 16).clone()
        for h in range(3):
            for w in range(3):
                out += x[:, h : h + 2 * size - 1 : 2, w : w + 2 * size - 1 : 2] @ kernel[h, w]
        x = activation(out)
    return x.mean((1, 2)) @ values[7] + values[6]


@pytest.mark.parametrize(("dataset", "side", "compressed"), [("mnist", 28, True), ("svhn", 32, False)])
def test_unterthiners_nets_compute_what_they_did(tmp_path, dataset, side, compressed):
    source, activations = tmp_path / "zoo", ["relu", "tanh", "relu"]
    rows = unterthiner(source, 3, activations, compressed)
    zoo = imported(tmp_path, source, dataset)
    assert sorted(zoo.nets.nets.names) == ["unterthiner-relu", "unterthiner-tanh"] and len(zoo.nets) == 9
    assert set(zoo.nets.nets.num_parameters.values()) == {4_970}
    assert zoo.about["images"]["image_shape"] == [1, side, side]
    assert (zoo.about["images"]["mean"], zoo.about["images"]["std"]) == ([0.5], [0.5])
    assert len(set(zoo.nets.column("net"))) == 3
    images = torch.randn(2, side, side, 1, dtype=torch.float64)
    for i, (row, step) in enumerate(zip(rows, [0, 1, 86] * 3)):
        index = index_of(zoo, f"{i // 3 // 2}-{i // 3}", step)
        facts, activation = zoo.nets.facts[index], activations[i // 3]
        assert facts["architecture"] == f"unterthiner-{activation}" and facts["config.l2reg"] == 0.001
        assert facts["test_accuracy"] == pytest.approx(10 + step)
        assert facts["generalization_gap"] == pytest.approx(2)
        target = zoo.nets.nets[zoo.nets.class_ids[index]]
        target.fused.double()
        found = target.run(zoo.nets.rows[index : index + 1].double(), images.movedim(-1, 1))[0]
        expected = as_tensorflow(row, images, getattr(torch, activation))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_rows_with_nan_or_without_accuracy_are_left_out(tmp_path, capsys):
    source = tmp_path / "zoo"
    unterthiner(source, 2, ["relu", "swish2"], compressed=False)
    weights = np.load(source / "weights.npy")
    weights[0, 7], weights[1, 8] = np.nan, 1e9
    np.save(source / "weights.npy", weights)
    zoo = imported(tmp_path, source)
    assert zoo.nets.column("step") == [86]
    assert sum(zoo.about["left_out"].values()) == 5
    assert "row 0" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["weights.npy", "layout.csv", "metrics.csv"])
@pytest.mark.parametrize("how", ["cut", "garbage", "row"])
def test_matrices_that_do_not_match_are_refused_by_name(tmp_path, file, how):
    source = tmp_path / "zoo"
    unterthiner(source, 1, ["relu"], compressed=False)
    path = source / file
    content = path.read_bytes()
    if how == "row" and file == "weights.npy":
        np.save(path, np.load(path)[:-1])
    elif how == "row":
        path.write_bytes(b"\n".join(content.split(b"\n")[:-2]) + b"\n")
    else:
        path.write_bytes(content[: len(content) // 3] if how == "cut" else os.urandom(300))
    with pytest.raises(InputError, match="csv|weights.npy"):
        imported(tmp_path, source)
    assert not (tmp_path / "runs/mnist").exists()


def test_a_pickle_in_the_place_of_the_matrix_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "zoo"
    unterthiner(source, 1, ["relu"], compressed=False)
    np.save(source / "weights.npy", np.array([[Code()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="weights.npy"):
        imported(tmp_path, source)
    assert not Path("ran").exists()


def test_a_layout_is_refused_where_the_files_are_of_another(tmp_path):
    source = tmp_path / "zoo"
    unterthiner(source, 1, ["relu"])
    with pytest.raises(InputError, match="--layout modelzoos"):
        imported(tmp_path, source, layout="modelzoos")
    assert len(imported(tmp_path, source, layout="unterthiner").nets) == 3
