"""What the scripts that look at a trained single-architecture NetSpace share: its images, test instances and decoder."""

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from torch import Tensor

from data.folders import Folders
from data.images import ImageSet
from data.load import command, load_images
from data.nets import NetsDataset, load_split
from evaluation.accuracy import accuracy
from models.instances import ArchitectureOnImages
from models.prep import check_prep_shape, pack, unpack
from models.prep_autoencoder import PrepAutoencoder
from models.registry import get_architecture
from training.checkpoints import restore_net_space
from training.runtime import pick_device


@dataclass(frozen=True)
class EvaluationConfig:
    dataset: str  # the preset's, or the folder that the instances were made with
    architecture: str = "resnet8"  # of the instances
    checkpoint: Path | None = None  # runs/<dataset>/single/best.pt unless given; the original release's are read too
    folders: tyro.conf.OmitArgPrefixes[Folders] = field(default_factory=Folders)

    @property
    def run_dir(self) -> Path:
        return self.folders.run(self.dataset, "single")


@dataclass(frozen=True)
class Experiment:
    """A trained NetSpace and the test instances that it has never seen."""

    images: ImageSet
    test: NetsDataset
    net_space: PrepAutoencoder

    @property
    def prep_shape(self) -> tuple[int, int]:
        return self.net_space.decoder.prep_shape

    def encode(self, rows: Tensor) -> Tensor:
        """Rows (N, P) to embeddings (N, E)."""
        return self.net_space.encode(pack(rows, self.prep_shape))

    def decode(self, embeddings: Tensor) -> Tensor:
        """Embeddings (N, E) to rows (N, P) of predicted instances."""
        return unpack(self.net_space.decode(embeddings), self.test.nets.num_parameters)

    def test_accuracy(self, rows: Tensor) -> Tensor:
        """Percent of the test images, (N,)."""
        return accuracy(self.test.nets, rows, self.images.test)


def load_experiment(config: EvaluationConfig) -> Experiment:
    """Raises InputError where something is missing, naming the command that makes it."""
    device = pick_device()
    images = load_images(config.dataset, config.folders.data_dir, device)
    nets = ArchitectureOnImages(get_architecture(config.architecture), images.image_shape, images.num_classes)
    test = load_split(config.folders, images, "single", "test", nets)
    checkpoint = config.checkpoint or config.run_dir / "best.pt"
    net_space = restore_net_space(checkpoint, command("train_single_arch.py", config.dataset), device)
    check_prep_shape(net_space.decoder.prep_shape, nets.num_parameters, config.architecture)
    return Experiment(images, test, net_space)
