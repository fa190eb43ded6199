"""Graphed on the CPU, where it is the function itself. benchmarks/gpu_check.py compares its graphs on a GPU."""

from functools import partial

import pytest
import torch
from torch import nn

from training import graphs
from training.graphs import Graphed, read_later, without_graphs
from training.runtime import mixed_precision


def test_on_the_cpu_it_is_the_function():
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    calls = []

    def loss(x):
        calls.append(torch.is_autocast_enabled("cpu"))
        return model(x).square().sum()

    graphed = Graphed(loss, model, mixed_precision(x.device, None))
    assert torch.equal(graphed(x), loss(x))
    for ours, theirs in zip(*(torch.autograd.grad(each(x), list(model.parameters())) for each in (graphed, loss))):
        assert torch.equal(ours, theirs)
    assert len(calls) == 4 and not graphed.graphs


def test_its_context_is_around_every_call():
    x = torch.randn(4, 3)
    graphed = Graphed(lambda x: x @ x.T, None, mixed_precision(x.device, "bfloat16"))
    assert graphed(x).dtype == graphed(x).dtype == torch.bfloat16
    assert Graphed(lambda x: x @ x.T)(x).dtype == torch.float32


def test_what_is_not_read_yet_is_read_later():
    assert read_later(torch.tensor([3, 1]))() == [3, 1]


@pytest.mark.parametrize("lacking", ["gcc and clang", "Triton"])
def test_steps_are_not_compiled_where_that_is_not_possible(monkeypatch, capsys, lacking):
    monkeypatch.delenv("CC", raising=False)
    if lacking == "Triton":
        monkeypatch.setattr(graphs.importlib.util, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(graphs.shutil, "which", lambda name: None)
    monkeypatch.setattr(graphs, "can_compile", graphs.can_compile.__wrapped__)
    graphed = Graphed(lambda x: x + 1, compiled=True)
    assert graphed._run_compiled((torch.ones(2),))(torch.ones(2)).tolist() == [2, 2]
    assert "not compiled" in capsys.readouterr().out


def test_a_step_that_a_compiler_fails_at_goes_on_without(monkeypatch, capsys):
    def failing(function, **options):
        def call(*inputs):
            raise RuntimeError("no kernel\nfor this")

        return call

    monkeypatch.setattr(torch, "compile", failing)
    monkeypatch.setattr(graphs, "can_compile", lambda: True)
    run = Graphed(lambda x: x + 1, compiled=True)._run_compiled((torch.ones(2),))
    assert run(torch.ones(2)).tolist() == [2, 2]
    assert "no kernel for this" in capsys.readouterr().out


def test_a_compiled_step_is_the_step_itself(monkeypatch):
    """Outputs and gradients of what is compiled, here for a CPU."""
    monkeypatch.setattr(graphs, "can_compile", lambda: True)
    compiled = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compiled)
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    graphed = Graphed(lambda x: model(x).square().sum(), model, mixed_precision(x.device, None), compiled=True)
    run = graphed._run_compiled((x,))
    assert run is not graphed._run
    for ours, theirs in zip(*(torch.autograd.grad(each(x), list(model.parameters())) for each in (run, graphed._run))):
        torch.testing.assert_close(ours, theirs)


def test_recording_resumes_after_the_context():
    with without_graphs():
        with without_graphs():
            pass
        assert not graphs.RECORDS
    assert graphs.RECORDS
