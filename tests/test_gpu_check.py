"""benchmarks/gpu_check.py in miniature, as it runs on a machine without a GPU."""

import json

import pytest
import torch

from benchmarks import gpu_check

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="there it runs at full size"),
]


def test_every_path_is_timed_checked_and_profiled(tmp_path):
    with torch.random.fork_rng():
        gpu_check.main(["paths", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "paths.json").read_text())
    assert not [each for each in found["times"] if "error" in each]
    assert all(each["floor_ms"] > 0 and each["ms"] > 0 for each in found["times"][1:])
    checked = {(each["path"], each.get("precision")) for each in found["checks"]}
    assert {("NetSpace, one architecture", each) for each in ("float32", "tf32", "bfloat16")} <= checked
    assert not [each for each in found["checks"] if not each.get("good", True)]
    for name, operation in {"single": "convolution", "resnet8-132": "batch_norm", "siren": "bmm"}.items():
        assert operation in (tmp_path / f"profile-{name}.txt").read_text()


def test_instances_a_space_and_its_figures_are_made(tmp_path, few_photos):
    with torch.random.fork_rng():
        gpu_check.main(["cifar10", "--out", str(tmp_path)])
    found = json.loads((tmp_path / "cifar10.json").read_text())
    assert found["steps"] == 4 and found["seconds_a_step"] > 0
    written = {path.name for path in (tmp_path / "photos" / "single").iterdir()}
    assert {"best.pt", "eval_single.png", "interpolate_single_arch.png", "visualize_prep.png"} <= written
