"""What a caller gives to the library: accepted where the meaning is plain, else one InputError that names the argument."""

import datetime
import json
import math
import random
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from data.instance_files import read_instance
from models.errors import InputError
from netspace import NetSpace
from tests.test_library import all_names, siren_space, space_of, tiny_images, trained_like
from training.constants import Search
from training.runtime import allow_tf32

E = 256
QUICK = dict(validate_every=1, patience=1, image_batch=20)


@pytest.fixture(scope="module")
def space():
    return space_of("resnet8")


@pytest.fixture(scope="module")
def images():
    return tiny_images()


@pytest.fixture(scope="module")
def e(space):
    return space.encode([a_net(seed) for seed in range(2)])


def a_net(seed):
    torch.manual_seed(seed)
    return trained_like("resnet8", seed)


def parameters(net):
    return torch.cat([value.flatten() for value in net.state_dict().values()])


# Embeddings


@pytest.mark.parametrize(
    "given",
    [
        lambda e: e.double(),
        lambda e: e.numpy(),
        lambda e: e.double().numpy(),
        lambda e: e.tolist(),
        lambda e: tuple(e),
        lambda e: iter(e),
        lambda e: [row.numpy() for row in e],
        lambda e: nn.Parameter(e),
        lambda e: e.t().contiguous().t(),
        lambda e: e.numpy().astype(">f8")[::-1][::-1],
    ],
)
def test_embeddings_of_any_float_type_are_read_as_float32(space, e, given):
    expected = space.decode(e)
    assert all(torch.equal(parameters(a), parameters(b)) for a, b in zip(space.decode(given(e)), expected, strict=True))
    assert torch.equal(space.interpolate(given(e), e.flip(0), [0.0])[:, 0], e)


@pytest.mark.parametrize("given", [torch.ones(E, dtype=torch.float16), np.ones(E, np.int8), [1] * E, range(1, 2)])
def test_half_and_whole_numbers_are_read_as_float32(space, given):
    given = [1] * E if isinstance(given, range) else given
    assert torch.equal(parameters(space.decode(given)), parameters(space.decode(torch.ones(E))))


BAD_EMBEDDINGS = {
    "bool": torch.ones(E, dtype=torch.bool),
    "complex": torch.ones(E, dtype=torch.complex64),
    "sparse": torch.eye(E).to_sparse(),
    "meta": torch.zeros(E, device="meta"),
    "NaN": torch.full((E,), math.nan),
    "infinity in float32": np.full(E, 1e300),
    "integer of 400 digits": [10**400] * E,
    "text": "0" * E,
    "texts": ["0"] * E,
    "bools": [True] * E,
    "ragged": [[0.0] * E, [0.0]],
    "ragged tensors": [torch.zeros(E), torch.zeros(3)],
    "nothing": None,
    "number": 3.0,
    "3 dimensions": torch.zeros(1, 1, E),
    "other size": torch.zeros(E - 1),
    "dict": {"a": 1},
    "set": set(range(E)),
    "masked": np.ma.masked_array(np.zeros(E), np.arange(E) > 3),
    "nested": torch.nested.as_nested_tensor([torch.zeros(E), torch.zeros(3)], layout=torch.jagged),
    "objects": np.array([object()] * E),
}


@pytest.mark.parametrize("kind", BAD_EMBEDDINGS)
def test_what_is_no_embedding_is_refused_by_every_method(space, images, tmp_path, kind):
    bad = BAD_EMBEDDINGS[kind]
    for use in (
        space.decode,
        space.class_ids,
        lambda e: space.export(e, tmp_path / "a.pt"),
        lambda e: space.optimize(e, images, trained_like("resnet8"), **QUICK),
        lambda e: space.interpolate(e, e, 0.5),
    ):
        with pytest.raises(InputError) as refused:
            use(bad)
        assert len(str(refused.value)) < 400
    assert not list(tmp_path.iterdir())


def test_no_embeddings_give_nothing(space, images):
    for each in (space, space_of(*all_names())):
        none = torch.zeros(0, E)
        assert each.decode(none) == [] and each.class_ids(none) == []
        assert each.interpolate(none, none, [0, 1]).shape == (0, 2, E)
        assert each.optimize(none, images, trained_like("resnet56"), **QUICK).shape == (0, E)
    assert siren_space().decode(torch.zeros(0, 64)) == []
    with pytest.raises(InputError, match="0 embeddings"):
        space.export(torch.zeros(0, E), "never.pt")


def test_numbers_that_overflow_on_the_way_are_refused(space):
    with pytest.raises(InputError, match="too large"):
        space.decode(torch.full((E,), 3e38))
    huge = a_net(0)
    for value in huge.parameters():
        nn.init.constant_(value, 1e38)
    with pytest.raises(InputError):
        space.encode(huge)


# Nets


def test_any_iterable_of_nets_is_a_list(space, e, tmp_path):
    nets = [a_net(seed) for seed in range(2)]
    for i, net in enumerate(nets):
        torch.save(net.state_dict(), tmp_path / f"{i}.pt")
    several = ((each for each in nets), iter(nets), dict(enumerate(nets)).values(), sorted(tmp_path.glob("*.pt")))
    for given in (*several, tmp_path.glob("0.pt"), np.array([str(tmp_path / f"{i}.pt") for i in range(2)])):
        found = space.encode(given)
        assert torch.allclose(found, e[: len(found)], atol=1e-5) and found.dim() == 2
    assert space.encode(tmp_path / "0.pt").shape == (E,)
    assert torch.allclose(space.encode(MappingProxyType(nets[0].state_dict())), e[0], atol=1e-5)
    assert torch.allclose(space.interpolate((each for each in nets), iter(e), 1)[:, 0], e, atol=1e-5)


@pytest.mark.parametrize("bad", [None, 3, b"a.pt", torch.zeros(5), [3], [[{}]], ["a", None], "a\0.pt", "a" * 5000, {}])
def test_what_is_no_net_is_refused(space, bad):
    with pytest.raises(InputError) as refused:
        space.encode(bad)
    assert len(str(refused.value)) < 1600
    with pytest.raises(InputError):
        space.interpolate(bad, bad, 0.5)


def test_messages_name_neither_lists_nor_scripts(space, images, tmp_path):
    (tmp_path / "folder.pt").mkdir()
    for bad in (tmp_path / "gone.pt", tmp_path / "folder.pt", trained_like("vanilla_cnn"), nn.Linear(2, 2), {}):
        for use in (space.encode, lambda net: space.optimize(torch.zeros(E), images, net, **QUICK)):
            if use is not space.encode and isinstance(bad, nn.Module):
                continue
            with pytest.raises(InputError) as refused:
                use(bad)
            assert not re.search(r"\blists?\b|\.py\b", str(refused.value)), refused.value
            assert not isinstance(bad, Path) or str(bad) in str(refused.value)


# Lines


@pytest.mark.parametrize("gamma", [0.25, torch.tensor(0.25), np.float64(0.25), np.array(0.25), [0.25], (0.25,)])
def test_one_gamma_gives_one_embedding(space, e, gamma):
    found = space.interpolate(e[0], e[1], gamma)
    assert found.shape == (1, E) and torch.allclose(found[0], 0.75 * e[0] + 0.25 * e[1], atol=1e-6)
    assert space.interpolate(e[:1], e[1:], gamma).shape == (1, 1, E)
    assert space.interpolate([trained_like("resnet8", 0)], [trained_like("resnet8", 1)], gamma).shape == (1, 1, E)


def test_gammas_may_be_whole_or_many_or_none(space, e):
    for gammas in (range(2), [0, 1], np.arange(2), (i for i in (0, 1)), torch.arange(2)):
        assert torch.allclose(space.interpolate(e[0], e[1], gammas), e, atol=1e-6)
    assert space.interpolate(e[0], e[1], []).shape == (0, E)


@pytest.mark.parametrize("bad", [math.nan, [0, math.inf], True, [True], "0.5", ["0.5"], None, 1j, [[0.5]], 10**400, {}])
def test_what_is_no_gamma_is_refused(space, e, bad):
    with pytest.raises(InputError, match="gammas"):
        space.interpolate(e[0], e[1], bad)


def test_ends_of_other_numbers_are_refused(space, e):
    for a, b in ((e, e[0]), (e[:1], e[0]), (e, e[:1]), ([trained_like("resnet8")], e)):
        with pytest.raises(InputError, match="as many of each"):
            space.interpolate(a, b, 0.5)


# Files


@pytest.mark.parametrize("suffix", ["pt", "pth", "PT", "safetensors", "SafeTensors"])
def test_one_embedding_of_a_batch_is_exported_whatever_the_case_of_its_suffix(space, e, tmp_path, suffix):
    path = tmp_path / "new" / "folder" / f"net.{suffix}"
    space.export(space.interpolate(e[0], e[1], 0.0), path)
    path = path.rename(path.with_suffix(path.suffix.lower().replace("pth", "pt")))
    state, decoded = read_instance(path)[0], space.decode(e[0]).state_dict()
    assert all(torch.allclose(state[name], value, atol=1e-5) for name, value in decoded.items())
    with pytest.raises(InputError, match="2 embeddings"):
        space.export(e, path)


def test_facts_are_numbers_and_text_as_json_has_them(space, e, tmp_path):
    given = {
        "accuracy": np.float32(61),
        "index": np.int64(3),
        "right": np.bool_(True),
        "loss": torch.tensor(0.5),
        "curve": np.array([1.0, math.nan]),
        "from": tmp_path / "a.pt",
        "on": datetime.date(2024, 5, 6),
        "at": datetime.datetime(2024, 5, 6, 7, 8),
        "best": -math.inf,
        "more": {"names": ("a", None, True)},
    }
    space.export(e[0], tmp_path / "net.safetensors", given)
    found = read_instance(tmp_path / "net.safetensors")[1]
    assert {name: found[name] for name in given} == {
        "accuracy": 61.0,
        "index": 3,
        "right": True,
        "loss": 0.5,
        "curve": [1.0, "nan"],
        "from": str(tmp_path / "a.pt"),
        "on": "2024-05-06",
        "at": "2024-05-06T07:08:00",
        "best": "-inf",
        "more": {"names": ["a", None, True]},
    }
    assert found["architecture"] == "resnet8"


def endless():
    found: list = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "bad",
    [
        object(),
        {1, 2},
        1j,
        b"a",
        Decimal(1),
        10**400,
        2**63,
        torch.zeros(3, device="meta"),
        "x" * 2**27,
        {3: 4},
        endless(),
        nn.Linear(1, 1),
    ],
)
def test_a_fact_that_json_cannot_hold_is_refused_by_name(space, e, tmp_path, bad):
    with pytest.raises(InputError, match="why"):
        space.export(e[0], tmp_path / "net.safetensors", {"why": bad})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [[1], "facts", {3: "three"}])
def test_facts_are_a_dict_of_names(space, e, tmp_path, bad):
    with pytest.raises(InputError, match="fact"):
        space.export(e[0], tmp_path / "net.pt", bad)


@pytest.mark.parametrize("bad", [None, 3, b"a", "a\0b", "a" * 5000])
def test_what_is_no_path_is_refused(space, e, bad):
    for use in (NetSpace.load, space.save, lambda path: space.export(e[0], path)):
        with pytest.raises(InputError):
            use(bad)


def test_a_folder_that_is_a_file_is_refused_and_stays(space, e, tmp_path):
    (tmp_path / "file").write_text("mine")
    for use in (space.save, lambda path: space.export(e[0], path / "a.pt"), lambda path: space.save(path / "b")):
        with pytest.raises(InputError, match="file"):
            use(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_devices_that_are_not_there_are_refused(space, tmp_path):
    space.save(tmp_path)
    assert NetSpace.load(tmp_path, device="cpu").device == torch.device("cpu")
    missing = [] if torch.cuda.is_available() else ["cuda", torch.device("cuda", 0)]
    for bad in ("gpu", "meta", "cuda:99", 3.5, [], *missing):
        with pytest.raises(InputError, match="device"):
            NetSpace.load(tmp_path, device=bad)


# Teachers and searches


class Odd(nn.Module):
    """A teacher with batch norm, dropout, a buffer that changes in eval mode too, and parts in several modes."""

    def __init__(self, fails=False):
        super().__init__()
        self.fails, self.norm, self.drop = fails, nn.BatchNorm2d(1), nn.Dropout(0.5)
        self.head = nn.Linear(64, 10)
        self.head.weight.requires_grad_(False)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("swapped", torch.zeros(3))
        self.train()
        self.norm.eval()

    def forward(self, x):
        self.calls += 1
        self.swapped = self.swapped + 1
        if self.fails:
            raise RuntimeError("no more")
        return self.head(self.drop(self.norm(x)).flatten(1))


def state_of(module):
    modes = {name: part.training for name, part in module.named_modules()}
    grads = {name: (value.requires_grad, value.grad) for name, value in module.named_parameters()}
    return modes, grads, {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(one, other):
    assert one[:2] == other[:2]
    assert all(torch.equal(value, other[2][name]) for name, value in one[2].items())


@pytest.mark.parametrize("make", [lambda: trained_like("resnet8").train(), Odd])
def test_a_teacher_is_asked_in_eval_mode_and_comes_back_as_it_was(space, images, e, make):
    teacher = make()
    before, buffers = state_of(teacher), list(teacher.buffers())
    options = {**QUICK, "patience": 3, "learning_rate": 0.03}
    found = space.optimize(e, images, teacher, **options)
    assert_same_state(state_of(teacher), before)
    assert all(one is other for one, other in zip(teacher.buffers(), buffers, strict=True))
    assert torch.equal(found, space.optimize(e, images, teacher.eval(), **options))


def test_a_teacher_that_fails_comes_back_as_it_was_too(space, images, e):
    teacher = Odd(fails=True)
    before = state_of(teacher)
    with pytest.raises(InputError, match="no more"):
        space.optimize(e, images, teacher, **{**QUICK, "patience": 2})
    assert_same_state(state_of(teacher), before)


@pytest.mark.parametrize(
    ("teacher", "match"),
    [
        (lambda x: torch.zeros(len(x), 5), r"\(20, 5\).*\(20, 10\).*10 classes"),
        (lambda x: torch.zeros(10), r"\(10,\).*\(20, 10\)"),
        (lambda x: torch.zeros(len(x), 10, dtype=torch.int64), "int64"),
        (lambda x: (torch.zeros(len(x), 10),), "tuple"),
        (lambda x: np.zeros((len(x), 10)), "ndarray"),
        (lambda x: None, "NoneType"),
        (lambda x: torch.full((len(x), 10), math.nan), "NaN"),
        (lambda x: torch.zeros(len(x), 10, device="meta"), "meta"),
        (lambda x: torch.zeros(len(x), 10).to_sparse(), "sparse"),
        (lambda x: 1 / 0, "ZeroDivisionError"),
        (lambda: None, "TypeError"),
        (3, "int"),
        (None, "NoneType"),
    ],
)
def test_a_teacher_of_other_logits_is_refused(space, images, e, teacher, match):
    with pytest.raises(InputError, match=match):
        space.optimize(e, images, teacher, **{**QUICK, "patience": 2})


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_teacher_in_another_precision_teaches(space, images, e, dtype):
    best = space.optimize(e[0], images, nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).to(dtype), **QUICK)
    assert best.shape == (E,) and best.dtype == torch.float32


def test_a_teacher_that_draws_random_numbers_takes_none_of_the_callers(space, images, e):
    before = torch.get_rng_state()
    space.optimize(e[0], images, lambda x: torch.rand(len(x), 10), **QUICK)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "name, change",
    [
        ("pixels", lambda split: dict(pixels=split.pixels / 255)),
        ("pixels", lambda split: dict(pixels=split.pixels.numpy())),
        ("pixels", lambda split: dict(pixels=split.pixels.to("meta"))),
        ("labels", lambda split: dict(labels=split.labels.int())),
        ("labels", lambda split: dict(labels=split.labels + 10)),
        ("labels", lambda split: dict(labels=split.labels - 10)),
        ("labels", lambda split: dict(labels=split.labels[:, None])),
        ("pixels", lambda split: dict(labels=split.labels[:-1])),
        ("mean", lambda split: dict(mean=split.mean * math.nan)),
        ("std", lambda split: dict(std=split.std * 0)),
        ("mean", lambda split: dict(mean=split.mean.double())),
        ("padding", lambda split: dict(padding=-1)),
        ("padding", lambda split: dict(padding="1")),
    ],
)
@pytest.mark.parametrize("part", ["train", "val"])
def test_images_of_another_form_are_refused_by_name(space, images, e, part, name, change):
    split = getattr(images, part)
    with pytest.raises(InputError, match=rf"images\.{part}.*{name}"):
        space.optimize(e[0], replace(images, **{part: replace(split, **change(split))}), a_net(0), **QUICK)


def test_logits_of_any_float_type_teach(space, images, e):
    teacher = trained_like("resnet8")
    options = {**QUICK, "patience": 2}
    found = space.optimize(e, images, lambda x: teacher(x), **options)
    assert torch.equal(found, space.optimize(e, images, lambda x: teacher(x).double(), **options))
    with torch.no_grad():
        assert torch.equal(found, space.optimize(e, images, teacher, **options))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", (0, -1, math.nan, math.inf, "4", None, True, 1j)),
        ("alpha", (-0.1, 1.1, math.nan, "1")),
        ("image_batch", (0, -1, 201, 1.5, "20", None, True)),
        ("learning_rate", (0, -1, math.nan, None, [0.1])),
        ("validate_every", (0, 1.5, math.nan)),
        ("patience", (0, -1, math.inf)),
        ("min_delta", (-1, math.nan, 10**400)),
        ("seed", (-1, 1.5, "a", 2**70)),
        ("precision", ("float64", "", 32, torch.bfloat16, np.zeros(2), ["float32"])),
    ],
)
def test_constants_of_a_search_outside_their_limits_are_refused_by_name(space, images, e, name, values):
    for value in values:
        with pytest.raises(InputError, match=f"^{name}\\b"):
            space.optimize(e, images, trained_like("resnet8"), **{**QUICK, name: value})


def test_constants_of_a_search_may_be_numpys(space, images, e):
    teacher, options = trained_like("resnet8"), {**QUICK, "temperature": 2.0, "seed": 3}
    numpys = {**options, "temperature": np.float32(2), "seed": np.int64(3), "patience": torch.tensor(1)}
    assert torch.equal(space.optimize(e, images, teacher, **options), space.optimize(e, images, teacher, **numpys))


def test_a_search_has_the_precision_that_was_asked_for(space, images, e):
    x, labels, logits = images.train.plain(0, 20), images.train.labels[:20], torch.zeros(20, 10)
    losses = {
        each: space.space.search_losses(e, [0] * len(e), x, labels, logits, Search(alpha=0.5, precision=each))
        for each in (None, "float32", "bfloat16")
    }
    assert torch.equal(losses[None], losses["float32"]) and losses["bfloat16"].dtype == torch.float32
    assert not torch.equal(losses["bfloat16"], losses["float32"])
    torch.testing.assert_close(losses["bfloat16"], losses["float32"], rtol=0.02, atol=0)


def test_what_are_no_images_is_refused(space, images, e):
    empty = replace(images, val=replace(images.val, pixels=images.val.pixels[:0], labels=images.val.labels[:0]))
    for bad in (None, torch.zeros(5, 1, 8, 8), [images], "photos", images.train, empty):
        with pytest.raises(InputError, match="images"):
            space.optimize(e, bad, trained_like("resnet8"), **QUICK)


def test_no_method_draws_from_the_callers_random_numbers(space, images, e, tmp_path):
    def states():
        return [torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()]

    state, teacher = a_net(0).state_dict(), Odd()
    before = states()
    space.save(tmp_path / "space")
    NetSpace.load(tmp_path / "space", device="cpu")
    space.encode([state])
    space.decode(e), space.class_ids(e), space.interpolate(e, e, [0.5])
    for suffix in ("pt", "safetensors"):
        space.export(e[0], tmp_path / f"a.{suffix}", {"x": 1})
    space.optimize(e, images, teacher, **{**QUICK, "patience": 2})
    assert json.dumps(states(), default=str) == json.dumps(before, default=str)


@pytest.mark.parametrize("setting", ["float64", "float16", "inference", "no_grad", "device", "tf32", "autocast"])
def test_what_a_caller_has_set_for_torch_changes_no_result_and_stays(space, images, e, tmp_path, setting):
    def results(folder):
        space.save(folder)
        loaded, net = NetSpace.load(folder, device="cpu"), a_net(0)
        embedding = loaded.encode(net)
        loaded.export(embedding, folder / "a.pt")
        moved = loaded.optimize(embedding, images, net, **QUICK)
        return embedding, loaded.interpolate(net, e[1], [0, 0.3, 1]), moved, parameters(loaded.decode(moved))

    expected = results(tmp_path / "before")
    settings = {
        "inference": torch.inference_mode(),
        "no_grad": torch.no_grad(),
        "autocast": torch.autocast("cpu", dtype=torch.bfloat16),
    }
    net_of = a_net(0)  # made with the usual settings
    try:
        torch.set_default_dtype({"float64": torch.float64, "float16": torch.float16}.get(setting, torch.float32))
        if setting == "device":
            torch.set_default_device("meta")
        allow_tf32(setting == "tf32")
        with settings.get(setting, torch.enable_grad()), pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "a_net", lambda seed: net_of)
            before = (torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.is_grad_enabled())
            found = results(tmp_path / "after")
            assert before == (torch.get_default_dtype(), torch.is_inference_mode_enabled(), torch.is_grad_enabled())
            assert torch.is_autocast_enabled("cpu") == (setting == "autocast")
            assert torch.backends.cuda.matmul.allow_tf32 == torch.backends.cudnn.allow_tf32 == (setting == "tf32")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        allow_tf32(False)
    assert all(one.dtype == torch.float32 and torch.equal(one, other) for one, other in zip(expected, found))
