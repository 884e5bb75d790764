"""The wording of every task and profile on a tiny RoBERTa, against transformers' own forward pass.

The expected logits come from the filled string, the tokenizer and `RobertaForMaskedLM` with hooks; of the harness they
use the task files and nothing else. The model has room for p0 as the tracks `official` and `paper` have it.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pytest
import tiny_roberta
import torch
from tiny_roberta import CASES, CUT, LAYERS, LONGEST, WIDTH, WORDS

from harness.contract import Prompt, Subspace, Task
from harness.errors import QueryError, TaskError
from harness.lm.load import load_model
from harness.lm.text import encode
from harness.tracks.examples import Source, load_test
from harness.tracks.tasks import first_pieces, load_task, task_names
from harness.tracks.track import ModelSpec, load_track

if TYPE_CHECKING:
    from pathlib import Path

    from harness.contract import Text
    from harness.lm.model import LanguageModel

P0 = load_track("official").prompt


@dataclass(frozen=True)
class Tiny:
    """The model as the harness serves it, and the same weights as transformers runs them."""

    lm: LanguageModel
    raw: Any
    tokenizer: Any

    def ids(self, task: Task, text: Text, with_p0: bool) -> list[int]:
        """Ids of the filled template, p0 after the start token."""
        filled = task.template.replace("{mask}", "<mask>").replace("{a}", text[0]).replace("{b}", text[-1])
        start, *rest = self.tokenizer(filled)["input_ids"]
        return [start, *(range(P0.first_id, P0.first_id + P0.tokens) if with_p0 else ()), *rest]

    def expected(self, task: Task, words: list[int], texts: tuple[Text, ...], values: np.ndarray | None) -> np.ndarray:
        """Logits at the mask from a right-padded batch; values (layers, tokens, width) are added to layers' inputs."""
        rows = [self.ids(task, text, values is not None) for text in texts]
        ids = torch.ones(len(rows), max(map(len, rows)), dtype=torch.int64)  # 1 is <pad>
        for n, row in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
        with ExitStack() as stack, torch.no_grad():
            for layer, value in zip(self.raw.roberta.encoder.layer, [] if values is None else values, strict=False):
                hook = partial(added, torch.tensor(value))
                stack.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            logits = self.raw(input_ids=ids, attention_mask=(ids != 1).long()).logits
        masks = (ids == self.tokenizer.mask_token_id).int().argmax(dim=1)
        return np.asarray(logits[torch.arange(len(rows)), masks][:, words].numpy())


def added(value: torch.Tensor, _: Any, given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What a layer is given, with `value` added to the positions after the start token."""
    states = given[0].clone()
    states[:, 1 : 1 + len(value)] += value
    return (states, *given[1:]), named


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """A tiny RoBERTa with a byte-level tokenizer that cuts some words of other wordings than harness-2026."""
    folder = tmp_path_factory.mktemp("roberta")
    model, tokenizer = tiny_roberta.save(folder)
    lm = load_model(ModelSpec(str(folder), "float32", zero_head_bias=True), P0)
    model.lm_head.bias.data.zero_()
    return Tiny(lm, model, tokenizer)


def some_texts(count: int, fields: int) -> tuple[Text, ...]:
    """Texts of 1 to 13 words."""
    rng = np.random.default_rng(count)
    return tuple(tuple(" ".join(rng.choice(WORDS, rng.integers(1, 14))) for _ in range(fields)) for _ in range(count))


def values(layers: int) -> np.ndarray:
    """One candidate (layers, tokens, width)."""
    return np.random.default_rng(layers).normal(size=(layers, P0.tokens, WIDTH)).astype(np.float32)


@pytest.mark.parametrize(("name", "profile"), CASES)
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_logits_are_those_of_the_filled_string_in_transformers(tiny: Tiny, name: str, profile: str, batch: int) -> None:
    """Without a prompt, with one at the input, and with deep ones, whatever shares the batch."""
    file = load_task(name)
    task = file.task(profile, "masked", tiny.lm)
    written = file.profiles[profile].masked.words
    words = [tiny.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in written]
    texts = some_texts(batch, file.fields)
    for prompt in (None, values(1), values(LAYERS)):
        candidates = None if prompt is None else Prompt(prompt[None])
        got = tiny.lm.outputs(candidates, texts, task.template, task.words, "mask").logits[0]
        np.testing.assert_allclose(got, tiny.expected(task, words, texts, prompt), atol=1e-5, rtol=1e-5)


def test_bbts_way_to_zero_the_bias_has_no_effect_and_ours_removes_the_words_biases(
    tmp_path: Path,
) -> None:
    """Their `lm_head.bias = zeros` leaves `decoder.bias`, which is what is added; ours changes logits by the bias."""
    raw, _ = tiny_roberta.save(tmp_path)
    bias, ids = raw.lm_head.bias.detach().clone(), torch.tensor([[0, 7, 4, 2]])
    with torch.no_grad():
        before = raw(input_ids=ids).logits
        raw.lm_head.bias = torch.nn.Parameter(torch.zeros_like(bias))
        assert torch.equal(raw(input_ids=ids).logits, before)
    task = load_task("snli").task("kit-2022", "masked")
    with_it, without = (load_model(ModelSpec(str(tmp_path), "float32", zero_head_bias=zero), P0) for zero in (0, 1))  # type: ignore[arg-type]
    words = list(with_it.single_ids(task.words))
    assert bias[words].abs().min() > 1e-3
    for prompt in (None, Prompt(values(LAYERS)[None])):
        one, other = (
            lm.outputs(prompt, some_texts(5, 2), task.template, task.words, "mask").logits[0]
            for lm in (with_it, without)
        )
        np.testing.assert_allclose(one - other, np.broadcast_to(bias[words].numpy(), (5, 3)), atol=2e-6)


@pytest.mark.parametrize(("name", "profile"), [case for case in CASES if case[1] != "harness-2026"])
def test_the_ids_are_those_of_the_reference_codes_string(tiny: Tiny, name: str, profile: str) -> None:
    """The string with p0's in front of it is cut into p0's ids and then into the template's."""
    file = load_task(name)
    template, text = file.task(profile, "masked").template, some_texts(1, file.fields)[0]
    in_front = "Business Sports"
    filled = in_front + template.replace("{mask}", "<mask>").replace("{a}", text[0]).replace("{b}", text[-1])
    start, *rest = encode(tiny.tokenizer, "masked", template, text, LONGEST).ids
    p0 = tiny.tokenizer(in_front, add_special_tokens=False)["input_ids"]
    assert [start, *p0, *rest] == tiny.tokenizer(filled)["input_ids"]


def test_a_query_has_as_many_ids_of_p0_as_prompt_tokens(tiny: Tiny) -> None:
    """All fifty, or the first of them, right after the start token."""
    encoded = tiny.lm.text_set(" . {a} {mask}", (("bad",),)).encoded
    ids = tiny.lm.batch(encoded, "add").ids[0].tolist()
    assert ids[0] == 0
    assert ids[1 : 1 + P0.tokens] == list(range(1000, 1050))
    assert ids[1 + P0.tokens :] == list(encoded[0].ids[1:])


def test_the_official_prompt_shape_is_served(tiny: Tiny) -> None:
    """A subspace of all tokens and layers, two candidates."""
    task = load_task("sst2").task("kit-2022", "masked", tiny.lm)
    space = Subspace(5, (1.0,) * LAYERS, P0.tokens, seed=1)
    out = tiny.lm.outputs(space.at(np.zeros((2, LAYERS, 5))), some_texts(3, 1), task.template, task.words, "mask")
    assert out.logits.shape == (2, 3, 2)


def test_words_of_a_first_piece_wording_become_the_words_of_their_first_tokens(tiny: Tiny) -> None:
    """Each a single token that the written word begins with; words of one token stay as they are."""
    file = load_task("dbpedia")
    for profile in ("kit-2022", "paper-2022"):
        written = file.task(profile, "masked").words
        read = file.task(profile, "masked", tiny.lm).words
        assert written == file.profiles[profile].masked.words
        assert len(set(read)) == len(read) == 14
        assert all(a.startswith(b) for a, b in zip(written, read, strict=True))
        assert {a for a, b in zip(written, read, strict=True) if a != b} == set(written) & set(CUT)
        firsts = [pieces[0] for pieces in tiny.lm.word_ids(written)]
        assert tiny.lm.single_ids(read) == tuple(firsts)


def test_every_other_word_must_be_a_single_token(tiny: Tiny) -> None:
    """As written they are refused, and the wording harness-2026 is not touched."""
    file = load_task("dbpedia")
    with pytest.raises(QueryError, match=r"label word 'EducationalInstitution' is \d+ tokens"):
        tiny.lm.single_ids(file.task("kit-2022", "masked").words)
    for name in (name for name in task_names() if load_task(name).classes):
        assert load_task(name).task("harness-2026", "masked", tiny.lm) == load_task(name).task("harness-2026", "masked")


def test_first_tokens_that_coincide_or_are_no_words_are_refused(tiny: Tiny) -> None:
    """The message names both words, the token and the model."""
    with pytest.raises(TaskError, match="'Athlete' and 'Athletic' both begin with the token 'Athl' of "):
        first_pieces(("bad", "Athlete", "Athletic"), tiny.lm)
    for word in ("", "é", "<mask>"):
        with pytest.raises(TaskError, match=f"the first token of '{word}' is not a word of "):
            first_pieces(("bad", word), tiny.lm)


def test_a_long_public_text_is_cut_and_its_row_and_template_kept(tiny: Tiny, tmp_path: Path) -> None:
    """DBpedia's content of any length in the paper's wording, with room for p0."""
    content = ["", "film", "animal " * 1_000, "Company. " * 1_000, " plant " * 1_000]
    table = datasets.Dataset.from_dict({"label": [0, 13, 9, -1, 10], "title": ["t"] * 5, "content": content})
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(str(tmp_path / "dbpedia"))
    file = load_task("dbpedia")
    test = load_test(file, Source("hub", tmp_path))
    assert [text for (text,) in test.texts] == [content[n] for n in (0, 1, 2, 4)]
    template = file.task("paper-2022", "masked").template
    (bare, *_), rows = tiny.lm.text_set(template, (("",),)).encoded, tiny.lm.text_set(template, test.texts).encoded
    assert [len(row.ids) for row in rows[2:]] == [LONGEST - P0.tokens] * 2
    fixed = len(bare.ids) - 2  # without text the space before it is a token of its own, then comes the end
    for row in rows:
        assert row.ids[:fixed] == bare.ids[:fixed]
        assert (row.ids[-1], row.read) == (bare.ids[-1], bare.read)
    states = np.zeros((1, 1, P0.tokens, WIDTH), dtype=np.float32)
    out = tiny.lm.outputs(Prompt(states), test.texts, template, (" film",), "mask")
    assert np.isfinite(out.logits).all()
    assert out.logits.shape == (1, 4, 1)


def test_no_separator_is_read_where_no_p0_stands(tmp_path: Path) -> None:
    """BBT's paper has no " . " in front of a text without a prompt, or before a prepended one."""
    tiny_roberta.save(tmp_path)
    spec = ModelSpec(str(tmp_path), "float32")
    paper, kit = (load_model(spec, load_track(name).prompt) for name in ("paper", "official"))
    template, bare, text = " . {a} . It was {mask} .", "{a} . It was {mask} .", (("bad",),)
    assert paper.text_set(template, text).encoded == kit.text_set(template, text).encoded
    for mode in (None, "prepend"):
        assert paper.text_set(template, text, mode).encoded == kit.text_set(bare, text).encoded  # type: ignore[arg-type]
        assert kit.text_set(template, text, mode).encoded == kit.text_set(template, text).encoded  # type: ignore[arg-type]
    assert paper.text_set(" [ {mask} ] {a}", text, None).encoded == kit.text_set("[ {mask} ] {a}", text).encoded


def test_texts_are_not_cut_to_make_room_for_a_prompt_that_is_not_there(tmp_path: Path) -> None:
    """Without one they may be as long as the model takes; `cut_at` shortens both."""
    tiny_roberta.save(tmp_path)
    lm = load_model(ModelSpec(str(tmp_path), "float32"), P0)
    text = (("bad " * 600,),)
    for model, longest in ((lm, lm.max_tokens), (lm.cut_at(120), 120)):
        lengths = [len(model.text_set("{a} {mask}", text, mode).encoded[0].ids) for mode in (None, "add", "prepend")]  # type: ignore[arg-type]
        assert lengths == [longest, longest - P0.tokens, longest - P0.tokens]
