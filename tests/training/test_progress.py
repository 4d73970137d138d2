"""Progress: a bar on a terminal, plain lines elsewhere, and nothing on standard output."""

import io
import math

import pytest

from training.progress import shown


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Claim to be one."""
        return True


def watch(stream: io.StringIO, epochs: int, validation: float) -> str:
    """What is shown of a fit whose training loss is 10 divided by the epoch."""
    with shown("mlp", epochs, stream) as progress:
        for epoch in range(1, epochs + 1):
            progress(epoch, 10.0 / epoch, validation)
    return stream.getvalue()


def test_pipe_gets_a_few_plain_lines() -> None:
    """Six lines a fit with the losses, the first epoch's and the last one's among them, and no control characters."""
    text = watch(io.StringIO(), 1000, 2.5)
    lines = text.splitlines()
    assert len(lines) == 6
    assert lines[0] == "mlp: epoch 1 of 1000, training loss 10.0000, validation loss 2.5000"
    assert lines[-1] == "mlp: epoch 1000 of 1000, training loss 0.0100, validation loss 2.5000"
    assert "\x1b" not in text


@pytest.mark.parametrize("epochs", [1, 3, 7])
def test_short_fits_show_their_end(epochs: int) -> None:
    """However few epochs, the last one is shown."""
    assert f"epoch {epochs} of {epochs}," in watch(io.StringIO(), epochs, 2.5).splitlines()[-1]


def test_terminal_gets_a_bar_with_the_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar comes to 100 % with the current losses beside it."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    text = watch(Terminal(), 1000, 2.5)
    assert "100%" in text
    assert "training loss 0.0100, validation loss 2.5000" in text
    assert "\x1b[" in text


def test_loss_that_is_not_there_is_not_shown() -> None:
    """Refits without validation rows show their training loss alone."""
    text = watch(io.StringIO(), 5, math.nan)
    assert "training loss" in text
    assert "validation" not in text
    assert "nan" not in text


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays free for the results."""
    with shown("mlp", 1) as progress:
        progress(1, 1.0, 1.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "epoch 1 of 1" in captured.err
