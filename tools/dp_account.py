"""The privacy account of `submissions/private_selection`, computed by the library dp-accounting.

    python tools/dp_account.py --epsilon 2 --classes 2

Each round is an exponential mechanism of epsilon/classes, and an answer has as many rounds as there are classes.
Together they are (epsilon, 0)-differentially private by sequential composition. The library composes the privacy loss
distributions of the rounds, which says how much smaller epsilon is at a small delta. Replacing one labelled example is
the neighbour relation. dp-accounting is no dependency of this project: `pip install dp-accounting` into an environment
of its own.
"""

from __future__ import annotations

import argparse
import sys


def account(epsilon: float, rounds: int, delta: float) -> float:
    """Epsilon of all rounds together at this delta.

    Args:
        epsilon: of the whole answer by sequential composition.
        rounds: exponential mechanisms, each with its equal part.
        delta: probability with which the guarantee may fail; 0 is pure differential privacy.

    Returns:
        The smallest epsilon that the composed privacy loss distribution gives, at most the given one.
    """
    from dp_accounting.pld import common  # noqa: PLC0415 - no dependency, as the next
    from dp_accounting.pld import privacy_loss_distribution as pld  # noqa: PLC0415

    one = pld.from_privacy_parameters(common.DifferentialPrivacyParameters(epsilon / rounds))
    found = float(one.self_compose(rounds).get_epsilon_for_delta(delta))
    return min(epsilon, found)  # the library rounds losses up to its grid


def main() -> None:
    """Print the account."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epsilon", type=float, default=2.0, help="of the whole answer (the option of the submission)")
    parser.add_argument("--classes", type=int, default=2, help="of the task: that many rounds")
    parser.add_argument("--delta", type=float, default=1e-5)
    given = parser.parse_args()
    try:
        found = account(given.epsilon, given.classes, given.delta)
    except ModuleNotFoundError as lacking:
        sys.exit(f"{lacking.name} is not installed; pip install dp-accounting in an environment of its own")
    print(f"epsilon {given.epsilon:g} in {given.classes} rounds: ({found:.3f}, {given.delta:g})-differentially private")


if __name__ == "__main__":
    main()
