"""How far one number goes with another."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr


def correlation(one: Sequence[float], other: Sequence[float], ranks: bool = False) -> float | None:
    """Pearson's, or Spearman's of ranks. None where neither is defined: of values that are all the same."""
    if min(len(set(one)), len(set(other))) < 2:
        return None
    return float(spearmanr(one, other).statistic if ranks else np.corrcoef(one, other)[0, 1])
