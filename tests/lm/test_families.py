"""What differs between families: shared layers, sentinels, heads, gradients; and which files are taken as weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_models import FAMILIES, GAPPED, LAYERS, WIDTH
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from harness.contract import Prompt, Task, Text
from harness.errors import ModelError
from harness.evaluation.white_box import WhiteBox
from harness.lm import directory
from harness.lm.backbones import families
from harness.lm.kinds import kind_of
from harness.lm.load import load_model
from harness.tracks.track import ModelSpec, PromptSpec

if TYPE_CHECKING:
    from pathlib import Path

    from outer_models import Arena

    from harness.contract import FloatArray
    from harness.lm.model import LanguageModel

TOKENS, FIRST_ID = 3, 20
WORDS = (" bad", " great")
TEXTS: tuple[Text, ...] = (("a film",), ("a bad film , and it was not great",), ("maybe",))


def load(family: str, folder: Path, **options: Any) -> LanguageModel:
    """The model of a family that was saved in `folder`."""
    spec = ModelSpec(str(folder), "float32", tiny_models.kind(family), **options)
    return load_model(spec, PromptSpec(TOKENS, FIRST_ID))


def template(family: str) -> str:
    """With the mask inside where the family has one."""
    return "{a} . It was {mask} ." if family in GAPPED else "{a} . It was{mask}"


def values(layers: int, seed: int = 0) -> np.ndarray:
    """One candidate's prompt values (1, layers, tokens, width)."""
    return np.random.default_rng(seed).normal(size=(1, layers, TOKENS, WIDTH)).astype(np.float32)


def served(lm: LanguageModel, family: str, prompt: Prompt | None) -> FloatArray:
    """Logits (texts, words) of one candidate."""
    logits: FloatArray = lm.outputs(prompt, TEXTS, template(family), WORDS, "mask").logits[0]
    return logits


# ── white box ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("zeroed", [True, False])
def test_the_white_box_starts_as_the_black_box_answers(family: str, zeroed: bool, tmp_path: Path) -> None:
    """Bare, with p0, and with a prompt in front of the first and of the last layer."""
    lm = load(family, tiny_models.save(family, tmp_path), zero_head_bias=zeroed)
    white = WhiteBox(lm, Task("made-up", ("a", "b"), "accuracy", template(family), WORDS), TEXTS)
    np.testing.assert_allclose(white.predicted(TEXTS), served(lm, family, None), atol=2e-5)
    zero = Prompt(np.zeros((1, 1, TOKENS, WIDTH), dtype=np.float32))
    np.testing.assert_allclose(white.predicted(TEXTS, prompted=True), served(lm, family, zero), atol=2e-5)
    deep = values(LAYERS)
    deep[:, 1:-1] = 0
    start = white.batch(TEXTS, prompted=True).start
    for layer in (0, -1):
        value = torch.from_numpy(deep[0, layer])
        white.edit_input(layer, lambda x, v=value: x + F.pad(v, (0, 0, start, x.shape[1] - start - TOKENS)))  # type: ignore[misc]
    np.testing.assert_allclose(white.predicted(TEXTS, prompted=True), served(lm, family, Prompt(deep)), atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_every_layers_input(family: str, tmp_path: Path) -> None:
    """This includes shared layers and the encoder. A layer that does not exist cannot be edited."""
    lm = load(family, tiny_models.save(family, tmp_path))
    white = WhiteBox(lm, Task("made-up", ("a", "b"), "accuracy", template(family), WORDS), TEXTS)
    added = [torch.zeros(WIDTH, requires_grad=True) for _ in white.layers]
    assert len(added) == LAYERS
    for layer, value in enumerate(added):
        white.edit_input(layer, lambda x, v=value: x + v)  # type: ignore[misc]
    white.logits(white.batch(TEXTS))[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert all(value.grad is not None and bool(value.grad.any()) for value in added)
    assert len({tuple(value.grad.tolist()) for value in added if value.grad is not None}) == LAYERS
    with pytest.raises(IndexError):
        white.edit_input(LAYERS, lambda x: x)


# ── particular families ──────────────────────────────────────────────────────────────────────────────────────


def test_albert_runs_its_groups_in_order(tmp_path: Path) -> None:
    """Four passes over two groups of two layers are eight depths; each gets its own prompt."""
    folder = tiny_models.save("albert", tmp_path)
    lm = load("albert", folder)
    config = transformers.AlbertConfig(
        vocab_size=lm.vocabulary, embedding_size=8, hidden_size=WIDTH, num_hidden_layers=4, num_hidden_groups=2,
        inner_group_num=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
        initializer_range=0.3, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    raw = transformers.AlbertForMaskedLM(config).eval()
    raw.save_pretrained(folder)
    lm = load("albert", folder)
    assert lm.backbone.layers == 8
    a, b, c, d = (layer for group in raw.albert.encoder.albert_layer_groups for layer in group.albert_layers)
    assert families.layers(raw) == [a, b, a, b, c, d, c, d]
    deep = values(8)
    filled = template("albert").replace("{a}", "a film").replace("{mask}", "[MASK]")
    ids = lm.tokenizer(filled)["input_ids"]
    ids = [ids[0], *range(FIRST_ID, FIRST_ID + TOKENS), *ids[1:]]
    with torch.no_grad():
        x = raw.albert.encoder.embedding_hidden_mapping_in(raw.albert.embeddings(torch.tensor([ids])))
        for layer, value in zip([a, b, a, b, c, d, c, d], torch.from_numpy(deep[0]), strict=True):
            x[:, 1 : 1 + TOKENS] += value
            x = layer(x)
        expected = raw.predictions(x[0, ids.index(lm.tokenizer.mask_token_id)])[list(lm.single_ids(WORDS))]
    np.testing.assert_allclose(served(lm, "albert", Prompt(deep))[0], expected.numpy(), atol=1e-5)
    assert len(lm.info(TEXTS, template("albert")).hidden_std) == 8


def test_a_t5_with_a_head_of_its_own_is_not_rescaled(tmp_path: Path) -> None:
    """T5 1.1 has gated layers and an untied head, and its decoder's states go into the head as they are."""
    folder = tiny_models.save("t5", tmp_path)
    size = load("t5", folder).vocabulary
    config = transformers.T5Config(
        vocab_size=size, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0,
    )  # fmt: skip
    assert not config.scale_decoder_outputs
    raw = transformers.T5ForConditionalGeneration(config).eval()
    raw.lm_head.weight = torch.nn.Parameter(torch.randn(size, WIDTH, generator=torch.Generator().manual_seed(0)))
    raw.save_pretrained(folder)
    saved = load_file(folder / "model.safetensors")
    save_file(saved | {"lm_head.weight": raw.lm_head.weight.detach()}, folder / "model.safetensors", {"format": "pt"})
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(text | {"tie_word_embeddings": False}), encoding="utf-8")
    lm = load("t5", folder)
    ids = lm.tokenizer(template("t5").replace("{a}", "a film").replace("{mask}", "<extra_id_0>"))["input_ids"]
    gap = torch.tensor([[0, lm.tokenizer.convert_tokens_to_ids("<extra_id_0>")]])
    with torch.no_grad():
        states = raw.decoder(
            input_ids=gap, encoder_hidden_states=raw.encoder(torch.tensor([ids])).last_hidden_state
        ).last_hidden_state
        expected = (raw.lm_head.weight @ states[0, 1])[list(lm.single_ids(WORDS))]
    np.testing.assert_allclose(served(lm, "t5", None)[0], expected.numpy(), atol=1e-5)


def test_bart_is_told_what_stands_before_the_mask_and_nothing_behind_it(tmp_path: Path) -> None:
    """The decoder's input includes p0 but no prepended prompt, and nothing more."""
    lm = load("bart", tiny_models.save("bart", tmp_path))
    (encoded,) = lm.text_set("{a} {mask} . No film .", (("a film",),)).encoded
    for prompted in (False, True):
        batch = lm.batch([encoded], "add" if prompted else None)
        p0 = list(range(FIRST_ID, FIRST_ID + TOKENS)) if prompted else []
        before = [encoded.ids[0], *p0, *encoded.ids[1 : encoded.read]]
        assert batch.decoder is not None
        assert batch.decoder.tolist() == [[2, *before]]
        assert batch.read.tolist() == [[len(before)]]


def test_an_encoder_decoder_model_without_a_start_token_is_refused(tmp_path: Path) -> None:
    """The message says what is missing in which file."""
    folder = tiny_models.save("t5", tmp_path)
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del text["decoder_start_token_id"]
    (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(ModelError, match=r"no decoder_start_token_id; add it to config\.json"):
        load("t5", folder)


def test_a_masked_model_without_a_word_for_the_gap_is_refused(tmp_path: Path) -> None:
    """Before any text is read."""
    folder = tiny_models.save("bert", tmp_path)
    text = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del text["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(ModelError, match="no mask token and no sentinel; a masked model needs one"):
        load("bert", folder)


@pytest.mark.parametrize("family", ["albert", "distilbert", "t5", "bart"])
def test_a_cell_runs_on_every_new_family(arena: Arena, family: str, tmp_path: Path) -> None:
    """In a worker, with prompts, under a budget, in the wording of masked models."""
    spec = ModelSpec(str(tiny_models.save(family, tmp_path / "model")), "float32", tiny_models.kind(family))
    arena.lm = load_model(spec, PromptSpec(2, FIRST_ID))
    run = arena.run("def tune(lm, task, shots, rng, config):\n    yield from search(lm, task, shots, rng, config)")
    assert run.status == "budget_exhausted"
    assert run.verdict.score is not None
    assert run.record.rows_spent > 0


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_pickled_weights_are_never_read(family: str, tmp_path: Path) -> None:
    """Alone they are refused with a next step. Beside safetensors they are ignored, whatever they contain."""
    folder = tiny_models.save(family, tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    expected = load(family, folder).sha256
    state = load_file(folder / "model.safetensors")
    torch.save(state, folder / "pytorch_model.bin")
    assert load(family, folder).sha256 == expected
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no \*\.safetensors, .*pytorch_model\.bin.* never read\. Convert them"):
        load(family, folder)


POINTER = "version https://git-lfs.example/spec/v1\noid sha256:0f\nsize 133466304\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "model.gguf"])
def test_a_git_lfs_pointer_is_told_from_the_file(name: str, tmp_path: Path) -> None:
    folder = tiny_models.save("bert", tmp_path)
    (folder / name).write_text(POINTER, encoding="utf-8")
    with pytest.raises(ModelError, match=rf"{name} is a Git LFS pointer of 69 bytes.* lfs pull"):
        load("bert", folder)


def test_a_directory_without_a_tokenizer_is_told_what_it_lacks(tmp_path: Path) -> None:
    folder = tiny_models.save("bert", tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"no tokenizer there\. Copy tokenizer\.json"):
        load("bert", folder)


def test_a_gguf_file_that_is_none_is_told_by_its_beginning(tmp_path: Path) -> None:
    folder = tiny_models.save("gpt2", tmp_path)
    (folder / "model.gguf").write_bytes(b"<!doctype html>")
    with pytest.raises(ModelError, match=r"model\.gguf is no GGUF file: it begins with b'<!do', b'GGUF' expected"):
        load("gpt2", folder)


def test_a_gguf_file_without_the_extra_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_models.save("gpt2", tmp_path)
    (folder / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(directory, "find_spec", lambda name: None if name == "gguf" else name)
    with pytest.raises(ModelError, match=r'packages that are not here: gguf\. Run: pip install -e "\.\[gguf\]"'):
        load("gpt2", folder)


def test_a_file_in_place_of_a_directory_is_told(tmp_path: Path) -> None:
    folder = tiny_models.save("bert", tmp_path)
    with pytest.raises(ModelError, match=rf"is a file; give the directory that holds it, --model {folder}"):
        load("bert", folder / "model.safetensors")


@pytest.mark.parametrize("family", ["bert", "gpt2", "t5"])
def test_a_tokenizer_with_more_ids_than_the_model_has_embeddings_is_refused(family: str, tmp_path: Path) -> None:
    """It was an IndexError in the middle of a cell, from the first text with such a token."""
    folder = tiny_models.save(family, tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["new", "newer"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=f"its tokenizer has {rows + 2} token ids, the model {rows} embeddings"):
        load(family, folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    """Every submission had an invalid answer instead."""
    folder = tiny_models.save("bert", tmp_path)
    state = load_file(folder / "model.safetensors")
    state["bert.encoder.layer.1.output.dense.bias"][3] = value
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"1 of 16 values of bert\.encoder\.layer\.1\.output\.dense\.bias are not"):
        load("bert", folder)


@pytest.mark.parametrize("own_type", [True, False])
def test_code_that_comes_with_a_model_is_not_run(own_type: bool, tmp_path: Path) -> None:
    """A known family is computed by transformers; a type that only the code knows is refused."""
    folder, trace = tiny_models.save("bert", tmp_path / "model"), tmp_path / "trace"
    code = f"open({str(trace)!r}, 'w').close()\nclass Model: pass\nclass Config: pass\n"
    (folder / "code.py").write_text(code, encoding="utf-8")
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForMaskedLM": "code.Model"}
    if own_type:
        text["model_type"] = "made-up"
    (folder / "config.json").write_text(json.dumps(text), encoding="utf-8")
    if own_type:
        with pytest.raises(ModelError):
            load("bert", folder)
        with pytest.raises(ModelError):
            kind_of(str(folder))
    else:
        assert isinstance(load("bert", folder).weights(), transformers.BertForMaskedLM)
    assert not trace.exists()


def test_a_checkpoint_without_its_head_is_refused(tmp_path: Path) -> None:
    """Transformers would draw a new random head in each run."""
    folder = tiny_models.save("bert", tmp_path)
    state = load_file(folder / "model.safetensors")
    body = {name: tensor for name, tensor in state.items() if name.startswith("bert.")}
    save_file(body, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"6 weights of BertForMaskedLM are not in its files, first cls\.predictions"):
        load("bert", folder)


@pytest.mark.parametrize("family", ["bart", "gpt2"])
def test_a_checkpoint_of_the_body_alone_is_enough_where_the_head_is_the_embeddings(family: str, tmp_path: Path) -> None:
    """As the published files of BART and GPT-2 are: names without the body's prefix, and no bias."""
    folder = tiny_models.save(family, tmp_path)
    state = load_file(folder / "model.safetensors")
    prefix = "model." if family == "bart" else "transformer."
    body = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    whole = served(load(family, folder, zero_head_bias=True), family, None)
    save_file(body, folder / "model.safetensors", {"format": "pt"})
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(text | {"architectures": ["AModel"]}), encoding="utf-8")
    assert kind_of(str(folder)) == tiny_models.kind(family)
    np.testing.assert_array_equal(served(load(family, folder), family, None), whole)
