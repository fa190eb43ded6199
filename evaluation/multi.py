"""What the scripts that look at a NetSpace of several architectures share: its images, test instances, decoder and classifier."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro
from torch import Tensor

from data.folders import Folders
from data.images import ImageSet
from data.load import command, load_images
from data.nets import MixedNetsDataset, load_mixed_split
from evaluation.accuracy import accuracy_of_embeddings, mixed_accuracy
from models.architecture_pool import ArchitecturePool
from models.prep_autoencoder import PrepAutoencoder
from models.registry import architectures_by_class_id
from training.checkpoints import restore_net_space
from training.runtime import pick_device


@dataclass(frozen=True)
class MultiConfig:
    dataset: str  # the preset's, or the folder that the instances were made with
    setting: Literal["multi", "missing"] = "multi"  # all architectures, or only the lowest and the highest ClassId
    checkpoint: Path | None = None  # runs/<dataset>/<setting>/best.pt unless given; the original release's are read too
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)

    @property
    def run_dir(self) -> Path:
        return self.folders.run(self.dataset, self.setting)


@dataclass(frozen=True)
class MultiExperiment:
    """A trained NetSpace and the test instances, of several architectures, that it has never seen."""

    images: ImageSet
    pool: ArchitecturePool
    test: MixedNetsDataset
    net_space: PrepAutoencoder

    def target_accuracy(self, nets: MixedNetsDataset) -> Tensor:
        """Percent of the test images, (N,)."""
        return mixed_accuracy(self.pool, nets.preps, nets.class_ids, self.images.test)

    def predict(self, embeddings: Tensor) -> tuple[list[int], Tensor]:
        """Predicted ClassIds of embeddings (N, E), and the instances' percent of the test images, (N,)."""
        return accuracy_of_embeddings(self.net_space, self.pool, embeddings, self.images.test)


def load_multi_experiment(config: MultiConfig) -> MultiExperiment:
    """Raises InputError where something is missing, naming the command that makes it."""
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    checkpoint = config.checkpoint or config.run_dir / "best.pt"
    made_by = f"{command('train_multi_arch.py', config.dataset)} --setting {config.setting}"
    num_class_ids = len(architectures_by_class_id())
    net_space = restore_net_space(checkpoint, made_by, device, num_class_ids)
    pool = ArchitecturePool(images.image_shape, images.num_classes, net_space.decoder.prep_shape)
    test = load_mixed_split(config.folders, images, config.setting, "test", pool)
    return MultiExperiment(images, pool, test, net_space)
