"""NetSpace's autoencoder of PReps (paper Fig. 1): encoder, decoder with an affine head, ClassId classifier.

The modules' names in the state dicts are those of the original release.
"""

import math
from dataclasses import asdict, dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError, brief
from models.instances import TargetNet
from models.layers import in_bfloat16
from models.linear_encoders import LinearEncoder, ProbeEncoder
from models.prep import check_prep_shape, pack
from models.relay import relay

EncoderName = Literal["convs", "linear", "probes"]
OF_ENCODER = ("encoder", "num_probes")  # sizes that the decoder does not have
# From this width on, rows of a PRep go through `features_by_windows` (benchmarks/speed.py).
WINDOWS_FROM_WIDTH = 512
# Of numbers that a GPU reads at once: what it multiplies is filled up to a multiple of it.
ALIGNED = 16
# So many rows are searched for their maxima at once: what fits the caches of a CPU, and what fills a GPU.
CPU_ROWS_AT_ONCE, GPU_ROWS_AT_ONCE = 4, 64


class Encoder(nn.Module):
    """Map PReps (M, 1, H, W) to embeddings (M, E): two convs along the width, its maximum, two along the height, its maximum.

    Raise InputError unless E is a multiple of 32.
    """

    def __init__(self, emb_size: int):
        super().__init__()
        if emb_size <= 0 or emb_size % 32:
            raise InputError(
                f"embedding size {emb_size}: must be a multiple of 32, because the encoder's first conv has emb_size/32 channels"
            )
        h = emb_size // 32
        self.conv1 = nn.Sequential(nn.Conv2d(1, h, (1, 3), (1, 2), (0, 1)), nn.LeakyReLU(inplace=True))
        self.conv2 = nn.Sequential(nn.Conv2d(h, 2 * h, (1, 3), (1, 2), (0, 1)), nn.LeakyReLU(inplace=True))
        self.conv3 = nn.Sequential(nn.Conv2d(2 * h, 4 * h, (3, 1), padding=(1, 0)), nn.LeakyReLU(inplace=True))
        self.conv4 = nn.Sequential(nn.Conv2d(4 * h, 32 * h, (3, 1), padding=(1, 0)), nn.LeakyReLU(inplace=True))

    @torch.no_grad()
    def start_at(self, prep_size: float) -> None:
        """Start without biases, and with weights for PReps of this root mean square, so that embeddings differ.

        Most weights of a SIREN are 100 times smaller than the biases of PyTorch's default start, and would not show.
        """
        for conv in (self.conv1[0], self.conv2[0], self.conv3[0], self.conv4[0]):
            conv.bias.zero_()
        self.conv1[0].weight.div_(prep_size)

    def forward(self, preps: Tensor) -> Tensor:
        by_windows = preps.shape[3] >= WINDOWS_FROM_WIDTH
        x = self.features_by_windows(preps) if by_windows else self.features_plainly(preps)  # (M, H, 2h)
        x = conv_along_height(conv_along_height(x, self.conv3), self.conv4)  # (M, H, E)
        return x.amax(dim=1)

    def features_plainly(self, preps: Tensor) -> Tensor:
        """Map (M, 1, H, W) to (M, H, 2h) as the paper draws it."""
        return self.conv2(self.conv1(preps)).amax(dim=3).transpose(1, 2)

    def features_by_windows(self, preps: Tensor) -> Tensor:
        """Map (M, 1, H, W) to (M, H, 2h) from the windows that the maxima depend on.

        Rows do not interact here, and the all-zero rows of the padding are alike: one is computed for all. Two exceptions:
        if the PReps need a gradient, every row has its own, and a GPU would wait until the number of rows is known.
        """
        m, _, height, width = preps.shape
        rows = preps.reshape(-1, width)
        if preps.requires_grad or preps.is_cuda or torch.compiler.is_compiling():
            features = self.features_of_rows(rows)
        else:
            filled = rows.any(1)
            distinct = torch.cat([rows.new_zeros(1, width), rows[filled]])
            features = self.features_of_rows(distinct)[filled.cumsum(0) * filled]  # index 0 is the row of zeros
        return features.view(m, height, -1)

    def features_of_rows(self, rows: Tensor) -> Tensor:
        """Map rows of PReps (R, W) to features (R, 2h).

        Only the position of the maximum receives a gradient, and it depends on 7 numbers of the row. So the maxima are found
        without gradient, and both convs are computed again for these windows alone: the same outputs and gradients, a much
        cheaper backward pass, and no stored activations (benchmarks/speed.py).
        """
        at_once = GPU_ROWS_AT_ONCE if rows.is_cuda else CPU_ROWS_AT_ONCE
        position = torch.cat([self.positions_of_maxima(part) for part in rows.split(at_once)])  # (R, 2h)
        # conv2 at position j sees conv1 at 2j-1, 2j, 2j+1, which see the row at 4j-3 ... 4j+3.
        windows = F.pad(rows, (3, 3)).unfold(1, 7, 4)  # (R, W/4, 7)
        windows = windows.gather(1, position[..., None].expand(-1, -1, 7))  # (R, 2h, 7)
        conv1, conv2 = self.conv1[0], self.conv2[0]
        taps = windows.unfold(2, 3, 2)  # (R, 2h, 3 positions of conv1, 3 taps)
        hidden = F.leaky_relu(taps @ conv1.weight[:, 0, 0].T + conv1.bias)  # (R, 2h, 3, h)
        # Left of the row conv2 sees its own zero padding, not conv1 of zeros.
        inside = torch.ones_like(hidden[..., :1])
        inside[:, :, 0, 0] = (position > 0).to(hidden.dtype)
        kernels = conv2.weight[:, :, 0].transpose(1, 2)  # (2h, 3, h)
        return F.leaky_relu(torch.einsum("bckh,ckh->bc", hidden * inside, kernels) + conv2.bias)

    @torch.no_grad()
    def positions_of_maxima(self, rows: Tensor) -> Tensor:
        """Return where along the width each channel of conv2 is largest, (R, W) to (R, 2h). LeakyReLU keeps the order."""
        images = rows[:, None, None]
        x = (
            self.first_conv_of_rows(rows)
            if rows.is_cuda
            else self.conv1(images.contiguous(memory_format=torch.channels_last))
        )
        return self.conv2[0](x).max(dim=3).indices.flatten(1)  # faster than argmax

    def first_conv_of_rows(self, rows: Tensor) -> Tensor:
        """Compute conv1 of rows (R, W) as a matrix product: (R, h, 1, W/2) in channels-last memory."""
        conv, activation = self.conv1
        x = activation(F.linear(*with_bias(F.pad(rows, (1, 1)).unfold(1, 3, 2), conv)))  # (R, W/2, h)
        return x[:, None].permute(0, 3, 1, 2)


def with_bias(windows: Tensor, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Return what a conv sees, (..., K), with a 1 after it, and its weights, (O, K), with its bias: their product is the conv.

    Zeros follow, so that a GPU reads aligned numbers.
    """
    unused = -(windows.shape[-1] + 1) % ALIGNED
    assert conv.bias is not None
    weight = torch.cat([conv.weight.flatten(1), conv.bias[:, None]], 1)
    return F.pad(F.pad(windows, (0, 1), value=1.0), (0, unused)), F.pad(weight, (0, unused))


def conv_along_height(x: Tensor, layer: nn.Sequential) -> Tensor:
    """Compute a conv with kernel (3, 1) and its activation on (M, H, C) as one matrix product: (M, H, O)."""
    padded = F.pad(x, (0, 0, 1, 1))
    windows = torch.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=3)  # (M, H, C, 3)
    return layer[1](F.linear(windows.flatten(2), layer[0].weight.flatten(1), layer[0].bias))


class ScaleLayer(nn.Module):
    """Compute y = x*scale + bias for every element of a PRep (paper Sec. III, "independent linear scaling")."""

    def __init__(self, prep_shape: tuple[int, int]):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(prep_shape) * 1e-3)
        self.bias = nn.Parameter(torch.rand(prep_shape) * 1e-2)

    @torch.no_grad()
    def start_at(self, prep: Tensor, scale_std: float) -> None:
        """Start at the PRep (H, W) of an instance instead of near zero: predicted instances work from the first step."""
        self.bias.copy_(prep)
        self.scale.normal_(std=scale_std)

    @torch.no_grad()
    def rescale(self, units: Tensor) -> None:
        """Multiply the scale of every number by its unit, (H, W)."""
        self.scale.mul_(units)

    def forward(self, preps: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Map PReps (M, 1, H, W), or those of their rows that `rows` says, (..., W)."""
        return preps * self.scale[rows] + self.bias[rows]


class Decoder(nn.Module):
    """Map embeddings (M, E) to PReps (M, 1, H, W). Each conv deepens its input, and a reshape unrolls the depth into space.

    `grid` is the side g of the square map that the embedding is viewed as; `row_length` L and `row_channels` C1 give the shape
    (C1, H, L) that the first conv's output is reshaped to. The paper's are (64, 2048, 128); a small PRep needs less. Without
    `affine` it ends in the last conv. Raise InputError for sizes that do not fit together.
    """

    def __init__(
        self,
        emb_size: int,
        prep_shape: tuple[int, int],
        grid: int = 64,
        row_length: int = 2048,
        row_channels: int = 128,
        affine: bool = True,
    ):
        super().__init__()
        (height, width), half = prep_shape, grid // 2
        deep = row_length // 4  # C2
        check_decoder_sizes(emb_size, prep_shape, grid, row_length, row_channels)
        self.grid, self.prep_shape = grid, prep_shape
        self.rows = (row_channels, height, row_length)
        self.half_rows = (deep, height // 2, width // 4)
        first = height * row_channels * row_length // half**2

        def conv(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
            return nn.Conv2d(in_channels, out_channels, 3, stride, 1)

        self.conv1 = nn.Sequential(conv(emb_size // grid**2, first, 2), nn.LeakyReLU(inplace=True))
        self.conv2 = nn.Sequential(conv(row_channels, width // 8, 2), nn.LeakyReLU(inplace=True))
        self.conv3 = nn.Sequential(conv(deep, deep // 2, 2), nn.LeakyReLU(inplace=True))
        self.conv4 = nn.Sequential(conv(deep // 2, 32, 1))
        self.scalelayer = ScaleLayer(prep_shape) if affine else None

    def forward(self, embeddings: Tensor) -> Tensor:
        m = len(embeddings)
        x = embeddings.reshape(m, -1, self.grid, self.grid)
        # In float32 on the CPU, channels-last makes the gradient of a strided conv's weight 4 times slower.
        fast = x.is_cuda or in_bfloat16(x)
        x = self.deepened_channels_last(x) if fast else self.deepened(x)  # (M, C2, H/2, W/4)
        x = self.conv4(self.conv3(x))  # (M, 32, H/4, W/8)
        preps = x.reshape(m, 1, *self.prep_shape)
        return preps if self.scalelayer is None else self.scalelayer(preps)

    def deepened(self, x: Tensor) -> Tensor:
        """Map embeddings as maps (M, E/g^2, g, g) through conv1 and conv2, and reshape them for conv3: (M, C2, H/2, W/4)."""
        conv, activation = self.conv1
        # conv1 has few input channels: as a matrix product it is twice as fast.
        weight = conv.weight.flatten(1).expand(len(x), -1, -1)
        x = activation(torch.baddbmm(conv.bias[:, None], weight, self.windows(x)))  # (M, H*C1*L/(g/2)^2, (g/2)^2)
        return self.conv2(x.reshape(-1, *self.rows)).reshape(-1, *self.half_rows)  # conv2 gives (M, W/8, H/2, L/2)

    def deepened_channels_last(self, x: Tensor) -> Tensor:
        """Compute the same in channels-last memory, in which a GPU's convs are fast and those in bfloat16, with few copies."""
        (c1, height, length), (c2, half_height, quarter) = self.rows, self.half_rows
        conv, pixels = self.conv2[0], (self.grid // 2) ** 2
        if height * length % pixels:  # a channel of conv1 is a part of two rows
            x = self.conv1(x).reshape(-1, *self.rows).contiguous(memory_format=torch.channels_last)
        else:
            x = self.first_conv_channels_last(x, height * length // pixels)  # (M, H*L, C1)
            x = x.view(-1, height, length, c1).permute(0, 3, 1, 2)
        unused = -len(conv.weight) % ALIGNED
        x = F.conv2d(x, F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, unused)), None, stride=2, padding=1)
        x = relay(x.permute(0, 2, 3, 1).flatten(1, 2), conv.bias, c2)  # (M, H/2 * W/4, C2)
        return x.view(-1, half_height, quarter, c2).permute(0, 3, 1, 2)

    def first_conv_channels_last(self, x: Tensor, parts: int) -> Tensor:
        """Compute conv1 as products whose results, in turn, are what the reshape makes of them: (M, H*L, C1).

        Channel c*parts + j of conv1 holds the j-th part of the H*L numbers of channel c of conv2's input.
        """
        conv, activation = self.conv1
        windows, weight = with_bias(self.windows(x).transpose(1, 2), conv)  # (M, (g/2)^2, K), (C1*parts, K)
        weight = weight.unflatten(0, (-1, parts)).permute(1, 2, 0)  # (parts, K, C1)
        return activation(windows[:, None] @ weight).flatten(1, 2)

    def windows(self, x: Tensor) -> Tensor:
        """Return what conv1 sees at each position, (M, 9*E/g^2, (g/2)^2)."""
        conv = self.conv1[0]
        return F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)


def check_decoder_sizes(
    emb_size: int, prep_shape: tuple[int, int], grid: int, row_length: int, row_channels: int
) -> None:
    """Raise InputError, with the numbers, unless every reshape of the decoder comes out even."""
    height, width = prep_shape
    half = grid // 2
    if height <= 0 or width <= 0 or height % 4 or width % 8:
        raise InputError(f"PRep {height}x{width}: the height must be a multiple of 4 and the width of 8")
    if grid < 2 or grid % 2 or emb_size % grid**2 or emb_size < grid**2:
        fits = 2 * (math.isqrt(max(emb_size, 0)) // 2)
        raise InputError(
            f"decoder grid {grid}: must be even and its square divide the embedding size {emb_size}; at most {fits}"
        )
    if row_length % 8 or row_length <= 0:
        raise InputError(f"decoder row_length {row_length}: must be a positive multiple of 8")
    if row_channels <= 0 or height * row_channels * row_length % half**2:
        raise InputError(
            f"decoder: conv1 must give H*C1*L = {height}*{row_channels}*{row_length} numbers on a {half}x{half} map, and "
            f"{height * row_channels * row_length:,} is not a positive multiple of {half**2}; change row_channels, row_length or grid"
        )


class ClassIdClassifier(nn.Module):
    """Map embeddings (M, E), viewed as E/g^2 maps of g x g, to ClassId logits (M, A) (supplement Sec. I).

    The original release keeps its parameters among the decoder's.
    """

    def __init__(self, emb_size: int, grid: int, num_class_ids: int):
        super().__init__()
        self.grid = grid
        self.arch_conv = nn.Sequential(nn.Conv2d(emb_size // grid**2, 10, 3, 2, 1))
        self.arch_classifier = nn.Linear(10 * (grid // 2) ** 2, num_class_ids)

    def forward(self, embeddings: Tensor) -> Tensor:
        x = embeddings.reshape(embeddings.shape[0], -1, self.grid, self.grid)
        x = F.leaky_relu_(self.arch_conv(x))  # (M, 10, g/2, g/2)
        return self.arch_classifier(x.flatten(1))


@dataclass(frozen=True)
class Sizes:
    """The numbers that determine every shape in NetSpace. The paper's are 4096, 64, 2048 and 128."""

    prep_shape: tuple[int, int]  # H W; H a multiple of 4, W of 8, and H*W at least the number of parameters
    emb_size: int = 4096  # E, numbers in an embedding, a multiple of 32
    grid: int = 64  # g: the decoder views an embedding as E/g^2 maps of g x g
    row_length: int = 2048  # L: the decoder's first conv gives (C1, H, L)
    row_channels: int = 128  # C1 of the same shape
    affine: bool = True  # the decoder ends in a scale and a bias for every number
    encoder: EncoderName = "convs"  # the paper's; one linear map of parameters, or of a SIREN's outputs at probes
    num_probes: int = 1024  # K, points at which the encoder of probes runs a SIREN


def encoder_of(sizes: Sizes, net: TargetNet | None) -> Encoder | LinearEncoder | ProbeEncoder:
    """Return the encoder of these sizes. Raise InputError if there is none of this name, or if it runs nets that are no SIRENs."""
    if sizes.encoder not in get_args(EncoderName):
        raise InputError(f"encoder {brief(sizes.encoder)}: choose {', '.join(get_args(EncoderName))}")
    if sizes.encoder == "convs":
        return Encoder(sizes.emb_size)
    if sizes.encoder == "linear":
        return LinearEncoder(sizes.emb_size, sizes.prep_shape[0] * sizes.prep_shape[1])
    if net is None or len(net.input_shape) != 1:
        raise InputError("encoder probes: it runs SIRENs at points, and these nets are none; choose convs or linear")
    return ProbeEncoder(sizes.emb_size, sizes.num_probes, net)


class PrepAutoencoder(nn.Module):
    """Map rows of target instances to rows of predicted instances, through PReps (M, 1, H, W) and embeddings (M, E).

    Rows (M, P) may be narrower than H*W; predicted rows are (M, H*W), and a net reads the first P numbers. With
    `num_class_ids` (A), `classifier` maps embeddings (M, E) to ClassId logits (M, A). The encoder of probes needs the SIRENs'
    `net`. Raise InputError for sizes that do not fit together.
    """

    def __init__(self, sizes: Sizes, num_class_ids: int | None = None, net: TargetNet | None = None):
        super().__init__()
        self.sizes = sizes
        self.encoder = encoder_of(sizes, net)
        self.decoder = Decoder(**{name: value for name, value in asdict(sizes).items() if name not in OF_ENCODER})
        self.classifier = None
        if num_class_ids is not None:
            self.classifier = ClassIdClassifier(sizes.emb_size, sizes.grid, num_class_ids)

    @property
    def prep_shape(self) -> tuple[int, int]:
        """H, W."""
        return self.sizes.prep_shape

    @property
    def width(self) -> int:
        """H*W, the length of predicted rows."""
        return self.prep_shape[0] * self.prep_shape[1]

    @property
    def emb_size(self) -> int:
        """E, the numbers in an embedding."""
        return self.sizes.emb_size

    def check_nets(self, num_parameters: dict[str, int]) -> None:
        """Raise InputError if a PRep is too small for one of these nets, P by name."""
        check_prep_shape(self.prep_shape, num_parameters)

    def encode(self, rows: Tensor) -> Tensor:
        """Map rows (M, P) to embeddings (M, E)."""
        return self.encoder(pack(rows, self.prep_shape))

    def decode(self, embeddings: Tensor) -> Tensor:
        """Map embeddings (M, E) to rows (M, H*W) of predicted instances."""
        return self.decoder(embeddings).flatten(1)

    def forward(self, rows: Tensor) -> Tensor:
        return self.decode(self.encode(rows))
