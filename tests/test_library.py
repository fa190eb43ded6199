"""netspace.py: nets in, embeddings, nets out; files for others; other people's files."""

import json
import random
import re
from copy import deepcopy
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from data.images import make_images
from data.instance_files import plain_state, read_instance, row_of, save_instance
from data.load import load_images
from evaluation.metrics import accuracy
from evaluation.spaces import ORIGINALS, Space
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.prep import pack
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.target_nets import ARCHITECTURES, architectures_by_class_id
from models.target_nets.siren import Siren
from netspace import NetSpace
from tests.conftest import spread_out
from tests.miniature import multi_sizes
from training.checkpoints import model_entries, save_checkpoint

SHAPE, CLASSES = (1, 8, 8), 10
IMAGES = {"dataset": "photos", "image_shape": [1, 8, 8], "class_names": list("abcdefghij"), "mean": [0.5], "std": [0.2]}


def space_of(*names: str) -> NetSpace:
    """Return an untrained space with a decoder whose nets differ from one embedding to the next."""
    torch.manual_seed(1)
    model = PrepAutoencoder(multi_sizes(), len(names) if len(names) > 1 else None)
    nn.init.normal_(model.decoder.scalelayer.scale, std=0.3)
    nets = TargetNets.on_images([ARCHITECTURES[name] for name in names], SHAPE, CLASSES)
    return NetSpace(Space(model, nets, {"architectures": list(names), **IMAGES}, {}))


def siren_space() -> NetSpace:
    model = PrepAutoencoder(Sizes((8, 48), emb_size=64, grid=4, row_length=32, row_channels=8))
    return NetSpace(Space(model, TargetNets.sirens((3, 16, 16, 1)), {"siren_widths": [3, 16, 16, 1]}, {}))


def all_names() -> list[str]:
    return [each.name for each in architectures_by_class_id()]


def trained_like(name: str, seed: int = 0, shape=SHAPE) -> nn.Module:
    """Return a net whose every parameter and statistic has moved, with batch norm."""
    net = ARCHITECTURES[name].build(shape, CLASSES)
    net.load_state_dict(spread_out(net.state_dict(), seed))
    return net.eval()


@pytest.mark.parametrize("name", all_names())
def test_a_net_a_state_dict_and_its_files_have_one_embedding(name, tmp_path):
    space, net = space_of(*all_names()), trained_like(name)
    torch.save(net.state_dict(), tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "b.pt")
    save_instance(tmp_path / "c.safetensors", net.state_dict(), {})
    nets = [net, net.state_dict(), *(tmp_path / file for file in ("a.pt", "b.pt")), str(tmp_path / "c.safetensors")]
    embeddings = space.encode(nets)
    assert embeddings.shape == (5, 256)
    assert (embeddings - embeddings[0]).abs().max() < 1e-6
    assert torch.allclose(space.encode(net), embeddings[0], atol=1e-6)
    # by hand
    known = TargetNet(ARCHITECTURES[name], SHAPE, CLASSES)
    row = known.fuse({key: value[None] for key, value in net.state_dict().items()})
    assert torch.allclose(space.space.model.encoder(pack(row, multi_sizes().prep_shape))[0], embeddings[0], atol=1e-6)


def test_decoded_nets_are_modules_that_compute_what_their_parameters_say():
    space = space_of("resnet8")
    embeddings = torch.randn(3, 256)
    x = torch.randn(5, *SHAPE)
    net = space.space.nets[0]
    expected = net.run(space.space.decode(embeddings), x)
    nets = space.decode(embeddings)
    for net, logits in zip(nets, expected):
        assert not net.training and torch.allclose(net(x), logits, atol=1e-5)
    assert torch.allclose(space.decode(embeddings[1])(x), expected[1], atol=1e-5)
    nets[0].fc.bias.data.zero_()  # theirs alone
    assert torch.allclose(nets[1](x), expected[1], atol=1e-5)
    assert all(parameter.requires_grad for parameter in nets[1].parameters())


def test_several_architectures_decode_to_the_predicted_one():
    space = space_of(*all_names())
    embeddings = 20 * torch.randn(24, 256)
    class_ids = space.class_ids(embeddings)
    assert len(set(class_ids)) > 1
    for net, class_id in zip(space.decode(embeddings), class_ids):
        fused = ARCHITECTURES[space.architectures[class_id]].build(SHAPE, CLASSES, fused=True)
        assert [(k, v.shape) for k, v in net.state_dict().items()] == [
            (k, v.shape) for k, v in fused.state_dict().items()
        ]


def test_lines_begin_and_end_at_their_ends_and_take_nets_or_embeddings():
    space, a, b = space_of("resnet8"), trained_like("resnet8", 1), trained_like("resnet8", 2)
    ends = space.encode([a, b])
    line = space.interpolate(a, ends[1], [0, 0.25, 1])
    assert torch.allclose(line[[0, 2]], ends) and torch.allclose(line[1], 0.75 * ends[0] + 0.25 * ends[1])
    there_and_back = space.interpolate([a, b], ends.flip(0), torch.tensor([0, 0.25, 1]))
    assert torch.allclose(there_and_back[0], line) and torch.allclose(there_and_back[1, [2, 0]], ends)
    with pytest.raises(InputError, match="as many of each"):
        space.interpolate(a, ends, [0.5])


def tiny_images():
    """Return 200 images in each split."""
    images = load_images("photos")
    few = {
        name: make_images(part.pixels.numpy()[:200], part.labels.numpy()[:200], (0.5,), (0.2,), 1)
        for name, part in (("train", images.train), ("val", images.val))
    }
    return replace(images, train=few["train"], val=few["val"], test=few["val"])


@pytest.mark.parametrize("names", [["resnet8"], all_names()], ids=["single", "multi"])
def test_optimizing_returns_what_is_best_on_validation_images(names, few_photos):
    space, images = space_of(*names), tiny_images()
    start = space.encode([trained_like(names[0], seed) for seed in range(2)])
    teacher = trained_like("resnet56")
    options = dict(validate_every=2, patience=2, image_batch=50, learning_rate=0.03)
    found = space.optimize(start, images, teacher, **options)
    assert found.shape == start.shape and space.class_ids(found) == space.class_ids(start)
    for before, after in zip(start, found):
        net = space.space.nets[space.class_ids(before)[0]]
        was, now = (accuracy(net, space.space.decode(e[None]), images.val).item() for e in (before, after))
        assert now >= was
    # each as if it were alone, and a file of the teacher is the teacher
    assert torch.allclose(space.optimize(start[1], images, teacher.state_dict(), **options), found[1], atol=1e-4)


def test_sirens_go_in_and_out(tmp_path, few_photos):
    space, siren = siren_space(), Siren((3, 16, 16, 1))
    net = space.space.nets[0]
    # an instance of the original release: the state dict and its samples
    torch.save({"mlp": siren.state_dict(), "sdf": torch.zeros(8, 4)}, tmp_path / "mlp.pt")
    e = space.encode([siren, tmp_path / "mlp.pt"])
    assert torch.equal(e[0], e[1])
    points = torch.rand(7, 3) * 2 - 1
    assert torch.allclose(space.decode(e[0])(points.clone()), net.run(space.space.decode(e[:1]), points)[0], atol=1e-6)
    with pytest.raises(InputError, match="SIREN"):
        space.optimize(e, tiny_images(), siren)


@pytest.mark.parametrize("name", [*all_names(), "siren"])
def test_exported_state_dicts_are_those_of_the_decoded_net(name, tmp_path):
    space, net, _ = example(name)
    e = space.encode(net)
    decoded = space.decode(e)
    for suffix in ("safetensors", "pt", "pth"):
        space.export(e, tmp_path / f"net.{suffix}", {"why": "test"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt", "net.pth", "net.safetensors"]
    state, facts = read_instance(tmp_path / "net.safetensors")
    assert facts["architecture"] == name and facts["why"] == "test"
    plain = torch.load(tmp_path / "net.pt", weights_only=True)
    for key, value in decoded.state_dict().items():
        assert torch.equal(state[key], value) and torch.equal(plain[key], value)
    for suffix in ("pt", "pth"):
        assert torch.allclose(space.encode(tmp_path / f"net.{suffix}"), space.encode(decoded), atol=1e-6)
    with pytest.raises(InputError, match=r"net.h5.*\.safetensors, \.pt, \.onnx"):
        space.export(e, tmp_path / "net.h5")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*all_names(), "siren"])
def test_exported_onnx_computes_what_the_decoded_net_computes(name, tmp_path):
    space, net, shape = example(name)
    e = space.encode(net)
    decoded = space.decode(e)
    space.export(e, tmp_path / "net.onnx", {"why": "test"})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for batch in (1, 5):
        x = torch.randn(batch, *shape)
        (output,) = session.run(["output"], {"input": x.numpy()})
        expected = decoded(x.clone()).detach().numpy()
        assert np.abs(output - expected).max() <= 1e-4 * np.abs(expected).max()
    props = {prop.key: json.loads(prop.value) for prop in onnx.load(tmp_path / "net.onnx").metadata_props}
    assert props["architecture"] == name and props["why"] == "test"


def example(name):
    """Return a space for one architecture, a net of it, and the shape of its inputs."""
    if name == "siren":
        return siren_space(), Siren((3, 16, 16, 1)), (3,)
    return space_of(name), trained_like(name), SHAPE


def test_what_a_space_was_trained_with_is_saved_whatever_its_numbers(tmp_path):
    trained = {
        "constants": {"clip_norm": float("inf"), "prep_shape": (8, 16), "why": "-Infinity"},
        "best_score": -float("inf"),
    }
    space = space_of("resnet8").space
    NetSpace(Space(space.model, space.nets, space.about, trained)).save(tmp_path)
    found = NetSpace.load(tmp_path).space.trained
    assert found == {"constants": {"clip_norm": "inf", "prep_shape": [8, 16], "why": "-Infinity"}, "best_score": "-inf"}


def test_a_saved_space_is_the_same_elsewhere(tmp_path):
    for i, space in enumerate((space_of(*all_names()), space_of("resnet8"), siren_space())):
        space.save(tmp_path / str(i))
        again = NetSpace.load(tmp_path / str(i))
        assert again.architectures == space.architectures and again.space.about == space.space.about
        for key, value in space.space.model.state_dict().items():
            assert torch.equal(again.space.model.state_dict()[key], value)
        assert not any(parameter.requires_grad for parameter in again.space.model.parameters())


def test_loading_and_using_a_space_does_not_move_the_callers_random_numbers(project, tmp_path):
    space = space_of("resnet8")
    space.save(tmp_path / "space")
    net, teacher, images = trained_like("resnet8"), trained_like("resnet56"), tiny_images()

    def states():
        return [torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()]

    before = states()
    for path in (tmp_path / "space", "runs/photos/single", "runs/photos/multi/best.pt", "runs/chairs/mlps"):
        NetSpace.load(path)
        assert states() == before
    space.decode(space.encode(net))
    space.optimize(space.encode(net), images, teacher, validate_every=1, patience=1)
    assert states() == before


def test_a_runs_folder_and_its_best_checkpoint_are_one_space(project):
    by_folder, by_file = (NetSpace.load(f"runs/photos/multi{name}") for name in ("", "/best.pt"))
    assert by_folder.architectures == all_names()
    for key, value in by_folder.space.model.state_dict().items():
        assert torch.equal(by_file.space.model.state_dict()[key], value)
    assert by_folder.space.trained["step"] in (8, 16, 24)


@pytest.mark.parametrize("original", ORIGINALS)
def test_checkpoints_of_the_original_release_are_read_once_they_are_named(original, tmp_path, monkeypatch):
    """Its keys, no sizes. The paper's sizes are 40 MB and more: the PRep is just large enough."""
    shape = {"cifar10/single": (8, 10_000), "mlps": (8, 10_000), "tiny-imagenet-200/single": (16, 10_000)}
    several = original.endswith("multi")
    model = PrepAutoencoder(Sizes(shape.get(original, (88, 10_000))), 4)  # its decoder always has a classifier
    entries = {name: value for name, value in model_entries(model).items() if name != "sizes"}
    save_checkpoint(tmp_path / "best.pt", {"epoch": 3, "best_score": 1.0, **entries, "2": {}})
    with pytest.raises(InputError, match="original="):
        Space.load(tmp_path / "best.pt")
    with pytest.raises(InputError, match="'mnist'"):
        Space.load(tmp_path / "best.pt", "mnist")
    space = Space.load(tmp_path / "best.pt", original)
    assert (space.model.classifier is not None) == several
    assert torch.equal(space.model.encoder.conv1[0].weight, model.encoder.conv1[0].weight)
    sizes = {"mlps": 67_073, "cifar10/single": 77_706, "tiny-imagenet-200/single": 128_456}
    sizes |= {"cifar10/multi": 62_006, "tiny-imagenet-200/multi": 79_612}
    assert space.nets[0].num_parameters == sizes[original]


def test_what_is_not_a_space_is_refused_by_name(tmp_path):
    for name, change, message in (
        ("format", lambda c: c.update(format=9), "format 9"),
        ("names", lambda c: c["nets"].update(architectures=["vgg"]), "architectures"),
        ("shape", lambda c: c["nets"].update(image_shape=[1, 8]), "image_shape"),
        ("classes", lambda c: c["nets"].update(class_names=None), "class_names"),
        ("sizes", lambda c: c.update(sizes={"emb_size": "big"}), "sizes"),
        ("others", lambda c: c["sizes"].update(emb_size=512), "netspace.safetensors"),
        ("weights", lambda c: c.update(weights="sha256:0"), "netspace.safetensors"),
    ):
        folder = tmp_path / name
        space_of("resnet8").save(folder)
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(InputError, match=message):
            NetSpace.load(folder)
    with pytest.raises(InputError, match="no checkpoint"):
        NetSpace.load(tmp_path / "nowhere")
    space = space_of("resnet8")
    with pytest.raises(InputError, match="not a resnet8 for these images"):
        space.encode(trained_like("resnet8", shape=(3, 32, 32)))
    with pytest.raises(InputError, match="is none of"):
        space_of(*all_names()).encode(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"shape \(7,\)"):
        space.decode(torch.zeros(7))
    with pytest.raises(InputError, match="no nets"):
        space.encode([])


def test_layers_numbered_otherwise_are_read_in_their_order():
    net = TargetNet(ARCHITECTURES["vanilla_cnn"], SHAPE, CLASSES)
    state = trained_like("vanilla_cnn").state_dict()
    numbers = sorted({int(name.split(".")[1]) for name in state})
    theirs = {f"layers.{3 * numbers.index(int(n.split('.')[1])) + 1}.{n.split('.')[2]}": v for n, v in state.items()}
    assert set(theirs) != set(state)
    assert torch.equal(row_of(net, theirs, "theirs"), row_of(net, state, "ours"))


def test_wrappers_and_checkpoints_are_unwrapped_and_nothing_else_is():
    state = trained_like("lenetlike").state_dict()
    for wrapped in (
        {"model": state},
        {"state_dict": {f"_orig_mod.module.{k}": v for k, v in state.items()}, "epoch": 3},
        deepcopy(state),
    ):
        assert plain_state(wrapped, "it").keys() == state.keys()
    for other in ({"weights": 3}, [state], {"model": [1]}):
        with pytest.raises(InputError, match="not a state dict"):
            plain_state(other, "it")


@pytest.mark.slow  # exports to ONNX
def test_the_lines_in_the_readme_run(own_project, monkeypatch):
    monkeypatch.setattr(NetSpace, "optimize", partialmethod(NetSpace.optimize, validate_every=5, patience=2))
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if "NetSpace.load" in code]
    assert len([line for line in block.splitlines() if line and not line.startswith(("from", "import"))]) <= 10
    names: dict = {}
    exec(block, names)
    assert names["net"](torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert Path("between.onnx").is_file() and Path("my-space/config.json").is_file()
