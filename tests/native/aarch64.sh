#!/bin/sh
# Compiles the kernels for ARMv8 and compares them with plain loops on emulated cores: the Cortex-A72 of a Raspberry Pi 4,
# which has no dot products, and the Cortex-A76 of a Raspberry Pi 5. usage: sh tests/native/aarch64.sh
# Needs: apt install g++-aarch64-linux-gnu qemu-user
set -eu
cd "$(dirname "$0")/../.."
out=${OUT:-build/aarch64}
mkdir -p "$out"
flags="-std=c++17 -O3 -Wall -Wextra -Wno-unknown-pragmas -Wno-psabi -ffp-contract=off -Ibnn/native"
compile() {
    # shellcheck disable=SC2086  # flags are several words
    aarch64-linux-gnu-g++ $flags "$@"
}
compile -DBNN_ISA=generic -DBNN_USE_GENERIC -c bnn/native/kernels.cpp -o "$out/generic.o" & generic=$!
compile -DBNN_ISA=neon -DBNN_USE_NEON -c bnn/native/kernels.cpp -o "$out/neon.o" & neon=$!
wait $generic
wait $neon
compile -DBNN_ISA=neon_dot -DBNN_USE_NEON_DOT -march=armv8.2-a+dotprod -c bnn/native/kernels.cpp -o "$out/neon_dot.o"
compile -static tests/native/parity.cpp bnn/native/arena.cpp "$out/generic.o" "$out/neon.o" "$out/neon_dot.o" -o "$out/parity"
for core in cortex-a72 cortex-a76; do
    printf '%s: ' "$core"
    qemu-aarch64 -cpu "$core" "$out/parity"
done
