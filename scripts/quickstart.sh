#!/usr/bin/env bash
# What `make run` does: trains both converters unless they are published, serves them, shows conversions, goes on serving.
#   --once     stop after the conversions
#   --retrain  train and publish new versions, though there are some
# The models go to $QUICKSILVER_REPOSITORY (models/); the server listens on $QUICKSILVER_LISTEN (127.0.0.1:50051).
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export QUICKSILVER_REPOSITORY=${QUICKSILVER_REPOSITORY:-models}
export QUICKSILVER_LISTEN=${QUICKSILVER_LISTEN:-127.0.0.1:50051}
export QUICKSILVER_HTTP_LISTEN=${QUICKSILVER_HTTP_LISTEN:-127.0.0.1:8002}
export QUICKSILVER_DEFAULT_MODEL=${QUICKSILVER_DEFAULT_MODEL:-linear}
export QUICKSILVER_LOG_LEVEL=${QUICKSILVER_LOG_LEVEL:-warning}
export QUICKSILVER_SERVER=$QUICKSILVER_LISTEN

once=
unless_published=--unless-published
for word in "$@"; do
    case $word in
        --once) once=yes ;;
        --retrain) unless_published= ;;
        *) echo "quickstart: no option '$word'; there are --once and --retrain" >&2; exit 2 ;;
    esac
done

for model in linear mlp; do
    quicksilver train "$model" --publish "$QUICKSILVER_REPOSITORY" --name "$model" $unless_published
done

quicksilver serve &
server=$!
stop() {
    trap - INT TERM EXIT
    kill -TERM "$server" 2>/dev/null || true
    wait "$server" || true
}
trap stop EXIT
trap 'stop; exit 0' INT TERM

# Ready, or the server's own error on the terminal and its exit code here.
quicksilver ready --wait 60 &
ready=$!
if ! wait -n "$server" "$ready" || ! kill -0 "$server" 2>/dev/null; then
    wait "$server"
    exit 1
fi

for model in linear mlp; do
    echo
    quicksilver convert --model "$model" --interval 32 50 98.6 212
done
echo
if [ -n "$once" ]; then
    exit 0
fi
echo "Serving gRPC on $QUICKSILVER_LISTEN, metrics on http://$QUICKSILVER_HTTP_LISTEN/metrics. Ctrl-C stops it."
echo "Try, in another terminal: .venv/bin/quicksilver convert 32 98.6 212"
wait "$server"
