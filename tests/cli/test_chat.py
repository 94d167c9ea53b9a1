"""`nextword chat`: what is remembered, what is forgotten, and how one leaves."""

import pytest


def said(fake_model):
    """The texts of the messages of every call, in order."""
    return [[message["content"] for message in call[1]] for call in fake_model.loaded[0].calls]


def test_remembers_what_was_said(fake_model, nextword_command):
    result = nextword_command("chat", "-q", stdin="one\ntwo\n")
    assert result.status == 0
    assert result.stdout == ("heard user=one\nheard user=one, assistant=heard user=one, user=two\n")
    assert result.stderr == ""


def test_reset_forgets_all_but_the_instructions(fake_model, nextword_command):
    nextword_command("chat", "--system", "Be kind.", stdin="one\n  /reset \ntwo\n/exit\nthree\n")
    assert said(fake_model) == [["Be kind.", "one"], ["Be kind.", "two"]]


def test_blank_lines_and_unknown_commands_are_not_messages(fake_model, nextword_command):
    result = nextword_command("chat", "-q", stdin="\n   \n/exi\n/etc/hosts is a file\n")
    assert said(fake_model) == [["/etc/hosts is a file"]]
    assert result.stderr == (
        "Error: There is no command /exi, only /exit and /reset. Did you mean '/exit'?\n"
    )


def test_control_c_keeps_what_was_said_of_an_answer(fake_model, nextword_command):
    fake_model.script = ["so", " far", "^C", ",", " so", " good"]
    result = nextword_command("chat", stdin="one\ntwo\n")
    assert result.status == 0
    assert result.stdout == "so far,\nso far,\n"
    assert said(fake_model) == [["one"], ["one", "so far,", "two"]]
    assert result.stderr.count("ended by Ctrl-C") == 2


def test_a_message_that_control_c_left_unanswered_is_forgotten(fake_model, nextword_command):
    fake_model.script = ["^C", "^C"]
    nextword_command("chat", stdin="one\ntwo\n")
    assert said(fake_model) == [["one"], ["two"]]


def test_a_refused_message_is_forgotten_and_the_conversation_goes_on(fake_model, nextword_command):
    result = nextword_command("chat", "-q", stdin="too long\nshort\n")
    assert said(fake_model)[-1] == ["short"]
    assert "Error: The prompt is longer than the context. Received: 9000 tokens.\n" in result.stderr
    assert result.status == 0


def test_a_model_without_a_chat_template_is_refused(fake_model, nextword_command):
    fake_model.chat_template = None
    result = nextword_command("chat", "-p", "gpt", stdin="one\n")
    assert result.status == 1
    assert result.stderr == (
        "Error: chat needs a model with a chat template, and gpt has none: "
        "`nextword generate --raw` continues a text with it.\n"
    )


@pytest.mark.parametrize("arguments", [["--raw"], ["a message"], ["--stop", ""]])
def test_wrong_usage_exits_2(fake_model, nextword_command, arguments):
    assert nextword_command("chat", *arguments, stdin="one\n").status == 2
    assert fake_model.loaded == []
