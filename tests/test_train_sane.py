"""SANE's zoo and train_sane.py: stopped and run again, split over ranks, without images; what it leaves is a space."""

import shutil

import pytest
import torch

import create_nets_dataset_zoo
import train_sane
from data.zoos import load_zoo, split_zoo
from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import get_architecture
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from netspace import NetSpace
from tests import miniature
from tests.test_resume import Stop, check_same_run, stop_after
from training.constants import TokenViews
from training.ensembles import Ensemble
from training.run import Run
from training.views import draw_windows

ZOO = "runs/photos/nets/zoo-resnet8"


@pytest.mark.parametrize("behaviour", [0.0, 0.1])
def test_a_stopped_run_ends_as_an_unbroken_one(own_project, monkeypatch, behaviour):
    config = miniature.train_sane_config(own_project, behaviour=behaviour, num_steps=10, validate_every=4)
    folder, whole = own_project / "runs" / "photos" / "sane", own_project / "whole"
    shutil.rmtree(folder)
    train_sane.main(config)
    folder.rename(whole)
    with monkeypatch.context() as patch:
        stop_after(patch, Run, "descend", 6)
        with pytest.raises(Stop):
            train_sane.main(config)
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 4
    torch.manual_seed(9)
    train_sane.main(config)
    check_same_run(whole, folder)


def test_without_behaviour_no_images_are_needed(own_project, monkeypatch):
    shutil.rmtree(own_project / "runs" / "photos" / "sane")
    monkeypatch.setattr(train_sane, "load_images", None)
    train_sane.main(miniature.train_sane_config(own_project, behaviour=0.0, num_steps=4))
    assert (own_project / "runs" / "photos" / "sane" / "best.pt").is_file()


def test_choices_of_a_model_are_saved_with_it(own_project, tmp_path):
    shutil.rmtree(own_project / "runs" / "photos" / "sane")
    sizes = TokenSizes(latent_size=8, width=32, layers=1, alignment="none", units="range")
    train_sane.main(miniature.train_sane_config(own_project, sizes=sizes, behaviour=0.0, num_steps=4))
    space = NetSpace.load(own_project / "runs" / "photos" / "sane")
    assert space.space.model.sizes == sizes
    space.save(tmp_path / "saved")
    assert NetSpace.load(tmp_path / "saved").space.model.sizes == sizes


@pytest.mark.parametrize("ranks", [2, 3])
def test_parts_of_ranks_are_the_windows_of_one(ranks):
    net = TargetNet(get_architecture("lenetlike"), (1, 8, 8), 10)
    model = TokenAutoencoder(TokenSizes(7, 4, 8, 1, 2, 6, 1, (200, 20, 20)), net.layout, net.hidden_channels())
    rows = net.fuse(net.start(range(5)))
    seen = draw_windows(model, model.fit(rows, rows[0]), TokenViews(), 0, 0)
    parts = [seen.part(slice(rank, None, ranks)) for rank in range(ranks)]
    for rank, part in enumerate(parts):
        assert torch.equal(part.shown, torch.cat([seen.shown[:5][rank::ranks], seen.shown[5:][rank::ranks]]))
        assert torch.equal(part.positions[: len(part.shown) // 2], part.positions[len(part.shown) // 2 :])


def test_what_it_trains_is_a_space(project, tmp_path):
    """Nets go in and come out, lines have nets, what is saved loads, and another architecture is refused."""
    space = NetSpace.load(project / "runs" / "photos" / "sane")
    nets = split_zoo(load_zoo(project / ZOO).nets)["test"]
    modules = [nets.nets[0].module(row) for row in nets.rows[:2]]
    embeddings = space.encode(modules)
    assert embeddings.shape == (2, space.space.model.emb_size)
    line = space.interpolate(modules[0], modules[1], [0.0, 0.5, 1.0])
    torch.testing.assert_close(line[[0, 2]], embeddings)
    x = torch.randn(3, 1, 8, 8)
    assert space.decode(line[1])(x).shape == (3, 10)
    space.save(tmp_path / "saved")
    space.export(embeddings[0], tmp_path / "net.safetensors")
    again = NetSpace.load(tmp_path / "saved")
    assert torch.equal(again.encode(modules), embeddings)
    torch.testing.assert_close(again.encode(tmp_path / "net.safetensors"), again.encode(space.decode(embeddings[0])))


def test_a_space_of_tokens_optimizes_embeddings(project, few_photos):
    space = NetSpace.load(project / "runs" / "photos" / "sane")
    nets = split_zoo(load_zoo(project / ZOO).nets)["test"]
    net = nets.nets[0].module(nets.rows[0])
    embedding = space.encode(net)
    found = space.optimize(embedding, miniature.few_photos(), net, image_batch=32, validate_every=2, patience=1)
    assert found.shape == embedding.shape and found.isfinite().all()


def test_a_stopped_zoo_is_the_same_folder_byte_for_byte(few_photos, monkeypatch, tmp_path):
    small = dict(num_nets=3, num_checkpoints=3, first_step=2, last_step=8, side_by_side=3, checkpoint_seconds=0.0)
    whole, broken = (miniature.create_zoo_config(tmp_path / name, **small) for name in ("whole", "broken"))
    create_nets_dataset_zoo.main(whole)
    with monkeypatch.context() as patch:
        stop_after(patch, Ensemble, "step", 5)
        with pytest.raises(Stop):
            create_nets_dataset_zoo.main(broken)
    create_nets_dataset_zoo.main(broken)
    folders = [tmp_path / name / ZOO for name in ("whole", "broken")]
    names = [{path.name for path in folder.iterdir() if not path.name.startswith(".")} for folder in folders]
    assert names[0] == names[1] == {"README.md", "facts.csv", "resnet8.safetensors", "zoo.json"}
    for name in ("README.md", "facts.csv", "resnet8.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    zoo = load_zoo(folders[0])
    assert zoo.nets.column("step") == [2, 4, 8] * 3 and len(zoo.nets) == 9
    create_nets_dataset_zoo.main(broken)  # nothing to do
    with pytest.raises(InputError, match="num_nets"):
        create_nets_dataset_zoo.main(miniature.create_zoo_config(tmp_path / "broken", **{**small, "num_nets": 4}))
