"""Batch norm folded into the conv before it (supplement Sec. VI): W' = W*gamma/sqrt(var+eps), b' = beta + (b-mean)*gamma/sqrt(var+eps)."""

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from models.errors import InputError
from models.layers import BatchNorm2d


def conv_of(norm_name: str) -> str:
    """The conv that a batch norm follows, in torchvision's names: bn2 -> conv2, downsample.1 -> downsample.0.

    Raises InputError for other names.
    """
    head, _, last = norm_name.rpartition(".")
    if "bn" not in last and not last.isdigit():
        raise InputError(
            f"batch norm '{norm_name}': call it bn1 after conv1, or put it behind its conv in a Sequential"
        )
    last = last.replace("bn", "conv") if "bn" in last else str(int(last) - 1)
    return f"{head}.{last}" if head else last


def fuse_batch_norm(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of M instances of `module` (with batch norm), every entry (M, *shape), as the state of their fused form.

    Instances and channels are independent, so PyTorch's fusion of one conv fuses M*O output channels at once.
    """
    norms = {name: child for name, child in module.named_modules() if isinstance(child, BatchNorm2d)}
    fused = {name: value for name, value in state.items() if name.rpartition(".")[0] not in norms}
    for norm_name, norm in norms.items():
        conv_name = conv_of(norm_name)
        weight = state[f"{conv_name}.weight"]  # (M, O, I, k, k)
        mean, var, gamma, beta = (
            state[f"{norm_name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        fused_weight, fused_bias = fuse_conv_bn_weights(
            weight.flatten(0, 1), None, mean.flatten(), var.flatten(), norm.eps, gamma.flatten(), beta.flatten()
        )
        fused[f"{conv_name}.weight"] = fused_weight.detach().view_as(weight)
        fused[f"{conv_name}.bias"] = fused_bias.detach().view_as(mean)
    return fused
