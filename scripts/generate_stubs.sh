#!/usr/bin/env bash
# Generates the Python stubs beside every .proto file. With --check: fails where a committed stub differs from its source.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
into=.
if [ "${1:-}" = --check ]; then
    into=$(mktemp -d)
    trap 'rm -rf "$into"' EXIT
fi
mapfile -t sources < <(find proto -name '*.proto' | sort)
mapfile -t services < <(grep -l '^service ' "${sources[@]}")
python -m grpc_tools.protoc -I . --python_out="$into" --mypy_out="quiet:$into" "${sources[@]}"
python -m grpc_tools.protoc -I . --grpc_python_out="$into" --mypy_grpc_out="quiet:$into" "${services[@]}"
if [ "$into" != . ]; then
    # Both ways: a stub that is stale, and a stub whose source is gone.
    list() { (cd "$1" && find proto -name '*_pb2*.py*' ! -path '*/__pycache__/*' | sort); }
    diff <(list .) <(list "$into") || { echo "the set of stubs differs from the sources: run 'make proto'" >&2; exit 1; }
    list . | while read -r stub; do
        diff -u "$stub" "$into/$stub" || { echo "$stub differs from its source: run 'make proto'" >&2; exit 1; }
    done
    echo "stubs match their sources"
fi
