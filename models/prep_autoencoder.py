"""NetSpace on PReps: encoder and decoder (paper Fig. 1), with a ClassId classifier for several architectures."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from models.class_id_classifier import ClassIdClassifier
from models.decoder import Decoder
from models.encoder import Encoder

AT_ONCE = 8  # PReps; at the paper's 88x10,000 each takes half a gigabyte in the encoder


@dataclass(frozen=True)
class Sizes:
    """What determines every shape in NetSpace; 4096, 64, 2048 and 128 are the paper's."""

    prep_shape: tuple[int, int]  # H W; H a multiple of 4, W of 8, and H*W at least the number of parameters
    emb_size: int = 4096  # E, numbers of an embedding, a multiple of 32
    grid: int = 64  # g, the decoder views an embedding as E/g^2 maps of g x g
    row_length: int = 2048  # L, the decoder's first conv gives (C1, H, L)
    row_channels: int = 128  # C1, of the same


class PrepAutoencoder(nn.Module):
    """PReps of target instances (M, 1, H, W) to PReps of predicted instances (M, 1, H, W), through embeddings (M, E).

    With `num_class_ids` (A), `classifier` gives embeddings (M, E) their ClassId logits (M, A). Raises InputError for
    sizes that do not fit together.
    """

    def __init__(self, sizes: Sizes, num_class_ids: int | None = None):
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(sizes.emb_size)
        self.decoder = Decoder(**asdict(sizes))
        self.classifier = None
        if num_class_ids is not None:
            self.classifier = ClassIdClassifier(sizes.emb_size, sizes.grid, num_class_ids)

    def forward(self, preps: Tensor) -> Tensor:
        return self.decoder(self.encoder(preps))

    @torch.no_grad()
    def encode(self, preps: Tensor) -> Tensor:
        """PReps (N, 1, H, W) to embeddings (N, E) without gradient, a few at a time."""
        return torch.cat([self.encoder(part) for part in preps.split(AT_ONCE)])

    @torch.no_grad()
    def decode(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, E) to PReps (N, 1, H, W) without gradient, a few at a time."""
        return torch.cat([self.decoder(part) for part in embeddings.split(AT_ONCE)])

    @torch.no_grad()
    def class_ids(self, embeddings: Tensor) -> list[int]:
        """Predicted ClassIds of embeddings (N, E); 0 for all where there is one architecture, and no classifier."""
        if self.classifier is None:
            return [0] * len(embeddings)
        return self.classifier(embeddings).argmax(1).tolist()
