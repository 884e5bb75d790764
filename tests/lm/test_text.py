"""From templates and texts to tokens: only the text is cut, and the mask is the template's."""

from typing import Any

import pytest
import tiny_models
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.blackbox import limits
from harness.errors import QueryError
from harness.lm.text import encode, mask_token

LONG = "the film was a long story about a village " * 40


@pytest.fixture(scope="module")
def tokenizers_(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    def load(family: str) -> Any:
        folder = tiny_models.save(family, tmp_path_factory.mktemp(family))
        return transformers.AutoTokenizer.from_pretrained(folder)

    return {family: load(family) for family in tiny_models.FAMILIES}


@pytest.mark.parametrize("family", tiny_models.GAPPED)
@pytest.mark.parametrize("template", ["{a} . It was {mask} .", "{mask} : {a}", "film {mask}", "{a}{mask}{b}"])
def test_a_filled_masked_template_is_the_tokenizers_own(
    tokenizers_: dict[str, Any], family: str, template: str
) -> None:
    tokenizer = tokenizers_[family]
    text = ("a bad film", "yes, maybe")[: template.count("{a}") + template.count("{b}")]
    if not text:
        with pytest.raises(QueryError, match=r"\{a\} 0 times"):
            encode(tokenizer, tiny_models.kind(family), template, ("a",), 60)
        return
    mask = tiny_models.mask(family)
    filled = template.replace("{a}", text[0]).replace("{b}", text[-1]).replace("{mask}", mask)
    coded = encode(tokenizer, tiny_models.kind(family), template, text, 60)
    assert list(coded.ids) == tokenizer(filled)["input_ids"]
    assert coded.ids[coded.read] == tokenizer.convert_tokens_to_ids(mask)


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_the_mask_is_the_tokenizers_mask_token_or_its_first_sentinel(tokenizers_: dict[str, Any], family: str) -> None:
    """Causal models have neither."""
    assert mask_token(tokenizers_[family]) == (tiny_models.mask(family) or None)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_filled_causal_template_ends_where_it_is_read(tokenizers_: dict[str, Any], family: str) -> None:
    tokenizer = tokenizers_[family]
    coded = encode(tokenizer, "causal", "{a} . It was {mask}", ("a bad film",), 60)
    assert list(coded.ids) == tokenizer("a bad film . It was")["input_ids"]
    assert coded.read == len(coded.ids) - 1


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
@pytest.mark.parametrize("longest", [20, 33, 50])
def test_the_text_is_cut_from_its_end_and_the_template_is_kept(
    tokenizers_: dict[str, Any], family: str, longest: int
) -> None:
    tokenizer, kind, gapped = tokenizers_[family], tiny_models.kind(family), family in tiny_models.GAPPED
    template = "great film : {a} . It was {mask} ." if gapped else "great film : {a} . It was {mask}"
    bare, cut = (encode(tokenizer, kind, template, (text,), longest) for text in ("", LONG))
    whole = encode(tokenizer, kind, template, (LONG,), 10_000)
    assert len(cut.ids) == longest < len(whole.ids)
    tail = 4 if gapped else 3
    assert cut.ids[-tail:] == whole.ids[-tail:]
    start = longest - len(bare.ids)
    assert cut.ids[:start] == whole.ids[:start]
    if gapped:
        assert cut.ids[cut.read] == tokenizer.convert_tokens_to_ids(tiny_models.mask(family))
        assert len(cut.ids) - cut.read == len(whole.ids) - whole.read


def test_of_two_texts_the_longer_loses_first(tokenizers_: dict[str, Any]) -> None:
    tokenizer = tokenizers_["bert"]
    coded = encode(tokenizer, "masked", "{a} ? {mask} , {b}", ("yes no maybe", LONG), 20)
    assert tokenizer.decode(coded.ids).startswith("[CLS] yes no maybe ? [MASK] , the film was")
    both = encode(tokenizer, "masked", "{a} ? {mask} , {b}", (LONG, LONG), 21)
    assert both.read == 10  # [CLS], 8 of the first, "?"
    assert len(both.ids) == 21  # "," and 8 of the second, [SEP]


def test_a_token_that_template_and_text_share_is_the_templates(tokenizers_: dict[str, Any]) -> None:
    """In "film bad?" the tokenizer may merge what stands without a space; nothing of the template may go."""
    tokenizer = tokenizers_["gpt2"]
    coded = encode(tokenizer, "causal", "{a}ilm was{mask}", ("bad " * 100 + "f",), 12)
    assert tokenizer.decode(coded.ids).endswith("film was")


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_a_template_that_does_not_fit_even_without_text_is_refused(tokenizers_: dict[str, Any], family: str) -> None:
    kind = tiny_models.kind(family)
    with pytest.raises(QueryError, match=r"needs \d+ tokens without any text, 5 are allowed"):
        encode(tokenizers_[family], kind, "yes no maybe yes no maybe {a} {mask}", (LONG,), 5)


@pytest.mark.parametrize("family", tiny_models.GAPPED)
@pytest.mark.parametrize("text", ["{m}", "{m} {m} bad", "bad {m}", "bad{m}", "{mask}", "{m}{mask} {b}"])
@pytest.mark.parametrize("template", ["{a} {mask} .", "{a}{mask} .", "{mask} {a}", "{mask}{a}"])
def test_a_mask_token_inside_the_text_does_not_move_the_read_position(
    tokenizers_: dict[str, Any], family: str, text: str, template: str
) -> None:
    tokenizer, mask = tokenizers_[family], tiny_models.mask(family)
    text = text.replace("{m}", mask)
    coded = encode(tokenizer, tiny_models.kind(family), template, (text,), 60)
    after = tokenizer(f"{mask} .")["input_ids"]
    behind = len(after) - after.index(tokenizer.convert_tokens_to_ids(mask))  # mask, ".", end
    assert coded.read == (tiny_models.start(family) if template.startswith("{mask}") else len(coded.ids) - behind)
    assert coded.ids[coded.read] == tokenizer.convert_tokens_to_ids(mask)


def test_special_tokens_inside_the_text_can_be_cut_as_text(tokenizers_: dict[str, Any]) -> None:
    coded = encode(tokenizers_["bert"], "masked", "{a} . {mask}", ("[SEP] [CLS] " * 50,), 12)
    assert len(coded.ids) == 12


@pytest.mark.parametrize(
    ("kind", "template", "expectation"),
    [
        ("masked", "{a}", "{mask} 0 times"),
        ("masked", "{a} {mask} {mask}", "{mask} 2 times"),
        ("masked", "{a} {b} {mask}", "unknown field {b}"),
        ("causal", "{a} {mask} .", "must end with {mask}"),
    ],
)
def test_a_malformed_template_is_a_query_error(
    tokenizers_: dict[str, Any], kind: Any, template: str, expectation: str
) -> None:
    with pytest.raises(QueryError) as problem:
        encode(tokenizers_["bert"], kind, template, ("a",), 60)
    assert expectation in str(problem.value)


def test_an_empty_causal_input_is_the_start_token(tokenizers_: dict[str, Any]) -> None:
    for family in ("gpt2", "llama"):
        coded = encode(tokenizers_[family], "causal", "{a}{mask}", ("",), 60)
        assert coded.ids == (tokenizers_[family].bos_token_id,)
        assert coded.read == 0


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_spaces_in_the_middle_of_a_text_are_text(tokenizers_: dict[str, Any], family: str) -> None:
    """They are cut with the text, and do not count as the template's."""
    kind = tiny_models.kind(family)
    spaced = encode(tokenizers_[family], kind, "{a} ? {b} {mask}", ("", "0" + "\r\x85\u2028" * 20 + "0"), 12)
    assert len(spaced.ids) <= 12


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_of_a_field_20000_characters_are_read(tokenizers_: dict[str, Any], family: str) -> None:
    """Wherever it comes from: a query, a test set, `harness predict`."""
    kind, pair = tiny_models.kind(family), ("village " * 2_500, "film")
    longer = (pair[0] + "was a story", pair[1])
    assert len(pair[0]) == limits.LONGEST_TEXT
    whole, cut = (encode(tokenizers_[family], kind, "{b} ? {a} {mask}", text, 30_000) for text in (longer, pair))
    assert whole == cut


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(tiny_models.FAMILIES),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.integers(12, 40),
)
def test_any_text_is_encoded_within_the_limit(
    tokenizers_: dict[str, Any], family: str, a: str, b: str, longest: int
) -> None:
    tokenizer, gapped = tokenizers_[family], family in tiny_models.GAPPED
    coded = encode(tokenizer, tiny_models.kind(family), "{a} ? {b} {mask}", (a, b), longest)
    assert 1 <= len(coded.ids) <= longest
    assert coded.read == len(coded.ids) - (2 if gapped else 1)
    assert not gapped or coded.ids[coded.read] == tokenizer.convert_tokens_to_ids(tiny_models.mask(family))
