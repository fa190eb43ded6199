"""NetSpace's decoder: an embedding to a PRep (paper Fig. 1), with an affine map of its own for every element."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError


class ScaleLayer(nn.Module):
    """y = x*scale + bias for every element of a PRep (paper Sec. III, "independent linear scaling")."""

    def __init__(self, prep_shape: tuple[int, int]):
        super().__init__()
        self.scale = nn.Parameter(torch.randn(prep_shape) * 1e-3)
        self.bias = nn.Parameter(torch.rand(prep_shape) * 1e-2)

    @torch.no_grad()
    def start_at(self, prep: Tensor, scale_std: float) -> None:
        """Starts at an instance, its PRep (H, W), instead of near zero: predicted instances work from the first step."""
        self.bias.copy_(prep)
        self.scale.normal_(std=scale_std)

    def forward(self, preps: Tensor) -> Tensor:
        return preps * self.scale + self.bias


class Decoder(nn.Module):
    """Embeddings (M, E) to PReps (M, 1, H, W). Each conv deepens its input and a reshape unrolls the depth into space.

    `grid` is the side g of the square map that the embedding is viewed as, `row_length` L and `row_channels` C1 the shape
    (C1, H, L) that the first conv's output is reshaped to. (64, 2048, 128) are the paper's, a small PRep wants less.
    State dict keys are those of the original release. Raises InputError for sizes that do not fit together.
    """

    def __init__(
        self,
        emb_size: int,
        prep_shape: tuple[int, int],
        grid: int = 64,
        row_length: int = 2048,
        row_channels: int = 128,
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
        self.scalelayer = ScaleLayer(prep_shape)

    def forward(self, embeddings: Tensor) -> Tensor:
        m = embeddings.shape[0]

        def on(x: Tensor, *shape: int) -> Tensor:
            # On the CPU, channels-last makes the gradient of a strided conv's weight 4 times slower.
            order = torch.channels_last if x.is_cuda else torch.contiguous_format
            return x.reshape(m, *shape).contiguous(memory_format=order)

        x = self.first_conv(embeddings.reshape(m, -1, self.grid, self.grid))  # (M, H*C1*L/(g/2)^2, (g/2)^2)
        x = self.conv2(on(x, *self.rows))  # (M, W/8, H/2, L/2)
        x = self.conv3(on(x, *self.half_rows))  # (M, C2/2, H/4, W/8)
        x = self.conv4(x)  # (M, 32, H/4, W/8)
        return self.scalelayer(x.reshape(m, 1, *self.prep_shape))

    def first_conv(self, x: Tensor) -> Tensor:
        """conv1 as a matrix product, for it has few input channels: twice as fast on the CPU at the paper's sizes."""
        conv, activation = self.conv1
        windows = F.unfold(x, conv.kernel_size, padding=conv.padding, stride=conv.stride)  # (M, 9*E/g^2, (g/2)^2)
        weight = conv.weight.flatten(1).expand(len(x), -1, -1)
        return activation(torch.baddbmm(conv.bias[:, None], weight, windows))


def check_decoder_sizes(
    emb_size: int, prep_shape: tuple[int, int], grid: int, row_length: int, row_channels: int
) -> None:
    """Raises InputError, with the numbers, unless every reshape of the decoder comes out even."""
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
            f"decoder: conv1 must give H*C1*L = {height}*{row_channels}*{row_length} numbers on a {half}x{half} map, "
            f"and {height * row_channels * row_length:,} is not a positive multiple of {half**2}; change row_channels, row_length or grid"
        )
