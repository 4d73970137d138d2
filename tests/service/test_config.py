"""Settings: where they come from, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from service.config import (
    FILE_VARIABLE,
    SERVER_VARIABLE,
    Settings,
    SettingsError,
    flag,
    load_settings,
    settings_file,
    variable,
)


def _file(directory: Path, text: str) -> Path:
    path = directory / "settings.toml"
    path.write_text(text, "utf-8")
    return path


def test_a_flag_goes_before_a_variable_before_the_file_before_the_default(tmp_path: Path) -> None:
    """Each source wins over those below it, setting by setting."""
    file = _file(tmp_path, "max_batch_rows = 1\nsolo_rows = 2\ninter_op_threads = 3\n")
    environment = {variable("max_batch_rows"): "10", variable("solo_rows"): "20"}
    settings = load_settings({"max_batch_rows": "100"}, file, environment)
    assert (settings.max_batch_rows, settings.solo_rows, settings.inter_op_threads) == (100, 20, 3)
    assert settings.intra_op_threads == Settings.model_fields["intra_op_threads"].default


def test_the_environment_is_the_one_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read behind the caller's back."""
    monkeypatch.setenv(variable("max_batch_rows"), "7")
    assert load_settings({}, None, {}).max_batch_rows != 7


def test_an_empty_variable_counts_as_not_set() -> None:
    """As shells and compose files leave them."""
    assert load_settings({}, None, {variable("default_model"): ""}).default_model is None


def test_a_variable_of_the_client_is_no_unknown_setting() -> None:
    """The server's address may stand in the same environment, and the file's name does."""
    load_settings({}, None, {SERVER_VARIABLE: "host:1", FILE_VARIABLE: "x.toml", "PATH": "/bin"})
    assert settings_file({FILE_VARIABLE: "x.toml"}) == Path("x.toml")
    assert settings_file({FILE_VARIABLE: ""}) is None


@pytest.mark.parametrize("name", [*Settings.model_fields])
def test_every_setting_is_documented(name: str) -> None:
    """With a description of its own, in one line, that is not the name again."""
    description = Settings.model_fields[name].description
    assert description
    assert "\n" not in description
    assert len(description.split()) > 2


@pytest.mark.parametrize("name", [*Settings.model_fields])
def test_every_setting_can_be_set_by_a_variable(name: str) -> None:
    """A value that no setting takes is refused under the variable's name, or, for free text, taken."""
    wrong = "\x00 no value"
    try:
        load_settings({}, None, {variable(name): wrong})
    except SettingsError as error:
        assert str(error).startswith((f"{variable(name)}: ", "tls_"))  # noqa: PT017 - text is taken, all else refused
    else:
        assert Settings.model_fields[name].annotation in {Path, Path | None}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("max_batch_rows", "0", "greater than or equal to 1, not '0'"),
        ("max_batch_rows", "many", "valid integer, unable to parse string as an integer, not 'many'"),
        ("max_batch_rows", "1.5", "valid integer"),
        ("max_batch_rows", str(1 << 40), "less than or equal to 268435456"),
        ("drain_seconds", "nan", "not 'nan'"),
        ("drain_seconds", "inf", "less than or equal to 3600"),
        ("drain_seconds", "-1", "greater than or equal to 0"),
        ("device", "tpu", "'cpu', 'cuda' or 'auto', not 'tpu'"),
        ("log_level", "loud", "not 'loud'"),
        ("spinning", "perhaps", "not 'perhaps'"),
        ("listen", "nowhere", "'nowhere' is not HOST:PORT"),
        ("listen", "unix:", "is not HOST:PORT"),
        ("http_listen", "unix:/tmp/x", "is not HOST:PORT"),
        ("http_listen", "host:99999", "'host:99999' is not HOST:PORT with a port up to 65535"),
        ("default_model", "Linear Model", "is not a valid name"),
    ],
)
def test_what_is_out_of_bounds_is_named_with_its_origin(tmp_path: Path, name: str, value: str, reason: str) -> None:
    """One line: the flag, the variable, or the key of the file; what is wrong; the value."""
    file = _file(tmp_path, f"{name} = '{value}'\n")
    for given, environment, origin in (
        ({name: value}, {}, flag(name)),
        ({}, {variable(name): value}, variable(name)),
        ({}, {}, f"{name!r} in {file}"),
    ):
        with pytest.raises(SettingsError) as caught:
            load_settings(given, None if given or environment else file, environment)
        message = str(caught.value)
        assert message.startswith(f"{origin}: ")
        assert reason in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_rows = true", "'max_batch_rows' in {file}: true is no value for it"),
        ("default_model = false", "'default_model' in {file}: false is no value for it"),
        ("listen = 5", "'listen' in {file}: input should be a valid string, not '5'"),
        ("max_batch_rows = [1]", "'max_batch_rows' in {file}: input should be a valid integer, not '[1]'"),
        ("no_such = 1", "'no_such' in {file}: there is no such setting"),
        ("[serving]\nlisten = 'x'", "'serving' in {file}: there is no such setting"),
        ("a b c", "settings file {file} is not TOML"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """Types are the file's own, a key must be a setting, and the text must be TOML."""
    file = _file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings({}, file, {})
    assert str(caught.value).startswith(words.format(file=file))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """It was named, so it was meant."""
    with pytest.raises(SettingsError, match=r"nothing\.toml: No such file"):
        load_settings({}, tmp_path / "nothing.toml", {})


def test_unknown_variables_are_refused_all_at_once() -> None:
    """A misspelt variable would otherwise be silently without effect."""
    environment = {"QUICKSILVER_MAX_BATCHROWS": "1", "QUICKSILVER_": "x", "QUICKSILVERISH": "fine"}
    with pytest.raises(SettingsError) as caught:
        load_settings({}, None, environment)
    assert str(caught.value).splitlines() == [
        "QUICKSILVER_: there is no such setting",
        "QUICKSILVER_MAX_BATCHROWS: there is no such setting",
    ]


def test_every_problem_is_told_at_once() -> None:
    """One run shows all that is to be mended, a line each."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"max_batch_rows": "0", "device": "tpu"}, None, {variable("solo_rows"): "-1"})
    assert sorted(line.partition(":")[0] for line in str(caught.value).splitlines()) == [
        "--device",
        "--max-batch-rows",
        variable("solo_rows"),
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"listen": "host:1", "http_listen": "host:1"}, "one address cannot serve two protocols"),
        ({"max_waiting_bytes": 2048, "max_message_bytes": 4096}, "one message alone may break it"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], words: str) -> None:
    """The message names both, and where each came from."""
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(given, None, {})
    for name in given:
        assert f"{name} is from {flag(name)}" in str(caught.value)


def test_free_ports_do_not_contradict_each_other() -> None:
    """Port 0 is another port each time."""
    settings = load_settings({"listen": "127.0.0.1:0", "http_listen": "127.0.0.1:0"}, None, {})
    assert settings.listen == settings.http_listen


def test_settings_never_change() -> None:
    """They are one value, made once."""
    with pytest.raises(ValidationError, match="frozen"):
        load_settings({}, None, {}).listen = "elsewhere:1"
