# Weir. `make demo` shows the main job on real servers, `make test` runs all tests.
# Needs git, make and a Rust toolchain on Debian 12; installs the Debian packages it lacks, and says which.
# Each of demo and bench-… ends with one JSON line of figures; its member "ok" decides the exit code.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

# What librdkafka's and zlib's build scripts call.
PACKAGES := gcc g++ make pkg-config zlib1g-dev perl python3
BIN := target/release
CARGO := cargo --locked

.PHONY: build check licences advisories sbom test demo fuzz down upgrade manual deb boot arm packages components \
	chaos bench-first-light bench-edge bench-cloud bench-process bench-restore bench-sinks bench-latency

build: packages
	@$(CARGO) build --release --workspace

check: packages components licences
	@cargo fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links -A rustdoc::invalid_html_tags" $(CARGO) doc --release --workspace --no-deps --document-private-items

# What is depended on: licences, sources, what is banned (deny.toml). Of the locked packages alone, so also without a network.
licences: DENY := bans licenses sources
# And known holes in it, where the database of advisories can be had.
advisories: DENY := advisories
licences advisories:
	@PATH="$(CURDIR)/target/tools/bin:$$PATH"
	command -v cargo-deny >/dev/null || cargo install cargo-deny --version 0.20.2 --locked --root target/tools
	cargo deny --locked check --hide-inclusion-graph $(DENY)

# A list of all parts of each program, as CycloneDX: target/sbom.
sbom:
	@[[ -x target/tools/bin/cargo-cyclonedx ]] || cargo install cargo-cyclonedx --version 0.5.9 --locked --root target/tools
	mkdir -p target/sbom
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo cyclonedx --format json --spec-version 1.5 --override-filename weir-sbom
	for program in edge cloud; do mv "$$program/weir-sbom.json" "target/sbom/weir-$$program.cdx.json"; done
	rm -f {shared,tests}/weir-sbom.json
	ls -l target/sbom

# On a stack of its own (other ports, other folder): a running demo is left alone. Always taken down again.
test: build
	@trap 'for stack in test old-clickhouse search; do $(BIN)/weir-stack down --name $$stack; done' EXIT
	$(BIN)/weir-stack up --name test --fresh
	$(CARGO) test --release --workspace

# KILL=1: kill -9 the edge twice and the cloud twice in mid-stream.
demo: build
	@$(BIN)/weir-demo --name demo $(if $(filter 1,$(KILL)),--kill)

down:
	@if [[ -x $(BIN)/weir-stack ]]; then
		$(BIN)/weir-stack down --name demo
		$(BIN)/weir-stack down --name test
		$(BIN)/weir-stack down --name old-clickhouse
		$(BIN)/weir-stack down --name search
	else
		echo "nothing was ever started here"
	fi

# On the stack of the tests, so that a demo is left alone; fresh, so that figures can be compared.
# bench-process PROFILE=1: also where weir-cloud's CPU time goes.
bench-first-light: BENCH = all
bench-edge: BENCH = edge
bench-cloud: BENCH = cloud
bench-process: BENCH = process $(if $(filter 1,$(PROFILE)),--profile)
bench-restore: BENCH = restore
bench-sinks: BENCH = sinks
bench-latency: BENCH = latency
bench-first-light bench-edge bench-cloud bench-process bench-restore bench-sinks bench-latency: build
	@trap '$(BIN)/weir-stack down --name test >&2' EXIT
	$(BIN)/weir-stack up --name test --fresh >&2
	$(BIN)/weir-bench --name test $(BENCH)

# SECONDS_EACH=600: longer than a minute for each target. KEEP=1: take in what it found, as tests for ever.
fuzz: SECONDS_EACH := 60
fuzz: FUZZ = ASAN_OPTIONS=quarantine_size_mb=16 PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo +nightly fuzz run --fuzz-dir edge/fuzz --target-dir target/fuzz
fuzz: packages
	@cargo +nightly --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
	[[ -x target/tools/bin/cargo-fuzz ]] || cargo install cargo-fuzz --version 0.13.2 --locked --root target/tools
	for target in decode journal reading window_state; do
		found=target/fuzz/corpus/$$target kept=tests/fixtures/corpus/$$target
		mkdir -p "$$found"
		echo "fuzzing $$target"
		$(FUZZ) "$$target" "$$found" "$$kept" -- -max_total_time=$(SECONDS_EACH) -max_len=16384 -timeout=5 -rss_limit_mb=512 -malloc_limit_mb=64
		if [[ "$(KEEP)" == 1 ]]; then $(FUZZ) "$$target" "$$kept" "$$found" -- -set_cover_merge=1; fi
	done

# The fault suites, each on a stack of its own; that of the edge as root. ROW=5: that row alone. FULL=1: the long one.
# BAD=bad.skip_fsync: with that guarantee broken, which must turn it red.
chaos: as_root = $(if $(filter edge,$(SUITE)),$(shell (( $$(id -u) == 0 )) || echo sudo -n))
chaos: packages
	@case "$(SUITE)" in
		edge) package=weir-edge ;;
		process | sinks) package=weir-cloud ;;
		*)
			echo "use: make chaos SUITE=edge|process|sinks [SEEDS=3] [IMAGES=100] [KILLS=40] [FULL=1] [ROW=5] [BAD=name]"
			exit 64 ;;
	esac
	$(CARGO) build --release --workspace
	$(CARGO) build --release -p "$$package" --features failpoints --bin "$$package-chaos"
	$(as_root) $(BIN)/weir-chaos --suite $(SUITE) $(ROW:%=--row %) $(SEEDS:%=--seeds %) $(IMAGES:%=--images %) \
		$(KILLS:%=--kills %) $(BAD:%=--bad %) $(if $(filter 1,$(FULL)),--full)

manual: build
	@for program in weir-edge weir-cloud; do
		rm -rf "$(BIN)/manual/$$program"
		$(BIN)/$$program manual "$(BIN)/manual/$$program"
		gzip -9n "$(BIN)/manual/$$program/man/"*.1
	done
	[[ -x target/tools/bin/cargo-deb ]] || cargo install cargo-deb --version 3.8.0 --locked --root target/tools

# From an earlier commit to this one and back, in mid-stream: `make upgrade FROM=<commit>`. Each program is killed and started again
# as the other version, twice; journals, state and topics stay.
upgrade: FROM ?= HEAD^
upgrade: packages
	@source=target/upgrade/source
	git worktree remove --force "$$source" 2>/dev/null || true
	git worktree add --force --detach "$$source" $(FROM)
	$(CARGO) build --release -p weir-edge -p weir-cloud --manifest-path "$$source/Cargo.toml" --target-dir target
	install -D --target-directory=target/upgrade/before $(BIN)/weir-edge $(BIN)/weir-cloud
	$(CARGO) build --release --workspace
	trap '$(BIN)/weir-stack down --name test >&2; git worktree remove --force '"$$source" EXIT
	$(BIN)/weir-stack up --name test --fresh >&2
	$(BIN)/weir-demo --name test --rate 500 --seconds 40 --kill --before target/upgrade/before

# A package for this machine of each program, installed into a clean Debian to look at it (as root).
deb: manual
	@[[ -x target/tools/bin/cargo-auditable ]] || cargo install cargo-auditable --version 0.7.7 --locked --root target/tools
	# The programs say themselves what they are made of: `cargo audit bin` reads it.
	PATH="$(CURDIR)/target/tools/bin:$$PATH" cargo auditable build --release --locked -p weir-edge -p weir-cloud
	for program in weir-edge weir-cloud; do
		target/tools/bin/cargo-deb -p "$$program" --no-build --locked --output target/deb
	done
	as_root=()
	(( $$(id -u) == 0 )) || as_root=(sudo -n)
	"$${as_root[@]}" $(BIN)/weir-package

# A gateway in a virtual machine, with the package and a real systemd: readings go through it while its power is cut twice (and
# weir-cloud killed twice); then the edge is frozen, and the watchdog must bring it back. As root; an hour without /dev/kvm.
boot: PACKAGES += qemu-system-x86 e2fsprogs
boot: deb
	@as_root=()
	(( $$(id -u) == 0 )) || as_root=(sudo -n)
	"$${as_root[@]}" $(BIN)/weir-package machine
	"$${as_root[@]}" chown "$$(id -u)" target/boot target/boot/disk
	trap '$(BIN)/weir-stack down --name test >&2' EXIT
	$(BIN)/weir-stack up --name test --fresh >&2
	$(BIN)/weir-demo --name test --rate 200 --seconds 90 --kill --edge $(CURDIR)/target/boot/boot
	"$${as_root[@]}" $(BIN)/weir-package watchdog

# weir-edge and its packages for gateways, each installed into a clean Debian for its processor (as root), and its main job under
# qemu: the 64-bit one is killed twice in mid-stream, on real servers.
arm: PACKAGES += python3-pip qemu-user-static libc6-arm64-cross
arm: manual
	@deploy/arm.sh
	for target in aarch64-unknown-linux-gnu armv7-unknown-linux-gnueabihf; do
		rm -rf "target/$$target/release/manual"
		cp -r $(BIN)/manual "target/$$target/release/manual"
		target/tools/bin/cargo-deb -p weir-edge --variant cross --target "$$target" --no-build --no-strip --locked --output target/deb
	done
	as_root=()
	(( $$(id -u) == 0 )) || as_root=(sudo -n)
	"$${as_root[@]}" $(BIN)/weir-package arm64 armhf
	trap '$(BIN)/weir-stack down --name test >&2' EXIT
	$(BIN)/weir-stack up --name test --fresh >&2
	$(BIN)/weir-demo --name test --rate 200 --seconds 40 --kill --edge \
		"qemu-aarch64-static -L /usr/aarch64-linux-gnu $(CURDIR)/target/aarch64-unknown-linux-gnu/release/weir-edge"

packages:
	@if ! command -v dpkg-query >/dev/null; then
		echo "not Debian: needs the equivalents of $(PACKAGES)"
		exit 0
	fi
	missing=()
	for package in $(PACKAGES); do
		state=$$(dpkg-query -W -f='$${db:Status-Status}' "$$package" 2>/dev/null || true)
		[[ $$state == installed ]] || missing+=("$$package")
	done
	if (( $${#missing[@]} )); then
		echo "installing Debian packages: $${missing[*]}"
		as_root=()
		(( $$(id -u) == 0 )) || as_root=(sudo -n)
		"$${as_root[@]}" apt-get update -qq
		"$${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"
	fi

components:
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
