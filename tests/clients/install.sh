#!/usr/bin/env bash
# Installs foreign clients, each into an environment of its own under .venv-clients/: tests/clients/install.sh NAME...
# Names: triton, kserve, node, grpcurl, cpp. What is there already, made from the same files, is left as it is.
# Exit code 3: this machine cannot have it, and the last line says why.
set -euo pipefail
cd "$(dirname "$0")/../.."
into=$PWD/.venv-clients
here=tests/clients

say() { echo "clients: $*"; }
impossible() { say "$*"; exit 3; }

# Whether NAME was installed from the files given, as they are now.
current() {
    local name=$1
    shift
    [ -f "$into/$name/.made-from" ] && [ "$(cat "$@" | sha256sum)" = "$(cat "$into/$name/.made-from")" ]
}

made() {
    local name=$1
    shift
    cat "$@" | sha256sum >"$into/$name/.made-from"
}

python_client() {
    local name=$1 pins=$here/$1.txt
    current "$name" "$pins" && return
    say "installing $name"
    rm -rf "${into:?}/$name"
    python3 -m venv "$into/$name"
    "$into/$name/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$pins" \
        || impossible "pip cannot install $pins"
    made "$name" "$pins"
}

node_client() {
    local files=("$here/node/package.json" "$here/node/package-lock.json")
    command -v node >/dev/null && command -v npm >/dev/null || impossible "Node.js and npm are not installed"
    current node "${files[@]}" && return
    say "installing node"
    rm -rf "$into/node"
    mkdir -p "$into/node"
    cp "${files[@]}" "$into/node"
    (cd "$into/node" && npm ci --silent --no-audit --no-fund --ignore-scripts) || impossible "npm cannot install $here/node"
    made node "${files[@]}"
}

cpp_client() {
    local files=("$here/cpp/client.cc" proto/inference/v2/open_inference.proto)
    current cpp "${files[@]}" && return
    cpp_tools
    say "building cpp"
    rm -rf "$into/cpp"
    mkdir -p "$into/cpp"
    protoc -I . --cpp_out="$into/cpp" --grpc_out="$into/cpp" --plugin=protoc-gen-grpc="$(command -v grpc_cpp_plugin)" \
        proto/inference/v2/open_inference.proto
    # shellcheck disable=SC2046 # pkg-config prints several words
    g++ -std=c++17 -O1 -I "$into/cpp" -o "$into/cpp/client" "$here/cpp/client.cc" \
        "$into/cpp/proto/inference/v2/open_inference.pb.cc" "$into/cpp/proto/inference/v2/open_inference.grpc.pb.cc" \
        $(pkg-config --cflags --libs grpc++ protobuf)
    made cpp "${files[@]}"
}

cpp_tools() {
    if command -v grpc_cpp_plugin >/dev/null && command -v protoc >/dev/null && command -v g++ >/dev/null \
        && pkg-config --exists grpc++ protobuf; then
        return
    fi
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null \
        || impossible "the C++ client needs Debian's g++, pkg-config, libgrpc++-dev and protobuf-compiler-grpc"
    say "installing Debian's libgrpc++-dev and protobuf-compiler-grpc"
    apt-get update -qq && apt-get install -y -qq g++ pkg-config libgrpc++-dev protobuf-compiler-grpc >/dev/null \
        || impossible "apt-get cannot install libgrpc++-dev and protobuf-compiler-grpc"
}

mkdir -p "$into"
for name in "$@"; do
    case $name in
        triton | kserve | grpcurl) python_client "$name" ;;
        node) node_client ;;
        cpp) cpp_client ;;
        *) say "no client '$name': there are triton, kserve, node, grpcurl, cpp" >&2; exit 2 ;;
    esac
done
