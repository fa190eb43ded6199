"""NetSpace's encoder: a PRep of any size to an embedding of fixed size (paper Fig. 1)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import InputError

# Rows at least this wide go through `row_features_by_windows` (benchmarks/speed.py).
WINDOWS_FROM_WIDTH = 512


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
        self.conv1 = nn.Sequential(nn.Conv2d(1, h, (1, 3), (1, 2), (0, 1)), nn.LeakyReLU())
        self.conv2 = nn.Sequential(nn.Conv2d(h, 2 * h, (1, 3), (1, 2), (0, 1)), nn.LeakyReLU())
        self.conv3 = nn.Sequential(nn.Conv2d(2 * h, 4 * h, (3, 1), padding=(1, 0)), nn.LeakyReLU())
        self.conv4 = nn.Sequential(nn.Conv2d(4 * h, 32 * h, (3, 1), padding=(1, 0)), nn.LeakyReLU())

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
        x = self.row_features_by_windows(preps) if by_windows else self.row_features_plainly(preps)  # (M, 2h, H, 1)
        x = self.conv4(self.conv3(x))  # (M, E, H, 1)
        return x.amax(dim=2).flatten(1)

    def row_features_plainly(self, preps: Tensor) -> Tensor:
        """(M, 1, H, W) to (M, 2h, H, 1), as the paper draws it."""
        return self.conv2(self.conv1(preps)).amax(dim=3, keepdim=True)

    def row_features_by_windows(self, preps: Tensor) -> Tensor:
        """(M, 1, H, W) to (M, 2h, H, 1).

        Only the position of the maximum sends a gradient back, and it depends on 7 numbers of the row. So the maxima
        are found without gradient, and both convs are computed again for those windows alone: the same outputs and
        gradients, a much cheaper backward pass, and no stored activations (benchmarks/speed.py).
        """
        m, _, height, _ = preps.shape
        with torch.no_grad():
            x = preps.contiguous(memory_format=torch.channels_last)
            position = self.conv2[0](self.conv1(x)).argmax(dim=3)  # (M, 2h, H); LeakyReLU keeps the order
        # conv2 at position j sees conv1 at 2j-1, 2j, 2j+1, which see the row at 4j-3 ... 4j+3.
        row = F.pad(preps.squeeze(1), (3, 3)).unfold(2, 7, 4)  # (M, H, W/4, 7)
        index = position.permute(0, 2, 1)[..., None].expand(-1, -1, -1, 7)  # (M, H, 2h, 7)
        windows = row.gather(2, index)
        conv1, conv2 = self.conv1[0], self.conv2[0]
        taps = windows.unfold(3, 3, 2)  # (M, H, 2h, 3 positions of conv1, 3 taps)
        hidden = F.leaky_relu(taps @ conv1.weight[:, 0, 0].T + conv1.bias)  # (M, H, 2h, 3, h)
        # Left of the row conv2 sees its own zero padding, not conv1 of zeros.
        inside = torch.ones_like(hidden[..., :1])
        inside[..., 0, 0] = (position.permute(0, 2, 1) > 0).to(hidden.dtype)
        kernels = conv2.weight[:, :, 0].transpose(1, 2)  # (2h, 3, h)
        out = torch.einsum("bckh,ckh->bc", (hidden * inside).flatten(0, 1), kernels) + conv2.bias  # (M*H, 2h)
        return F.leaky_relu(out).view(m, height, -1).transpose(1, 2)[..., None]
