"""The similarity of outputs and references by the sentence encoder."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation.text_similarity import SentenceEncoder


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_like_sentences_are_nearer_than_others(encoder: SentenceEncoder) -> None:
    outputs = ["The café by the river is closed today.", "A dog barked all night.", ""]
    references = [["The coffee house at the river is not open today."], ["The bridge is closed."], ["Anything."]]
    near, far, nothing = encoder.similarities(outputs, references)
    assert near > 0.6 > far
    assert far < 0.4
    assert nothing < 0.5


def test_the_nearest_of_several_references_counts_and_the_same_text_has_one(encoder: SentenceEncoder) -> None:
    found = encoder.similarities(["One sentence."] * 2, [["Rain in May.", "One sentence."], ["Rain in May."]])
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found[1] < 0.5


def test_embeddings_depend_neither_on_order_nor_on_neighbours(encoder: SentenceEncoder) -> None:
    texts = ["a", "A much longer sentence about a small village, told twice.", "b b", ""]
    whole = encoder.embedded(texts)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    for n, text in enumerate(texts):
        np.testing.assert_allclose(encoder.embedded([text])[0], whole[n], atol=1e-5)


def test_it_is_that_of_the_encoders_own_library(encoder: SentenceEncoder) -> None:
    library = pytest.importorskip("sentence_transformers")
    from harness.lm.embedded import package_folder

    texts = ["The café by the river is closed today.", "A dog barked all night."]
    theirs = library.SentenceTransformer(str(package_folder()), device="cpu").encode(texts)
    np.testing.assert_allclose(encoder.embedded(texts), theirs, atol=1e-4)


@pytest.mark.parametrize("references", [[], [["a"], ["b"]], [[]]])
def test_an_output_needs_references(encoder: SentenceEncoder, references: list[list[str]]) -> None:
    with pytest.raises(ValueError, match="outputs and"):
        encoder.similarities(["x"], references)
