"""SANE's autoencoder (SANE Sec. 2): tokens of an instance to latents and back, by two transformers, window by window.

A window is W consecutive tokens. Longer sequences are encoded and decoded in chunks, each with neighbours on both sides (a
halo) that are computed and thrown away, so that memory does not grow with the sequence.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args, get_type_hints

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError, brief
from models.prep_autoencoder import ScaleLayer
from models.rebasin import align
from models.rows import Channels, Layout
from models.tokens import Tokens, Units

WINDOWS_AT_ONCE = 128  # in haloed encoding and decoding, of 64 tokens; fewer if windows are longer


@dataclass(frozen=True)
class TokenSizes:
    """The numbers that determine every shape in SANE."""

    token_size: int = 73  # D, numbers in a token
    latent_size: int = 32  # z, numbers in a token's latent
    width: int = 128  # d, of the transformers
    layers: int = 2  # of the encoder, and of the decoder
    heads: int = 4  # of attention
    window: int = 48  # W, tokens that are seen together
    halo: int = 8  # tokens on either side of a chunk that only give context
    positions: tuple[int, int, int] = (128, 16, 32)  # table sizes: places in the sequence, layers, channels
    projected: int = 30  # numbers of a window that are contrasted
    alignment: Literal["matching", "none"] = "matching"  # of the order of hidden channels to a reference
    units: Units = "deviation"  # of a layer's numbers: mean and deviation, range to [-1, 1], or root mean square
    affine: bool = False  # the decoder ends in a scale and a bias for every number, as NetSpace's
    net_size: int = 0  # numbers in one latent of the whole net; 0: one latent a token

    @property
    def content(self) -> int:
        """c = W - 2h, the tokens of a chunk that are kept."""
        return self.window - 2 * self.halo


def check_token_sizes(sizes: TokenSizes) -> None:
    """Raise InputError, with the numbers, for sizes that do not fit together."""
    if sizes.width % 2 or sizes.width % sizes.heads:
        raise InputError(f"width {sizes.width}: must be even and a multiple of the {sizes.heads} heads")
    if sizes.halo < 0 or sizes.content < 1:
        raise InputError(f"window {sizes.window}, halo {sizes.halo}: a window must be longer than twice the halo")
    for name in ("alignment", "units"):
        choices = get_args(get_type_hints(TokenSizes)[name])
        if getattr(sizes, name) not in choices:
            raise InputError(f"{name} {brief(getattr(sizes, name))}: choose {', '.join(choices)}")
    if min(sizes.token_size, sizes.latent_size, sizes.layers, sizes.projected, *sizes.positions) < 1:
        raise InputError(f"{sizes}: every number must be at least 1")
    if sizes.net_size < 0:
        raise InputError(f"net_size {sizes.net_size}: a number from 1, or 0 for one latent a token")


class Positions(nn.Module):
    """Embed positions (..., 3), place in the sequence n, layer l, channel k, as (E1[n] + E2[l], E3[k]), (..., d)."""

    def __init__(self, sizes: TokenSizes):
        super().__init__()
        places, layers, channels = sizes.positions
        half = sizes.width // 2
        self.place, self.layer = nn.Embedding(places, half), nn.Embedding(layers, half)
        self.channel = nn.Embedding(channels, half)

    def forward(self, positions: Tensor) -> Tensor:
        place, layer, channel = positions.unbind(-1)
        return torch.cat([self.place(place) + self.layer(layer), self.channel(channel)], dim=-1)


class TokenTransformer(nn.Module):
    """Map windows of tokens to latents and back. Blocks are pre-LN, with GELU of 4d and no biases; no attention mask.

    `encode`: (B, W, D) to (B, W, z); `decode`: (B, W, z) to (B, W, D), both with positions (W, 3) or (B, W, 3); `project`:
    latents (B, W, z) to (B, projected). Raise InputError for sizes that do not fit together.
    """

    def __init__(self, sizes: TokenSizes):
        super().__init__()
        check_token_sizes(sizes)
        self.sizes = sizes
        d, z = sizes.width, sizes.latent_size

        def blocks() -> nn.TransformerEncoder:
            block = nn.TransformerEncoderLayer(
                d, sizes.heads, 4 * d, 0.0, F.gelu, batch_first=True, norm_first=True, bias=False
            )
            return nn.TransformerEncoder(block, sizes.layers, enable_nested_tensor=False)

        self.positions = Positions(sizes)
        self.encoder_in, self.encoder, self.encoder_out = nn.Linear(sizes.token_size, d), blocks(), nn.Linear(d, z)
        self.decoder_in, self.decoder, self.decoder_out = nn.Linear(z, d), blocks(), nn.Linear(d, sizes.token_size)
        self.projection = nn.Sequential(
            nn.Linear(sizes.window * z, sizes.projected, bias=False),
            nn.LayerNorm(sizes.projected),
            nn.ReLU(),
            nn.Linear(sizes.projected, sizes.projected, bias=False),
            nn.LayerNorm(sizes.projected),
            nn.ReLU(),
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Start weights at N(0, 0.02), those that end a residual branch at N(0, 0.02 / sqrt(2L)), biases at 0."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.weight.normal_(std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()
            if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
                module.in_proj_weight.normal_(std=0.02)
        for block in (*self.encoder.layers, *self.decoder.layers):
            for last in (block.self_attn.out_proj, block.linear2):
                last.weight.normal_(std=0.02 / math.sqrt(2 * self.sizes.layers))

    def start_large(self) -> None:
        """Start linear maps and positions as PyTorch does, N(0, 1) for positions: decoded tokens differ from the first step."""
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                module.reset_parameters()

    @torch.no_grad()
    def start_at(self, tokens: Tensor) -> None:
        """Start the linear maps at the principal components of tokens (N, T, D): latents are coordinates, decoding undoes it.

        Blocks start near the identity, so the whole begins as a linear autoencoder of single tokens instead of near zero.
        """
        d, z = self.sizes.width, self.sizes.latent_size
        flat = tokens.flatten(0, 1)
        components = torch.linalg.eigh(flat.T @ flat / len(flat))[1].flip(1).T  # (D, D), the largest first
        components = components[: min(d, len(components))]
        into, out_of = (nn.init.orthogonal_(torch.empty(d, each)) for each in (len(components), z))
        number = min(z, len(components))
        self.encoder_in.weight.copy_(into @ components)
        self.encoder_out.weight.zero_()[:number].copy_(into.T[:number])
        self.decoder_in.weight.copy_(out_of)
        self.decoder_out.weight.copy_(components[:number].T @ out_of.T[:number])

    def encode(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Map windows (B, W, D) to latents (B, W, z)."""
        return self.encoder_out(self.encoder(self.encoder_in(tokens) + self.positions(positions)))

    def decode(self, latents: Tensor, positions: Tensor) -> Tensor:
        """Map latents (B, W, z) to windows (B, W, D)."""
        return self.decoder_out(self.decoder(self.decoder_in(latents) + self.positions(positions)))

    def project(self, latents: Tensor) -> Tensor:
        """Map the latents of windows (B, W, z) to (B, projected). Shorter windows are padded with zeros."""
        missing = self.sizes.window - latents.shape[1]
        return self.projection(F.pad(latents, (0, 0, 0, missing)).flatten(1))

    def encode_all(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Map whole sequences (N, T, D), with positions (T, 3), to latents (N, T, z), chunk by chunk."""
        found = tokens.new_empty(*tokens.shape[:2], self.sizes.latent_size)
        for first, part in self.by_chunks(self.encode, lambda a, b: tokens[:, a:b], positions):
            found[:, first : first + part.shape[1]] = part
        return found

    def decode_all(self, latents: Tensor, positions: Tensor) -> Tensor:
        """Map whole sequences (N, T, z), with positions (T, 3), to tokens (N, T, D), chunk by chunk."""
        found = latents.new_empty(*latents.shape[:2], self.sizes.token_size)
        for first, part in self.by_chunks(self.decode, lambda a, b: latents[:, a:b], positions):
            found[:, first : first + part.shape[1]] = part
        return found

    def by_chunks(
        self, run: Callable[[Tensor, Tensor], Tensor], read: Callable[[int, int], Tensor], positions: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Run every chunk with its halo, and keep its content: yield where it begins, and outputs (N, K, .) from there on.

        `read` returns a part of the sequences, (N, b-a, .) from a to b; of long ones, no more than some windows are there at
        once.
        """
        total = len(positions)
        starts, first, last = chunks(total, self.sizes.content, self.sizes.halo)
        window = min(self.sizes.window, total)
        at_once = max(1, WINDOWS_AT_ONCE * 64 // window)  # chunks
        for some in range(0, len(starts), at_once):
            chosen = range(some, min(some + at_once, len(starts)))
            begins = [starts[i] for i in chosen]
            part = read(begins[0], begins[-1] + window)
            index = (torch.tensor(begins)[:, None] + torch.arange(window)).to(part.device)  # (chunks, W)
            windows = part[:, index - begins[0]].flatten(0, 1)  # (N*chunks, W, .)
            at = positions[index].expand(len(part), -1, -1, -1).flatten(0, 1)
            outputs = run(windows, at).unflatten(0, (len(part), len(begins)))
            contents = [outputs[:, j, first[i] - starts[i] : last[i] - starts[i]] for j, i in enumerate(chosen)]
            yield first[some], torch.cat(contents, 1)


def chunks(total: int, content: int, halo: int) -> tuple[list[int], list[int], list[int]]:
    """Return, for each chunk of a sequence, where its window starts, and where its content starts and ends.

    Chunk i has the content [i*c, (i+1)*c) and the window [i*c - h, (i+1)*c + h). At the ends of the sequence the window is
    shifted inwards; a sequence shorter than a window is one window.
    """
    window = content + 2 * halo
    if total <= window:
        return [0], [0], [total]
    first = list(range(0, total, content))
    last = [min(each + content, total) for each in first]
    starts = [min(max(each - halo, 0), total - window) for each in first]
    return starts, first, last


class TokenAutoencoder(nn.Module):
    """Map rows of target instances to rows of predicted instances, through tokens, and latents as embeddings (M, T*z).

    Rows (M, P) are aligned to `reference` (P,), cut into tokens, and standardized layer by layer with `statistics` (2, L), both
    of which are buffers and are fitted on training instances alone (`fit`). With `sizes.net_size` (E), a linear map takes the
    latents of all tokens to one embedding (M, E), and another back. Raise InputError if the tables of positions are too small
    for the layout.
    """

    classifier = None

    def __init__(
        self, sizes: TokenSizes, layout: Layout, hidden: list[Channels], transformer: TokenTransformer | None = None
    ):
        super().__init__()
        self.sizes, self.layout = sizes, layout
        self.hidden = hidden  # which channels have no order of their own
        self.transformer = TokenTransformer(sizes) if transformer is None else transformer
        self.tokens = Tokens(layout, sizes.token_size)
        check_positions(self.tokens, sizes)
        self.reference: Tensor
        self.statistics: Tensor
        self.positions: Tensor
        self.mask: Tensor
        self.register_buffer("reference", torch.zeros(layout.num_parameters))
        statistics = torch.stack([torch.zeros(len(self.tokens.layers)), torch.ones(len(self.tokens.layers))])
        self.register_buffer("statistics", statistics)
        for name in ("positions", "mask"):
            self.register_buffer(name, getattr(self.tokens, name), persistent=False)
        self.affine = ScaleLayer((self.num_tokens, sizes.token_size)) if sizes.affine else None
        self.to_net: nn.Linear | None = None
        self.from_net: nn.Linear | None = None
        if sizes.net_size:
            self.to_net, self.from_net = self._maps(sizes)

    def _maps(self, sizes: TokenSizes) -> tuple[nn.Linear, nn.Linear]:
        """Return the maps from the latents of all tokens to one embedding and back: at the start a projection."""
        numbers = self.num_tokens * sizes.latent_size
        to_net, from_net = (
            nn.Linear(numbers, sizes.net_size, bias=False),
            nn.Linear(sizes.net_size, numbers, bias=False),
        )
        with torch.no_grad():
            nn.init.orthogonal_(to_net.weight)
            from_net.weight.copy_(to_net.weight.T)
        return to_net, from_net

    @property
    def num_tokens(self) -> int:
        """T."""
        return self.tokens.num_tokens

    @property
    def emb_size(self) -> int:
        """T*z, the numbers in an embedding, or E."""
        return self.sizes.net_size or self.num_tokens * self.sizes.latent_size

    @property
    def width(self) -> int:
        """P, the length of predicted rows."""
        return self.layout.num_parameters

    def for_layout(self, layout: Layout, hidden: list[Channels]) -> "TokenAutoencoder":
        """Return an autoencoder of another architecture with this one's transformer, which they share. `fit` it.

        Raise InputError if this one has parameters of its own architecture: an affine head, or one latent a net.
        """
        if self.affine is not None or self.sizes.net_size:
            raise InputError(
                "a SANE with an affine head or one latent a net is for one architecture; train one without"
            )
        other = TokenAutoencoder(self.sizes, layout, hidden, self.transformer)
        return other.to(self.reference.device).train(self.training)

    @torch.no_grad()
    def fit(self, rows: Tensor, reference: Tensor) -> Tensor:
        """Set reference (P,) and statistics from training rows (N, P). Return the rows aligned."""
        self.reference.copy_(reference)
        aligned = self.aligned(rows)
        self.statistics.copy_(self.tokens.statistics(aligned, self.sizes.units))
        return aligned

    def aligned(self, rows: Tensor) -> Tensor:
        """Return rows (M, P) with their hidden channels in the order nearest to the reference."""
        rows = rows[:, : self.width]
        if not self.hidden or self.sizes.alignment == "none":
            return rows
        return rows.gather(1, align(self.layout, self.hidden, rows, self.reference).to(rows.device))

    def standardized(self, rows: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Return rows (M, P), aligned already, as standardized tokens start ... stop-1 (M, ., D), zero on the padding."""
        mean, std = self._units(start, stop)
        return self.tokens.pack(rows, start, stop).sub_(mean).div_(std).mul_(self.mask[start:stop])

    def restored(self, tokens: Tensor) -> Tensor:
        """Return standardized tokens (M, T, D) as rows (M, P)."""
        mean, std = self._units(0, None)
        return self.tokens.unpack(tokens * std + mean)

    def _units(self, start: int, stop: int | None) -> Tensor:
        """Return mean and standard deviation of the layer of each token start ... stop-1, (2, ., 1)."""
        return self.statistics[:, self.positions[start:stop, 1], None]

    def finished(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Return decoded tokens (..., D) at their places in the sequence (...), after the affine head if there is one."""
        return tokens if self.affine is None else self.affine(tokens, places)

    def as_tokens(self, embeddings: Tensor) -> Tensor:
        """Return embeddings (M, T*z) as the latents of tokens (M, T, z). Raise InputError if there is one latent a net."""
        if self.sizes.net_size:
            raise InputError("this SANE has one latent a net, none of tokens; train one with --sizes.net-size 0")
        return embeddings.view(len(embeddings), self.num_tokens, -1)

    def encode(self, rows: Tensor) -> Tensor:
        """Map rows (M, P), in any order of their channels, to embeddings (M, T*z) or (M, E)."""
        return self.encode_aligned(self.aligned(rows))

    def encode_aligned(self, rows: Tensor) -> Tensor:
        """Map rows (M, P), aligned already, to embeddings (M, T*z) or (M, E)."""
        found = rows.new_empty(len(rows), self.num_tokens, self.sizes.latent_size)
        read = partial(self.standardized, rows)
        for first, part in self.transformer.by_chunks(self.transformer.encode, read, self.positions):
            found[:, first : first + part.shape[1]] = part
        return found.flatten(1) if self.to_net is None else self.to_net(found.flatten(1))

    def decode(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (M, T*z) or (M, E) to rows (M, P) of predicted instances, aligned to the reference."""
        latents = embeddings if self.from_net is None else self.from_net(embeddings)
        latents = latents.view(len(embeddings), self.num_tokens, -1)
        rows = embeddings.new_empty(len(embeddings), self.width)
        decode, read = self.transformer.decode, lambda a, b: latents[:, a:b]
        for first, part in self.transformer.by_chunks(decode, read, self.positions):
            stop = first + part.shape[1]
            mean, std = self._units(first, stop)
            part = self.finished(part, self.positions[first:stop, 0])
            rows = self.tokens.put(part * std + mean, first, rows)
        return rows

    def check_nets(self, num_parameters: dict[str, int]) -> None:
        """Raise InputError unless these nets, P by name, are the one architecture whose tokens these are."""
        if list(num_parameters.values()) != [self.width]:
            raise InputError(f"this SANE is for nets of {self.width} parameters, not for {num_parameters}")

    def forward(self, rows: Tensor) -> Tensor:
        return self.decode(self.encode(rows))


def check_positions(tokens: Tokens, sizes: TokenSizes) -> None:
    """Raise InputError if the tables of positions are smaller than a layout's tokens need."""
    for name, number, size in zip(("places", "layers", "channels"), tokens.positions.amax(0).tolist(), sizes.positions):
        if number >= size:
            raise InputError(
                f"positions: these nets have {number + 1} {name}, the table has {size}; make it larger (--sizes.positions)"
            )
