"""Task files: those that ship are good, and each rule has an error with file, line and expectation."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import TaskError
from harness.tracks.tasks import first_pieces, load_task, task_names, template_problem

SHIPPED = ("agnews", "dbpedia", "mrpc", "qnli", "qqp", "rte", "snli", "sst2", "yelp")
TEXTS = ("describe", "e2e", "gsm8k", "headline", "plain", "reply", "samsum", "wmt16")
KIT = {"sst2", "qnli", "qqp", "snli", "dbpedia"}
PAPER = {"sst2", "yelp", "agnews", "dbpedia", "mrpc", "snli", "rte"}
GOOD = """name = "pair"
title = "Pairs"
classes = ["no", "yes"]
fields = 2
metric = "accuracy"

[profiles.harness-2026]
masked = { template = "{a} ? {mask} , {b}", words = [" no", " yes"] }
causal = { template = "{a} {b} Same? {mask}", words = [" No", " Yes"] }

[kit]
folder = "PAIR"
labels = ["0", "1"]

[hub]
dataset = "glue"
columns = ["x", "y"]
label = "label"
train = "train"
test = "test"
"""


def write(root: Path, text: str) -> Path:
    (root / "pair").mkdir()
    path = root / "pair" / "task.toml"
    path.write_text(text)
    return path


def test_nine_tasks_with_classes_and_eight_with_texts_ship() -> None:
    assert [name for name in task_names() if load_task(name).classes] == list(SHIPPED)
    assert [name for name in task_names() if not load_task(name).classes] == list(TEXTS)
    assert {name for name in SHIPPED if load_task(name).kit} == KIT


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_task_has_wording_for_masked_and_causal_models(name: str) -> None:
    file = load_task(name)
    for kind in ("masked", "causal"):
        task = file.task("harness-2026", kind)
        assert len(task.words) == len(set(task.words)) == len(task.classes)
        assert template_problem(task.template, task.fields, kind == "causal") is None
    assert file.metric == {"snli": "macro_f1", "dbpedia": "macro_f1", "mrpc": "f1"}.get(name, "accuracy")


@pytest.mark.parametrize("name", SHIPPED)
def test_the_public_data_set_of_every_task_is_pinned_and_its_test_set_has_labels(name: str) -> None:
    """A commit, not a branch; of GLUE the dev set, for its test labels are not public."""
    hub = load_task(name).hub
    assert hub is not None
    assert re.fullmatch("[0-9a-f]{40}", hub.revision or "")
    assert hub.train == "train"
    assert hub.test == ("validation" if hub.dataset == "nyu-mll/glue" else "test")
    assert (hub.config == name) == (hub.dataset == "nyu-mll/glue")


PAIR, LAST = " . {a} ? {mask} , {b}", " Village Animal Plant Album Film "
PUBLISHED = {
    ("sst2", "kit-2022"): (" . {a} . It was {mask} .", "bad great"),
    ("sst2", "paper-2022"): (" . {a} . It was {mask} .", "bad great"),
    ("yelp", "paper-2022"): (" . {a} . It was {mask} .", "bad great"),
    ("agnews", "paper-2022"): (" . {mask} News: {a}", "World Sports Business Tech"),
    ("dbpedia", "paper-2022"): (
        " [ Category: {mask} ] {a}",
        "Company Education Artist Athlete Office Transportation Building Natural" + LAST + "Written",
    ),
    ("dbpedia", "kit-2022"): (
        " . {mask} News: {a}",
        "Company EducationalInstitution Artist Athlete OfficeHolder MeanOfTransportation Building NaturalPlace"
        + LAST
        + "WrittenWork",
    ),
    ("mrpc", "paper-2022"): (PAIR, "No Yes"),
    ("rte", "paper-2022"): (PAIR, "Yes No"),
    ("snli", "paper-2022"): (PAIR, "Yes Maybe No"),
    ("snli", "kit-2022"): (PAIR, "Yes Maybe No"),
    ("qqp", "kit-2022"): (PAIR, "No Yes"),
    ("qnli", "kit-2022"): (PAIR, "Yes No"),
}
"""Templates of the reference code behind p0, and its label words in the data set's label order."""


def test_the_published_wordings_are_these_and_no_others() -> None:
    """For the kit's five tasks and the paper's seven, by first tokens, for masked models alone."""
    found = {}
    for name in task_names():
        for profile, wording in load_task(name).profiles.items():
            if profile != "harness-2026":
                assert wording.masked.first_piece
                assert wording.causal is None
                found[name, profile] = (wording.masked.template, " ".join(wording.masked.words))
            else:
                assert not wording.masked.first_piece
    assert found == PUBLISHED
    assert {name for name, profile in found if profile == "kit-2022"} == KIT
    assert {name for name, profile in found if profile == "paper-2022"} == PAPER


@dataclass(frozen=True)
class Letters:
    """A model whose tokens are pairs of letters; "zz" has no word."""

    name: str = "letters"
    words: tuple[str, ...] = (*(a + b for a, b in product(ascii_lowercase, repeat=2)), "")

    def word_ids(self, words: Sequence[str]) -> list[list[int]]:
        """Ids of the pairs a word is cut into."""
        pairs = [[word[i : i + 2] for i in range(0, len(word), 2)] for word in words]
        return [[self.words.index("" if pair == "zz" else pair) for pair in found] for found in pairs]


def test_first_tokens_are_words_and_a_word_of_one_token_stays() -> None:
    """Cut after two letters."""
    assert first_pieces(("abcd", "cd", "dcba"), Letters()) == ("ab", "cd", "dc")


@pytest.mark.parametrize(
    ("words", "expectation"),
    [
        (("ab", "abcd"), "'ab' and 'abcd' both begin with the token 'ab' of letters; choose another profile"),
        (("cd", "zzab"), "the first token of 'zzab' is not a word of letters"),
        (("cd", ""), "the first token of '' is not a word of letters"),
    ],
)
def test_first_pieces_that_are_no_words_or_coincide_are_told(words: tuple[str, ...], expectation: str) -> None:
    """With the words, the token and the model."""
    with pytest.raises(TaskError) as problem:
        first_pieces(words, Letters())
    assert expectation in str(problem.value)


def test_words_are_resolved_where_the_profile_says_so_and_a_model_is_given(tmp_path: Path) -> None:
    """And nowhere else; an error names task and profile."""
    text = GOOD.replace(
        'causal = { template = "{a} {b} Same? {mask}", words = [" No", " Yes"] }',
        '[profiles.cut]\nmasked = { template = "{a} {b} {mask}", words = ["nope", "yeah"], first_piece = true }',
    )
    write(tmp_path, text)
    file = load_task("pair", tmp_path)
    assert file.task("cut", "masked").words == ("nope", "yeah")
    assert file.task("cut", "masked", Letters()).words == ("no", "ye")
    assert file.task("harness-2026", "masked", Letters()).words == (" no", " yes")
    path = tmp_path / "pair" / "task.toml"
    path.write_text(text.replace('"yeah"', '"node"'))
    with pytest.raises(TaskError, match="task pair, profile 'cut': 'nope' and 'node' both begin with the token 'no'"):
        load_task("pair", tmp_path).task("cut", "masked", Letters())


def test_encoder_decoders_read_the_masked_wording() -> None:
    """As all models but causal ones."""
    file = load_task("qqp")
    masked = file.task("harness-2026", "masked")
    assert file.task("harness-2026", "seq2seq") == masked != file.task("harness-2026", "causal")


def test_a_task_may_lack_what_is_not_there(tmp_path: Path) -> None:
    """Neither in the kit nor public."""
    write(tmp_path, GOOD[: GOOD.index("[kit]")])
    file = load_task("pair", tmp_path)
    assert (file.kit, file.hub) == (None, None)


def test_label_words_of_the_shipped_tasks_are_single_tokens_of_a_bert_like_tokenizer() -> None:
    embedded = pytest.importorskip("harness.lm.embedded")
    tokenizers = pytest.importorskip("tokenizers")
    found = sorted(embedded.package_folder().rglob("tokenizer.json"))
    if not found:
        pytest.skip("the package of the embedded model has no tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(found[0]))
    tokenizer.no_padding()
    for name in SHIPPED:
        for word in load_task(name).task("harness-2026", "masked").words:
            pieces = tokenizer.encode(word, add_special_tokens=False).tokens
            assert len(pieces) == 1, f"{name}: {word!r} is {pieces}"
            assert pieces != ["[UNK]"], f"{name}: {word!r} is unknown"


def test_a_good_file_becomes_a_task(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    task = load_task("pair", tmp_path).task("harness-2026", "causal")
    assert (task.name, task.fields, task.words) == ("pair", 2, (" No", " Yes"))


@pytest.mark.parametrize(
    ("old", "new", "line", "expectation"),
    [
        ('name = "pair"', 'name = "other"', 1, "the folder is 'pair'"),
        ('classes = ["no", "yes"]', 'classes = ["no"]', 3, "at least 2 distinct"),
        ('classes = ["no", "yes"]', 'classes = ["no", "no"]', 3, "1 distinct"),
        ("fields = 2", "fields = 3", 4, "Invalid enum value 3"),
        ('metric = "accuracy"', 'metric = "mcc"', 5, "Invalid enum value 'mcc'"),
        ('metric = "accuracy"', 'metrics = "accuracy"', 5, "unknown field `metrics`"),
        (
            'classes = ["no", "yes"]\nfields = 2\nmetric = "accuracy"',
            'classes = ["no", "yes", "maybe"]\nfields = 2\nmetric = "f1"',
            5,
            "there are 3 classes; use macro_f1",
        ),
        ('[" no", " yes"]', '[" no"]', 8, "1 words"),
        ('[" no", " yes"]', '[" no", " no"]', 8, "1 distinct"),
        ('[" No", " Yes"]', '[" No", " Yes", " Maybe"]', 9, "a word of its own for each"),
        ("{a} ? {mask} , {b}", "{a} ? , {b}", 8, "{mask} 0 times; exactly once"),
        ("{a} ? {mask} , {b}", "{a} {a} ? {mask} , {b}", 8, "{a} 2 times"),
        ("{a} ? {mask} , {b}", "{a} ? {mask} , {c}", 8, "unknown field {c}; known: mask, a, b"),
        ("Same? {mask}", "{mask} Same?", 9, "must end with {mask}"),
        ('labels = ["0", "1"]', 'labels = ["0"]', 13, "1 labels"),
        ('labels = ["0", "1"]', 'labels = ["0", "0"]', 13, "1 distinct"),
        ('columns = ["x", "y"]', 'columns = ["x"]', 17, "1 columns for 2 text fields"),
        ('folder = "PAIR"\n', "", 11, "missing required field `folder`"),
    ],
)
def test_each_rule_is_told_with_file_line_and_expectation(
    tmp_path: Path, old: str, new: str, line: int, expectation: str
) -> None:
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(TaskError) as problem:
        load_task("pair", tmp_path)
    assert str(problem.value).startswith(f"{path}:{line}: ")
    assert expectation in str(problem.value)


def test_an_unknown_task_names_those_there_are(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    with pytest.raises(TaskError, match=r"no task 'nli' in .*; there are pair"):
        load_task("nli", tmp_path)
    with pytest.raises(TaskError, match="there are none"):
        load_task("nli", tmp_path / "pair")


def test_an_unknown_profile_and_a_missing_wording_are_told(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace('causal = { template = "{a} {b} Same? {mask}", words = [" No", " Yes"] }\n', ""))
    file = load_task("pair", tmp_path)
    with pytest.raises(TaskError, match="no profile 'paper'; there are harness-2026"):
        file.task("paper", "masked")
    with pytest.raises(TaskError, match=r"'harness-2026' has no `causal`; add it to \[profiles.harness-2026\]"):
        file.task("harness-2026", "causal")


@given(st.text(alphabet="{}abmsk c", max_size=30), st.sampled_from([1, 2]), st.booleans())
def test_any_template_is_either_good_or_explained(template: str, fields: int, causal: bool) -> None:
    problem = template_problem(template, fields, causal)
    if problem is None:
        assert template.count("{mask}") == template.count("{a}") == 1
        assert template.count("{b}") == fields - 1
    else:
        assert repr(template) in problem
