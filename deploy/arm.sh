#!/usr/bin/env bash
# Builds weir-edge for ARM gateways, aarch64 and armv7. With Docker by `cross`, whose images have glibc 2.31 (Debian 11);
# without it by zig, which brings the headers of every glibc: 2.28 (Debian 10). Prints what was built, and which glibc it needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tools=$PWD/target/tools
glibc=2.28
declare -A zig_targets=(
	[aarch64-unknown-linux-gnu]="aarch64-linux-gnu.$glibc"
	[armv7-unknown-linux-gnueabihf]="arm-linux-gnueabihf.$glibc -mcpu=generic+v7a+vfp3-d32+thumb2-neon"
)

# The compilers of a target, under the names that librdkafka's configure looks for.
zig_wrappers() {
	mkdir -p "$1"
	local tool
	for tool in cc c++; do
		# clang, asked for its version, does not know a target with glibc's; configure takes that for no compiler.
		# Its linker wants every symbol that a version script names to stand somewhere; librdkafka's names one of its tests.
		printf '#!/bin/sh\n[ "$*" != --version ] || exec "%s" %s --version\nexec "%s" zig %s -- -target %s %s "$@"\n' \
			"$CARGO_ZIGBUILD_ZIG_PATH" "$tool" "$tools/bin/cargo-zigbuild" "$tool" "$2" -Wl,--undefined-version >"$1/$tool"
	done
	printf '#!/bin/sh\nexec "%s" zig ar -- "$@"\n' "$tools/bin/cargo-zigbuild" >"$1/ar"
	chmod +x "$1"/*
}

with_zig() {
	local target=$1 wrappers=$tools/zig-$1
	if [[ ! -x $tools/zig/ziglang/zig ]]; then
		python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$tools/zig" ziglang==0.15.2
	fi
	if [[ ! -x $tools/bin/cargo-zigbuild ]]; then
		cargo install cargo-zigbuild --version 0.24.1 --locked --root "$tools"
	fi
	export CARGO_ZIGBUILD_ZIG_PATH=$tools/zig/ziglang/zig
	zig_wrappers "$wrappers" "${zig_targets[$target]}"
	CC=$wrappers/cc CXX=$wrappers/c++ AR=$wrappers/ar HOST_CC=gcc HOST_CXX=g++ HOST_AR=ar PATH=$tools/bin:$PATH \
		cargo zigbuild --release --locked -p weir-edge --target "$target.$glibc"
}

with_cross() {
	[[ -x $tools/bin/cross ]] || cargo install cross --version 0.2.5 --locked --root "$tools"
	# A folder of its own: build scripts of this machine do not run in the image.
	"$tools/bin/cross" build --release --locked -p weir-edge --target "$1" --target-dir target/cross
	install -D "target/cross/$1/release/weir-edge" "target/$1/release/weir-edge"
}

# The newest version of glibc that a program asks for.
glibc_of() {
	readelf --version-info --wide "$1" | grep -o 'GLIBC_[0-9.]*' | sort --version-sort --unique | tail -n 1
}

for target in aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf; do
	rustup target list --installed | grep -qx "$target" || rustup target add "$target"
	if docker info >/dev/null 2>&1; then with_cross "$target"; else with_zig "$target"; fi
	program=target/$target/release/weir-edge
	echo "$program: $(stat -c %s "$program") bytes, $(glibc_of "$program") or newer"
done
