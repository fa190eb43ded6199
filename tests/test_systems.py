"""compare_systems.py: which cells run, on which nets, that they are what the scripts train, and that stopped ones resume."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

import compare_systems
import create_nets_dataset_zoo
import train_sane
import train_single_arch
from data.load import load_images
from data.zoos import strongest
from evaluation import systems
from evaluation.across import Experiment
from evaluation.cells import ABLATIONS, GROUPS, SYMMETRY, Cell, changed, choose, size_cells, table_cells
from evaluation.spaces import Space, about_images
from evaluation.system_measures import Measures, one_of_each
from evaluation.systems import CellRun, Nets, build, steps_in
from models.errors import InputError
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from netspace import NetSpace
from tests import miniature
from tests.test_bad_input import refused
from tests.test_resume import Stop, same, stop_after
from training.run import Run

ZOO, ACROSS = "runs/photos/nets/zoo-resnet8", "runs/photos/across"
CELLS = {cell.name: cell for cell in (*table_cells(), *ABLATIONS)}


@pytest.fixture
def nets(project) -> Nets:
    """The nets of seed 0 of the miniature's zoo."""
    return Nets.of(project / ZOO, "resnet8", load_images("photos", project / "data"), 0)


def experiment(project, **changes) -> Experiment:
    config = miniature.systems_config(project, **changes)
    images = load_images("photos", project / "data")
    folder = project / ACROSS
    bases = compare_systems.systems(config)
    return Experiment(folder, project / ZOO, project / ZOO, "resnet8", images, bases, config.seeds)


# Which cells


def test_the_table_has_every_encoder_objective_and_alignment_once():
    found = {(cell.encoder, cell.objective, cell.aligned) for cell in table_cells()}
    assert len(found) == len(table_cells()) == 12


def test_every_ablation_differs_from_its_cell_in_what_it_says():
    bases = compare_systems.systems(compare_systems.PRESETS["photos"])
    table = {(cell.encoder, cell.objective, cell.aligned): cell for cell in table_cells()}
    assert len(CELLS) == 12 + len(ABLATIONS)
    for cell in ABLATIONS:
        like = table[cell.encoder, cell.objective, cell.aligned]
        base = bases[cell.encoder]
        assert cell.config(base) != like.config(base) and cell.about and (cell.changes or cell.times > 1)


def test_all_cells_see_as_many_nets_images_and_steps():
    bases = compare_systems.systems(compare_systems.PRESETS["photos"])
    for cell in (*table_cells(), *size_cells((12, 400))):
        config = cell.config(bases[cell.encoder])
        assert (config.meta_batch, config.image_batch, config.optim.num_steps) == (8, 64, 300 * cell.times)
        assert cell.encoder == "prep" or config.windows == config.meta_batch


def test_a_cell_is_the_scripts_preset_but_for_what_is_alike():
    config = compare_systems.PRESETS["photos"]
    for script, encoder in ((train_single_arch, "prep"), (train_sane, "tokens")):
        found, preset = compare_systems.systems(config)[encoder], script.PRESETS["photos"]
        for name in ("views", "start", "temperature", "contrast_temperature", "recon", "weight_decay"):
            assert getattr(found, name, None) == getattr(preset, name, None)
        assert replace(found.optim, num_steps=1) == replace(preset.optim, num_steps=1)
    assert compare_systems.systems(config)["prep"].sizes == train_single_arch.PRESETS["photos"].sizes


def test_constants_that_are_in_no_group_are_refused():
    with pytest.raises(KeyError, match="nothing"):
        changed(train_single_arch.PRESETS["photos"], dict(nothing=1))


def test_cells_are_chosen_by_name_and_group():
    every = choose((), (12, 25))
    assert every.table == table_cells() and every.ablations == ABLATIONS and len(every.sizes) == 4
    assert [cell.name for cell in every.symmetry] == list(SYMMETRY)
    one = choose(("tokens-behaviour-aligned",), (12,))
    assert [cell.name for cell in one.on_zoo] == ["tokens-behaviour-aligned"] and not one.sizes and not one.symmetry
    both = choose(("symmetry", "prep-12-nets"), (12, 25))
    assert [cell.name for cell in both.sizes] == ["prep-12-nets"] and {cell.name for cell in both.on_zoo} == set(
        SYMMETRY
    )
    with pytest.raises(InputError, match="tokens-behavior.*tokens-behaviour"):
        choose(("tokens-behavior",), ())
    for group in GROUPS:
        assert getattr(choose((group,), (12,)), group)


# On which nets


def test_all_cells_of_a_seed_have_the_same_nets_and_aligned_ones_compute_the_same(nets):
    aligned = nets.of_cell(CELLS["prep-weights-aligned"])
    x = nets.images.test.plain(0, 50)
    for name, split in nets.splits.items():
        other = aligned.splits[name]
        assert other.paths == split.paths and other.facts == split.facts
        torch.testing.assert_close(nets.net.run(other.rows, x), nets.net.run(split.rows, x), atol=1e-4, rtol=1e-3)
    assert nets.of_cell(CELLS["tokens-both"]) is nets
    reference = nets.train.rows[strongest(nets.train)]
    before, after = ((each.train.rows - reference).square().sum(1) for each in (nets, aligned))
    assert (after <= before + 1e-5).all() and after.sum() < before.sum()


def test_seeds_split_the_zoo_by_net_and_differ(project):
    images = load_images("photos", project / "data")
    found = [Nets.of(project / ZOO, "resnet8", images, seed) for seed in (0, 1)]
    for each in found:
        names = [set(split.column("net")) for split in each.splits.values()]
        assert not names[0] & names[1] and not names[0] & names[2] and len(set.union(*names)) == 10
    assert set(found[0].test.column("net")) != set(found[1].test.column("net"))


def test_smaller_numbers_of_training_nets_are_among_larger_ones(project):
    nets = Nets.of(project / ZOO, "resnet8", load_images("photos", project / "data"), 3, 2)
    names = [set(nets.with_training_nets(number).train.column("net")) for number in (1, 2, 4, 6)]
    assert [len(each) for each in names] == [1, 2, 4, 6]
    assert all(small < large for small, large in zip(names, names[1:]))
    assert nets.with_training_nets(2).test is nets.test
    assert len(nets.with_training_nets(2).train) == 2 * 4  # with all checkpoints
    with pytest.raises(InputError, match="6 training nets.*not 7"):
        nets.with_training_nets(7)


def test_one_of_each_net_is_of_all_steps(nets):
    found = one_of_each(nets.train)
    assert len(set(found.column("net"))) == len(found) == len(set(nets.train.column("net")))
    assert len(set(found.column("step"))) == min(4, len(found))


# They are what the scripts train


def test_a_cell_of_netspace_has_the_parameters_that_train_single_arch_finds(own_project):
    prep, name = experiment(own_project, num_steps=6), "prep-behaviour"
    shutil.rmtree(own_project / ACROSS / "seed0" / name)
    prep.measured(CELLS[name], 0)
    train = CELLS[name].config(prep.bases["prep"])
    folders = replace(miniature.folders(own_project), lists_dir=own_project / "lists")
    shutil.rmtree(own_project / "runs/photos/zoo")
    train_single_arch.main(
        replace(train, instances="zoo", optim=replace(train.optim, validate_every=6), folders=folders)
    )
    check_same_model(own_project / ACROSS / "seed0" / name, own_project / "runs/photos/zoo", ("0", "1"))


@pytest.mark.parametrize("objective", ["weights", "behaviour", "both"])
def test_a_cell_of_aligned_tokens_has_the_parameters_that_train_sane_finds(own_project, objective):
    tokens, name = experiment(own_project, num_steps=6), f"tokens-{objective}-aligned"
    shutil.rmtree(own_project / ACROSS / "seed0" / name, ignore_errors=True)
    tokens.measured(CELLS[name], 0)
    train = CELLS[name].config(tokens.bases["tokens"])
    shutil.rmtree(own_project / "runs/photos/sane")
    sizes = replace(train.sizes, alignment="matching")
    folders = miniature.folders(own_project)
    train_sane.main(replace(train, sizes=sizes, optim=replace(train.optim, validate_every=6), folders=folders))
    check_same_model(own_project / ACROSS / "seed0" / name, own_project / "runs/photos/sane", ("model",))


def check_same_model(one, other, keys):
    states = [torch.load(folder / "best.pt", weights_only=True) for folder in (one, other)]
    assert all(same(states[0][key], states[1][key]) for key in keys)


@pytest.mark.parametrize("cell", list(CELLS.values()), ids=lambda cell: cell.name)
def test_every_cell_starts_and_has_a_finite_loss_with_a_gradient(nets, cell):
    bases = compare_systems.systems(miniature.systems_config(miniature.HERE))
    config = cell.config(bases[cell.encoder])
    if config.sizes.__class__ is TokenSizes and config.sizes.net_size:
        config = replace(config, sizes=replace(config.sizes, net_size=32))  # orthogonal maps of thousands take a second
    config = replace(config, image_batch=min(config.image_batch, 64))
    model, objective = build(cell, config, nets.of_cell(cell))
    loss = objective.at(0).loss
    loss.backward()
    assert loss.isfinite() and any(each.grad is not None and each.grad.any() for each in model.parameters())
    has_head = (model.decoder.scalelayer if cell.encoder == "prep" else model.affine) is not None
    assert has_head == (cell.encoder == "prep") ^ ("affine" in cell.changes)


# Files


def test_only_the_named_cell_runs_and_a_finished_one_is_not_trained_again(own_project, monkeypatch):
    shutil.rmtree(own_project / ACROSS)
    config = miniature.systems_config(own_project, only=("tokens-weights",), seeds=(1,))
    results = compare_systems.main(config)
    assert {path.name for path in (own_project / ACROSS / "seed1").iterdir()} == {"tokens-weights", "nets.json"}
    assert [row["name"] for row in results["cells"]] == ["tokens-weights"] and not results["ablations"]
    folder = own_project / ACROSS / "seed1" / "tokens-weights"
    assert (folder / "best.pt").is_file() and not (folder / "last.pt").exists()
    monkeypatch.setattr(CellRun, "train", None)
    assert compare_systems.main(config) == results


def test_cells_are_collected_over_seeds_that_are_finished(own_project):
    shutil.rmtree(own_project / ACROSS)
    one = miniature.systems_config(own_project, only=("prep-weights",), seeds=(0,))
    compare_systems.main(one)
    results = compare_systems.main(replace(one, seeds=(0, 1)))
    (row,) = results["cells"]
    assert row["seeds"] == [0, 1] and len(row["agreement"]) == 2
    kept = [json.loads((own_project / ACROSS / f"seed{seed}/prep-weights/cell.json").read_text()) for seed in (0, 1)]
    assert row["agreement"] == [each["measured"]["agreement"] for each in kept]
    assert compare_systems.main(one)["cells"][0]["agreement"] == row["agreement"][:1]


@pytest.mark.parametrize("name", ["prep-both", "tokens-both"])
def test_a_stopped_cell_ends_as_an_unbroken_one(own_project, monkeypatch, name):
    whole = experiment(own_project, num_steps=8)
    broken = replace(whole, folder=own_project / "broken", loaded={})
    found = whole.measured(CELLS[name], 0)
    with monkeypatch.context() as patch:
        stop_after(patch, Run, "descend", 5)
        with pytest.raises(Stop):
            broken.measured(CELLS[name], 0)
    folder = own_project / "broken" / "seed0" / name
    assert torch.load(folder / "last.pt", weights_only=True)["step"] == 4 and not (folder / "cell.json").exists()
    torch.manual_seed(9)
    again = broken.measured(CELLS[name], 0)
    del again["seconds"], found["seconds"]
    assert again == found
    check_same_model(folder, own_project / ACROSS / "seed0" / name, ("0", "1") if "prep" in name else ("model",))


def test_a_cell_that_was_stopped_while_it_was_measured_is_not_trained_again(own_project, monkeypatch):
    whole = experiment(own_project, seeds=(2,))
    with monkeypatch.context() as patch:
        stop_after(patch, Measures, "of_space", 0)
        with pytest.raises(Stop):
            whole.measured(CELLS["prep-weights"], 2)
    monkeypatch.setattr(Run, "descend", None)
    assert whole.measured(CELLS["prep-weights"], 2)["steps"] == 4


def test_a_number_of_seconds_becomes_steps_that_a_resumed_cell_keeps(own_project):
    config = miniature.systems_config(own_project, equal="seconds", seconds=0.05, only=("prep-weights",))
    shutil.rmtree(own_project / ACROSS)
    compare_systems.main(config)
    folder = own_project / ACROSS / "seed0" / "prep-weights"
    steps = json.loads((folder / "steps.json").read_text())["steps"]
    assert json.loads((folder / "cell.json").read_text())["measured"]["steps"] == steps >= 1
    cell, base = CELLS["prep-weights"], compare_systems.systems(config)["prep"]
    nets = Nets.of(own_project / ZOO, "resnet8", load_images("photos", own_project / "data"), 0)
    few, many = (steps_in(seconds, cell, cell.config(base), nets) for seconds in (0.02, 2.0))
    assert few < many


def test_symmetry_and_nets_are_measured_once(own_project, monkeypatch):
    whole = experiment(own_project)
    found = whole.symmetry(CELLS["prep-behaviour"], 0), whole.of_nets(0)
    monkeypatch.setattr(systems, "write_json", None)
    assert (whole.symmetry(CELLS["prep-behaviour"], 0), whole.of_nets(0)) == found


def test_a_space_of_a_cell_loads(project):
    space = NetSpace.load(project / ACROSS / "seed0" / "prep-behaviour")
    assert space.space.model.emb_size == 256


# What is measured


def test_targets_agree_with_themselves_and_the_mean_net_has_an_r2_of_at_most_0(nets):
    measures = Measures(nets)
    rows = nets.test.rows
    found = measures.decoded(rows, measures.test)
    assert found["agreement"] == 100 and found["accuracy_error"] == 0 and found["weight_r2"] == 1
    assert found["accuracy_correlation"] == pytest.approx(1)
    assert measures.decoded(rows.mean(0).expand_as(rows), measures.test)["weight_r2"] == pytest.approx(0, abs=1e-5)
    assert measures.baselines()["mean"]["weight_r2"] <= 0
    worse = measures.decoded(rows.flip(0), measures.test)
    assert worse["agreement"] < 100 and worse["weight_r2"] < 0


def test_r2_of_weights_is_the_plain_sum_in_units_of_each_tensor(nets):
    measures, rows = Measures(nets), nets.test.rows
    predicted = rows + 0.1 * torch.randn_like(rows)
    error = variance = 0.0
    for name, target in nets.net.layout.unflatten(rows.double()).items():
        unit = nets.net.layout.unflatten(nets.train.rows.double())[name].std(correction=0)
        guess = nets.net.layout.unflatten(predicted.double())[name]
        error += ((guess - target) / unit).square().sum().item()
        variance += ((target - target.mean(0)) / unit).square().sum().item()
    assert measures.decoded(predicted, measures.test)["weight_r2"] == pytest.approx(1 - error / variance, rel=1e-4)


def token_space(nets: Nets, alignment: str) -> Space:
    sizes = TokenSizes(73, 6, 16, 1, 2, 24, 2, alignment=alignment)
    model = TokenAutoencoder(sizes, nets.net.layout, nets.net.hidden_channels())
    model.transformer.start_at(model.standardized(model.fit(nets.train.rows, nets.train.rows[strongest(nets.train)])))
    return Space(model, nets.train.nets, about_images(nets.train.nets, nets.images), {})


def test_reordered_copies_are_apart_unless_they_are_aligned(nets):
    aligned, plain = token_space(nets, "matching"), token_space(nets, "none")
    measures, after = Measures(nets), Measures(nets.aligned)
    inside = measures.symmetry(aligned, False)
    assert inside["embedding_spread"] < 1e-4 and inside["accuracy_spread"] < 0.1 and inside["agreement"] > 99.9
    before = after.symmetry(plain, True)  # what is aligned before it is encoded, likewise
    assert before["embedding_spread"] < 1e-4 and before["agreement"] > 99.9
    apart = measures.symmetry(plain, False)
    assert apart["embedding_spread"] > 0.3


def test_lines_of_weights_begin_and_end_at_the_nets_also_after_rebasin(nets):
    measures = Measures(nets)
    accuracies, pairs = measures.line_nets.accuracies.numpy(), measures.pairs
    assert all(accuracies[i] <= accuracies[j] for i, j in pairs)
    for lines in (measures.averaged, measures.rebased()):
        np.testing.assert_allclose(lines[:, 0], accuracies[[i for i, _ in pairs]], atol=0.6)
        np.testing.assert_allclose(lines[:, -1], accuracies[[j for _, j in pairs]], atol=0.6)


def test_properties_that_are_features_are_predicted(nets):
    measures = Measures(nets)
    features = {}
    for name, each in nets.splits.items():
        known = np.array([each.column("test_accuracy"), each.column("generalization_gap")], dtype=float).T
        features[name] = known
    found = measures.properties(features)
    assert found["test_accuracy"] > 0.99 and found["generalization_gap"] > 0.99


def test_a_net_is_as_its_target_inside(nets):
    space = token_space(nets, "none")
    found = Measures(nets).inside(space)
    assert len(found["cka_points"]) == len(nets.net.points) == len(found["stitched_points"])
    assert found["cka"] == pytest.approx(np.mean(found["cka_points"]), abs=1e-6)

    class Copies(Space):
        def predict(self, rows):
            return rows

    same_nets = Measures(nets).inside(Copies(space.model, space.nets, space.about, {}))
    assert same_nets["cka"] == pytest.approx(1) and same_nets["stitched"] == pytest.approx(1, abs=0.05)


# Bad input


def test_what_is_wrong_is_one_line(project_folder, few_photos, tmp_path):
    refused("compare_systems", "--only", "tokens-all", cwd=tmp_path, match=("tokens-all", "tokens-both"))
    refused("compare_systems", "--num-steps", "0", cwd=tmp_path, match=("--num-steps 0", "1"))
    refused("compare_systems", cwd=tmp_path, match=("zoo-resnet8", "create_nets_dataset_zoo.py"))
    refused("compare_systems", "--zoo", "a/b", cwd=tmp_path, match="a/b")


def test_other_constants_are_refused_by_name(own_project):
    config = miniature.systems_config(own_project, only=("prep-weights",), num_steps=5)
    with pytest.raises(InputError, match="cell.json.*num_steps 4.*5"):
        compare_systems.main(config)
    path = own_project / ACROSS / "seed0" / "prep-weights" / "cell.json"
    for text, match in (("{", "cell.json"), ("{}", "no results"), ('{"measured": 3}', "no results")):
        path.write_text(text)
        with pytest.raises(InputError, match=match):
            compare_systems.main(config)


def test_a_large_zoo_that_is_missing_or_too_small_is_named(own_project):
    config = miniature.systems_config(own_project, only=("sizes",), train_nets=(2, 300))
    with pytest.raises(InputError, match="training nets.*300"):
        compare_systems.main(config)
    with pytest.raises(InputError, match="zoo-large.*create_nets_dataset_zoo.py"):
        compare_systems.main(replace(config, large_zoo="zoo-large"))


def test_a_zoo_has_the_name_that_is_given(few_photos, tmp_path):
    small = dict(num_nets=3, num_checkpoints=2, first_step=2, last_step=4, side_by_side=3)
    create_nets_dataset_zoo.main(miniature.create_zoo_config(tmp_path, name="zoo-large", **small))
    assert (tmp_path / "runs/photos/nets/zoo-large/zoo.json").is_file()
    for name in ("../zoo", "a/b", ".."):
        with pytest.raises(InputError, match="zoo-large"):
            create_nets_dataset_zoo.main(miniature.create_zoo_config(tmp_path, name=name, **small))


def test_a_cell_has_the_changes_of_its_objective():
    base = train_sane.PRESETS["photos"]
    alone = Cell("a", "tokens", "behaviour").config(base)
    assert alone.contrast == 0 and alone.behaviour == 1
    assert (
        Cell("a", "prep", "weights", aligned=True).config(train_single_arch.PRESETS["photos"]).views.reorder_channels
        is False
    )
