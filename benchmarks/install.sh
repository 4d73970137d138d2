#!/usr/bin/env bash
# Installs what `make bench` measures, each server into an environment of its own: benchmarks/install.sh PEER...
# PEER is one of: tools quicksilver grpcio triton triton-onnxruntime mlserver kserve ray_serve litserve bentoml cpp
# Versions are pinned here, so that a figure can be had again. What is installed already is left as it is, except
# quicksilver, which is always the working tree as it stands, or the commit that REVISION names.
set -euo pipefail
cd "$(dirname "$0")/.."
root=.venv-bench
python=${PYTHON:-python3}
onnxruntime=onnxruntime==1.31.1

say() { echo "install: $*"; }

debian() {
    say "installing Debian's $*"
    apt-get update -qq && apt-get install -y -qq "$@" >/dev/null
}

# environment NAME REQUIREMENT...: a virtual environment with these, unless it is there and complete
environment() {
    local home=$root/$1
    shift
    if [ -e "$home/.complete" ]; then return; fi
    say "installing $* into $home"
    "$python" -m venv "$home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    touch "$home/.complete"
}

# stubs NAME: the Open Inference contract's generated stubs, for servers that are written against them
stubs() {
    mkdir -p "$root/$1/stubs"
    # Below `inference`, not below `proto`: that name belongs to another package in some of these environments.
    "$root/$1/bin/python" -m grpc_tools.protoc -I proto --python_out="$root/$1/stubs" \
        --grpc_python_out="$root/$1/stubs" inference/v2/open_inference.proto
}

quicksilver() {
    local home=$root/quicksilver tree
    tree=$(mktemp -d)
    if [ -n "${REVISION-}" ]; then
        git archive "$REVISION" | tar -x -C "$tree"
    elif git rev-parse >/dev/null 2>&1; then
        git ls-files -z --cached --others --exclude-standard | xargs -0 ls -d 2>/dev/null | tar -c -T - | tar -x -C "$tree"
    else
        cp -r pyproject.toml quicksilver.py proto service training "$tree"
    fi
    [ -x "$home/bin/python" ] || "$python" -m venv "$home"
    say "installing the working tree into $home"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$tree[cpu]"
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$tree"
    rm -rf "$tree"
    if [ -n "${REVISION-}" ]; then
        git rev-parse --short "$REVISION"
    else
        git describe --always --dirty --exclude '*' 2>/dev/null || echo "not under git"
    fi >"$home/revision"
}

# Triton's own backend for ONNX Runtime is in no package that pip knows. Where one is at hand, compiled for the release
# that pytriton carries (2.51, r24.10), TRITON_ONNXRUNTIME_BACKEND names its directory; elsewhere it is skipped by name.
triton_onnxruntime() {
    local out=$root/triton/backends/onnxruntime
    if [ -e "$out/libtriton_onnxruntime.so" ]; then return; fi
    if [ ! -e "${TRITON_ONNXRUNTIME_BACKEND-}/libtriton_onnxruntime.so" ]; then
        say "no ONNX Runtime backend for Triton at hand: set TRITON_ONNXRUNTIME_BACKEND to the directory of one" >&2
        return 1
    fi
    mkdir -p "$out"
    cp -R "$TRITON_ONNXRUNTIME_BACKEND"/. "$out"
}

cpp_echo() {
    local home=$root/cpp
    if [ -e "$home/bin/echo" ]; then return; fi
    pkg-config --exists grpc++ 2>/dev/null && command -v g++ >/dev/null || debian libgrpc++-dev pkg-config g++
    mkdir -p "$home/bin"
    # shellcheck disable=SC2046 # pkg-config's answer is many words
    g++ -std=c++17 -O3 -DNDEBUG -o "$home/bin/echo" benchmarks/servers/echo.cc $(pkg-config --cflags --libs grpc++)
    pkg-config --modversion grpc++ >"$home/version"
}

install() {
    case $1 in
        tools)
            command -v h2load >/dev/null || debian nghttp2-client
            command -v taskset >/dev/null || debian util-linux
            ;;
        quicksilver) quicksilver ;;
        grpcio) environment grpcio grpcio==1.85.1 grpcio-tools==1.85.1 numpy==2.4.6 $onnxruntime && stubs grpcio ;;
        triton) environment triton nvidia-pytriton==0.7.0 $onnxruntime ;;
        triton-onnxruntime) triton_onnxruntime ;;
        mlserver) environment mlserver mlserver==1.7.1 $onnxruntime ;;
        kserve) environment kserve kserve==0.21.0 $onnxruntime ;;
        ray_serve) environment ray_serve "ray[serve]==2.60.0" grpcio-tools $onnxruntime && stubs ray_serve ;;
        litserve) environment litserve litserve==0.2.19 $onnxruntime ;;
        bentoml) environment bentoml bentoml==1.4.39 $onnxruntime ;;
        cpp) cpp_echo ;;
        *) say "no server '$1'" >&2 && return 2 ;;
    esac
}

if [ "${1-}" = --one ]; then # a process of its own, so that a failing command ends it and nothing else
    install "$2"
    exit
fi
[ $# -gt 0 ] || set -- tools quicksilver grpcio triton triton-onnxruntime mlserver kserve ray_serve litserve bentoml cpp
for peer in "$@"; do
    # One that cannot be had is skipped by the run, by name; the others are still worth measuring.
    benchmarks/install.sh --one "$peer" || say "$peer could not be installed" >&2
done
