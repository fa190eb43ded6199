"""What NetSpace and SANE minimize at a step, against the sums written plainly; options of their decoders and starts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import train_sane
import train_single_arch
from data.images import Batches
from data.nets import meta_batch
from evaluation.cells import TOKEN_OBJECTIVES, changed
from evaluation.spaces import Space
from models.errors import InputError
from models.instances import TargetNet, TargetNets
from models.prep_autoencoder import PrepAutoencoder, Sizes
from models.rows import reordering
from models.target_nets import get_architecture
from models.token_autoencoder import TokenAutoencoder, TokenSizes
from tests import miniature
from tests.test_images import some_images
from training.autoencoders import PrepObjective, TokenObjective
from training.constants import Start, TokenStart
from training.losses import Given, behaviour, logit_behaviour
from training.views import add_noise, draw_windows, reorder, start_at_instances, start_tokens

PREP = Sizes((8, 72), emb_size=64, grid=8, row_length=16, row_channels=8)
START = TokenStart()
TOKENS = TokenSizes(7, 4, 8, 1, 2, 24, 2, (200, 20, 20))


@pytest.fixture(scope="module")
def nets():
    """A small architecture and 5 instances of it, (5, 540)."""
    net = TargetNet(get_architecture("lenetlike"), (1, 8, 8), 10)
    return net, net.fuse(net.start(range(5)))


@pytest.fixture(scope="module")
def batches():
    return Batches(some_images(20, channels=1), [(0,)], 6)


def token_model(net, rows, sizes=TOKENS, start=START):
    model = TokenAutoencoder(sizes, net.layout, net.hidden_channels())
    start_tokens(model, start, rows, 0)
    return model


def token_config(**changes):
    small = dict(windows=3, meta_batch=2, image_batch=6)
    return changed(train_sane.PRESETS["photos"], {**small, **changes})


def divergence(predicted, target):
    """Compute KL(target || predicted), mean over images, from logits (B, classes)."""
    log_p, log_t = predicted.log_softmax(-1), target.log_softmax(-1)
    return (log_t.exp() * (log_t - log_p)).sum(-1).mean()


# Losses


@pytest.mark.parametrize("objective", ["behaviour", "weights", "both"])
def test_the_loss_of_netspace_is_the_mean_over_targets_of_its_objective(nets, batches, objective):
    net, rows = nets
    config = miniature.train_config(miniature.HERE, objective=objective, meta_batch=3)
    model = PrepAutoencoder(PREP)
    found = PrepObjective(config, model, net, rows, batches).at(4)
    assert found.chosen == meta_batch(5, 3, config.seed, 4)
    targets = reorder(rows[found.chosen], net, config.views, config.seed, 4)
    predicted = model(add_noise(targets, model.width, config.views, config.seed, 4))
    x, total = batches.shared(4)[0], 0.0
    parts = [slice(sum(net.layout.sizes[:i]), sum(net.layout.sizes[: i + 1])) for i in range(len(net.layout.sizes))]
    for one, target in zip(predicted, targets):
        if objective != "weights":
            total += divergence(net.module(one[: net.num_parameters])(x), net.module(target)(x))
        if objective != "behaviour":
            errors = [((one[p] - target[p]) / rows[:, p].std(correction=0)).square().sum() for p in parts]
            total += sum(errors) / net.num_parameters
    torch.testing.assert_close(found.loss, total / 3)


@pytest.mark.parametrize("objective", TOKEN_OBJECTIVES)
@pytest.mark.parametrize("behaviour_loss", ["distillation", "logits"])
def test_the_loss_of_sane_is_the_weighted_sum_of_its_terms(nets, batches, objective, behaviour_loss):
    net, rows = nets
    model = token_model(net, rows)
    config = token_config(**TOKEN_OBJECTIVES[objective], behaviour_loss=behaviour_loss)
    rows = model.aligned(rows)
    found = TokenObjective(config, model, net, rows, batches if config.behaviour else None).at(4)
    total, g, b = 0.0, config.contrast, config.behaviour
    if objective != "behaviour":
        seen = draw_windows(model, rows[meta_batch(5, 3, config.seed, 4)], config.views, config.seed, 4)
        latents = model.transformer.encode(seen.shown, seen.positions)
        errors = (model.transformer.decode(latents, seen.positions) - seen.target)[seen.mask].square()
        counts = seen.mask.sum((1, 2)).tolist()
        structure = sum(each.mean() for each in errors.split(counts)) / 6
        unit = F.normalize(model.transformer.project(latents), dim=1)
        contrast = 0.0
        for i in range(6):
            others = [torch.exp(unit[i] @ unit[j] / config.contrast_temperature) for j in range(6) if j != i]
            own = torch.exp(unit[i] @ unit[(i + 3) % 6] / config.contrast_temperature)
            contrast -= torch.log(own / sum(others)) / 6
        total += g * contrast + (1 - g) * (1 - b) * structure
    if objective != "weights":
        x = batches.shared(4)[0]
        for i in meta_batch(5, 2, config.seed + 1, 4):
            decoded = net.module(model.decode(model.encode_aligned(rows[[i]]))[0])(x)
            target = net.module(rows[i])(x)
            one = (
                divergence(decoded, target) if behaviour_loss == "distillation" else (decoded - target).square().mean()
            )
            total += (1 - g) * b * one / 2
    torch.testing.assert_close(found.loss, total)
    assert (
        set(found.terms)
        == {
            "weights": {"reconstruction", "contrast"},
            "behaviour": {"behaviour"},
            "both": {"reconstruction", "contrast", "behaviour"},
        }[objective]
    )


def test_whole_nets_are_reconstructed_without_windows(nets, batches):
    net, rows = nets
    model = token_model(net, rows)
    config, rows = token_config(contrast=0.0, behaviour=0.0, structure="nets"), model.aligned(rows)
    found = TokenObjective(config, model, net, rows).at(2)
    chosen = meta_batch(5, 2, config.seed + 1, 2)
    decoded = model.decode(model.encode_aligned(rows[chosen]))
    errors = (model.standardized(decoded) - model.standardized(rows[chosen]))[:, model.mask].square()
    torch.testing.assert_close(found.loss, errors.mean())
    assert found.chosen == chosen


def test_of_decoded_windows_all_other_numbers_are_the_targets(nets, batches):
    net, rows = nets
    model = token_model(net, rows)
    objective = TokenObjective(token_config(decoded="windows"), model, net, rows, batches)
    decoded = rows + 1
    tokens = {step: (objective.with_targets(decoded, rows, step) != rows) for step in range(6)}
    for other in tokens.values():
        assert torch.equal(other, other[:1].expand_as(other))
        places = model.tokens.pack(other.float()).sum(2)[0].nonzero()[:, 0]
        assert len(places) == TOKENS.window and places[-1] - places[0] == TOKENS.window - 1
    assert len({tuple(each[0].tolist()) for each in tokens.values()}) > 1


def test_two_behaviours_are_zero_for_a_reordered_copy(nets, batches):
    net, rows = nets
    copies = rows[:, reordering(net.layout, net.hidden_channels(), np.random.default_rng(0))]
    given = Given(net, batches.shared(0)[0], 1.0, torch.ones(()))
    for loss in (behaviour, logit_behaviour):
        assert loss(copies, rows, given).abs().max() < 1e-6
        assert (loss(rows.roll(1, 0), rows, given) > 1e-5).all()


# Decoders with and without an affine head


def test_a_decoder_without_an_affine_head_ends_in_its_last_conv():
    torch.manual_seed(0)
    whole = PrepAutoencoder(PREP)
    plain = PrepAutoencoder(replace(PREP, affine=False))
    state = {name: value for name, value in whole.state_dict().items() if "scalelayer" not in name}
    plain.load_state_dict(state)
    embeddings = torch.randn(3, 64)
    head = whole.decoder.scalelayer
    expected = plain.decode(embeddings) * head.scale.flatten() + head.bias.flatten()
    torch.testing.assert_close(whole.decode(embeddings), expected)


@pytest.mark.parametrize("start", ["zero", "instance"])
def test_a_head_that_is_not_there_starts_nowhere(start):
    model = PrepAutoencoder(replace(PREP, affine=False))
    with pytest.raises(InputError, match=f"--affine-start {start}.*paper"):
        start_at_instances(model, Start(affine_start=start), torch.zeros(2, 540), torch.zeros(2))
    start_at_instances(model, Start(), torch.zeros(2, 540), torch.zeros(2))


def test_a_head_at_zero_decodes_what_comes_out_of_the_last_conv_scaled(nets):
    _, rows = nets
    model = PrepAutoencoder(PREP)
    start_at_instances(model, Start(affine_start="zero", affine_scale=0.5), rows, torch.zeros(5))
    head = model.decoder.scalelayer
    assert not head.bias.any() and head.scale.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_token_head_scales_every_decoded_token_in_units_of_its_layer(nets):
    net, rows = nets
    plain = token_model(net, rows)
    whole = TokenAutoencoder(replace(TOKENS, affine=True), net.layout, net.hidden_channels())
    whole.load_state_dict(plain.state_dict(), strict=False)
    scale, bias = torch.randn_like(whole.affine.scale), torch.randn_like(whole.affine.bias)
    with torch.no_grad():
        whole.affine.scale.copy_(scale)
        whole.affine.bias.copy_(bias)
    embeddings = plain.encode(rows)
    expected = plain.standardized(plain.decode(embeddings)) * scale + bias
    torch.testing.assert_close(
        whole.standardized(whole.decode(embeddings)), expected * plain.mask, atol=1e-5, rtol=1e-4
    )


def test_windows_go_through_the_head_at_their_places(nets, batches):
    net, rows = nets
    model = token_model(net, rows, replace(TOKENS, affine=True), TokenStart("paper", "instance", 0.0))
    config = token_config(contrast=0.0, behaviour=0.0)
    objective = TokenObjective(config, model, net, model.aligned(rows)[:1].repeat(5, 1))  # the instance it starts at
    seen = draw_windows(model, objective.rows[:3], replace(config.views, views="canonical"), 0, 0)
    decoded = model.finished(model.transformer.decode(torch.zeros(6, 24, 4), seen.positions), seen.positions[..., 0])
    torch.testing.assert_close(decoded, seen.target)


@pytest.mark.parametrize("linear", ["paper", "components", "pytorch"])
def test_a_head_starts_at_the_strongest_instance_whatever_the_linear_maps(nets, linear):
    net, rows = nets
    model = token_model(net, rows, replace(TOKENS, affine=True), TokenStart(linear, "instance", 0.0))
    torch.testing.assert_close(model(rows), rows[:1].expand_as(rows), atol=1e-5, rtol=1e-4)
    model = token_model(net, rows, replace(TOKENS, affine=True), TokenStart(linear, "zero", 0.0))
    means = model.restored(torch.zeros(1, model.num_tokens, 7))
    torch.testing.assert_close(model(rows), means.expand_as(rows), atol=1e-5, rtol=1e-4)


def test_a_larger_start_decodes_tokens_that_differ(nets):
    net, rows = nets
    spread = {}
    for start in ("paper", "pytorch"):
        model = token_model(net, rows, start=TokenStart(start))
        spread[start] = model.standardized(model(rows))[:, model.mask].std()
    assert spread["pytorch"] > 10 * spread["paper"]


# One latent a net


def test_one_latent_a_net_is_a_linear_map_of_all_latents(nets):
    net, rows = nets
    model = token_model(net, rows, replace(TOKENS, net_size=30))
    assert model.emb_size == 30
    tokens = TokenAutoencoder(TOKENS, net.layout, net.hidden_channels())
    tokens.load_state_dict({k: v for k, v in model.state_dict().items() if "_net." not in k})
    embeddings = model.encode(rows)
    torch.testing.assert_close(embeddings, tokens.encode(rows) @ model.to_net.weight.T)
    torch.testing.assert_close(model.decode(embeddings), tokens.decode(model.from_net(embeddings)))
    back = model.to_net(model.from_net(embeddings))  # it starts as a projection
    torch.testing.assert_close(back, embeddings, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("changes", [{"net_size": 30}, {"affine": True}])
def test_parameters_of_one_architecture_are_not_for_another(nets, changes):
    net, rows = nets
    model = token_model(net, rows, replace(TOKENS, **changes))
    with pytest.raises(InputError, match="one architecture"):
        model.for_layout(net.layout, net.hidden_channels())


def test_latents_of_tokens_are_refused_where_there_is_one_a_net(nets):
    net, rows = nets
    plain, whole = token_model(net, rows), token_model(net, rows, replace(TOKENS, net_size=30))
    assert torch.equal(plain.as_tokens(plain.encode(rows)).flatten(1), plain.encode(rows))
    with pytest.raises(InputError, match="--sizes.net-size 0"):
        whole.as_tokens(whole.encode(rows))


def test_a_negative_number_for_a_net_is_refused():
    with pytest.raises(InputError, match="net_size -1"):
        TokenAutoencoder(replace(TOKENS, net_size=-1), None, [])


@pytest.mark.parametrize("sizes", [replace(TOKENS, affine=True, net_size=30), replace(PREP, affine=False)])
def test_a_space_with_these_options_comes_back(nets, sizes, tmp_path):
    net, rows = nets
    is_prep = isinstance(sizes, Sizes)
    model = PrepAutoencoder(sizes) if is_prep else token_model(net, rows, sizes)
    about = {"architectures": ["lenetlike"], "image_shape": [1, 8, 8], "class_names": list("0123456789")}
    about |= {"dataset": "photos", "mean": [0.5], "std": [0.5]}
    space = Space(model, TargetNets([net]), about, {})
    space.save(tmp_path / "saved")
    again = Space.load(tmp_path / "saved")
    assert again.model.sizes == sizes and torch.equal(again.predict(rows), space.predict(rows))


def test_netspace_trains_without_a_head_from_the_command_line():
    config = train_single_arch.PRESETS["photos"]
    found = changed(config, dict(sizes=replace(config.sizes, affine=False), affine_start="paper"))
    assert not found.sizes.affine and found.start.affine_start == "paper"
