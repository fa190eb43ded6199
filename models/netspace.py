"""NetSpace: encoder and decoder over PReps (paper Fig. 1)."""

from torch import Tensor, nn

from models.decoder import Decoder
from models.encoder import Encoder


class NetSpace(nn.Module):
    """PReps of target instances (M, 1, H, W) to PReps of predicted instances (M, 1, H, W), through embeddings (M, E)."""

    def __init__(self, emb_size: int, prep_shape: tuple[int, int], grid: int = 64, row_length: int = 2048, row_channels: int = 128):
        super().__init__()
        self.encoder = Encoder(emb_size)
        self.decoder = Decoder(emb_size, prep_shape, grid, row_length, row_channels)

    def forward(self, preps: Tensor) -> Tensor:
        return self.decoder(self.encoder(preps))
