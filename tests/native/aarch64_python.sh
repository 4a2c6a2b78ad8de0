#!/bin/sh
# An interpreter of aarch64 with torch and this package, under user-mode emulation, and what it is for: operations of the
# package and an epoch of a recipe on emulated cores. usage: sh tests/native/aarch64_python.sh [setup|test]
# Needs Debian's g++-aarch64-linux-gnu, qemu-user and mmdebstrap, python3 with pip, and 2 GB of disk.
# It leaves build/aarch64/python, which takes the core from ARM_CPU, as in
#   ARM_CPU=cortex-a72 build/aarch64/python -m bnn train digits --out runs/emulated
set -eu
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${OUT:-build/aarch64}" && realpath "${OUT:-build/aarch64}")
root=$out/root
site=$out/site
torch=2.9.1 # the last one that runs on a Cortex-A72

# Debian's own Python for ARM, without a container: files alone.
setup_root() {
    [ -d "$root/usr" ] && return
    mirror=$(sed -n 's/^URIs: //p; s/^deb \([^ ]*\) .*/\1/p' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list \
        2> /dev/null | head -n 1)
    packages=python3.11-minimal,libpython3.11-stdlib,libpython3.11-dev,libstdc++6,libgomp1,libffi8,libssl3,zlib1g
    packages=$packages,libbz2-1.0,liblzma5,libsqlite3-0,libexpat1
    mmdebstrap --quiet --variant=extract --architectures=arm64 --include="$packages" bookworm "$root" "$mirror"
}

# What a board with this core shows: torch would ask the host's files, whose caches are those of x86.
describe_cores() {
    mkdir -p "$root/proc"
    : > "$root/proc/cpuinfo"
    for core in 0 1; do
        of_core=$root/sys/devices/system/cpu/cpu$core
        mkdir -p "$of_core/regs/identification"
        echo 0x00000000410fd083 > "$of_core/regs/identification/midr_el1"
        cache 0 1 Data 32K $core
        cache 1 1 Instruction 48K $core
        cache 2 2 Unified 1024K 0-1
        printf 'processor\t: %d\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n' "$core" >> "$root/proc/cpuinfo"
        printf 'CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n' >> "$root/proc/cpuinfo"
    done
}

# cache INDEX LEVEL TYPE SIZE CORES
cache() {
    index=$of_core/cache/index$1
    mkdir -p "$index"
    echo "$2" > "$index/level"
    echo "$3" > "$index/type"
    echo "$4" > "$index/size"
    echo "$5" > "$index/shared_cpu_list"
    echo 64 > "$index/coherency_line_size"
    echo 256 > "$index/number_of_sets"
    echo 2 > "$index/ways_of_associativity"
}

setup_wheels() {
    [ -d "$site/torch" ] && return
    platforms="--platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64"
    # shellcheck disable=SC2086  # platforms are several words
    python3 -m pip install --quiet --no-deps --no-compile --python-version 3.11 --implementation cp --abi cp311 \
        --abi abi3 --abi none $platforms --platform any --only-binary=:all: --target "$site" "torch==$torch" numpy \
        safetensors jsonargparse docstring-parser typeshed-client importlib-resources rich markdown-it-py mdurl pygments \
        filelock typing-extensions sympy mpmath networkx jinja2 markupsafe fsspec pyyaml pytest iniconfig packaging pluggy \
        hypothesis sortedcontainers attrs typing-inspection
    # One pool of threads for torch and the kernels.
    ln -sf "$site"/torch.libs/libgomp-*.so* "$root/usr/lib/aarch64-linux-gnu/libgomp.so.1"
}

build_extension() {
    [ -d "$out/host" ] || python3 -m venv "$out/host"
    "$out/host/bin/pip" install --quiet 'nanobind>=2.9' ninja cmake
    cat > "$out/toolchain.cmake" << C
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(Python_INCLUDE_DIR $root/usr/include/python3.11)
include_directories(SYSTEM $root/usr/include $root/usr/include/python3.11)
C
    "$out/host/bin/cmake" -S . -B "$out/extension" -G Ninja -DCMAKE_MAKE_PROGRAM="$out/host/bin/ninja" \
        -DCMAKE_BUILD_TYPE=Release -Dnanobind_DIR="$("$out/host/bin/python" -m nanobind --cmake_dir)" \
        -DPython_EXECUTABLE="$out/host/bin/python" -DCMAKE_TOOLCHAIN_FILE="$out/toolchain.cmake" > "$out/cmake.log"
    "$out/host/bin/ninja" -C "$out/extension" > "$out/ninja.log"
    rm -rf "$out/tree"
    mkdir "$out/tree"
    cp -r bnn benchmarks recipes tests docs pyproject.toml "$out/tree"
    rm -f "$out"/tree/bnn/_native*.so
    cp "$out"/extension/_native*.so "$out/tree/bnn/_native.cpython-311-aarch64-linux-gnu.so"
}

make_interpreter() {
    cat > "$out/python" << P
#!/bin/sh
export PYTHONHOME=$root/usr PYTHONPATH=$out/tree:$site CI=1
exec qemu-aarch64 -cpu "\${ARM_CPU:-cortex-a72}" -L $root -0 "\$0" $root/usr/bin/python3.11 "\$@"
P
    chmod +x "$out/python"
}

setup_root
describe_cores
setup_wheels
build_extension
make_interpreter
[ "${1:-test}" = setup ] && exit
cd "$out/tree"
# on_core CORE INSTRUCTION_SET: the two cores run side by side, so that each prints into a file of its own.
on_core() {
    export ARM_CPU="$1"
    rm -rf "$out/digits-$1"
    "$out/python" -m pytest -q -p no:cacheprovider tests/ops -k "$2"
    "$out/python" -m bnn train recipes/digits.py --preset edge-min --epochs 1 --out "$out/digits-$1"
}
status=0
(on_core cortex-a72 'neon and not dot') > "$out/cortex-a72.log" 2>&1 & first=$!
(on_core cortex-a76 neon-dot) > "$out/cortex-a76.log" 2>&1 & second=$!
wait $first || status=1
wait $second || status=1
for core in cortex-a72 cortex-a76; do
    printf '%s:\n' "$core"
    tail -n 40 "$out/$core.log"
done
exit $status
