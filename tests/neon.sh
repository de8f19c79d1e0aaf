#!/bin/sh
# Builds kernels and kernel tests for 64-bit Arm and runs them on emulated processors. Skipped (77) without the cross
# compiler or the emulator.
# usage: neon.sh SOURCE_DIR BUILD_DIR
set -eu
for tool in aarch64-linux-gnu-gcc ninja; do
    command -v $tool >/dev/null || { echo "skipped: no $tool"; exit 77; }
done
command -v qemu-aarch64 >/dev/null || command -v qemu-aarch64-static >/dev/null ||
    { echo "skipped: no qemu-aarch64"; exit 77; }
cd "$1"
cmake --preset aarch64 -B "$2" >"$2.log" 2>&1 || { cat "$2.log"; exit 1; }
cmake --build "$2" -j 2 >"$2.log" 2>&1 || { cat "$2.log"; exit 1; }
ctest --test-dir "$2" -j 2 --output-on-failure --no-tests=error
