"""Task files: those that ship are good, and each rule has an error with file, line and expectation."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import TaskError
from harness.tasks import load_task, task_names, template_problem

SHIPPED = ("dbpedia", "qnli", "qqp", "snli", "sst2")
GOOD = """name = "pair"
title = "Pairs"
classes = ["no", "yes"]
fields = 2
metric = "accuracy"

[profiles.house]
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


def test_the_five_tasks_ship() -> None:
    assert set(SHIPPED) <= set(task_names())


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_task_has_wording_for_masked_and_causal_models(name: str) -> None:
    file = load_task(name)
    for kind in ("masked", "causal"):
        task = file.task("house", kind)
        assert len(task.words) == len(set(task.words)) == len(task.classes)
        assert template_problem(task.template, task.fields, kind == "causal") is None
    assert file.metric == ("macro_f1" if name in {"snli", "dbpedia"} else "accuracy")


def test_label_words_of_the_shipped_tasks_are_single_tokens_of_a_bert_like_tokenizer() -> None:
    embedded = pytest.importorskip("harness.lm.embedded")
    tokenizers = pytest.importorskip("tokenizers")
    found = sorted(embedded.package_folder().rglob("tokenizer.json"))
    if not found:
        pytest.skip("the package of the embedded model has no tokenizer.json")
    tokenizer = tokenizers.Tokenizer.from_file(str(found[0]))
    tokenizer.no_padding()
    for name in SHIPPED:
        for word in load_task(name).task("house", "masked").words:
            pieces = tokenizer.encode(word, add_special_tokens=False).tokens
            assert len(pieces) == 1, f"{name}: {word!r} is {pieces}"
            assert pieces != ["[UNK]"], f"{name}: {word!r} is unknown"


def test_a_good_file_becomes_a_task(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    task = load_task("pair", tmp_path).task("house", "causal")
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
    with pytest.raises(TaskError, match="no profile 'paper'; there are house"):
        file.task("paper", "masked")
    with pytest.raises(TaskError, match=r"has no \[profiles.house.causal\]; add it"):
        file.task("house", "causal")


@given(st.text(alphabet="{}abmsk c", max_size=30), st.sampled_from([1, 2]), st.booleans())
def test_any_template_is_either_good_or_explained(template: str, fields: int, causal: bool) -> None:
    problem = template_problem(template, fields, causal)
    if problem is None:
        assert template.count("{mask}") == template.count("{a}") == 1
        assert template.count("{b}") == fields - 1
    else:
        assert repr(template) in problem
