"""Rules as text and as TOML: what is read, and that every mistake is told with a hint."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalkit.errors import NothingMeasuredError, UsageError
from evalkit.gate.facts import GateSpec, Rule
from evalkit.gate.rules import checked_spec, default_rules, parse_rule, read_spec, rule_text

READ = {
    "kd": Rule(metric="kd"),
    "kd rel=5%": Rule(metric="kd", relative=0.05),
    "kd rel=0.05": Rule(metric="kd", relative=0.05),
    "kd rel=7%": Rule(metric="kd", relative=0.07),
    "kd rel=250%": Rule(metric="kd", relative=2.5),
    "  kd\t rel=5% ,": Rule(metric="kd", relative=0.05),
    "kd,rel=5%,stat": Rule(metric="kd", mode="stat", relative=0.05),
    "fd stat abs=2 rel=1%": Rule(metric="fd", mode="stat", absolute=2.0, relative=0.01),
    "fd rel=1% abs=2 stat": Rule(metric="fd", mode="stat", absolute=2.0, relative=0.01),
    "throughput rel rel=10%": Rule(metric="throughput", mode="rel", relative=0.1),
    "nfe abs": Rule(metric="nfe", mode="abs"),
    "is abs abs=1e-3": Rule(metric="is", mode="abs", absolute=0.001),
    "fd/block band=0..400": Rule(metric="fd", variant="block", mode="band", band=(0.0, 400.0)),
    "fd band=-1.5..-.5": Rule(metric="fd", mode="band", band=(-1.5, -0.5)),
    "fd:efficientnet-lite0/block stat": Rule(metric="fd:efficientnet-lite0", variant="block", mode="stat"),
    "fd:vit-l/14/pool": Rule(metric="fd:vit-l/14", variant="pool"),
}

WRONG = {
    "": "does not begin with a metric",
    "   ": "does not begin with a metric",
    "rel=5%": "does not begin with a metric",
    "stat": "does not begin with a metric",
    "=x": "does not begin with a metric",
    "kd/": "variant '' is not an identifier",
    "/block": "names no metric",
    "<script>": "is not an identifier",
    "kd foo": "unknown word 'foo'",
    "kd rell=5%": "unknown word 'rell=5%'",
    "kd stat=1": "unknown word 'stat=1'",
    "kd rel=5": "rel = 5 is 500 %",
    "kd rel=": "'' is not a number",
    "kd rel=%": "'' is not a number",
    "kd rel=-5%": "a margin of -0.05",
    "kd abs=5%": "'5%' is not a number",
    "kd abs=-1": "a margin of -1.0",
    "kd abs=nan": "nan is not finite",
    "kd rel=inf%": "inf is not finite",
    "kd abs=1e999": "inf is not finite",
    "kd stat stat": "says mode twice",
    "kd stat abs": "says mode twice",
    "kd rel=5% rel=6%": "says relative twice",
    "kd band": "needs a lowest and a highest value",
    "kd band=5": "needs a lowest and a highest value",
    "kd band=5..": "needs a lowest and a highest value",
    "kd band=..5": "needs a lowest and a highest value",
    "kd band=a..5": "'a' is not a number",
    "kd band=5..1": "is no band",
    "kd band=0..1 stat": "belong together",
    "kd band=0..1 rel=5%": "a band has no margin",
    "kd band=0..1 abs=1": "a band has no margin",
}


@pytest.mark.parametrize("text", READ)
def test_a_rule_is_read(text):
    assert parse_rule(text) == READ[text]


@pytest.mark.parametrize("text", READ)
def test_a_rule_is_written_as_it_is_read(text):
    assert parse_rule(rule_text(READ[text])) == READ[text]


@pytest.mark.parametrize("text", WRONG)
def test_a_mistake_in_a_rule_is_told_with_a_hint(text):
    with pytest.raises(UsageError) as caught:
        parse_rule(text)
    assert WRONG[text] in caught.value.message
    assert caught.value.hint


def test_a_misspelled_word_gets_a_suggestion():
    with pytest.raises(UsageError) as caught:
        parse_rule("kd rell=5%")
    assert "did you mean 'rel='" in (caught.value.hint or "")
    with pytest.raises(UsageError) as caught:
        parse_rule("kd rel=5")
    assert caught.value.hint == "write 5% or 500%"


margins = st.floats(0, 1e6, allow_nan=False, allow_infinity=False)
rules = st.one_of(
    st.builds(
        Rule,
        metric=st.sampled_from(["kd", "fd:lite", "throughput"]),
        variant=st.sampled_from([None, "block"]),
        mode=st.sampled_from([None, "stat", "abs", "rel"]),
        absolute=margins,
        relative=margins,
    ),
    st.builds(
        lambda low, width: Rule(metric="kd", mode="band", band=(low, low + width)),
        st.floats(-1e6, 1e6, allow_nan=False),
        st.floats(0, 1e6, allow_nan=False),
    ),
)


@given(rules)
def test_every_rule_survives_being_written_and_read(rule):
    assert parse_rule(rule_text(rule)) == rule


@given(st.text(max_size=40))
def test_no_text_is_read_but_as_a_rule_or_refused(text):
    try:
        rule, hint = parse_rule(text), ""
    except UsageError as error:
        rule, hint = None, error.hint
    assert hint if rule is None else checked_spec(GateSpec(rules=(rule,))).rules == (rule,)


def test_a_file_gives_a_whole_gate(tmp_path):
    path = tmp_path / "gate.toml"
    path.write_text(
        'alpha = 0.01\nburden = "candidate"\n'
        '[[rule]]\nmetric = "kd"\nrelative = "5%"\n'
        '[[rule]]\nmetric = "fd"\nvariant = "block"\nmode = "stat"\nabsolute = 2\nrelative = 0.01\n'
        '[[rule]]\nmetric = "precision"\nband = [0.5, 1]\n'
    )
    assert read_spec(path) == GateSpec(
        alpha=0.01,
        burden="candidate",
        rules=(
            parse_rule("kd rel=5%"),
            parse_rule("fd/block stat abs=2 rel=1%"),
            parse_rule("precision band=0.5..1"),
        ),
    )


def test_an_empty_file_is_the_default_gate(tmp_path):
    (tmp_path / "gate.toml").write_text("")
    assert read_spec(tmp_path / "gate.toml") == GateSpec()


WRONG_FILES = {
    "alpha = ": "is not TOML",
    "alhpa = 0.05": "unknown key 'alhpa'",
    "alpha = 0": "alpha is 0.0, not at least 1e-06 and below 0.5",
    "alpha = 1e-17": "alpha is 1e-17",
    "alpha = 0.5": "alpha is 0.5",
    "alpha = nan": "alpha: nan is not finite",
    'alpha = "0.05"': "alpha: '0.05' is not a number",
    "alpha = true": "alpha: True is not a number",
    'burden = "model"': "unknown burden 'model'",
    "burden = 3": "unknown burden 3",
    "rule = 3": "rule is not a list of tables",
    "rule = [3]": "rule is not a list of tables",
    "[[rule]]": "rule 1 names no metric",
    '[[rule]]\nmetric = ""': "rule 1 names no metric",
    "[[rule]]\nmetric = 3": "rule 1: metric is not text",
    '[[rule]]\nmetric = "kd"\n[[rule]]\nmetrik = "fd"': "rule 2: unknown key 'metrik'",
    '[[rule]]\nmetric = "kd"\nmode = "stats"': "unknown mode 'stats'",
    '[[rule]]\nmetric = "kd"\nmode = ["stat"]': "mode is not text",
    '[[rule]]\nmetric = "kd"\nrelative = 5': "is 500 %",
    '[[rule]]\nmetric = "kd"\nrelative = "five"': "'five' is not a number",
    '[[rule]]\nmetric = "kd"\nabsolute = "1"': "'1' is not a number",
    '[[rule]]\nmetric = "kd"\nabsolute = -1': "a margin of -1.0",
    '[[rule]]\nmetric = "kd"\nband = [1]': "band is not two numbers",
    '[[rule]]\nmetric = "kd"\nband = 1': "band is not two numbers",
    '[[rule]]\nmetric = "kd"\nband = [1, 0]': "is no band",
    '[[rule]]\nmetric = "kd"\nband = [0, 1]\nmode = "abs"': "belong together",
    '[[rule]]\nmetric = "kd"\nmode = "band"': "belong together",
    '[[rule]]\nmetric = "kd"\nabsolute = ' + "9" * 400: "inf is not finite",
    '[[rule]]\nmetric = "kd"\n[[rule]]\nmetric = "kd"': "is given twice",
}


@pytest.mark.parametrize("text", WRONG_FILES)
def test_a_mistake_in_a_file_is_told_with_the_file_and_a_hint(tmp_path, text):
    path = tmp_path / "gate.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_spec(path)
    assert WRONG_FILES[text] in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(NothingMeasuredError, match="no gate file"):
            read_spec(path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not TOML"):
        read_spec(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": math.nan},
        {"alpha": -0.1},
        {"rules": (Rule(metric="kd", absolute=math.inf),)},
        {"rules": (Rule(metric="kd", band=(0.0, 1.0)),)},
        {"rules": (Rule(metric="kd"), Rule(metric="kd"))},
    ],
)
def test_a_spec_that_was_made_by_hand_is_checked_too(wrong):
    with pytest.raises(UsageError):
        checked_spec(replace(GateSpec(), **wrong))


def test_without_rules_the_first_metric_is_the_headline(make):
    record = make.run(make.score("is:lite", 2.0, 0.1, direction="higher"), make.score("kd:lite", 2.0, 0.1))
    assert default_rules(record) == (parse_rule("is:lite stat rel=5%"),)


def test_of_several_variants_the_headline_is_the_first(make):
    record = make.run(make.score("fd:lite", 2.0, 0.1), make.score("fd:lite", 2.0, 0.1, variant="pool"))
    assert default_rules(record) == (parse_rule("fd:lite/block stat rel=5%"),)


def test_a_small_sample_makes_the_kernel_distance_the_headline(make):
    few = ("small sample: 1024 images are fewer than 5 x 320 dimensions",)
    record = make.run(
        make.score("fd:lite", 2.0, 0.1, warnings=few), make.score("is:lite", 2.0), make.score("kd:lite", 2.0)
    )
    assert default_rules(record) == (parse_rule("kd:lite stat rel=5%"),)


def test_the_headline_is_the_one_that_compare_shows_first(make):
    from evalkit.reporting.table import comparison_table

    few = ("small sample: 1024 images are fewer than 5 x 320 dimensions",)
    for warnings in ((), few):
        scores = [make.score("fd:lite", 2.0, 0.1, warnings=warnings), make.score("kd:lite", 2.0, 0.1)]
        first = comparison_table([make.run(*scores)]).columns[2].title.split()[0]
        assert first.startswith(default_rules(make.run(*scores))[0].metric)


def test_without_a_score_there_is_no_default(make):
    with pytest.raises(NothingMeasuredError, match="holds no score") as caught:
        default_rules(make.run(performance=(make.speed(),)))
    assert "throughput" in (caught.value.hint or "")
