"""NetSpace's encoder: a PRep of any size to an embedding of fixed size (paper Fig. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError

# Rows at least this wide go through `row_features_by_windows` (benchmarks/speed.py).
WINDOWS_FROM_WIDTH = 512
# Rows whose maxima are searched at once there: on the CPU as many as stay in its caches, on a GPU what fills it.
CPU_ROWS_AT_ONCE, GPU_ROWS_AT_ONCE = 4, 64


class Encoder(nn.Module):
    """PReps (M, 1, H, W) to embeddings (M, E): two convs along the width, max over it, two along the height, max over it.

    State dict keys are those of the original release. Raises InputError unless E is a multiple of 32.
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
        """Starts without biases and for PReps of this root mean square, so that embeddings differ as instances do.

        Most SIREN weights are 100 times smaller than the biases of PyTorch's default start, which drown them.
        """
        for conv in (self.conv1[0], self.conv2[0], self.conv3[0], self.conv4[0]):
            conv.bias.zero_()
        self.conv1[0].weight.div_(prep_size)

    def forward(self, preps: Tensor) -> Tensor:
        by_windows = preps.shape[3] >= WINDOWS_FROM_WIDTH
        x = self.row_features_by_windows(preps) if by_windows else self.row_features_plainly(preps)  # (M, H, 2h)
        x = conv_along_height(conv_along_height(x, self.conv3), self.conv4)  # (M, H, E)
        return x.amax(dim=1)

    def row_features_plainly(self, preps: Tensor) -> Tensor:
        """(M, 1, H, W) to (M, H, 2h), as the paper draws it."""
        return self.conv2(self.conv1(preps)).amax(dim=3).transpose(1, 2)

    def row_features_by_windows(self, preps: Tensor) -> Tensor:
        """(M, 1, H, W) to (M, H, 2h), from the windows that the maxima depend on.

        Rows do not see each other here, and all-zero ones, the padding, are alike: one stands for all. Not where the
        PReps want a gradient, which every row has of its own, nor on a GPU, which would wait while their number is read.
        """
        m, _, height, width = preps.shape
        rows = preps.reshape(-1, width)
        if preps.requires_grad or preps.is_cuda:
            features = self.features_of_rows(rows)
        else:
            filled = rows.any(1)
            distinct = torch.cat([rows.new_zeros(1, width), rows[filled]])
            features = self.features_of_rows(distinct)[filled.cumsum(0) * filled]  # place 0 is the row of zeros
        return features.view(m, height, -1)

    def features_of_rows(self, rows: Tensor) -> Tensor:
        """Rows (R, W) to features (R, 2h).

        Only the position of the maximum sends a gradient back, and it depends on 7 numbers of the row. So the maxima
        are found without gradient, and both convs are computed again for those windows alone: the same outputs and
        gradients, a much cheaper backward pass, and no stored activations (benchmarks/speed.py).
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
        """Where along the width each channel of conv2 is largest, (R, W) to (R, 2h). LeakyReLU keeps the order."""
        x = rows[:, None, None].contiguous(memory_format=torch.channels_last)
        return self.conv2[0](self.conv1(x)).argmax(dim=3).flatten(1)


def conv_along_height(x: Tensor, layer: nn.Sequential) -> Tensor:
    """A conv with kernel (3, 1) and its activation on maps of width 1, (M, H, C) to (M, H, O), as one matrix product."""
    padded = F.pad(x, (0, 0, 1, 1))
    windows = torch.stack([padded[:, :-2], padded[:, 1:-1], padded[:, 2:]], dim=3)  # (M, H, C, 3)
    return layer[1](F.linear(windows.flatten(2), layer[0].weight.flatten(1), layer[0].bias))
