"""The scripts of signed distance functions end to end in miniature, stopped and resumed, on every kind of input."""

import json

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import create_mlp_dataset
import interpolate_mlps
import train_mlps
from data.draws import balanced_places, instance_keys
from data.instance_files import read_instance
from data.meshes import signed_distance
from data.mlps import load_mlps
from data.sdf_samples import balanced, sample_points, split_by_sign, unit_sphere
from evaluation.summary import print_summary
from evaluation.surfaces import chamfer_distance, level_sets, mesh_facts
from models.errors import InputError
from models.prep import pack, unpack
from models.siren import SirenNets
from tests import miniature
from tests.test_resume import Stop, stop_after
from training.checkpoints import restore_net_space
from training.ensembles import SirenEnsemble

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("mlps")
    miniature.run_all_mlps(root)
    return root


@pytest.fixture
def run_dir(root):
    return root / "runs/chairs/mlps"


def load(root, split):
    return load_mlps(miniature.folders(root), "chairs", split, CPU)


def test_shapes_are_dealt_once_and_fits_come_closer(root, run_dir):
    train, test = load(root, "train"), load(root, "test")
    assert (len(train), len(test)) == (4, 2) and not set(train.paths) & set(test.paths)
    assert train.nets.widths == (3, 16, 16, 1) and train.samples.shape == (4, 200, 4)
    assert (train.samples[:, :100, 3] > 0).all() and (train.samples[:, 100:, 3] <= 0).all()
    fits = json.loads((run_dir / "create_mlp_dataset.json").read_text())["fits"]
    assert len(fits) == 6 and all(0 <= fit["closeness"] <= 1 and fit["chamfer"] > 0 for fit in fits.values())
    fresh = train.nets.layout.flatten(train.nets.start([1, 2, 3, 4]))

    def error(rows):
        return (train.nets.run(rows, train.samples[..., :3]) - train.samples[..., 3]).abs().mean(1)

    assert error(train.rows).mean() < 0.5 * error(fresh).mean()


def test_a_shape_is_fitted_alike_whatever_is_fitted_beside_it(tmp_path):
    """In stacks of 4 and of 2, for a few steps: matrix products of other sizes round otherwise, and steps amplify that."""
    for stack in (4, 2):
        create_mlp_dataset.main(miniature.create_mlp_config(tmp_path / str(stack), side_by_side=stack, num_steps=5))
    nets = [tmp_path / str(stack) / "runs/chairs/nets/siren-adam" for stack in (4, 2)]
    for path in sorted(nets[0].glob("*.safetensors")):
        state, other = (read_instance(folder / path.name)[0] for folder in nets)
        for name in state:
            torch.testing.assert_close(state[name], other[name], rtol=1e-3, atol=1e-4)


def test_reported_closeness_is_that_of_the_best_model(root, run_dir):
    reported = json.loads((run_dir / "train_mlps.json").read_text())["closeness"]
    net_space = restore_net_space(run_dir / "best.pt", "", CPU)
    for split in ("train", "test"):
        _, measured = load(root, split).split_samples(50)
        with torch.no_grad():
            predicted = unpack(net_space(pack(measured.rows, (8, 48))), measured.nets.num_parameters)
            outputs = [measured.nets.run(rows, measured.samples[..., :3]) for rows in (predicted, measured.rows)]
        by_hand = ((outputs[0] - outputs[1]).abs() < 0.01).float().mean(1)
        assert reported[split] == pytest.approx(by_hand.tolist(), abs=1e-3)


def test_training_stops_at_the_goal_and_goes_on_to_a_higher_one(root, tmp_path):
    folders = miniature.replace(miniature.folders(tmp_path), lists_dir=miniature.folders(root).lists_dir)
    config = miniature.train_mlps_config(root, folders=folders, goal=1e-6)
    train_mlps.main(config)
    last = tmp_path / "runs/chairs/mlps/last.pt"
    assert torch.load(last, weights_only=True)["epoch"] == 2  # the first time it looked
    train_mlps.main(miniature.replace(config, goal=1.0))
    assert torch.load(last, weights_only=True)["epoch"] == 6


def test_figure_numbers_and_files_along_the_line(run_dir):
    found = json.loads((run_dir / "interpolate_mlps.json").read_text())
    assert len(found["pairs"]) == 2 and found["gamma"] == [0, 0.5, 1]
    for space in ("latent", "weights"):
        for name in ("volume", "pieces", "chamfer_to_start", "chamfer_to_end"):
            assert len(found[space][name]) == 3
        assert found["summary"][space]["meshes"] == 6
    # In weight space the ends are the targets themselves: nothing but sampling lies between them.
    along = found["weights"]
    if along["pieces"][0] and along["pieces"][-1]:
        assert along["chamfer_to_start"][0] < along["chamfer_to_start"][-1]
    assert {path.suffix for path in run_dir.glob("interpolate_mlps.*")} == {".json", ".pdf", ".png", ".html"}
    assert len(list((run_dir / "shapes").glob("*.ply"))) == 9 and (run_dir / "shapes/interpolate_mlps.glb").is_file()
    pixels = np.asarray(Image.open(run_dir / "interpolate_mlps.png").convert("L"))
    assert pixels.std() > 10


def test_empty_level_sets_are_counted(monkeypatch, root, tmp_path):
    """A level set that is empty, here the one in the middle, is a None among the numbers, counted, and drawn."""
    config = miniature.interpolate_mlps_config(root)
    original = interpolate_mlps.mesh_all

    def without_the_middle(nets, rows, config, device):
        meshes = original(nets, rows, config, device)
        return [meshes[0], trimesh.Trimesh(), meshes[2]] if len(meshes) == 3 else meshes

    monkeypatch.setattr(interpolate_mlps, "mesh_all", without_the_middle)
    found = interpolate_mlps.main(config)
    assert found["latent"]["chamfer_to_start"][1] is None and found["latent"]["pieces"][1] == 0
    assert found["summary"]["latent"]["empty"] >= 2
    json.loads((root / "runs/chairs/mlps/interpolate_mlps.json").read_text(), parse_constant=pytest.fail)


def test_summary(run_dir, capsys):
    print_summary(run_dir)
    printed = capsys.readouterr().out
    for what in ("closeness to training SIRENs", "closeness to held-out SIRENs", "latent: empty meshes"):
        assert what in printed


# Stopped and resumed


def test_resumed_fits_equal_unbroken_ones(root, tmp_path, monkeypatch):
    """Stopped in the second stack, after a checkpoint."""
    config = miniature.create_mlp_config(tmp_path, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        stop_after(patch, SirenEnsemble, "step", 120 + 31)
        with pytest.raises(Stop):
            create_mlp_dataset.main(config)
    nets = tmp_path / "runs/chairs/nets/siren-adam"
    assert len(list(nets.glob("*.safetensors"))) == 3 and list(nets.glob("*.pt")) and not (tmp_path / "lists").exists()
    create_mlp_dataset.main(config)
    assert not list(nets.glob("*.pt"))
    for path in sorted((root / "runs/chairs/nets/siren-adam").glob("*.safetensors")):
        (state, facts), (resumed, resumed_facts) = read_instance(path), read_instance(nets / path.name)
        assert facts == resumed_facts and all(torch.equal(state[name], resumed[name]) for name in state)


def test_resumed_training_equals_unbroken(root, tmp_path, monkeypatch):
    lists = miniature.folders(root).lists_dir

    def config(which):
        folders = miniature.replace(miniature.folders(tmp_path / which), lists_dir=lists)
        return miniature.train_mlps_config(root, folders=folders, prep_noise=0.1, reorder_channels=True)

    train_mlps.main(config("unbroken"))
    with monkeypatch.context() as patch:
        stop_after(patch, train_mlps, "sdf_loss", 7)
        with pytest.raises(Stop):
            train_mlps.main(config("broken"))
    train_mlps.main(config("broken"))
    runs = [tmp_path / which / "runs/chairs/mlps" for which in ("unbroken", "broken")]
    for name in ("last.pt", "best.pt"):
        whole, resumed = (torch.load(run / name, weights_only=True) for run in runs)
        assert whole["best_score"] == resumed["best_score"]
        for key in ("0", "1"):
            assert all(torch.equal(whole[key][entry], resumed[key][entry]) for entry in whole[key])
    for name in ("scalars.jsonl", "train_mlps.json"):
        assert (runs[0] / name).read_text() == (runs[1] / name).read_text()


# Other inputs


def test_a_folder_of_meshes_and_then_of_samples(tmp_path, capsys):
    source = tmp_path / "things"
    source.mkdir()
    for i, mesh in enumerate((trimesh.creation.icosphere(3), trimesh.creation.torus(1, 0.4), trimesh.creation.box())):
        mesh.export(source / f"thing{i}.obj")
    (source / "broken.ply").write_bytes(b"no mesh")
    config = miniature.create_mlp_config(tmp_path, source="meshes", dataset=str(source), num_test=1)
    fits = create_mlp_dataset.main(config)
    assert sorted(fits) == ["thing0", "thing1", "thing2"] and all("chamfer" in fit for fit in fits.values())
    assert "broken.ply" in capsys.readouterr().err

    samples = tmp_path / "samples"
    samples.mkdir()
    for path in (tmp_path / "runs/things/shapes").glob("*.npz"):
        path.rename(samples / path.name)
    fits = create_mlp_dataset.main(miniature.replace(config, source="deepsdf", dataset=str(samples)))
    assert sorted(fits) == ["thing0", "thing1", "thing2"] and not any("chamfer" in fit for fit in fits.values())
    train_mlps.main(miniature.train_mlps_config(tmp_path, dataset=str(samples)))


def test_too_few_shapes(tmp_path):
    with pytest.raises(InputError, match="there are 0 shapes"):
        create_mlp_dataset.main(miniature.create_mlp_config(tmp_path, source="deepsdf", dataset=str(tmp_path)))


def test_sphere_torus_and_box_through_fit_and_level_set():
    """Mesh, signed distances, SIRENs side by side, level sets: every surface comes back within a voxel."""
    solids = [trimesh.creation.icosphere(4), trimesh.creation.torus(1, 0.4), trimesh.creation.box((1, 2, 1.5))]
    rng, samples = np.random.default_rng(0), []
    for mesh in solids:
        centre, scale = unit_sphere(mesh.vertices)
        mesh.vertices = (mesh.vertices - centre) * scale
        points = sample_points(mesh, 20_000, rng)
        samples.append(balanced(split_by_sign(points, signed_distance(mesh, points)), 20_000, rng))
    samples, nets = torch.from_numpy(np.stack(samples)), SirenNets((3, 64, 64, 1))
    ensemble = SirenEnsemble(nets, nets.start([1, 2, 3]), lambda rows: torch.optim.Adam(rows, 2e-3))
    keys = instance_keys([(i,) for i in range(3)], CPU)
    for step in range(600):
        ensemble.set_learning_rate(2e-3 * 0.02 ** (step / 600))
        places = balanced_places(keys, step, 512, 20_000)
        drawn = samples.gather(1, places[..., None].expand(-1, -1, 4))
        ensemble.step(drawn[..., :3], drawn[..., 3])
    rows, resolution = ensemble.rows.detach(), 32
    for fit, mesh in zip(level_sets(lambda points: nets.run(rows, points), resolution, CPU), solids):
        assert chamfer_distance(fit, mesh, 10_000, (0,)) < 2 / (resolution - 1)
        assert mesh_facts(fit)["volume"] == pytest.approx(mesh.volume, rel=0.05)


def test_shapes_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "all" / folder).mkdir(parents=True)
        (tmp_path / "all" / folder / "chair.npz").write_bytes(b"")
    with pytest.raises(InputError, match="2 files chair.npz"):
        create_mlp_dataset.main(
            miniature.create_mlp_config(tmp_path, source="deepsdf", dataset=str(tmp_path / "all"), num_test=1)
        )
