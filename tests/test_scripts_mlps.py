"""The scripts of signed distance functions run in miniature, stopped and resumed, on every kind of input."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from filelock import FileLock
from PIL import Image

import create_mlp_dataset
import interpolate_mlps
import retrieve_mlps
import train_mlps
from data.instance_files import read_instance
from data.meshes import signed_distance
from data.nets import load_sirens
from data.sdf_samples import balanced, sample_points, split_by_sign, unit_sphere
from data.streams import balanced_indices, device_keys
from evaluation.spaces import Space
from evaluation.summary import print_summary
from evaluation.surfaces import chamfer_distance, level_sets, mesh_facts
from models.errors import InputError
from models.instances import TargetNets
from models.prep import pack
from models.prep_autoencoder import Sizes
from tests import miniature
from tests.test_bad_input import refused
from tests.test_resume import Stop, stop_after
from tests.test_scripts import read_json
from training.checkpoints import load_checkpoint, restore_model
from training.ensembles import Ensemble, squared_errors
from training.run import read_scalars

CPU = torch.device("cpu")


@pytest.fixture
def run_dir(project):
    return project / "runs/chairs/mlps"


def load(root, split):
    return load_sirens(miniature.folders(root), "chairs", split, CPU)


def test_shapes_are_in_one_split_each_and_fits_come_closer(project, run_dir):
    train, test = load(project, "train"), load(project, "test")
    assert (len(train), len(test)) == (4, 2) and not set(train.paths) & set(test.paths)
    net = train.nets[0]
    assert net.trained.widths == (3, 16, 16, 1) and train.samples.shape == (4, 200, 4)
    assert (train.samples[:, :100, 3] > 0).all() and (train.samples[:, 100:, 3] <= 0).all()
    fits = read_json(run_dir / "create_mlp_dataset.json")["fits"]
    assert len(fits) == 6 and all(0 <= fit["closeness"] <= 1 and fit["chamfer"] > 0 for fit in fits.values())
    fresh = net.layout.flatten(net.start([1, 2, 3, 4]))

    def error(rows):
        return (net.run(rows, train.samples[..., :3]) - train.samples[..., 3]).abs().mean(1)

    assert error(train.rows).mean() < 0.5 * error(fresh).mean()


def test_a_shape_is_fitted_alike_whatever_is_fitted_beside_it(tmp_path):
    """In stacks of 4 and of 2, for a few steps: products of other sizes round otherwise, and steps amplify that."""
    for stack in (4, 2):
        create_mlp_dataset.main(miniature.create_mlp_config(tmp_path / str(stack), side_by_side=stack, num_steps=5))
    nets = [tmp_path / str(stack) / "runs/chairs/nets/siren-adam" for stack in (4, 2)]
    paths = sorted(nets[0].glob("*.safetensors"))
    assert len(paths) == 6
    for path in paths:
        state, other = (read_instance(folder / path.name)[0] for folder in nets)
        for name in state:
            torch.testing.assert_close(state[name], other[name], rtol=1e-3, atol=1e-4)


def test_reported_closeness_is_that_of_the_best_model(project, run_dir):
    reported = read_json(run_dir / "train_mlps.json")["closeness"]
    model = restore_model(load_checkpoint(run_dir / "best.pt", ""), run_dir / "best.pt", "", None)
    for split in ("train", "test"):
        _, measured = load(project, split).split_samples(50)
        net = measured.nets[0]
        with torch.no_grad():
            predicted = model.decoder(model.encoder(pack(measured.rows, (8, 48)))).flatten(1)
            outputs = [net.run(rows, measured.samples[..., :3]) for rows in (predicted, measured.rows)]
        by_hand = ((outputs[0] - outputs[1]).abs() < 0.01).float().mean(1)
        assert reported[split] == pytest.approx(by_hand.tolist(), abs=1e-3)


def test_training_stops_at_the_goal_and_resumes_to_a_higher_one(own_project):
    config = miniature.train_mlps_config(own_project, folders=elsewhere(own_project, "goal"), goal=1e-6)
    train_mlps.main(config)
    last = config.folders.run("chairs", "mlps") / "last.pt"
    assert torch.load(last, weights_only=True)["step"] == 4  # the first validation
    train_mlps.main(miniature.changed(config, goal=1.0))
    assert torch.load(last, weights_only=True)["step"] == 12


def elsewhere(root, name):
    """Return folders with the project's lists and with runs of their own."""
    return miniature.replace(miniature.folders(root / name), lists_dir=miniature.folders(root).lists_dir)


def test_bfloat16_trains_other_parameters_and_runs_of_two_precisions_do_not_mix(own_project):
    found = {}
    for precision in ("float32", "bfloat16"):
        folders = elsewhere(own_project, precision)
        config = miniature.train_mlps_config(own_project, folders=folders, num_steps=2, precision=precision)
        train_mlps.main(config)
        found[precision] = torch.load(folders.run("chairs", "mlps") / "last.pt", weights_only=True)["1"]
    assert {value.dtype for state in found.values() for value in state.values()} == {torch.float32}
    assert any(not torch.equal(found["float32"][name], found["bfloat16"][name]) for name in found["float32"])
    with pytest.raises(InputError, match="precision bfloat16, now it is float32"):
        train_mlps.main(miniature.changed(config, precision="float32"))


def test_figure_numbers_and_files_along_the_line(run_dir):
    found = read_json(run_dir / "interpolate_mlps.json")
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
    assert found["unseen"]["gamma"] == found["gamma"] and len(list((run_dir / "shapes").glob("*.ply"))) == 12
    assert (run_dir / "shapes/interpolate_mlps.glb").is_file()


def test_figure_is_written_and_shows_something(run_dir):
    assert (run_dir / "interpolate_mlps.pdf").read_bytes().startswith(b"%PDF")
    assert np.asarray(Image.open(run_dir / "interpolate_mlps.png").convert("L")).std() > 10


def test_empty_level_sets_are_counted(monkeypatch, own_project):
    """A level set that is empty, here the one in the middle, is a None among the numbers, counted, and drawn."""
    config = miniature.interpolate_mlps_config(own_project)
    original = interpolate_mlps.level_sets

    def without_the_middle(*arguments):
        meshes = original(*arguments)
        return [meshes[0], trimesh.Trimesh(), meshes[2]] if len(meshes) == 3 else meshes

    monkeypatch.setattr(interpolate_mlps, "level_sets", without_the_middle)
    found = interpolate_mlps.main(config)
    assert found["latent"]["chamfer_to_start"][1] is None and found["latent"]["pieces"][1] == 0
    assert found["summary"]["latent"]["empty"] >= 2
    json.loads((own_project / "runs/chairs/mlps/interpolate_mlps.json").read_text(), parse_constant=pytest.fail)


def test_lines_between_held_out_shapes_have_files_of_their_own(own_project):
    before = (own_project / "runs/chairs/mlps/interpolate_mlps.json").read_bytes()
    found = interpolate_mlps.main(miniature.interpolate_mlps_config(own_project, split="test", num_pairs=1))
    held_out = {path.stem for path in load(own_project, "test").paths}
    assert {found["from"], found["to"]} == held_out
    assert (own_project / "runs/chairs/mlps/interpolate_mlps_test.json").is_file()
    assert (own_project / "runs/chairs/mlps/interpolate_mlps.json").read_bytes() == before


def test_summary(run_dir, capsys):
    print_summary(run_dir)
    printed = capsys.readouterr().out
    for what in ("closeness to training SIRENs", "closeness to held-out SIRENs", "latent: empty meshes"):
        assert what in printed


# Shapes never seen


@pytest.mark.parametrize("encoder", ["probes", "linear"])
def test_held_out_shapes_choose_and_are_measured(tmp_path, encoder):
    """From one initialization, with shapes held out to choose the checkpoint, to lines between test shapes and retrieval."""
    small = dict(init="mean", init_steps=100, optimizer="sgd", learning_rate=1e-2, num_shapes=10, num_val=2)
    create_mlp_dataset.main(miniature.create_mlp_config(tmp_path, **small))
    views = dict(mirror=True, stretch=0.1, shift=0.01, flip_units=encoder == "linear")
    sizes = replace(miniature.train_mlps_config(tmp_path).sizes, encoder=encoder, num_probes=30)
    changes = dict(sizes=sizes, affine_start="mean", affine_scale=1.0, goal=1.0, **views)
    train_mlps.main(miniature.train_mlps_config(tmp_path, **changes))
    run_dir = tmp_path / "runs/chairs/mlps"
    found = read_json(run_dir / "train_mlps.json")
    space = Space.load(run_dir)
    for split, number in (("train", 6), ("val", 2), ("test", 2)):
        _, measured = load(tmp_path, split).split_samples(50)
        x, net = measured.samples[..., :3], measured.nets[0]
        with torch.no_grad():
            outputs, target = (net.run(rows, x).double() for rows in (space.predict(measured.rows), measured.rows))
        relative = (outputs - target).square().mean(1) / (target - target.mean()).square().mean()
        assert found["relative_error"][split] == pytest.approx(relative.tolist(), rel=1e-3) and len(relative) == number
        assert found["closeness"][split] == pytest.approx(
            ((outputs - target).abs() < 0.01).double().mean(1).tolist(), abs=0.021
        )
    validated = [line["closeness"] for line in read_scalars(run_dir / "scalars.jsonl") if "closeness" in line]
    assert np.mean(found["closeness"]["val"]) == pytest.approx(max(validated))
    interpolate_mlps.main(miniature.interpolate_mlps_config(tmp_path, split="test", num_pairs=1))
    ranks = retrieve_mlps.main(miniature.retrieve_mlps_config(tmp_path, split="val"))["ranks"]
    assert all(len(each) == 2 and all(1 <= rank <= 6 for rank in each) for each in ranks.values())


@pytest.mark.slow
def test_held_out_meshes_are_embedded_too(tmp_path):
    """Ten boxes: a held-out one comes back closer to its SIREN than the mean of all training SIRENs' outputs is."""
    source = tmp_path / "boxes"
    source.mkdir()
    for i, size in enumerate(np.linspace(0.4, 2.2, 10)):
        trimesh.creation.box((1, size, 1)).export(source / f"box{i}.obj")
    small = dict(source="meshes", dataset=str(source), hidden=(32, 32), init="mean", init_steps=300, optimizer="sgd")
    small |= dict(learning_rate=1e-2, num_steps=200, lr_every=10, num_shapes=10, num_val=1, num_test=2, num_stored=800)
    create_mlp_dataset.main(miniature.create_mlp_config(tmp_path, **{**small, "num_samples": 4000}))
    sizes = Sizes((8, 160), emb_size=64, grid=4, row_length=64, row_channels=8, encoder="probes", num_probes=100)
    changes = dict(dataset=str(source), sizes=sizes, affine_start="mean", affine_scale=1.0, clip_norm=1.0, goal=1.0)
    train_mlps.main(miniature.train_mlps_config(tmp_path, **changes, num_steps=300, validate_every=50, meta_batch=4))
    found = read_json(tmp_path / "runs/boxes/mlps/train_mlps.json")["relative_error"]
    train, test = (load_sirens(miniature.folders(tmp_path), str(source), split, CPU) for split in ("train", "test"))
    x, net = test.samples[..., :3], test.nets[0]
    with torch.no_grad():
        mean = torch.stack([net.run(row.expand(len(test), -1), x) for row in train.rows]).mean(0)
        target = net.run(test.rows, x)
    of_mean = (mean - target).square().mean() / target.var(correction=0)
    assert np.mean(found["test"]) < 0.5 * of_mean


def test_retrieval_agrees_with_its_own_neighbours(project, run_dir):
    found = read_json(run_dir / "retrieve_mlps.json")
    names = [path.stem for path in load(project, "train").paths]
    assert list(found["found"]) == [path.stem for path in load(project, "test").paths] and found["chance"] == 2 / 4
    for kind, ranks in found["ranks"].items():
        near = [each[kind] in each["chamfer"] for each in found["found"].values()]
        assert near == [rank <= 2 for rank in ranks] and found["among_nearest"][kind] == np.mean(near)
        assert all(each[kind] in names for each in found["found"].values())


# Stopped and resumed


def test_resumed_fits_equal_unbroken_ones(project_folder, tmp_path, monkeypatch):
    """Stopped in the second stack, after a checkpoint."""
    monkeypatch.chdir(tmp_path)
    config = miniature.create_mlp_config(miniature.HERE, checkpoint_seconds=0)
    with monkeypatch.context() as patch:
        stop_after(patch, Ensemble, "step", 120 + 31)
        with pytest.raises(Stop):
            create_mlp_dataset.main(config)
    nets = tmp_path / "runs/chairs/nets/siren-adam"
    assert len(list(nets.glob("*.safetensors"))) == 3 and list(nets.glob("*.pt")) and not (tmp_path / "lists").exists()
    create_mlp_dataset.main(config)
    assert not list(nets.glob("*.pt"))
    paths = sorted((project_folder / "runs/chairs/nets/siren-adam").glob("*.safetensors"))
    assert len(paths) == 6
    for path in paths:
        (state, facts), (resumed, resumed_facts) = read_instance(path), read_instance(nets / path.name)
        assert facts == resumed_facts and all(torch.equal(state[name], resumed[name]) for name in state)


def test_resumed_training_equals_unbroken(own_project, monkeypatch):
    """Stopped between two validations, at a step without a checkpoint."""

    def config(which):
        folders = elsewhere(own_project, which)
        return miniature.train_mlps_config(own_project, folders=folders, prep_noise=0.1, reorder_channels=True)

    train_mlps.main(config("unbroken"))
    with monkeypatch.context() as patch:
        stop_after(patch, train_mlps, "sdf_losses", 7)
        with pytest.raises(Stop):
            train_mlps.main(config("broken"))
    train_mlps.main(config("broken"))
    runs = [config(which).folders.run("chairs", "mlps") for which in ("unbroken", "broken")]
    for name in ("last.pt", "best.pt"):
        whole, resumed = (torch.load(run / name, weights_only=True) for run in runs)
        assert whole["best_score"] == resumed["best_score"]
        for key in ("0", "1"):
            assert all(torch.equal(whole[key][entry], resumed[key][entry]) for entry in whole[key])
    for name in ("scalars.jsonl", "train_mlps.json"):
        assert (runs[0] / name).read_text() == (runs[1] / name).read_text()


# Other inputs


@pytest.mark.slow
def test_meshes_of_odd_names_go_from_making_to_training(tmp_path):
    source = tmp_path / "things"
    source.mkdir()
    names = ["chair;1", "-rf", "nét 50%", "#1"]
    for name, size in zip(names, (1, 2, 3, 4)):
        trimesh.creation.box((1, 1, size)).export(source / f"{name}.obj")
    config = miniature.create_mlp_config(tmp_path, source="meshes", dataset=str(source), num_test=1)
    assert sorted(create_mlp_dataset.main(config)) == sorted(names)
    found = train_mlps.main(miniature.train_mlps_config(tmp_path, dataset=str(source)))
    assert [len(found[split]) for split in ("train", "test")] == [3, 1]


@pytest.mark.slow
def test_a_folder_of_meshes_and_then_of_samples(tmp_path, capsys):
    """The meshes are prepared by processes of their own, which start slowly."""
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
    fits = create_mlp_dataset.main(miniature.changed(config, source="deepsdf", dataset=str(samples)))
    assert sorted(fits) == ["thing0", "thing1", "thing2"] and not any("chamfer" in fit for fit in fits.values())
    found = train_mlps.main(miniature.train_mlps_config(tmp_path, dataset=str(samples)))
    assert [len(found[split]) for split in ("train", "test")] == [2, 1]


def test_samples_of_deepsdf(tmp_path, project_folder):
    samples = tmp_path / "samples"
    samples.mkdir()
    for path in sorted((project_folder / "runs/chairs/shapes").glob("*.npz"))[:3]:
        (samples / path.name).write_bytes(path.read_bytes())
    config = miniature.create_mlp_config(tmp_path, source="deepsdf", dataset=str(samples), num_test=1)
    fits = create_mlp_dataset.main(config)
    assert len(fits) == 3 and not any("chamfer" in fit for fit in fits.values())
    found = train_mlps.main(miniature.train_mlps_config(tmp_path, dataset=str(samples)))
    assert [len(found[split]) for split in ("train", "test")] == [2, 1]


def test_too_few_shapes(tmp_path):
    with pytest.raises(InputError, match="npz"):
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
    samples, (net,) = torch.from_numpy(np.stack(samples)), TargetNets.sirens((3, 64, 64, 1))
    ensemble = Ensemble(net, net.start([1, 2, 3]), lambda rows: torch.optim.Adam(rows, 2e-3), squared_errors)
    keys = device_keys("points of a fit", [(i,) for i in range(3)], CPU)
    for step in range(600):
        ensemble.set_learning_rate(2e-3 * 0.02 ** (step / 600))
        indices = balanced_indices(keys, step, 512, 20_000)
        drawn = samples.gather(1, indices[..., None].expand(-1, -1, 4))
        ensemble.step(drawn[..., :3], drawn[..., 3])
    rows, resolution = ensemble.rows.detach(), 32
    for fit, mesh in zip(level_sets(lambda points: net.run(rows, points), resolution, CPU), solids):
        assert chamfer_distance(fit, mesh, 10_000, (0,)) < 2 / (resolution - 1)
        assert mesh_facts(fit)["volume"] == pytest.approx(mesh.volume, rel=0.05)


def test_shapes_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "all" / folder).mkdir(parents=True)
        (tmp_path / "all" / folder / "chair.npz").write_bytes(b"")
    with pytest.raises(InputError, match="a/chair.npz.*b/chair.npz"):
        create_mlp_dataset.main(
            miniature.create_mlp_config(tmp_path, source="deepsdf", dataset=str(tmp_path / "all"), num_test=1)
        )


def test_a_run_beside_another_is_refused_before_it_makes_shapes(tmp_path, monkeypatch):
    """Two of different seeds, at one instant, would mix their shapes."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs/chairs/nets/siren-adam"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        refused("create_mlp_dataset", "--seed", "1", "--runs-dir", "runs", cwd=tmp_path, match="another run")
    assert not (tmp_path / "runs/chairs/shapes").exists()


def test_a_siren_of_a_mesh_that_was_replaced_is_refused_and_the_others_stay(tmp_path):
    folder = tmp_path / "meshes"
    folder.mkdir()
    for name in "ab;":
        trimesh.creation.box().export(folder / f"{name}.obj")
    small = dict(source="meshes", dataset=str(folder), num_test=1, num_steps=2, num_samples=200, num_points=8)
    config = miniature.create_mlp_config(tmp_path, **small)
    assert sorted(create_mlp_dataset.main(config)) == [";", "a", "b"]
    sirens = config.folders.nets(str(folder), "siren-adam")
    times = {path.name: path.stat().st_mtime_ns for path in sirens.glob("*.safetensors")}
    for each in folder.iterdir():
        each.touch()  # newer, and the same
    create_mlp_dataset.main(config)
    assert times == {path.name: path.stat().st_mtime_ns for path in sirens.glob("*.safetensors")}
    trimesh.creation.icosphere(2).export(folder / "a.obj")
    os.utime(folder / "a.obj", (0, 0))  # as an archive leaves it
    with pytest.raises(InputError, match="seed0-a.safetensors .*samples"):
        create_mlp_dataset.main(config)
    (sirens / "seed0-a.safetensors").unlink()
    create_mlp_dataset.main(config)
    again = {path.name for path in sirens.glob("*.safetensors") if path.stat().st_mtime_ns != times[path.name]}
    assert again == {"seed0-a.safetensors"}
