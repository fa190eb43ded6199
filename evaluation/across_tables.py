"""compare_systems.json as Markdown: cells, ablations and baselines, numbers of nets, symmetry, and three sentences."""

from collections.abc import Sequence
from typing import Any

from evaluation.numbers import mean_of, spaced

COLUMNS = {  # key: head, digits
    "agreement": ("same class as the target (%)", 1),
    "accuracy_error": ("error of accuracy (points)", 1),
    "accuracy_correlation": ("correlation", 2),
    "weight_r2": ("R² of weights", 2),
    "line_rank_correlation": ("line: ρ with gamma", 2),
    "line_above_weights": ("line above weights (points)", 1),
    "r2_test_accuracy": ("accuracy from embedding: R²", 2),
    "cka": ("inside: CKA", 2),
    "stitched": ("inside: stitched", 2),
    "train_agreement": ("same class, training nets (%)", 1),
    "emb_size": ("numbers", 0),
    "seconds": ("s", 0),
}
OF_SIZES = ("accuracy_error", "accuracy_correlation", "agreement", "train_agreement")
OF_SYMMETRY = {
    "embedding_spread": ("distance of embeddings / distance of two nets", 2),
    "accuracy_spread": ("std of decoded accuracy (points)", 1),
    "agreement": ("same class as the decoded net (%)", 1),
}


def text_of(row: dict[str, Any], name: str, digits: int) -> str:
    """Return mean ± half of the interval of a measure, a dash where it was not measured or is not defined."""
    mean, ends = mean_of(row.get(name, [])), row.get("interval", {}).get(name)
    if mean is None:
        return "–"
    counted = name in ("emb_size", "seconds") or ends is None
    return f"{mean:,.{digits}f}" if counted else f"{mean:.{digits}f} ± {(ends[1] - ends[0]) / 2:.{digits}f}"


def title_of(row: dict[str, Any]) -> str:
    """Return what a cell is called in tables and figures."""
    aligned = ", aligned" if row["aligned"] else ""
    about = f": {row['about']}" if row.get("about") else ""
    return f"{row['encoder']}, {row['objective']}{aligned}{about}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def cells_table(results: dict[str, Any]) -> str:
    """Return the cells, their ablations, and what one net for all has, a line each."""
    rows = [(title_of(row), row) for name in ("cells", "ablations") for row in results[name]]
    rows += [(f"{spaced(row['name'])} (baseline)", row) for row in results["baselines"]]
    body = [[title, *(text_of(row, name, digits) for name, (_, digits) in COLUMNS.items())] for title, row in rows]
    return markdown(["encoder, objective", *(head for head, _ in COLUMNS.values())], body)


def sizes_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the cells of numbers of training nets, a line each."""
    heads = ["encoder", "training nets", *(COLUMNS[name][0] for name in OF_SIZES)]
    body = [
        [row["encoder"], str(row["nets"]), *(text_of(row, name, COLUMNS[name][1]) for name in OF_SIZES)] for row in rows
    ]
    return markdown(heads, body)


def symmetry_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return what reordered copies show, a line for each cell."""
    heads = ["reordered copies", *(head for head, _ in OF_SYMMETRY.values())]
    return markdown(
        heads,
        [[title_of(row), *(text_of(row, name, digits) for name, (_, digits) in OF_SYMMETRY.items())] for row in rows],
    )


def explanation(results: dict[str, Any]) -> list[str]:
    """Return what the cells say makes training by behaviour alone work: three sentences, of those whose cells are there."""
    rows = {row["name"]: row for name in ("cells", "ablations") for row in results[name]}

    def has(*cells: str) -> bool:
        return all(cell in rows for cell in cells)

    def agreement(cell: str) -> str:
        return f"{text_of(rows[cell], 'agreement', 1)} %"

    def fit(row: dict[str, Any]) -> str:
        return text_of(row, "weight_r2", 2)

    sentences = []
    plain, prep = "tokens-behaviour", "prep-behaviour"
    tokens_heads, prep_heads = (
        [f"{cell}-{end}" for end in ends]
        for cell, ends in ((plain, ("head-zero", "head-instance")), (prep, ("head-zero", "head-paper", "no-head")))
    )
    if has(plain, prep, *tokens_heads, *prep_heads):
        at_zero, at_net = map(agreement, tokens_heads)
        zero, paper, without = map(agreement, prep_heads)
        sentences.append(
            f"The head: trained by behaviour alone, decoded nets of tokens put {agreement(plain)} of images into their target's class, "
            f"{at_zero} with an affine head (a scale and a bias for every number) that starts at 0, {at_net} if it starts at a net; "
            f"those of NetSpace, whose head starts at a net, {agreement(prep)}, {zero} from 0, {paper} from near 0 with scales of .001 "
            f"as in the paper, and {without} without a head."
        )
    others = [row for row in results["ablations"] if is_other(row, rows.get(plain))]
    if has(plain) and others:
        best = max(others, key=lambda row: mean_of(row["agreement"]) or 0.0)
        sentences.append(
            f"Everything else: of {len(others)} other single changes to tokens by behaviour with as few numbers, the one that "
            f"helps most is “{best['about']}”: {agreement(best['name'])}."
        )
    wide = "tokens-behaviour-wide"
    if has(plain, wide):
        narrow = [row for row in rows.values() if row["emb_size"][0] < rows[wide]["emb_size"][0]]
        best = max(narrow, key=lambda row: mean_of(row["weight_r2"]) or -float("inf"))
        sentences.append(
            f"What is restored: with {rows[wide]['emb_size'][0]:,} numbers in an embedding, behaviour alone gives {agreement(wide)} and "
            f"an R² of weights of {fit(rows[wide])}; with about {best['emb_size'][0]:,}, no cell has more than {fit(best)} ({title_of(best)})."
        )
    return sentences


def is_other(row: dict[str, Any], plain: dict[str, Any] | None) -> bool:
    """Return whether a row is an ablation of tokens by behaviour without a head, and with about as many numbers as `plain`."""
    if plain is None or (row["encoder"], row["objective"]) != (plain["encoder"], plain["objective"]):
        return False
    return "head" not in row["about"] and row["emb_size"][0] <= 1.5 * plain["emb_size"][0]


def across_table(results: dict[str, Any]) -> str:
    """Return everything that there is, a table after the other."""
    number = f"Means over seeds {', '.join(map(str, results['seeds']))} ± half of an interval of 95 % (Student's t)"
    parts = [cells_table(results)] if results["cells"] or results["ablations"] else []
    parts += [sizes_table(results["sizes"])] if results["sizes"] else []
    parts += [symmetry_table(results["symmetry"])] if results["symmetry"] else []
    parts += ["".join(f"- {sentence}\n" for sentence in sentences)] if (sentences := explanation(results)) else []
    return "\n".join([f"{number}\n", *parts])
