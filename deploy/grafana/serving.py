"""The dashboard "Serving": whether calls are answered, how fast, and how much more there could be."""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard

from deploy.grafana.parts import (
    ORANGE,
    RED,
    SERVER,
    Panel,
    Query,
    gauge_of,
    mean_of,
    quantile_of,
    quantiles,
    rate_of,
    show_course,
    show_heat,
    show_numbers,
)
from deploy.grafana.served import served_dashboard

CONVERSIONS: Final = f'{SERVER}, grpc_method=~"Convert|ConvertStream|ModelInfer|ModelStreamInfer"'
UNARY: Final = f'{SERVER}, grpc_method=~"Convert|ModelInfer"'
OVERLOAD: Final = f'{SERVER}, reason=~"calls|bytes|streams"'


def dashboard() -> Dashboard:
    """Traffic, errors, latency, batches and load, by model version where that can be told."""
    return served_dashboard(
        "Serving",
        "Whether conversions are answered, how fast, and how close to its limits the server is.",
        [
            ("At a glance", _glance()),
            ("Traffic and errors", _traffic()),
            ("Latency", _latency()),
            ("Batches", _batches()),
            ("Load and limits", _load()),
        ],
    )


def _glance() -> list[Panel]:
    return [
        show_numbers(
            "Servers",
            "Targets that answered the last scrape. What is missing here is down, or not scraped.",
            "none",
            Query(f"sum (up{{{SERVER}}})"),
        ),
        show_numbers(
            "Calls",
            "Calls begun a second: conversions, and everything else that is asked over gRPC.",
            "reqps",
            Query(rate_of("grpc_server_started_total", "", matchers=SERVER)),
        ),
        show_numbers(
            "Rows",
            "Temperatures answered a second.",
            "rowsps",
            Query(rate_of("quicksilver_rows_total", "")),
        ),
        show_numbers(
            "p99",
            "99 % of unary conversions are answered within this time. The objective is 25 ms.",
            "s",
            Query(quantile_of("grpc_server_handling_seconds", 0.99, matchers=UNARY)),
            steps=[(0.025, ORANGE), (0.25, RED)],
        ),
        show_numbers(
            "Error budget burn, 1 h",
            "How many times faster than allowed the error budget (0.1 % of calls over 30 days) is used up. Above 14.4 "
            "an alert pages.",
            "none",
            Query('max (job:quicksilver_failed_calls:ratio_rate1h{job=~"$job"}) / 0.001'),
            steps=[(1, ORANGE), (14.4, RED)],
            decimals=2,
        ),
        show_numbers(
            "Latency budget burn, 1 h",
            "How many times faster than allowed the latency budget (1 % of calls over 25 ms, over 30 days) is used up. "
            "Above 14.4 an alert pages.",
            "none",
            Query('max (job:quicksilver_slow_calls:ratio_rate1h{job=~"$job"}) / 0.01'),
            steps=[(1, ORANGE), (14.4, RED)],
            decimals=2,
        ),
    ]


def _traffic() -> list[Panel]:
    return [
        show_course(
            "Calls by method",
            "Calls begun a second.",
            "reqps",
            Query(rate_of("grpc_server_started_total", "grpc_method", matchers=SERVER), "{{grpc_method}}"),
            stacked=True,
        ),
        show_course(
            "Rows by model version",
            "Temperatures answered a second. A swap shows as one colour taking the place of another.",
            "rowsps",
            Query(rate_of("quicksilver_rows_total", "model, version"), "{{model}}/{{version}}"),
            stacked=True,
        ),
        show_course(
            "Calls that failed, by code",
            "Calls ended a second with a code other than OK. InvalidArgument, NotFound and OutOfRange are the "
            "callers'; Internal, Unavailable, DeadlineExceeded and Unknown count against the objective.",
            "reqps",
            Query(
                rate_of("grpc_server_handled_total", "grpc_code", matchers=f'{CONVERSIONS}, grpc_code!="OK"')
                + " > 0 or label_replace(vector(0), 'grpc_code', 'none', '', '')",
                "{{grpc_code}}",
            ),
        ),
    ]


def _latency() -> list[Panel]:
    return [
        show_course(
            "Latency of unary conversions",
            "Time in the server from a call's begin to its end, all methods of one request and one answer together. "
            "The dashed line is the objective for 99 % of calls.",
            "s",
            *quantiles(lambda q: quantile_of("grpc_server_handling_seconds", q, matchers=UNARY)),
            limit=0.025,
        ),
        show_heat(
            "Latency heat",
            "How many unary conversions a second took how long. Two bands are two kinds of calls, or two models.",
            "s",
            Query(rate_of("grpc_server_handling_seconds_bucket", "le", matchers=UNARY), "{{le}}"),
        ),
        show_course(
            "p99 by method",
            "Streams last as long as their callers like, so only methods of one request and one answer are here.",
            "s",
            Query(
                quantile_of(
                    "grpc_server_handling_seconds", 0.99, "grpc_method", matchers=f'{SERVER}, grpc_type="unary"'
                ),
                "{{grpc_method}}",
            ),
        ),
    ]


def _batches() -> list[Panel]:
    version = "{{model}}/{{version}}"
    return [
        show_course(
            "Queue against inference",
            "Where a call's time goes: waiting for its run, or in ONNX Runtime. Waiting that grows while inference "
            "stays is load; inference that grows is the model, the batch or the machine.",
            "s",
            Query(quantile_of("quicksilver_queue_seconds", 0.99), "p99 queue"),
            Query(quantile_of("quicksilver_queue_seconds", 0.5), "p50 queue"),
            Query(quantile_of("quicksilver_inference_seconds", 0.99), "p99 inference"),
            Query(quantile_of("quicksilver_inference_seconds", 0.5), "p50 inference"),
        ),
        show_course(
            "Batch size",
            "Rows that one run of ONNX Runtime answered, and calls that shared it, on average. A server with nothing "
            "to do answers each call at once: 1.",
            "none",
            Query(mean_of("quicksilver_batch_rows", "model, version"), f"rows, {version}"),
            Query(mean_of("quicksilver_batch_calls", "model, version"), f"calls, {version}"),
        ),
        show_course(
            "p99 of inference by model version",
            "Time of one run in ONNX Runtime. A new version that is slower than the old one shows here first.",
            "s",
            Query(quantile_of("quicksilver_inference_seconds", 0.99, "model, version"), version),
        ),
    ]


def _load() -> list[Panel]:
    return [
        show_course(
            "Calls refused",
            "Calls refused or given up a second, by reason: calls, bytes and streams are limits that conversions "
            "reached, long_calls that of loads and moves of labels, observations that of reports; slow_reader and "
            "stalled are callers that take no answers; connection_age is an old or idle connection that was cut off; "
            "draining is a server that stops.",
            "reqps",
            Query(rate_of("quicksilver_shed_calls_total", "reason", matchers=SERVER), "{{reason}}"),
        ),
        show_course(
            "Share refused for load",
            "Of all conversions, those refused because a limit of theirs was reached; each request of a stream counts "
            "as one. Above 1 % for 5 minutes an alert fires.",
            "percentunit",
            Query(
                f"{rate_of('quicksilver_shed_calls_total', 'job', matchers=OVERLOAD)} / sum by (job) ("
                f"rate(quicksilver_shed_calls_total{{{OVERLOAD}}}[$__rate_interval]) "
                f"or rate(quicksilver_batch_calls_sum{{{SERVER}}}[$__rate_interval]))",
                "{{job}}",
            ),
            limit=0.01,
        ),
        show_course(
            "Calls in flight",
            "Calls begun and not ended.",
            "none",
            Query(gauge_of("quicksilver_in_flight_calls", "instance", of="sum", matchers=SERVER), "{{instance}}"),
        ),
        show_course(
            "Connections",
            "Open connections. One process feeds about one core, and connections are what several processes share.",
            "none",
            Query(gauge_of("quicksilver_connections", "instance", of="sum", matchers=SERVER), "{{instance}}"),
        ),
        show_course(
            "Connections that came and went",
            "Opened, and closed by reason, a second. full is the limit on connections; misuse, handshake and stalled "
            "are peers that behave badly.",
            "ops",
            Query(rate_of("quicksilver_connections_opened_total", "", matchers=SERVER), "opened"),
            Query(rate_of("quicksilver_connections_closed_total", "reason", matchers=SERVER), "closed: {{reason}}"),
        ),
        show_course(
            "Processor",
            "Cores kept busy by the server's processes.",
            "none",
            Query(rate_of("process_cpu_seconds_total", "instance", matchers=SERVER), "{{instance}}"),
        ),
        show_course(
            "Memory",
            "Resident memory of the server's processes.",
            "bytes",
            Query(gauge_of("process_resident_memory_bytes", "instance", of="sum", matchers=SERVER), "{{instance}}"),
        ),
        show_course(
            "Workers",
            "With several workers: those that take connections.",
            "none",
            Query(gauge_of("quicksilver_worker_up", "instance", of="sum", matchers=SERVER), "{{instance}}"),
        ),
        show_course(
            "Connections by worker",
            "With several workers: how evenly the connections lie. A new one goes to the worker that has fewest.",
            "none",
            Query(
                gauge_of("quicksilver_worker_connections", "instance, worker", matchers=SERVER),
                "{{instance}}, {{worker}}",
            ),
        ),
        show_course(
            "Age of the workers' reports",
            "With several workers: time since each told what it counted. One that grows is a worker that hangs.",
            "s",
            Query(
                gauge_of("quicksilver_worker_report_age_seconds", "instance, worker", matchers=SERVER),
                "{{instance}}, {{worker}}",
            ),
        ),
        show_course(
            "Workers replaced",
            "Worker processes that died and were replaced, in the last 15 minutes; only with several workers.",
            "none",
            Query(
                f"sum by (instance) (increase(quicksilver_worker_restarts_total{{{SERVER}}}[15m]))",
                "{{instance}}",
            ),
        ),
        show_course(
            "Devices",
            "Servers by the device that was asked for and the one that models really run on.",
            "none",
            Query(
                gauge_of("quicksilver_device_info", "requested, used", of="sum", matchers=SERVER),
                "{{requested}}: {{used}}",
            ),
        ),
    ]
