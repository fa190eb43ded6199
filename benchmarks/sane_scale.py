"""How long SANE takes to embed and decode a ResNet18, and how much memory, beside a net of a tenth of its size.

    python -m benchmarks.sane_scale

A ResNet18 with batch norm is 53,704 tokens of 288 numbers; the model has about 10 M parameters. Each size runs in a process of its
own, with the system's usual memory settings, as the library does; peak memory is that of the whole process."""

import multiprocessing
import resource
import time
from multiprocessing.connection import Connection

import torch
from torch import nn
from torchvision.models import resnet18

from models.rows import Layout
from models.token_autoencoder import TokenAutoencoder, TokenSizes

SIZES = TokenSizes(288, 64, 256, 2, 4, 256, 32, (55_000, 100, 550))
WIDTHS = {"ResNet18": 64, "a tenth": 20, "one window": 2}  # of its first stage


def layout_of(width: int) -> Layout:
    """Return the layout, with running statistics, of a ResNet18 for small images whose first stage has `width` channels."""
    net = resnet18(num_classes=100)
    net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    full = Layout.of(net, running_statistics=True)
    shapes = [
        tuple(size if size in (3, 1, 100) or i > 1 else max(size * width // 64, 1) for i, size in enumerate(shape))
        for shape in full.shapes
    ]
    return Layout(full.names, tuple(shapes))


def work(connection: Connection, width: int) -> None:
    torch.manual_seed(0)
    layout = layout_of(width)
    model = TokenAutoencoder(SIZES, layout, []).eval()
    row = torch.randn(1, layout.num_parameters)
    start = time.perf_counter()
    with torch.no_grad():
        decoded = model.decode(model.encode(row))
    seconds = time.perf_counter() - start
    assert decoded.shape == row.shape
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    number = sum(parameter.numel() for parameter in model.parameters())
    connection.send((model.num_tokens, layout.num_parameters, number, seconds, peak))


def main() -> None:
    print("| net | tokens | parameters | model | seconds | peak memory, MB |\n|---|---|---|---|---|---|")
    for name, width in WIDTHS.items():
        context = multiprocessing.get_context("spawn")
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(send, width))
        process.start()
        tokens, size, number, seconds, peak = receive.recv()
        process.join()
        print(f"| {name} | {tokens:,} | {size:,} | {number:,} | {seconds:.1f} | {peak:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
