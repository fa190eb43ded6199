"""What the teacher says of the images of a step (paper eq. 3)."""

import torch
from torch import Tensor

from data.images import Epoch, Images
from models.instances import ArchitectureOnImages

IMAGES_AT_ONCE = 1000


class Teacher:
    """The teacher's logits for the images that steps show.

    It runs once a step, for all instances; where images are mirrored at most, once for every image and its mirror image,
    before the first step.
    """

    def __init__(self, nets: ArchitectureOnImages, row: Tensor, images: Images, precision: torch.autocast):
        self.nets, self.row, self.precision = nets, row, precision
        self.seen: Tensor | None = None  # (2, N, classes): of the images as they are, and mirrored
        if not images.padding:
            index = torch.arange(len(images), device=row.device).split(IMAGES_AT_ONCE)
            self.seen = torch.stack(
                [torch.cat([self.run(of(images, part, flip)) for part in index]) for flip in (0, 1)]
            )

    def logits(self, draws: Epoch, i: int, x: Tensor) -> Tensor:
        """Of batch `i` of the first of `draws`, whose images are x (B, C, S, S): (B, classes)."""
        if self.seen is None:
            return self.run(x)
        index, flip = draws.views(i)
        return self.seen[flip[0].long(), index[0]]

    def run(self, x: Tensor) -> Tensor:
        with torch.no_grad(), self.precision:
            return self.nets.run(self.row, x)[0]


def of(images: Images, index: Tensor, flip: int) -> Tensor:
    """Images (B, C, S, S) at an index (B,), all mirrored or none."""
    middle = torch.full((len(index), 2), images.padding, device=index.device)
    return images.crop_and_flip(index, middle, torch.full(index.shape, bool(flip), device=index.device))
