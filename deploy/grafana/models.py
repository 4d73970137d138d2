"""The dashboard "Models": which version answers, whether its answers are right, and whether it was trained for them."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.parts import (
    MODEL,
    SERVER,
    Annotation,
    Panel,
    Query,
    gauge_of,
    mean_of,
    quantile_of,
    quantiles,
    rate_of,
    show_bars,
    show_course,
    show_table,
)
from deploy.grafana.served import served_dashboard

VERSION: Final = "model, version"
NAMED: Final = "{{model}}/{{version}}"
LAW: Final = "quicksilver_error_against_exact_law_celsius"
SHADOW: Final = "quicksilver_shadow_difference_celsius"
PROMOTIONS: Final = "quicksilver_promotions_total"
ROLLBACKS: Final = "quicksilver_rollbacks_total"


def dashboard() -> Dashboard:
    """Versions and swaps, true error, extrapolation, drift, golden checks, observations, challengers."""
    return served_dashboard(
        "Models",
        "Which version answers, how right it is, and whether it is asked for what it was trained on.",
        [
            ("Which version answers", _versions()),
            ("Right, against the exact law", _right()),
            ("Asked for what it was trained on", _inputs()),
            ("Right, against what was observed", _observed()),
            ("Challengers", _challengers()),
        ],
        marks=MOVES,
    )


def _versions() -> list[Panel]:
    return [
        show_table(
            "Labels",
            "The version that each label names. stable answers requests that name no version.",
            "none",
            Query(gauge_of("quicksilver_label_info", "model, label, version")),
            columns={"model": "Model", "label": "Label", "version": "Version"},
        ),
        show_table(
            "Loaded versions",
            "Versions in memory that gave the right answers to their golden vectors here, on this device.",
            "none",
            Query(gauge_of("quicksilver_model_info", "model, version, kind, device")),
            columns={"model": "Model", "version": "Version", "kind": "Kind", "device": "Device"},
        ),
        show_course(
            "Share of rows by version",
            "Of each model's rows, those that each version answered: the lines of one model add up to 100 %.",
            "percentunit",
            Query(
                f"{rate_of('quicksilver_rows_total', VERSION)} / on (model) group_left "
                f"{rate_of('quicksilver_rows_total', 'model')}",
                NAMED,
            ),
            top=1,
        ),
        show_course(
            "Ready",
            "1 where a request that names no version is answered; on the server that is worst off.",
            "none",
            Query(gauge_of("quicksilver_model_ready", "model", of="min"), "{{model}}"),
        ),
        show_course(
            "Loads that failed",
            "Attempts to load a version that failed in the last hour. A broken version never replaces a good one.",
            "none",
            Query(
                'sum by (model) (increase(quicksilver_load_failures_total{job=~"$job", instance=~"$instance", '
                'model=~"$model"}[1h]))',
                "{{model}}",
            ),
        ),
        show_table(
            "Broken versions",
            "Versions that could not be loaded, or did not answer their golden vectors. Empty is well.",
            "none",
            Query(gauge_of("quicksilver_version_failed", VERSION)),
            columns={"model": "Model", "version": "Version"},
        ),
        show_table(
            "Last load",
            "When a version of each model was last loaded.",
            "dateTimeAsIso",
            Query(gauge_of("quicksilver_last_load_timestamp_seconds", "model") + " * 1000"),
            columns={"model": "Model", "Value": "Loaded"},
        ),
        show_bars(
            "Golden deviation",
            "Largest difference of an answer from its golden vector, when the version was loaded here. It is within "
            "the tolerance that the artefact states, or the version would not be served; what grows towards it is "
            "worth a look.",
            "celsius",
            Query(gauge_of("quicksilver_golden_deviation_celsius", VERSION), NAMED),
        ),
    ]


def _right() -> list[Panel]:
    return [
        show_course(
            "Mean true error",
            "Mean absolute difference of sampled answers from (°F − 32) · 5/9. Inside the training range it is the "
            "model; outside of it, extrapolation.",
            "celsius",
            Query(mean_of(LAW, VERSION), NAMED),
            limit=5,
        ),
        show_course(
            "True error, half hour",
            "The mean that the alert QuicksilverTrueError looks at, as the recording rule has it.",
            "celsius",
            Query(
                f'max by (model, version) (job_model_version:{LAW}:mean30m{{job=~"$job", model=~"$model"}})',
                NAMED,
            ),
            limit=5,
        ),
        show_course(
            "True error, quantiles",
            "Half, nine tenths and 99 % of the sampled answers of all chosen models are off by no more than this.",
            "celsius",
            *quantiles(lambda q: quantile_of(LAW, q)),
        ),
    ]


def _inputs() -> list[Panel]:
    return [
        show_course(
            "Outside the training range",
            "Share of the sampled rows that lie outside the readings the model was trained on. Such answers are "
            "flagged and come without an interval.",
            "percentunit",
            Query(
                f"{rate_of('quicksilver_outside_domain_rows_total', VERSION)} / "
                f"{rate_of('quicksilver_sampled_rows_total', VERSION)}",
                NAMED,
            ),
        ),
        show_course(
            "Drift of the inputs",
            "Population stability index of the inputs of late against the reference in the artefact. Up to 0.1 they "
            "are alike, above 0.25 they are not. Models with fewer than 100 reference rows have none.",
            "none",
            Query(gauge_of("quicksilver_drift_psi", VERSION), NAMED),
            limit=0.25,
        ),
        show_course(
            "Rows in the drift window",
            "Sampled rows that the index is taken over.",
            "none",
            Query(gauge_of("quicksilver_drift_window_rows", VERSION, of="sum"), NAMED),
        ),
        show_course(
            "Rows sampled",
            "Rows a second that true error, range and drift are taken from: all of small calls, some of large ones.",
            "rowsps",
            Query(rate_of("quicksilver_sampled_rows_total", VERSION), NAMED),
        ),
    ]


def _observed() -> list[Panel]:
    return [
        show_course(
            "Live error",
            "Mean absolute error against observed temperatures, with the bounds that hold it with 95 %.",
            "celsius",
            Query(gauge_of("quicksilver_live_mae_celsius", VERSION), f"{NAMED}"),
            Query(gauge_of("quicksilver_live_mae_lower_celsius", VERSION), f"{NAMED}, lower"),
            Query(gauge_of("quicksilver_live_mae_upper_celsius", VERSION), f"{NAMED}, upper"),
            limit=3,
        ),
        show_course(
            "Coverage",
            "Share of observed temperatures inside the interval that came with the answer, with the bounds that "
            "hold it with 95 %, and the share it states.",
            "percentunit",
            Query(gauge_of("quicksilver_live_coverage_ratio", VERSION), NAMED),
            Query(gauge_of("quicksilver_live_coverage_lower_ratio", VERSION), f"{NAMED}, lower"),
            Query(gauge_of("quicksilver_live_coverage_upper_ratio", VERSION), f"{NAMED}, upper"),
            Query(gauge_of("quicksilver_live_stated_coverage_ratio", VERSION), f"{NAMED}, stated"),
        ),
        show_course(
            "Squared live error",
            "Mean squared error against observed temperatures, with the bounds that hold it with 95 %: what training "
            "minimises. Few large errors show here first.",
            "none",
            Query(gauge_of("quicksilver_live_mse_celsius2", VERSION), f"{NAMED}, °C²"),
            Query(gauge_of("quicksilver_live_mse_lower_celsius2", VERSION), f"{NAMED}, lower"),
            Query(gauge_of("quicksilver_live_mse_upper_celsius2", VERSION), f"{NAMED}, upper"),
        ),
        show_course(
            "Observations behind it",
            "Observations that the figures beside this are taken over.",
            "none",
            Query(gauge_of("quicksilver_live_observations", VERSION), NAMED),
        ),
        show_course(
            "Observations reported",
            "Observations a second, by what became of them. unavailable is a store that fails.",
            "ops",
            Query(rate_of("quicksilver_observations_total", "result", matchers=SERVER), "{{result}}"),
        ),
    ]


def _challengers() -> list[Panel]:
    return [
        show_course(
            "Share of the canary",
            "The share of calls that name no version which a canary answers; 0 is a shadow, which answers none.",
            "percentunit",
            Query(gauge_of("quicksilver_canary_share", VERSION), NAMED),
        ),
        show_course(
            "Canary calls",
            "Calls a second that were given to a canary in place of stable, and those that went back to stable because "
            "it could not answer.",
            "reqps",
            Query(rate_of("quicksilver_canary_calls_total", VERSION), NAMED),
            Query(rate_of("quicksilver_canary_fallback_calls_total", VERSION), f"{NAMED}, given back"),
        ),
        show_course(
            "Shadowed rows",
            "Rows a second that a challenger ran beside stable, after the answer was sent; and those it let go for "
            "load.",
            "rowsps",
            Query(rate_of("quicksilver_shadow_rows_total", VERSION), NAMED),
            Query(rate_of("quicksilver_shadow_failed_rows_total", VERSION), f"{NAMED}, without an answer"),
            Query(rate_of("quicksilver_shadow_dropped_rows_total", "model"), "{{model}}, let go"),
        ),
        show_course(
            "Difference of shadow and stable",
            "Half and 99 % of the shadowed rows differ by no more than this.",
            "celsius",
            Query(quantile_of(SHADOW, 0.5, VERSION), f"p50 {NAMED}"),
            Query(quantile_of(SHADOW, 0.99, VERSION), f"p99 {NAMED}"),
        ),
        show_course(
            "Promotions and roll-backs",
            "In the last hour, by rule or by hand.",
            "none",
            Query(_moved(PROMOTIONS, "1h"), "promoted: {{model}}"),
            Query(_moved(ROLLBACKS, "1h"), "taken back: {{model}}"),
        ),
    ]


def _moved(counter: str, time: str) -> str:
    # every server that follows the repository counts the same move
    return f"max by (model) (increase({counter}{{{MODEL}}}[{time}]))"


MOVES: Final = (
    Annotation("Promotion", f"{_moved(PROMOTIONS, '5m')} > 0", "stable of {{model}} moved to another version", "green"),
    Annotation("Roll-back", f"{_moved(ROLLBACKS, '5m')} > 0", "stable of {{model}} was taken back", "red"),
)
"""A move as the five minutes that begin with it."""
