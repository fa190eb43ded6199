"""Which architecture an embedding stands for (supplement Sec. I): the ClassId classifier of the multi-architecture setting."""

import torch.nn.functional as F
from torch import Tensor, nn


class ClassIdClassifier(nn.Module):
    """Embeddings (M, E), viewed as E/g^2 maps of g x g as in the decoder, to ClassId logits (M, A).

    State dict keys are those of the original release, which keeps them among the decoder's.
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
