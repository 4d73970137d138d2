"""The dashboard "Training": what the jobs that fit and judge challengers told of themselves."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.parts import (
    MODEL,
    ORANGE,
    RED,
    Panel,
    Query,
    gauge_of,
    make_dashboard,
    show_bars,
    show_course,
    show_numbers,
    show_table,
)

LAST_RUN: Final = "quicksilver_training_last_run_timestamp_seconds"
LAST_LOOK: Final = "quicksilver_training_last_look_timestamp_seconds"
LOSS: Final = "quicksilver_training_loss"


def dashboard() -> Dashboard:
    """Runs, losses, verdicts of the gate."""
    return make_dashboard(
        "Training",
        "When models were last trained, how well they fitted, and what the gate said of them.",
        labels_of=LAST_RUN,
        rows=[("Runs", _runs()), ("Losses", _losses())],
    )


def _runs() -> list[Panel]:
    return [
        show_numbers(
            "Since the last run",
            "Time since each model was last trained, whatever came of it.",
            "s",
            Query(f"time() - {gauge_of(LAST_RUN, 'model')}", "{{model}}"),
        ),
        show_numbers(
            "Runs in 24 hours",
            "How often each model was trained in the last day, as far as the runs told of themselves.",
            "none",
            Query(f"sum by (model) (changes({LAST_RUN}{{{MODEL}}}[24h]))", "{{model}}"),
            decimals=0,
        ),
        show_table(
            "Last verdict",
            "What the gate said of the last challenger: accepted, rejected, not enough data, or failed.",
            "none",
            Query(f"{gauge_of('quicksilver_training_verdict', 'model, verdict')} == 1"),
            columns={"model": "Model", "verdict": "Verdict"},
        ),
        show_course(
            "Verdicts",
            "1 for the verdict of each model's last run.",
            "none",
            Query(gauge_of("quicksilver_training_verdict", "model, verdict"), "{{model}}: {{verdict}}"),
        ),
        show_course(
            "Duration",
            "How long the last run took.",
            "s",
            Query(gauge_of("quicksilver_training_duration_seconds", "model"), "{{model}}"),
        ),
        show_bars(
            "Epochs",
            "Passes over the training data in the last run.",
            "none",
            Query(gauge_of("quicksilver_training_epochs", "model"), "{{model}}"),
        ),
        show_numbers(
            "Since the last look",
            "Time since a schedule last looked, for models that have one. Above two days an alert fires.",
            "s",
            Query(f"time() - {gauge_of(LAST_LOOK, 'model')}", "{{model}}"),
            steps=[(86400, ORANGE), (2 * 86400, RED)],
        ),
        show_numbers(
            "Undecided trials",
            "1 where a schedule's last look ended a trial that nothing had decided for too long.",
            "none",
            Query(gauge_of("quicksilver_training_trial_expired", "model"), "{{model}}"),
            decimals=0,
        ),
    ]


def _losses() -> list[Panel]:
    return [
        show_course(
            "Loss from run to run",
            "Mean squared error at the end of each run, in °C², on the rows trained on and on those held out.",
            "none",
            Query(gauge_of(LOSS, "model, split"), "{{model}}, {{split}}"),
            width=16,
        ),
        show_bars(
            "Last losses",
            "The same for the last run. Validation far above training is a model that follows the noise.",
            "none",
            Query(gauge_of(LOSS, "model, split"), "{{model}}, {{split}}"),
        ),
    ]
