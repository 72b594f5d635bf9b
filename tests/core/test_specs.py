"""Spec strings: one grammar for every part that the command line names."""

from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.specs import Spec, build_from_spec, parse_spec, unknown_name


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("vllm", Spec("vllm", {}, None)),
        ("vllm,watermark=0.01", Spec("vllm", {"watermark": "0.01"}, None)),
        ("poisson:rate=5", Spec("poisson", {"rate": "5"}, None)),
        ("poisson:rate=5,cv=2", Spec("poisson", {"rate": "5", "cv": "2"}, None)),
        ("const:2048", Spec("const", {}, "2048")),
        ("const,2048", Spec("const", {}, "2048")),
        ("const:2048,seed=1", Spec("const", {"seed": "1"}, "2048")),
        ("linear:a/b.toml", Spec("linear", {}, "a/b.toml")),
        ("mine.py:Mine", Spec("mine.py:Mine", {}, None)),
        ("../a/mine.py:Mine,x=1", Spec("../a/mine.py:Mine", {"x": "1"}, None)),
        ("package.module:Mine,x=1", Spec("package.module:Mine", {"x": "1"}, None)),
        ("name, a = 1 , b=2", Spec("name", {"a": "1", "b": "2"}, None)),
        ("name,a==", Spec("name", {"a": "="}, None)),
        ("name,a=", Spec("name", {"a": ""}, None)),
    ],
)
def test_the_grammar(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names nothing"),
        (",a=1", "names nothing"),
        (":5", "names nothing"),
        ("name,=1", "no name before '='"),
        ("name,a=1,a=2", "'a' stands twice"),
        ("name,a=1,b", "'b' in .* is not key=value"),
        ("name:5,6", "'6' in .* is not key=value"),
    ],
)
def test_what_does_not_parse_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse_spec(text)


WORDS = st.text("abcdefghijklmnopqrstuvwxyz_-", min_size=1, max_size=8)
VALUES = st.text("abcxyz019._/+-", min_size=1, max_size=8)


@given(WORDS, st.dictionaries(WORDS, VALUES, max_size=4), st.sampled_from(",:"))
def test_names_and_parameters_come_back(name: str, given: dict[str, str], first: str) -> None:
    fields = [f"{key}={value}" for key, value in given.items()]
    text = name + (first + ",".join(fields) if fields else "")
    assert parse_spec(text) == Spec(name, given, None)


@dataclass
class Part:
    """A parameter of every type."""

    count: int = 1
    share: float = 0.5
    on: bool = False
    kind: Literal["fast", "slow"] = "fast"
    note: str = ""
    limit: int | None = 3


def build(text: str) -> Part:
    return build_from_spec("part", Part, parse_spec(text))


def test_values_get_the_type_of_their_parameter() -> None:
    assert build("part") == Part()
    text = "part,count=4,share=2e-1,on=Yes,kind=slow,note=hello,limit=None"
    assert build(text) == Part(4, 0.2, True, "slow", "hello", None)
    assert build("part,limit=7").limit == 7
    assert build("part:9") == Part(count=9)


@pytest.mark.parametrize("value", ["true", "1", "YES", "True"])
def test_true_has_many_forms(value: str) -> None:
    assert build(f"part,on={value}").on is True


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("part,count=1.5", "count='1.5': must be a whole number"),
        ("part,count=", "must be a whole number"),
        ("part,share=half", "must be a number"),
        ("part,on=maybe", "must be true or false"),
        ("part,kind=middling", "must be one of fast, slow"),
        ("part,limit=few", "must be a whole number"),
        ("part,cuont=1", r"has no parameter 'cuont'. Did you mean 'count'\?"),
        ("part,zzz=1", "Its parameters: count, share, on, kind, note, limit"),
        ("part:5,count=6", "'count' is given twice"),
    ],
)
def test_a_wrong_parameter_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build(text)


def test_what_is_missing_or_too_much_is_told() -> None:
    def needs(rate: float, count: int) -> float:
        return rate * count

    def nothing() -> int:
        return 1

    with pytest.raises(ConfigError, match="arrivals 'x' needs count=…"):
        build_from_spec("arrivals", needs, parse_spec("x,rate=2"))
    with pytest.raises(ConfigError, match="'x' takes no value, got '5'"):
        build_from_spec("arrivals", nothing, parse_spec("x:5"))
    assert build_from_spec("arrivals", needs, parse_spec("x:2,count=3")) == 6.0


def test_an_unknown_name_suggests_the_nearest_and_lists_all() -> None:
    message = str(unknown_name("policy", "vlm", ["vllm", "static"]))
    assert message == "unknown policy 'vlm'. Did you mean 'vllm'? Known: static, vllm."
