from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from create_nets_dataset_single import PAPER_EPOCHS, PHOTOS_STEPS
from data.plans import plan_instances, split_plans


@given(st.integers(0, 1000), st.sampled_from([PAPER_EPOCHS, PHOTOS_STEPS]))
def test_the_papers_split_is_disjoint_of_the_stated_size_and_covers_all_lengths(seed, lengths):
    plans = plan_instances(132, lengths, Path("nets"), {}, seed)
    assert len({plan.path for plan in plans}) == 132
    used = np.unique([plan.steps for plan in plans], return_counts=True)[1]
    assert used.max() == (1 if len(lengths) >= 132 else 4)
    splits = split_plans(plans, 16, 16, seed)
    assert {name: len(part) for name, part in splits.items()} == {"train": 100, "val": 16, "test": 16}
    assert sorted(plan.index for part in splits.values() for plan in part) == list(range(132))
    for part in ("val", "test"):
        indices = [plan.index for plan in splits[part]]
        assert min(indices) < 132 / 8 and max(indices) >= 132 - 132 / 8
    again = split_plans(plan_instances(132, lengths, Path("nets"), {}, seed), 16, 16, seed)
    assert again == splits


def test_another_seed_makes_another_split():
    def test_instances(seed):
        plans = plan_instances(132, PHOTOS_STEPS, Path("nets"), {}, seed)
        return [plan.index for plan in split_plans(plans, 16, 16, seed)["test"]]

    assert test_instances(0) != test_instances(1)
