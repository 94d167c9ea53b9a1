"""`nextword generate`: what goes to stdout, what to stderr, and what reaches the model."""

import re

import pytest

from nextword.presets import DEFAULT_PRESET


def test_answers_with_the_default_preset_through_the_chat_template(fake_model, nextword_command):
    result = nextword_command("generate", "What is the capital of France?")
    assert result.status == 0
    assert result.stdout == "heard user=What is the capital of France?\n"
    (lm,) = fake_model.loaded
    assert lm.preset == DEFAULT_PRESET
    assert lm.arguments == {}
    assert lm.calls == [
        ("chat", [{"role": "user", "content": "What is the capital of France?"}], 256, None)
    ]
    assert lm.streams[0].closed


def test_ends_with_one_line_of_statistics_on_stderr(fake_model, nextword_command):
    result = nextword_command("generate", "one two")
    line = re.fullmatch(
        r"prompt: 12 tokens, 24\.0 tokens/s · generated: 3 tokens, 4\.0 tokens/s · "
        r"peak memory: ([\d,]+) MB\n",
        result.stderr,
    )
    assert line
    assert 20 < int(line[1].replace(",", "")) < 100_000


def test_quiet_leaves_stderr_empty(fake_model, nextword_command):
    result = nextword_command("generate", "--quiet", "hello")
    assert result.stdout == "heard user=hello\n"
    assert result.stderr == ""


def test_options_reach_the_model(fake_model, nextword_command):
    nextword_command(
        *("generate", "-p", "./dir", "--dtype", "bfloat16", "-n", 7),
        *("--quantization", "int4"),
        *("--stop", "END", "--stop", "\n\n", "--system", "Be brief.", "hello"),
    )
    (lm,) = fake_model.loaded
    assert lm.preset == "./dir"
    assert lm.arguments == {"dtype": "bfloat16", "quantization": "int4"}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]
    assert lm.calls == [("chat", messages, 7, ["END", "\n\n"])]


def test_raw_continues_the_prompt_as_it_stands(fake_model, nextword_command):
    result = nextword_command("generate", "--raw", " Once upon")
    assert result.stdout == " Once upon, continued.\n"
    assert fake_model.loaded[0].calls == [("stream", " Once upon", 256, None)]


def test_a_model_without_a_chat_template_continues_the_prompt(fake_model, nextword_command):
    fake_model.chat_template = None
    nextword_command("generate", "Once upon")
    assert fake_model.loaded[0].calls == [("stream", "Once upon", 256, None)]


def test_system_needs_a_chat_template(fake_model, nextword_command):
    fake_model.chat_template = None
    result = nextword_command("generate", "--system", "Be brief.", "-p", "gpt", "hello")
    assert result.status == 1
    assert result.stderr == "Error: --system needs a chat template, and gpt has none.\n"


@pytest.mark.parametrize(
    ("stdin", "prompt"),
    [("hello\n", "hello"), ("hello\n\n", "hello\n"), (" hé\nllo", " hé\nllo")],
)
def test_dash_reads_stdin_without_its_last_line_feed(fake_model, nextword_command, stdin, prompt):
    nextword_command("generate", "--raw", "-", stdin=stdin)
    assert fake_model.loaded[0].calls[0][1] == prompt


def test_a_text_that_ends_its_line_gets_no_second_line_feed(fake_model, nextword_command):
    fake_model.script = ["a\n", "b\n"]
    assert nextword_command("generate", "hello").stdout == "a\nb\n"


def test_an_answer_cut_short_says_by_what(fake_model, nextword_command):
    result = nextword_command("generate", "-n", "2", "a b c d e")
    assert result.stdout == "heard user=a \n"
    assert result.stderr.endswith(" · ended by --max-new-tokens 2\n")


def test_control_c_keeps_the_text_so_far_and_exits_130(fake_model, nextword_command):
    fake_model.script = ["Paris", " is", "^C", " a", " city"]
    result = nextword_command("generate", "hello")
    assert result.status == 130
    assert result.stdout == "Paris is a\n"
    assert result.stderr.endswith(" · ended by Ctrl-C\n")
    assert fake_model.loaded[0].streams[0].closed


def test_a_second_control_c_does_not_wait_for_a_piece(fake_model, nextword_command):
    fake_model.script = ["Paris", "^C", "^C", " is"]
    result = nextword_command("generate", "hello")
    assert result.status == 130
    assert result.stdout == "Paris\n"
    assert "ended by Ctrl-C" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'PROMPT'"),
        ([""], "Invalid value for 'PROMPT': The prompt is empty."),
        (["caf\udce9"], "Invalid value for 'PROMPT': The text is not valid UTF-8."),
        (["x", "--system", "\udce9"], "Invalid value for '--system': The text is not valid UTF-8."),
        (["x", "--stop", ""], "Invalid value for '--stop': The text is empty."),
        (["x", "--raw", "--system", "y"], "Invalid value for '--system': It cannot go with --raw."),
        (["x", "-n", "0"], "Invalid value for '--max-new-tokens'"),
        (["x", "--top-k", "-3"], "Invalid value for '--top-k'"),
        (["x", "--top-p", "1.5"], "Invalid value for '--top-p'"),
        (["x", "--temperature", "-1"], "Invalid value for '--temperature'"),
        (["x", "--dtype", "float8"], "Invalid value for '--dtype'"),
        (["x", "--quantization", "q5_0"], "Invalid value for '--quantization'"),
        (["x", "--sampler", "gredy"], "Invalid value for '--sampler'"),
        (["x", "--sample", "greedy"], "No such option: --sample"),
        (
            ["x", "--sampler", "greedy", "--temperature", "1"],
            "--temperature has no effect on greedy, only on random, top_k, top_p.",
        ),
        (["x", "-s", "random", "--top-k", "3"], "--top-k has no effect on random, only on top_k"),
        (["x", "-s", "top_k", "--top-p", "0.3"], "--top-p has no effect on top_k, only on top_p."),
    ],
)
def test_wrong_usage_exits_2_before_a_model_is_loaded(
    fake_model, nextword_command, arguments, message
):
    result = nextword_command("generate", *arguments)
    assert result.status == 2
    assert message in result.words
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert fake_model.loaded == []
