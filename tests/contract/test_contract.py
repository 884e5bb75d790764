"""What the contract computes: a member's probabilities, one candidate's outputs, deep subspaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness import Answer, LinearHead, Member, Outputs, PrototypeHead, Subspace, Task, softmax
from harness.contract import ModelInfo
from harness.contract.heads import BiLstmHead
from harness.solving.answers import probabilities

TASK = Task("toy", ("no", "yes"), "accuracy", "{a} {mask}", (" bad", " good"))
RNG = np.random.default_rng(0)
WIDTH = 5
OUTS = Outputs(
    RNG.normal(size=(4, 6, 2)).astype(np.float32), RNG.normal(size=(4, 6, WIDTH)).astype(np.float32)
)  # 4 candidates, 6 texts
HEAD = LinearHead(RNG.normal(size=(2, WIDTH)), RNG.normal(size=2))


class Recorded:
    """A model whose outputs are `OUTS`. A prompt selects a candidate by its number."""

    def outputs(self, prompts: object, texts: object, *_: object) -> Outputs:
        """Outputs of the candidate whose number is the first coordinate."""
        return OUTS[int(prompts.z[0, 0, 0])]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "member",
    [
        Member.of(TASK),
        Member.of(TASK, scale=(0.5, 2.0), shift=(1.0, -1.0)),
        replace(Member.of(TASK, shift=(1.0, -1.0)), head=HEAD, alpha=0.25),
        replace(Member.of(TASK), head=HEAD, alpha=1.0, mix="logits"),
        replace(
            Member.of(TASK),
            head=PrototypeHead(RNG.normal(size=(3, WIDTH)), RNG.normal(size=(2, 3)), RNG.normal(size=2)),
            alpha=0.5,
        ),
    ],
    ids=["bare", "calibrated", "mixed", "logits", "prototypes"],
)
def test_a_members_probabilities_are_what_the_referee_computes(member: Member) -> None:
    """Of all candidates at once, to the last bit."""
    p, space = member.probabilities(OUTS), Subspace(1, (1.0,), 2, seed=0)
    assert p.shape == (4, 6, 2)
    np.testing.assert_allclose(p.sum(axis=-1), 1)
    for k in range(4):
        answer = Answer((replace(member, prompt=space.at([[float(k)]])),))
        np.testing.assert_array_equal(probabilities(answer, TASK, Recorded(), [("x",)] * 6), p[k])


def test_the_formula_by_hand() -> None:
    """0.75 softmax(2 q + 1) + 0.25 softmax(V h + b)."""
    member = replace(Member.of(TASK, scale=(2, 2), shift=(1, 0)), head=HEAD, alpha=0.25)
    q, h = OUTS.logits.astype(np.float64), OUTS.features.astype(np.float64)
    expected = 0.75 * softmax(2 * q + [1, 0]) + 0.25 * softmax(h @ HEAD.weight.T + HEAD.bias)
    np.testing.assert_allclose(member.probabilities(OUTS), expected)


def test_several_words_per_class_are_averaged_if_the_number_of_classes_is_given() -> None:
    """Words are listed class by class."""
    member = Member("{a} {mask}", (" bad", " awful", " good", " great"))
    outs = Outputs(RNG.normal(size=(1, 3, 4)), np.zeros((1, 3, WIDTH)))
    expected = softmax(np.stack([outs.logits[..., :2].mean(axis=-1), outs.logits[..., 2:].mean(axis=-1)], axis=-1))
    np.testing.assert_allclose(member.probabilities(outs, classes=2), expected)
    assert member.probabilities(outs).shape == (1, 3, 4)
    with pytest.raises(ValueError, match="reshape"):
        member.probabilities(outs, classes=3)


def test_a_bilstm_head_reads_all_candidates_or_says_what_it_lacks() -> None:
    """Each candidate gets the same result as alone."""
    draw = np.random.default_rng(1).normal
    head = BiLstmHead(*(draw(size=s) for s in ((2, 8, WIDTH), (2, 8, 2), (2, 8), (2, 4), (2,))))
    member = replace(Member.of(TASK), head=head, alpha=1.0, features="all")
    outs = Outputs(draw(size=(3, 4, 2)), draw(size=(3, 4, 7, WIDTH)), np.array([7, 2, 5, 1]))
    p = member.probabilities(outs)
    assert p.shape == (3, 4, 2)
    for k in range(3):
        np.testing.assert_allclose(member.probabilities(outs[k])[0], p[k])
    with pytest.raises(ValueError, match="lengths"):
        member.probabilities(replace(outs, lengths=None))


def test_one_candidate_of_many_is_a_query_of_one() -> None:
    """Negative numbers count from the end. The lengths are kept, and the memory of other candidates is not."""
    outs = replace(OUTS, lengths=np.arange(6))
    for k in (0, 3, -1):
        one = outs[k]
        np.testing.assert_array_equal(one.logits, OUTS.logits[k][None])
        np.testing.assert_array_equal(one.features, OUTS.features[k][None])
        assert one.lengths is outs.lengths
        assert not np.shares_memory(one.logits, OUTS.logits)
    for k in (4, -5):
        with pytest.raises(IndexError, match="out of bounds"):
            outs[k]


def test_a_member_of_a_task_reads_its_words_in_its_template() -> None:
    """Numbers of any type become Python floats."""
    assert Member.of(TASK) == Member("{a} {mask}", (" bad", " good"))
    member = Member.of(TASK, None, np.array([1, 2], dtype=np.float32), [np.float64(0.5), 0])
    assert (member.scale, member.shift) == ((1.0, 2.0), (0.5, 0.0))
    assert {type(value) for value in (*(member.scale or ()), *(member.shift or ()))} == {float}


def test_a_deep_subspace_is_as_wide_as_each_layers_input() -> None:
    """The widths are multiplied by alpha at the input and by alpha_deep above. The generator draws the seed."""
    info = ModelInfo("toy", "masked", 3, WIDTH, 100, 64, 4, 0.1, (0.5, 2.0, 4.0))
    space = Subspace.deep(info, 7, np.random.default_rng(3), alpha=1.0, alpha_deep=0.5)
    assert space == Subspace(7, (0.5, 1.0, 2.0), 4, seed=int(np.random.default_rng(3).integers(2**62)))
    assert (space.layers, len(space.at(np.zeros((2, 3, 7))))) == (3, 2)
    one = Subspace.deep(replace(info, layers=1, hidden_std=(0.5,)), 7, np.random.default_rng(3), 2.0, 0.5)
    assert one.std == (1.0,)
