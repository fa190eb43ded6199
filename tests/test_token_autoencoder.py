"""SANE's autoencoder: the published sizes, haloed coding of sequences of any length, standardization, losses, views."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.errors import InputError
from models.instances import TargetNet
from models.target_nets import get_architecture
from models.token_autoencoder import TokenAutoencoder, TokenSizes, TokenTransformer, chunks
from training.constants import TokenViews
from training.losses import contrastive_losses, logit_losses, reconstruction_losses
from training.views import draw_windows, random_orders

SMALL = TokenSizes(7, 4, 8, 2, 2, 6, 1, (200, 20, 20))
PUBLISHED = {
    TokenSizes(289, 128, 1024, 8, 8, 64, 8, (100, 10, 40)): 202_539_421,
    TokenSizes(288, 128, 2048, 8, 16, 256, 8, (55_000, 100, 550)): 865_050_012,
}


@pytest.mark.parametrize("sizes", PUBLISHED, ids=["CNN", "ResNet18"])
def test_the_published_models_have_their_number_of_parameters(sizes):
    with torch.device("meta"):
        model = TokenTransformer(sizes)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[sizes]


@pytest.mark.parametrize(
    "changed", [{"width": 7}, {"heads": 3}, {"window": 2}, {"halo": -1}, {"latent_size": 0}, {"positions": (9, 0, 9)}]
)
def test_sizes_that_do_not_fit_are_refused(changed):
    sizes = {**SMALL.__dict__, **changed}
    with pytest.raises(InputError):
        TokenTransformer(TokenSizes(**sizes))


def plain_blocks(blocks, x, heads):
    """Compute pre-LN transformer blocks in the words of the paper."""
    for block in blocks.layers:
        y = F.layer_norm(x, x.shape[-1:], block.norm1.weight)
        query, key, value = (y @ block.self_attn.in_proj_weight.T).chunk(3, -1)
        split = [each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value)]
        weights = (split[0] @ split[1].transpose(2, 3) / math.sqrt(split[0].shape[-1])).softmax(-1)
        x = x + (weights @ split[2]).transpose(1, 2).flatten(2) @ block.self_attn.out_proj.weight.T
        y = F.layer_norm(x, x.shape[-1:], block.norm2.weight)
        x = x + F.gelu(y @ block.linear1.weight.T) @ block.linear2.weight.T
    return x


def test_windows_are_coded_as_the_paper_says():
    model = TokenTransformer(SMALL).double()
    tokens, positions = torch.randn(3, 6, 7, dtype=torch.float64), torch.randint(0, 9, (6, 3))
    n, layer, channel = positions.unbind(-1)
    tables = model.positions
    place = torch.cat([tables.place.weight[n] + tables.layer.weight[layer], tables.channel.weight[channel]], -1)
    hidden = plain_blocks(model.encoder, F.linear(tokens, model.encoder_in.weight, model.encoder_in.bias) + place, 2)
    latents = F.linear(hidden, model.encoder_out.weight, model.encoder_out.bias)
    torch.testing.assert_close(model.encode(tokens, positions), latents)
    hidden = plain_blocks(model.decoder, F.linear(latents, model.decoder_in.weight, model.decoder_in.bias) + place, 2)
    expected = F.linear(hidden, model.decoder_out.weight, model.decoder_out.bias)
    torch.testing.assert_close(model.decode(latents, positions), expected)


# Chunks


@pytest.mark.parametrize("content", [1, 3, 4])
@pytest.mark.parametrize("halo", [0, 1, 2])
def test_chunks_cover_every_token_once_and_windows_stay_inside(content, halo):
    for total in range(1, 40):
        starts, first, last = chunks(total, content, halo)
        window = min(content + 2 * halo, total)
        covered = [i for a, b in zip(first, last) for i in range(a, b)]
        assert covered == list(range(total))
        for start, a, b in zip(starts, first, last):
            assert 0 <= start <= a < b <= start + window <= total
            # A full halo on either side, but at the ends of the sequence.
            assert a - start >= min(halo, a) and start + window - b >= min(halo, total - b)


@pytest.mark.parametrize("total", [1, 3, 5, 6, 7, 11, 40])
def test_long_sequences_are_coded_chunk_by_chunk(total):
    """Also where T is shorter than a window, and where the last chunk is shorter than the halo."""
    model = TokenTransformer(SMALL).double().eval()
    tokens, positions = torch.randn(2, total, 7, dtype=torch.float64), torch.randint(0, 9, (total, 3))
    starts, first, last = chunks(total, SMALL.content, SMALL.halo)
    expected = torch.zeros(2, total, 4, dtype=torch.float64)
    for start, a, b in zip(starts, first, last):
        window = slice(start, start + min(SMALL.window, total))
        expected[:, a:b] = model.encode(tokens[:, window], positions[window])[:, a - start : b - start]
    torch.testing.assert_close(model.encode_all(tokens, positions), expected)


def test_one_window_is_coded_as_a_whole():
    model = TokenTransformer(SMALL).double()
    tokens, positions = torch.randn(2, 6, 7, dtype=torch.float64), torch.randint(0, 9, (6, 3))
    torch.testing.assert_close(model.encode_all(tokens, positions), model.encode(tokens, positions))
    latents = model.encode(tokens, positions)
    torch.testing.assert_close(model.decode_all(latents, positions), model.decode(latents, positions))


def test_the_start_at_components_is_their_projection():
    """Of single tokens, if blocks and positions do nothing: what lies in the first z components comes back."""
    model = TokenTransformer(SMALL)
    with torch.no_grad():
        for parameter in (*model.encoder.parameters(), *model.decoder.parameters(), *model.positions.parameters()):
            parameter.zero_()
    tokens = torch.randn(50, 6, 7) * torch.tensor([9.0, 8, 7, 6, 0.3, 0.2, 0.1])
    model.start_at(tokens)
    positions = torch.zeros(6, 3, dtype=torch.long)
    predicted = model.decode(model.encode(tokens, positions), positions)
    assert ((predicted - tokens).square().sum() / tokens.square().sum()).item() < 2e-3
    flat = tokens.flatten(0, 1).double()
    directions = np.linalg.eigh((flat.T @ flat).numpy())[1][:, -4:]
    expected = flat @ torch.from_numpy(directions @ directions.T)
    torch.testing.assert_close(predicted.flatten(0, 1).double(), expected, rtol=1e-4, atol=1e-4)


# Rows


def autoencoder(sizes=SMALL):
    net = TargetNet(get_architecture("lenetlike"), (1, 8, 8), 10)
    model = TokenAutoencoder(sizes, net.layout, net.hidden_channels())
    rows = net.fuse(net.start(range(4))) + 0.1 * torch.randn(4, net.num_parameters)
    return net, model, rows


def test_standardized_tokens_have_mean_0_and_deviation_1_in_every_layer_and_come_back():
    _, model, rows = autoencoder()
    aligned = model.fit(rows, rows[0])
    tokens = model.standardized(aligned)
    for layer in range(len(model.tokens.layers)):
        chosen = model.positions[:, 1] == layer
        values = tokens[:, chosen][:, model.mask[chosen]]
        assert abs(values.mean().item()) < 1e-5 and values.std().item() == pytest.approx(1, abs=1e-4)
    assert not tokens[:, ~model.mask].any()
    torch.testing.assert_close(model.restored(tokens), aligned)


def test_embeddings_do_not_depend_on_the_order_of_channels():
    net, model, rows = autoencoder()
    model.fit(rows, rows[0])
    index = random_orders(model.layout, model.hidden, 4, torch.Generator().manual_seed(0))
    assert not torch.equal(rows.gather(1, index), rows)
    torch.testing.assert_close(model.encode(rows.gather(1, index)), model.encode(rows), rtol=0, atol=0)
    assert model.encode(rows).shape == (4, model.emb_size)
    assert model.decode(model.encode(rows)).shape == rows.shape


@pytest.mark.parametrize("units", ["deviation", "range", "root-mean-square"])
def test_rows_come_back_from_any_units_and_without_alignment_channels_keep_their_order(units):
    _, model, rows = autoencoder(replace(SMALL, alignment="none", units=units))
    assert torch.equal(model.fit(rows, rows[0]), rows)
    torch.testing.assert_close(model.restored(model.standardized(rows)), rows, rtol=1e-4, atol=1e-5)
    index = random_orders(model.layout, model.hidden, 4, torch.Generator().manual_seed(0))
    assert not torch.allclose(model.encode(rows.gather(1, index)), model.encode(rows))


@pytest.mark.parametrize("changed", [{"alignment": "sorted"}, {"units": "nats"}, {"units": ["range"]}])
def test_unknown_words_are_refused(changed):
    with pytest.raises(InputError, match=next(iter(changed))):
        autoencoder(replace(SMALL, **changed))


def test_tables_that_are_too_small_are_refused_with_what_is_needed():
    net = TargetNet(get_architecture("lenetlike"), (1, 8, 8), 10)
    with pytest.raises(InputError, match="table has 3"):
        TokenAutoencoder(TokenSizes(7, 4, 8, 2, 2, 6, 1, (3, 20, 20)), net.layout, net.hidden_channels())


# Losses


def test_reconstruction_counts_parameters_alone():
    predicted, target = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.rand(2, 3, 4) > 0.3
    by_hand = [
        np.mean([(predicted[i][j] - target[i][j]).item() ** 2 for j in zip(*np.nonzero(mask[i].numpy()))])
        for i in (0, 1)
    ]
    np.testing.assert_allclose(reconstruction_losses(predicted, target, mask), by_hand, rtol=1e-5)
    grid = reconstruction_losses(predicted, target, mask, "grid")
    np.testing.assert_allclose(grid, np.array(by_hand) * mask.sum((1, 2)).numpy() / 12, rtol=1e-5)


def test_contrast_is_nt_xent():
    projected = torch.randn(6, 5, dtype=torch.float64)
    unit = (projected / projected.norm(dim=1, keepdim=True)).numpy()
    expected = []
    for i in range(6):
        others = [np.exp(unit[i] @ unit[j] / 0.1) for j in range(6) if j != i]
        expected.append(-np.log(np.exp(unit[i] @ unit[(i + 3) % 6] / 0.1) / sum(others)))
    np.testing.assert_allclose(contrastive_losses(projected), expected)


def test_behaviour_is_the_mean_squared_difference_of_logits():
    predicted, target = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    np.testing.assert_allclose(
        logit_losses(predicted, target), ((predicted - target) ** 2).flatten(1).mean(1), rtol=1e-6
    )


# Views


def test_views_are_windows_of_the_nets_and_of_their_reordered_copies():
    net, model, rows = autoencoder()
    aligned = model.fit(rows, rows[0])
    seen = draw_windows(model, aligned, TokenViews("one-permuted", token_noise=0.0), 3, 5)
    tokens = model.standardized(aligned)
    for i in range(4):
        places = seen.positions[i, :, 0]
        assert places.tolist() == list(range(places[0], places[0] + SMALL.window))
        torch.testing.assert_close(seen.target[i], tokens[i, places])
        assert torch.equal(seen.positions[i], seen.positions[4 + i])
        assert torch.equal(seen.mask[i], model.mask[places])
    assert torch.equal(seen.shown, seen.target)
    assert not torch.equal(seen.target[4:], seen.target[:4])
    both = draw_windows(model, aligned, TokenViews("canonical", token_noise=0.0), 3, 5)
    assert torch.equal(both.target[4:], both.target[:4]) and torch.equal(both.target[:4], seen.target[:4])


def test_views_depend_on_seed_and_step_alone():
    _, model, rows = autoencoder()
    aligned = model.fit(rows, rows[0])
    torch.manual_seed(1)
    one = draw_windows(model, aligned, TokenViews(), 0, 7)
    torch.manual_seed(2)
    again, other = draw_windows(model, aligned, TokenViews(), 0, 7), draw_windows(model, aligned, TokenViews(), 0, 8)
    assert torch.equal(one.shown, again.shown) and not torch.equal(one.shown, other.shown)


def test_noise_is_relative_and_not_part_of_the_target():
    _, model, rows = autoencoder()
    aligned = model.fit(rows, rows[0])
    seen = draw_windows(model, aligned, TokenViews(token_noise=0.1), 0, 0)
    clean = draw_windows(model, aligned, TokenViews(token_noise=0.0), 0, 0)
    assert torch.equal(seen.target, clean.target)
    relative = ((seen.shown - seen.target) / seen.target)[seen.target.abs() > 1e-3]
    assert relative.std().item() == pytest.approx(0.1, rel=0.1)
    noised = draw_windows(model, aligned, TokenViews(token_noise=0.1, target="noised"), 0, 0)
    assert torch.equal(noised.target, noised.shown)


def test_random_orders_keep_the_function():
    net, model, rows = autoencoder()
    index = random_orders(model.layout, model.hidden, 4, torch.Generator().manual_seed(0))
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64)
    before, after = net.run(rows.double(), x), net.run(rows.gather(1, index).double(), x)
    torch.testing.assert_close(after, before)
    assert len({tuple(each.tolist()) for each in index}) == 4
